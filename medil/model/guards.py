"""Guards against false detail in renderings on fine voxels, and a map of how far they may be off.

A rendering finer than the scan shows folds that the scan cannot confirm. `mirrored` averages what
eight encodings agree on, `band_limited` removes what is finer than the scan's voxels, and
`consistent` makes the rendering average to the scan again. The rows of `eval.false_gyri` say what
each guard removes and what it costs.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch

from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.regrid import (
    apply_separable,
    averaging_matrices,
    cell_average,
    overlap_matrix,
    resample,
)
from medil.system.memory import require_memory
from medil.volume import Intensity, Volume, robust_intensity

MIRRORS = tuple(
    tuple(axis for axis in range(3) if mirrored[axis])
    for mirrored in itertools.product((False, True), repeat=3)
)  # the axes that each of the eight members mirrors; the first one mirrors none
ENSEMBLE_BYTES = 16  # memory per voxel: mean, squares, one rendering, one difference
SMOOTH_MM = 1.0  # standard deviation of the kernel that smooths a spread


class Ensemble(NamedTuple):
    """What the members of an ensemble agree on, and how far they lie apart."""

    mean: Volume
    spread: Volume  # standard deviation over the members, in the units of the image


def mirrored(
    model: MedIL,
    volume: Volume,
    grid: Grid | None = None,
    intensity: Intensity | None = None,
    memory_bytes: int | None = None,
    precision: str = "auto",
) -> Ensemble:
    """Encode the eight mirror images of a volume, render each, turn back, and average.

    Our choice: the networks treat a mirror image as another image, so detail on which all eight
    agree is less likely to be an artefact of one of them. It takes eight times the time.

    Args:
        model: The autoencoder.
        volume: The scan, [D, H, W].
        grid: Target grid, parallel to the scan's or oblique; the scan's when None.
        intensity: As in `MedIL.encode`.
        memory_bytes: As in `MedIL.encode` and `Field.on`.
        precision: As in `MedIL.field`.

    Returns:
        Mean and standard deviation over the eight renderings, [D', H', W'] float32 on `grid`.

    Raises:
        InputError: Not enough memory, or what `MedIL.encode` refuses.
    """
    grid = grid or volume.grid
    require_memory(grid.n_voxels, ENSEMBLE_BYTES, "this ensemble")
    intensity = intensity or robust_intensity(volume.data)
    mean, squares = torch.zeros(grid.shape), torch.zeros(grid.shape)
    for count, axes in enumerate(MIRRORS, start=1):
        image = Volume(volume.data.flip(axes), volume.grid)
        target, turned = mirrored_grid(grid, volume.grid, axes)
        latent = model.encode(image, intensity, memory_bytes=memory_bytes)
        rendered = model.field(latent, precision=precision).on(target, memory_bytes=memory_bytes)
        off = rendered.data.flip(turned) - mean
        mean += off / count  # Welford's updates
        squares += off * off * ((count - 1) / count)
    spread = (squares / len(MIRRORS)).sqrt()
    return Ensemble(Volume(mean, grid, volume.source), Volume(spread, grid, volume.source))


def mirrored_grid(grid: Grid, about: Grid, axes: tuple[int, ...]) -> tuple[Grid, tuple[int, ...]]:
    """A grid mirrored at the middle of another one, along axes of that one.

    Returns:
        The mirrored grid, and the axes along which its voxels run backwards: `axes` where the grid
        is parallel to `about`, so that it stays parallel; none of an oblique one.
    """
    signs = np.ones(3)
    signs[list(axes)] = -1
    turn = about.directions @ np.diag(signs) @ np.linalg.inv(about.directions)
    affine, middle_mm = grid.affine_vox2ras.copy(), about.centre_mm
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = middle_mm + turn @ (affine[:3, 3] - middle_mm)
    if not grid.is_parallel_to(about):
        return Grid(grid.shape, affine), ()
    backwards = np.diag([*signs, 1.0])
    backwards[:3, 3] = np.where(signs < 0, np.array(grid.shape) - 1, 0)
    return Grid(grid.shape, affine @ backwards), axes


def band_limited(
    data: np.ndarray, grid: Grid, cell_mm: float | tuple[float, ...], share: float = 1.0
) -> np.ndarray:
    """A rendering averaged around every voxel over a cell that may be larger than the voxel.

    Averaging multiplies every frequency by the cell's transfer function, sinc(f * cell) along each
    axis, so what is finer than the cell goes.

    Args:
        data: [D, H, W] on `grid`.
        grid: Where the voxels lie.
        cell_mm: Size of the cell along i, j, k, one number or three; where it is not above the
            voxel's, nothing is averaged.
        share: From 0, the data, to 1, the average.

    Returns:
        [D, H, W] float64.
    """
    operators = []
    for n, voxel_mm, cell in zip(
        grid.shape, grid.spacing_mm, np.broadcast_to(cell_mm, 3).tolist(), strict=True
    ):
        half = max(1.0, cell / voxel_mm) / 2  # voxels
        middles, faces = np.arange(n) + 0.5, np.arange(n + 1.0)
        rows = [overlap_matrix(np.array([m - half, m + half]), faces) for m in middles]
        operators.append(np.concatenate(rows))
    volume = np.asarray(data, dtype=np.float64)
    return volume + share * (apply_separable(volume, operators) - volume)


def consistent(
    data: np.ndarray, grid: Grid, scan: np.ndarray, scan_grid: Grid, share: float = 1.0
) -> np.ndarray:
    """A rendering corrected by what the scan says of it: x + share * interpolated (y - A x).

    A averages over the scan's voxels. One step of iterative back-projection (Irani and Peleg
    1991), with cubic splines, which bring the scan's noise along.

    Args:
        data: x, [D, H, W] on `grid`.
        grid: Where its voxels lie, parallel to the scan's.
        scan: y, [D', H', W'] on `scan_grid`, in the same units.
        scan_grid: The scan's grid.
        share: Of the correction, 0 to 1.

    Returns:
        [D, H, W] float64.

    Raises:
        InputError: Grids that are not parallel.
    """
    apart = np.asarray(scan, dtype=np.float64) - cell_average(data, grid, scan_grid)
    return np.asarray(data, dtype=np.float64) + share * resample(apart, scan_grid, grid)


def projected(data: np.ndarray, grid: Grid, scan: np.ndarray, scan_grid: Grid) -> np.ndarray:
    """The nearest image that averages to the scan exactly: x + A^+ (y - A x).

    The null-space projection that `consistent` approximates without amplifying noise; arguments,
    result and errors are the same.
    """
    apart = np.asarray(scan, dtype=np.float64) - cell_average(data, grid, scan_grid)
    operators = [np.linalg.pinv(matrix) for matrix in averaging_matrices(grid, scan_grid)]
    return np.asarray(data, dtype=np.float64) + apply_separable(apart, operators)


def smooth_spread(spread: Volume) -> Volume:
    """The spread of an ensemble, RMS over about `SMOOTH_MM`: eight members alone are noisy."""
    from scipy import ndimage  # slow to import, and not needed to load the package

    sigma_vox = [SMOOTH_MM / mm for mm in spread.grid.spacing_mm]
    squares = ndimage.gaussian_filter(spread.data.double().numpy() ** 2, sigma_vox, mode="nearest")
    return spread.with_data(torch.from_numpy(np.sqrt(np.maximum(squares, 0))).float())
