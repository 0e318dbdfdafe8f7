"""What is rendered of one scan: the release, what learns nothing, guards, and maps of uncertainty.

`ARMS` and `MAPS` are tables of functions of a `Case`, which computes once what several need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage

from eval.coders.base import loaded
from eval.false_gyri.blocks import Block
from medil.grid import Grid
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.codecs import dct_ball
from medil.model.guards import (
    MIRRORS,
    Ensemble,
    band_limited,
    consistent,
    mirrored,
    projected,
    smooth_spread,
)
from medil.regrid import cubic_resample, resample
from medil.volume import Intensity

SCALE = Intensity(0.0, 1.0)  # of every block
DRAWS = 4  # from a latent's Gaussian
MEDIL, SPLINES, BALL, INTERPOLATION = "medil", "medil_splines", "dct_ball", "interpolation"


class Case:
    """One scan of a block, to be rendered on voxels of one size."""

    def __init__(self, block: Block, condition: str, release: str) -> None:
        self.scan, self.voxels = block.asked(condition)
        self.grid: Grid = block.truths[self.voxels].grid
        self.model: MedIL = loaded(release)

    @cached_property
    def latent(self) -> Latent:
        """The latent of the scan, its mean."""
        return self.model.encode(self.scan, SCALE)

    @cached_property
    def plain(self) -> np.ndarray:
        """The release's rendering."""
        return self.rendered(self.latent)

    @cached_property
    def ensemble(self) -> Ensemble:
        """Eight mirrored encodings."""
        return mirrored(self.model, self.scan, self.grid, SCALE, precision="float32")

    @property
    def mean(self) -> np.ndarray:
        """What the eight agree on."""
        return self.ensemble.mean.data.double().numpy()

    @cached_property
    def spread(self) -> np.ndarray:
        """How far the eight lie apart, RMS over about `SMOOTH_MM`."""
        return smooth_spread(self.ensemble.spread.data.numpy(), self.grid)

    @cached_property
    def disagreement(self) -> np.ndarray:
        """How far the rendering is from the scan on the scan's own voxels, RMS, interpolated."""
        own = self.model.field(self.latent, precision="float32").on(self.scan.grid)
        smooth = smooth_spread((own.data - self.scan.data).numpy(), self.scan.grid) ** 2
        return np.sqrt(np.maximum(cubic_resample(smooth, self.scan.grid, self.grid), 0))

    def rendered(self, latent: Latent, linear_only: bool = False) -> np.ndarray:
        """[D, H, W] float64."""
        field = self.model.field(latent, linear_only, precision="float32")
        return field.on(self.grid).data.double().numpy()

    def resampled(self, data: np.ndarray) -> np.ndarray:
        """The scan's voxels on the target by cubic splines."""
        return resample(data, self.scan.grid, self.grid)

    def corrected(self, data: np.ndarray, share: float = 1.0) -> np.ndarray:
        """A rendering made consistent with the scan."""
        return consistent(data, self.grid, self.voxels_of_scan, self.scan.grid, share)

    def limited(self, data: np.ndarray, share: float = 1.0) -> np.ndarray:
        """A rendering averaged over the scan's voxels, around every voxel."""
        return band_limited(data, self.grid, self.scan.grid.spacing_mm, share)

    @property
    def voxels_of_scan(self) -> np.ndarray:
        """[D', H', W'] float64."""
        return self.scan.data.double().numpy()

    def draws(self) -> np.ndarray:
        """Standard deviation over renderings of draws from the latent's Gaussian."""
        generator = torch.Generator().manual_seed(0)
        drawn = [self.rendered(self.latent.sample(generator)) for _ in range(DRAWS)]
        return smooth_spread(np.std(drawn, axis=0), self.grid)


def _ball(case: Case) -> np.ndarray:
    numbers = case.latent.n_numbers
    coded = dct_ball(case.voxels_of_scan, case.scan.grid, numbers)
    return case.resampled(coded.reconstruction)


RIVALS: dict[str, Callable[[Case], np.ndarray]] = {
    MEDIL: lambda c: c.plain,
    SPLINES: lambda c: c.rendered(c.latent, linear_only=True),
    BALL: _ball,
    INTERPOLATION: lambda c: c.resampled(c.voxels_of_scan),
}
GUARDS: dict[str, Callable[[Case], np.ndarray]] = {
    "mirrors": lambda c: c.mean,
    "band_50": lambda c: c.limited(c.plain, 0.5),
    "band_100": lambda c: c.limited(c.plain),
    "mirrors_band_50": lambda c: c.limited(c.mean, 0.5),
    "mirrors_band_75": lambda c: c.limited(c.mean, 0.75),
    "mirrors_band_100": lambda c: c.limited(c.mean),
    "consistent_50": lambda c: c.corrected(c.plain, 0.5),
    "consistent_100": lambda c: c.corrected(c.plain),
    "mirrors_consistent_50": lambda c: c.corrected(c.mean, 0.5),
    "projected": lambda c: projected(c.plain, c.grid, c.voxels_of_scan, c.scan.grid),
}
ARMS = RIVALS | GUARDS
MAPS: dict[str, Callable[[Case], np.ndarray]] = {
    "draws": Case.draws,
    "spread": lambda c: c.spread,
    "disagreement": lambda c: c.disagreement,
    "spread_disagreement": lambda c: np.sqrt(c.spread * c.disagreement),
    "gradient": lambda c: ndimage.gaussian_gradient_magnitude(c.plain, 1.0),
}


def numbers_kept(case: Case, arm: str) -> int:
    """How many numbers of the scan an arm needs: eight latents for mirrors, or every voxel."""
    if arm in (INTERPOLATION, "projected") or "consistent" in arm:
        return case.scan.grid.n_voxels
    return case.latent.n_numbers * (len(MIRRORS) if arm.startswith("mirrors") else 1)
