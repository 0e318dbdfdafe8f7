"""Guards against false detail in renderings on fine voxels, and a map of how far they may be off.

A rendering finer than the scan shows folds that the scan cannot confirm. `mirrored` averages what
eight encodings agree on, `band_limited` removes what is finer than the scan's voxels, and
`consistent` makes the rendering average to the scan again. The rows of `eval.false_gyri` say what
each guard removes and what it costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.regrid import (
    apply_separable,
    averaging_matrices,
    cell_average,
    resample,
)
from medil.system.memory import require_memory
from medil.volume import Intensity, Volume, replace_nonfinite, robust_intensity

MIRRORS = tuple(
    tuple(axis for axis in range(3) if mirrored[axis])
    for mirrored in itertools.product((False, True), repeat=3)
)  # the axes that each of the eight members mirrors; the first one mirrors none
GUARDS = ("mirrors",)  # of `medil reconstruct`
BAND_SHARE = 0.5  # of the averaging in `guarded`: chosen by `eval.false_gyri.report.chosen`
ERRORS_PER_SPREAD = 3.2  # by `eval.false_gyri.report.factor`
ENSEMBLE_BYTES = 40  # memory per voxel: mean, squares, one rendering, and filters in float64
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
    from scipy import ndimage  # slow to import, and not needed to load the package

    volume = np.asarray(data, dtype=np.float64)
    average, cells = volume, np.broadcast_to(cell_mm, 3).tolist()
    for axis, (voxel_mm, cell) in enumerate(zip(grid.spacing_mm, cells, strict=True)):
        kernel = cell_kernel(max(1.0, cell / voxel_mm))
        average = ndimage.convolve1d(average, kernel, axis, mode="nearest")
    return volume + share * (average - volume)


def cell_kernel(width_vox: float) -> np.ndarray:
    """[2 r + 1] share of each voxel in the mean over a cell around the middle one; width >= 1.

    Example:
        >>> cell_kernel(2.0).tolist()
        [0.25, 0.5, 0.25]
    """
    reach = math.ceil(width_vox / 2 - 0.5)
    places, half = np.arange(-reach, reach + 1), width_vox / 2
    covered: np.ndarray = np.minimum(places + 0.5, half) - np.maximum(places - 0.5, -half)
    covered /= covered.sum()
    return covered


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
    nearest: np.ndarray = np.asarray(data, dtype=np.float64) + apply_separable(apart, operators)
    return nearest


# What `medil reconstruct` offers


def guarded(ensemble: Ensemble, scan_grid: Grid) -> Volume:
    """What eight mirrored encodings agree on, part-way averaged over the scan's voxels.

    The guard of ``medil reconstruct --guard mirrors``: `band_limited` with `BAND_SHARE`. Voxels
    without a value stay without one.

    Args:
        ensemble: Of `mirrored`.
        scan_grid: The grid of the scan; its voxel sizes count axis by axis.
    """
    mean = ensemble.mean
    limit = partial(band_limited, grid=mean.grid, cell_mm=scan_grid.spacing_mm, share=BAND_SHARE)
    return _by_known_voxels(limit, mean)


def predicted_error(ensemble: Ensemble) -> Volume:
    """The RMS error to expect at every voxel, in the units of the image.

    The smoothed spread times one number, `ERRORS_PER_SPREAD`, that was calibrated on synthetic
    heads with a known truth, scanned at 1 mm. By the rows of `eval.false_gyri` it ranks voxels on
    other scans too, but is too small on thick slices and on real brains.
    """
    predicted = _by_known_voxels(partial(smooth_spread, grid=ensemble.spread.grid), ensemble.spread)
    return predicted.with_data(ERRORS_PER_SPREAD * predicted.data)


def smooth_spread(spread: np.ndarray, grid: Grid) -> np.ndarray:
    """RMS of a spread, [D, H, W], over about `SMOOTH_MM`: eight members alone are noisy."""
    from scipy import ndimage  # slow to import, and not needed to load the package

    sigma_vox = [SMOOTH_MM / mm for mm in grid.spacing_mm]
    squares = ndimage.gaussian_filter(np.square(spread, dtype=float), sigma_vox, mode="nearest")
    rms: np.ndarray = np.sqrt(np.maximum(squares, 0))
    return rms


def _by_known_voxels(function: Callable[[np.ndarray], np.ndarray], volume: Volume) -> Volume:
    """A filter of the voxels that have a value, continued into those without, which stay NaN."""
    known, n_missing = replace_nonfinite(volume.data)
    filtered = torch.from_numpy(function(known.numpy())).float()
    if n_missing:
        filtered[~torch.isfinite(volume.data)] = torch.nan
    return volume.with_data(filtered)
