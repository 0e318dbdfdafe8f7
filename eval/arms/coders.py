"""Weights in a file as coders of whole volumes on one scale of intensities."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from eval.arms.timed import Run
from eval.coders.base import Coder, Kept
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, weights_sha256
from medil.volume import Intensity, Volume


@lru_cache(maxsize=2)
def loaded(path: Path) -> LatentAutoencoder:
    """Weights, ready to run on the CPU."""
    return load_model(path)


def medil(path: Path) -> MedIL:
    """Weights of a MedIL."""
    model = loaded(path)
    assert isinstance(model, MedIL)
    return model


class WeightsCoder(Coder):
    """A MedIL that scales intensities as it is told.

    Args:
        path: Of the weights.
        name: As in the rows.
        title: For people.
        scale: Intensities that become 0 and 1.
        run: That trained it, of arms; its seed is no part of the configuration.
    """

    def __init__(
        self, path: Path, name: str, title: str, scale: Intensity, run: Run | None = None
    ) -> None:
        model = loaded(path)
        self.path, self.name, self.title, self.scale = path, name, title, scale
        self.seed = run.seed if run else 0
        self.config = asdict(model.config)
        if run:
            self.config |= {"minutes": run.minutes, "scans": run.scans}
        self.weights_sha256 = weights_sha256(model)

    def encode(self, volume: Volume) -> Kept:
        """The latent: its mean, nothing drawn."""
        latent = medil(self.path).encode(volume, self.scale)
        return Kept(latent, latent.n_numbers)

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The rendering on any grid, the same on any processor; [D, H, W] float64."""
        field = medil(self.path).field(kept.what, precision="float32")
        return field.on(grid).data.double().numpy()


class RivalCoder(WeightsCoder):
    """A `medil.model.rivals` autoencoder on a whole volume at once."""

    @torch.inference_mode()
    def encode(self, volume: Volume) -> Kept:
        """The latent's mean and its grid."""
        model, grid = loaded(self.path), volume.grid
        x = self.scale.forward(volume.data.float())
        cells = model.latent_grid(grid)
        mean, _ = model.encode_tensor(x[None, None], grid, cells)
        return Kept((mean, cells), mean.numel())

    @torch.inference_mode()
    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The image on any grid; [D, H, W] float64."""
        mean, cells = kept.what
        out = loaded(self.path).decode_tensor(mean, cells, grid)[0, 0]
        return self.scale.inverse(out).double().numpy()


def run_coder(run: Run, folder: Path, title: str, scale: Intensity) -> WeightsCoder:
    """The weights of a run, of a MedIL or of a rival."""
    kind = WeightsCoder if run.config.model.architecture == "medil" else RivalCoder
    return kind(run.path(folder), run.name, title, scale, run)
