"""Train the arms of this experiment, each from patches of 1 mm voxels and of nothing else.

They come from synthetic heads or, in runs of their own, from real brains averaged to 1 mm. The
recipe is the ablation's (`eval.arms.train`), but no step encodes averaged voxels:
there a model would see 2 mm. A run is a file of averaged weights, named after all that it
depends on, so what is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eval import heads
from eval.arms.catalogue import ARMS
from eval.arms.train import recipe, train_arm, trained_or_noted, was_made
from eval.rows import digest
from eval.subjects import at_1_mm, box_between, cut_box, real
from medil.config import RunConfig
from medil.data.manifest import entries, local_entries
from medil.data.schema import Entry
from medil.errors import InputError
from medil.model.weights import save_weights
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
HEADS, BRAINS = MATERIALS = ("heads", "brains")  # synthetic, real
BRAIN_TITLES = {f"{arm} @{BRAINS}": f"{title}, trained on brains" for arm, title in TITLES.items()}
DATA = "ds002748"  # of the brains
BRAINS_VERSION = 1  # part of every brain's name: raise it when other scans are made
MARGIN_MM = 8  # of background around a brain


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted heads of the train split at 1 mm; existing files are reused."""
    drawn = heads.heads("train", TRAIN_SEED, count, heads.TRAINING)
    return heads.training_heads([(folder / _head_file(h), h, TRAIN_MM) for h in drawn], workers)


def training_brains(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted brains of the train split, averaged to 1 mm; existing files are reused."""
    files = [(folder / _brain_file(entry), entry) for entry in entries(DATA, "train")[:count]]
    call_each(_average_once, [f for f in files if not f[0].exists()], workers, "brains")
    return [heads.read_scan(path, TRAIN_MM, 1 / len(files)) for path, _ in files]


def brains_are_here() -> bool:
    """Whether training brains can be had without a download."""
    return len(local_entries(DATA, "train")) == len(entries(DATA, "train"))


def _average_once(path: Path, entry: Entry) -> None:
    """Average a scan to 1 mm and keep the brain with its margin."""
    scan = at_1_mm(real(entry).load())
    places = np.argwhere(scan.mask)
    start = np.maximum(places.min(0) - MARGIN_MM, 0)
    stop = np.minimum(places.max(0) + 1 + MARGIN_MM, scan.mask.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cut_box(scan, box_between(start, stop)).volume.data
    heads.write(path, {"data": data}, {"sha256": entry.sha256})


def _brain_file(entry: Entry) -> str:
    recipe = digest([BRAINS_VERSION, entry.sha256, TRAIN_MM, MARGIN_MM])
    return f"brain_{entry.subject}_{recipe[:12]}.safetensors"


def _head_file(head: heads.Head) -> str:
    recipe = [HEADS_VERSION, head.map_sha256, TRAIN_SEED, TRAIN_MM, head.index, repr(head.style)]
    return heads.head_file(head.index, recipe)


@dataclass(frozen=True)
class Run:
    """One training run: an arm of `eval.arms.catalogue`, a seed, how long, on how many scans."""

    arm: str
    seed: int
    steps: int
    count: int
    material: str = HEADS  # or `BRAINS`

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise InputError(f"there is no arm {self.arm!r}; choose from {', '.join(TITLES)}.")
        if min(self.steps, self.count) < 1 or self.seed < 0:
            raise InputError("steps and scans must be at least 1, a seed at least 0.")
        most = len(entries(DATA, "train"))
        if self.material == BRAINS and self.count > most:
            raise InputError(f"{DATA} has {most} training brains, not {self.count}.")

    @property
    def name(self) -> str:
        """The arm in the rows; one that was trained on brains says so."""
        return self.arm if self.material == HEADS else f"{self.arm} @{self.material}"

    @property
    def config(self) -> RunConfig:
        """The arm under the ablation's recipe, less its steps on averaged voxels."""
        settings = replace(recipe(), coarser_share=0.0, steps=self.steps)
        return RunConfig("extrapolation", ARMS[self.arm], settings)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""
        model, settings = asdict(self.config.model), asdict(self.config.train)
        return digest([VERSION, model, settings, self.seed, self.steps, digest(self._files)])

    @property
    def _files(self) -> list[str]:
        if self.material == BRAINS:
            return [_brain_file(entry) for entry in entries(DATA, "train")[: self.count]]
        drawn = heads.heads("train", TRAIN_SEED, self.count, heads.TRAINING)
        return [_head_file(head) for head in drawn]

    def scans(self, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
        """What it trains on; made once."""
        make = training_brains if self.material == BRAINS else training_heads
        return make(self.count, folder, workers)

    def path(self, folder: Path = FOLDER) -> Path:
        """Where the weights lie."""
        name = self.name.replace("/", "-").replace(" @", "-")
        return folder / f"{name}_seed{self.seed}_{self.digest[:8]}.safetensors"

    def done(self, folder: Path = FOLDER) -> bool:
        """Whether the run was made, with weights or without."""
        return was_made(self.path(folder))


def train_run(run: Run, folder: Path = FOLDER) -> Path:
    """Train one run into its file, on one thread; the file, which is not made twice.

    A run whose loss stopped being finite leaves a note of that instead.
    """
    path = run.path(folder)
    if run.done(folder):
        return path
    scans = run.scans(folder)
    title = f"{run.name}, seed {run.seed}"
    train = partial(train_arm, run.config, scans, run.seed, run.steps, None, title=title)
    trained = trained_or_noted(path, train)
    if trained is None:
        return path
    facts = {
        "arm": run.name,
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
    """Train what is not there yet, a process each; the scans are made first."""
    missing = [run for run in runs if not run.done(folder)]
    largest = {run.material: run for run in sorted(missing, key=lambda run: run.count)}
    for run in largest.values():
        run.scans(folder, workers)
    call_each(train_run, [(run, folder) for run in missing], workers, "runs")
