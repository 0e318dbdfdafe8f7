"""CT scans of a chest phantom: partial volume, the scanner's kernel, its noise, native grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from torch import Tensor

from medil.grid import Grid
from medil.synth.appearance import Range
from medil.synth.chest import chest
from medil.synth.phantom import Phantom, render
from medil.volume import Volume

IN_PLANE_MM: Range = (0.5, 0.9)  # as in LIDC-IDRI
SLICE_MM: Range = (0.6, 3.0)
COARSE_MM: Range = (2.5, 4.5)  # voxels of whole chests
KERNEL_MM: Range = (0.35, 0.75)  # standard deviation of the blur in plane, from sharp to soft
NOISE_HU: Range = (8.0, 35.0)
GRAIN_VOX = 0.6  # standard deviation of the noise's blur in plane
SIDE_MM = 104.0  # of a part of a chest
WHOLE_EVERY = 4  # every so many scans show the whole chest
SUPERSAMPLE = 2  # points a voxel along each axis


def ct_scan(
    phantom: Phantom, grid: Grid, kernel_mm: float, noise_hu: float, rng: np.random.Generator
) -> Tensor:
    """What a scanner gives of a phantom in Hounsfield units, slices across the last axis.

    Args:
        phantom: In HU.
        grid: Its voxels; the last axis is that of the table.
        kernel_mm: Standard deviation of the reconstruction kernel in plane.
        noise_hu: Standard deviation of the noise, correlated in plane.
        rng: Of the noise.

    Returns:
        [D, H, W] int16.
    """
    data = render(phantom, grid, SUPERSAMPLE).numpy()
    across, down, _ = grid.spacing_mm
    data = ndimage.gaussian_filter(data, (kernel_mm / across, kernel_mm / down, 0))
    grain = ndimage.gaussian_filter(rng.standard_normal(grid.shape), (GRAIN_VOX, GRAIN_VOX, 0))
    noisy = data + noise_hu / grain.std() * grain
    return torch.from_numpy(np.rint(noisy.clip(-1024, 3071)).astype(np.int16))


def chest_subject(seed: int, index: int) -> Volume:
    """Scan `index` of a cohort: a part of a chest on a native grid, or a whole one, coarser.

    Four scans show one chest; all draws follow from (seed, index).
    """
    phantom = chest(seed + index // WHOLE_EVERY)
    rng = np.random.default_rng([seed, index, 41])
    if index % WHOLE_EVERY == WHOLE_EVERY - 1:
        x, y, z = (_log_uniform(rng, COARSE_MM) for _ in range(3))
        grid = phantom.grid((x, y, z))
    else:
        grid = part(rng, phantom)
    kernel_mm, noise_hu = rng.uniform(*KERNEL_MM), rng.uniform(*NOISE_HU)
    return Volume(ct_scan(phantom, grid, kernel_mm, noise_hu, rng), grid)


def part(rng: np.random.Generator, phantom: Phantom) -> Grid:
    """A native grid of `SIDE_MM` around the end of a random airway."""
    ends: Sequence[ArrayLike] = [branch["end_mm"] for branch in phantom.facts["branches"]]
    middle_mm = np.array(ends[int(rng.integers(len(ends)))]) + rng.uniform(-15, 15, 3)
    in_plane_mm, slice_mm = (_log_uniform(rng, bounds) for bounds in (IN_PLANE_MM, SLICE_MM))
    spacing = np.array([in_plane_mm, in_plane_mm, slice_mm])
    shape = np.ceil(SIDE_MM / spacing).astype(int)
    first_mm = middle_mm - (shape - 1) / 2 * spacing
    return Grid.from_spacing(shape.tolist(), spacing.tolist(), first_mm.tolist())


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
