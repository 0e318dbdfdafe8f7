"""What is compared, in HU: the scan itself, releases and tries, linear codecs of equal size."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from eval.arms.catalogue import TRUNK
from eval.coders.base import Coder, Kept, Scan, codec_coders, release_arm
from eval.thin_structures.chests import FOLDER, WINDOW_HU
from eval.thin_structures.train import TRIES, Run
from medil.data.releases import RELEASES, release_path
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, weights_sha256
from medil.volume import Intensity, Volume

CHEST, HEADS = "chest-tiny", "tiny"  # releases
CODECS = ("dct_ball", "bspline")
SCAN = "scan"
SIZE = TRUNK.latent_spacing_mm, TRUNK.latent_channels


@lru_cache(maxsize=2)
def loaded(path: Path) -> LatentAutoencoder:
    """Weights, ready to run on the CPU."""
    return load_model(path)


def medil(path: Path) -> MedIL:
    """Weights of a MedIL."""
    model = loaded(path)
    assert isinstance(model, MedIL)
    return model


class WindowCoder(Coder):
    """A MedIL that scales HU by a window, the one of its training unless another is named.

    Args:
        path: Of the weights.
        name: As in the rows.
        title: For people.
        window_hu: HU that become 0 and 1.
        run: That trained it, of tries; its seed is no part of the configuration.
    """

    def __init__(
        self, path: Path, name: str, title: str, window_hu: tuple[float, float] = WINDOW_HU,
        run: Run | None = None,
    ) -> None:  # fmt: skip
        model = loaded(path)
        self.path, self.name, self.title, self.window_hu = path, name, title, window_hu
        self.seed = run.seed if run else 0
        self.config = asdict(model.config) | {"window_hu": list(window_hu)}
        if run:
            self.config |= {"minutes": run.minutes, "scans": run.scans}
        self.weights_sha256 = weights_sha256(model)

    def encode(self, volume: Volume) -> Kept:
        """The latent: its mean, nothing drawn."""
        latent = medil(self.path).encode(volume, Intensity(*self.window_hu))
        return Kept(latent, latent.n_numbers)

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The rendering on any grid, the same on any processor; [D, H, W] float64, HU."""
        field = medil(self.path).field(kept.what, precision="float32")
        return field.on(grid).data.double().numpy()


class RivalCoder(WindowCoder):
    """A `medil.model.rivals` autoencoder on a whole volume at once."""

    @torch.inference_mode()
    def encode(self, volume: Volume) -> Kept:
        """The latent's mean and its grid."""
        model, grid = loaded(self.path), volume.grid
        x = Intensity(*self.window_hu).forward(volume.data.float())
        cells = model.latent_grid(grid)
        mean, _ = model.encode_tensor(x[None, None], grid, cells)
        return Kept((mean, cells), mean.numel())

    @torch.inference_mode()
    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The image on any grid; [D, H, W] float64, HU."""
        mean, cells = kept.what
        out = loaded(self.path).decode_tensor(mean, cells, grid)[0, 0]
        return Intensity(*self.window_hu).inverse(out).double().numpy()


def release_coder(name: str, window_hu: tuple[float, float] = WINDOW_HU) -> WindowCoder:
    """A release."""
    return WindowCoder(release_path(name), release_arm(name), f"MedIL {name}", window_hu)


def released() -> list[str]:
    """The releases that are compared: that of chests where it is in the checkout, that of heads."""
    return [n for n in (CHEST, HEADS) if (RELEASES / f"{n}.safetensors").exists()]


def fixed_coders() -> list[Coder]:
    """What learns nothing: the scan, and codecs that keep as many numbers as the latents."""
    return [Scan(), *codec_coders(*SIZE, CODECS)]


def try_coder(run: Run, folder: Path = FOLDER) -> WindowCoder:
    """A trained try."""
    kind = WindowCoder if run.config.model.architecture == "medil" else RivalCoder
    return kind(run.path(folder), run.name, TRIES[run.name].title, run=run)
