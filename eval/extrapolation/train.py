"""Train the arms of this experiment, each from patches of 1 mm voxels and of nothing else.

The recipe is the ablation's (`eval.arms.train`), but no step encodes averaged voxels:
there a model would see 2 mm. A run is a file of averaged weights, named after all that it
depends on, so what is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from eval import heads
from eval.arms.catalogue import ARMS
from eval.arms.train import Diverged, recipe, train_arm
from eval.rows import digest
from medil.config import RunConfig
from medil.errors import InputError
from medil.model.weights import save_weights
from medil.system.files import atomic_output
from medil.system.workers import call_each
from medil.training.patches import Scan

FOLDER = Path("_build/extrapolation")
VERSION = 1  # part of every run's name: raise it when training itself changes
HEADS_VERSION = 1  # part of every head's name: raise it when other heads are drawn
TRAIN_SEED = 5000
TRAIN_MM = 1.0  # the only voxel size that training ever sees
TITLES = {  # arm -> what it is called in tables
    "integrated": "integrated LTE",
    "trilinear": "trilinear (MedIL-Interp)",
    "subpixel": "sub-pixel",
    "conv-1mm": "fixed 1 mm convolution",
    "integrated-j5/learned": "integrated LTE, all learned",
    "trilinear/learned": "trilinear, all learned",
}
DIVERGED = "diverged"


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted heads of the train split at 1 mm; existing files are reused."""
    drawn = heads.heads("train", TRAIN_SEED, count, heads.TRAINING)
    return heads.training_heads([(folder / _head_file(h), h, TRAIN_MM) for h in drawn], workers)


def _head_file(head: heads.Head) -> str:
    recipe = [HEADS_VERSION, head.map_sha256, TRAIN_SEED, TRAIN_MM, head.index, repr(head.style)]
    return heads.head_file(head.index, recipe)


@dataclass(frozen=True)
class Run:
    """One training run: an arm of `eval.arms.catalogue`, a seed, how long, on how many heads."""

    arm: str
    seed: int
    steps: int
    heads: int

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise InputError(f"there is no arm {self.arm!r}; choose from {', '.join(TITLES)}.")
        if min(self.steps, self.heads) < 1 or self.seed < 0:
            raise InputError("steps and heads must be at least 1, a seed at least 0.")

    @property
    def config(self) -> RunConfig:
        """The arm under the ablation's recipe, less its steps on averaged voxels."""
        settings = replace(recipe(), coarser_share=0.0, steps=self.steps)
        return RunConfig("extrapolation", ARMS[self.arm], settings)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""
        config = self.config
        drawn = heads.heads("train", TRAIN_SEED, self.heads, heads.TRAINING)
        of_heads = digest([_head_file(head) for head in drawn])
        model, settings = asdict(config.model), asdict(config.train)
        return digest([VERSION, model, settings, self.seed, self.steps, of_heads])

    def scans(self, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
        """What it trains on; made once."""
        return training_heads(self.heads, folder, workers)

    def path(self, folder: Path = FOLDER) -> Path:
        """Where the weights lie."""
        name = self.arm.replace("/", "-")
        return folder / f"{name}_seed{self.seed}_{self.digest[:8]}.safetensors"

    def done(self, folder: Path = FOLDER) -> bool:
        """Whether the run was made, with weights or without."""
        path = self.path(folder)
        return path.exists() or path.with_suffix(f".{DIVERGED}").exists()


def train_run(run: Run, folder: Path = FOLDER) -> Path:
    """Train one run into its file, on one thread; the file, which is not made twice.

    A run whose loss stopped being finite leaves a note of that instead.
    """
    path = run.path(folder)
    if run.done(folder):
        return path
    scans = run.scans(folder)
    title = f"{run.arm}, seed {run.seed}"
    try:
        trained = train_arm(run.config, scans, run.seed, run.steps, None, title=title)
    except Diverged as error:
        with atomic_output(path.with_suffix(f".{DIVERGED}"), force=True) as note:
            note.write_text(f"step {error.args[0]}\n")
        return path
    facts = {
        "arm": run.arm,
        "seed": run.seed,
        "step": run.steps,
        "training_mm": sorted({scan.spacing_mm for scan in scans}),
        "training_loss": trained.loss,
        "cpu_s_per_step": trained.cpu_s_per_step,
        "threads": torch.get_num_threads(),
        "run": run.digest,
    }
    return save_weights(trained.by_steps.model, run.config, path, facts, half=False, force=True)


def train_all(runs: Sequence[Run], folder: Path = FOLDER, workers: int = 1) -> None:
    """Train what is not there yet, a process each; the heads are drawn first."""
    missing = [run for run in runs if not run.done(folder)]
    if missing:
        max(missing, key=lambda run: run.heads).scans(folder, workers)
    call_each(train_run, [(run, folder) for run in missing], workers, "runs")
