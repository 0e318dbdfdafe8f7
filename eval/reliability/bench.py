"""A folder in which commands are tried: small inputs, a place for outputs, what they should be.

Commands always run in the same place, on the same inputs, so that their outputs can be compared
byte by byte with those of an undisturbed run.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.reliability.child import Ended, Steps, start
from medil.config import PRESETS
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.weights import load_model, save_weights
from medil.volume import Volume, save

SHAPE, SPACING_MM = (20, 18, 16), 2.0
SCANS = 3
CURVES = "tensorboard"  # for the screen: every call of training adds a file to that folder
OLD_S = 60.0  # age that leftovers of a killed command have when the next one begins


@dataclass
class Bench:
    """The folder `root`: `inputs`, `place` for outputs, and `starts` of commands."""

    root: Path
    kept: Any = field(default=None, repr=False)  # removes the folder with the bench

    @classmethod
    def made(cls) -> Bench:
        """One in a temporary folder, with its scans."""
        kept = tempfile.TemporaryDirectory(prefix="medil-faults-")
        bench = cls(Path(kept.name), kept)
        for folder in (bench.inputs / "scans", bench.place, bench.starts, bench.temporary):
            folder.mkdir(parents=True)
        for k in range(SCANS):
            save(scan(k), bench.inputs / "scans" / f"sub-{k}_T1w.nii.gz")
        return bench

    @property
    def inputs(self) -> Path:
        """Scans, weights, and what commands made of them."""
        return self.root / "inputs"

    @property
    def place(self) -> Path:
        """Where commands write."""
        return self.root / "place"

    @property
    def starts(self) -> Path:
        """What is in `place` when commands begin: one folder a start."""
        return self.root / "starts"

    @property
    def temporary(self) -> Path:
        """For the temporary files of commands."""
        return self.root / "temporary"

    def run(
        self, command: Callable[[], int | None], arm: Callable[[Steps], None] = lambda _: None,
        times: int = 1,
    ) -> list[Ended]:  # fmt: skip
        """Run a command in a process of its own, or in several at once; how each ended."""
        tempfile.tempdir = str(self.temporary)
        try:
            running = [start(command, self.place, arm) for _ in range(times)]
        finally:
            tempfile.tempdir = None
        return [one.wait() for one in running]

    def undisturbed(self, command: Callable[[], int | None]) -> Ended:
        """Run a command that has to succeed; what it imports is imported here too.

        Raises:
            InputError: It did not succeed.
        """
        (ended,) = self.run(command)
        if ended.code:
            raise InputError(f"an undisturbed command ended with {ended.code}: {ended.said}")
        for name in ended.facts["modules"]:
            with suppress(Exception):
                importlib.import_module(name)
        return ended

    def reset(self, folder: Path | None = None) -> None:
        """Empty `place`, or fill it with a copy of a folder."""
        for used in (self.place, self.temporary):
            shutil.rmtree(used)
            used.mkdir()
        if folder:
            shutil.copytree(folder, self.place, dirs_exist_ok=True)

    def names(self) -> frozenset[str]:
        """Of all files that commands have left, also temporary ones."""
        return frozenset(
            path.relative_to(self.root).as_posix()
            for folder in (self.place, self.temporary)
            for path in folder.rglob("*")
            if path.is_file() and CURVES not in path.parts
        )

    def age(self) -> None:
        """Make everything in `place` older, as if somebody had come back a minute later."""
        then = time.time() - OLD_S
        for path in self.place.rglob(".part-*"):
            os.utime(path, (then, then))


def scan(seed: int) -> Volume:
    """A noisy ball of whole numbers in air."""
    grid = Grid.from_spacing(SHAPE, SPACING_MM)
    axes = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in grid.shape]
    inside = sum(a**2 for a in np.meshgrid(*axes, indexing="ij")) < 1
    noise = np.random.default_rng(seed).integers(0, 100, grid.shape)
    return Volume(torch.from_numpy(((400 + noise) * inside).astype(np.int16)), grid)


def make_weights(folder: Path) -> None:
    """An autoencoder and a latent flow of its latents, both untrained, as two files."""
    torch.manual_seed(0)
    test = PRESETS["test"]
    path = save_weights(MedIL(test.model), test, folder / "model.safetensors", {})
    make_flow(folder / "flow.safetensors", load_model(path).weights_id or "")


def make_flow(path: Path, weights_id: str) -> None:
    """An untrained flow of random latents of 48 x 32 x 32 mm."""
    from medil.diffusion.config import CONDITIONS, FLOW_PRESETS, FlowConfig
    from medil.diffusion.flow import LatentFlow, latent_statistics
    from medil.diffusion.latents import LatentSet
    from medil.diffusion.training import save_flow

    config = FlowConfig(channels=(16, 16), head_channels=16)
    box = Grid.from_spacing((12, 8, 8), 4.0)
    known = torch.rand(4, len(CONDITIONS)) * 30 + 20
    latents = LatentSet(torch.randn(4, 8, *box.shape), box, known, weights_id)
    flow = LatentFlow(config, latent_statistics(latents, config))
    save_flow(flow, replace(FLOW_PRESETS["test"], model=config), path, {})


def final_files(folder: Path) -> list[Path]:
    """Files in a folder under final names, sorted."""
    found = [(path, path.relative_to(folder).parts) for path in sorted(folder.rglob("*"))]
    return [
        path for path, parts in found
        if path.is_file() and not any(p.startswith(".") or p == CURVES for p in parts)
    ]  # fmt: skip
