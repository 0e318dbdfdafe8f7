"""Linear codecs that keep exactly as many numbers of a volume as a latent does.

A learned code is only interesting beside the best *linear* code of the same size. All know the
voxel size: frequencies are in cycles per mm and coarse grids have one pitch in mm, so thick
slices are treated fairly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

from medil.errors import InputError
from medil.grid import Grid
from medil.regrid import apply_separable, checked, overlap_matrix, spline_matrix

RIDGE = 1e-10  # of the mean diagonal: keeps the normal equations solvable, moves nothing


class Coded(NamedTuple):
    """The result of a codec: the rebuilt volume and the number of coefficients it kept."""

    reconstruction: np.ndarray  # [D, H, W] float64
    numbers_kept: int


Codec = Callable[[np.ndarray, Grid, int], Coded]


def dct_cube(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Keep the lowest box of the 3-D cosine transform, a cube in cycles/mm.

    The n coefficients whose largest frequency along any axis is lowest; ties go to
    the lower overall frequency. Source: orthonormal DCT-II (Ahmed, Natarajan and Rao
    1974), separable zonal coding.

    Args:
        data: [D, H, W], any intensity unit.
        grid: Where the voxels lie; its spacing sets the frequencies.
        n_numbers: How many coefficients to keep (all of them if above D·H·W).

    Returns:
        The volume rebuilt from exactly `n_numbers` coefficients, and that count.

    Raises:
        InputError: `data` and `grid` differ in shape, or `n_numbers` is below 1.
    """
    volume = checked_codec(data, grid, n_numbers)
    per_axis = frequencies_per_mm(grid)
    highest = np.maximum(np.maximum(per_axis[0], per_axis[1]), per_axis[2])
    return _keep_lowest(volume, highest, _radius(per_axis), n_numbers)


def dct_ball(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Keep the lowest ball of the 3-D cosine transform: lowest |frequency| in cycles/mm.

    The linear codec to beat: scans have no favoured direction, so their energy falls
    with |frequency|. Arguments, result and errors as for `dct_cube`.
    """
    volume = checked_codec(data, grid, n_numbers)
    radius = _radius(frequencies_per_mm(grid))
    return _keep_lowest(volume, radius, radius, n_numbers)


def dct_best(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Oracle: keep the n largest coefficients of the 3-D cosine transform.

    Not a codec of n numbers: *which* coefficients were kept is chosen after seeing the
    volume and costs further bits that are not counted, and the choice is not linear.
    An upper bound only. Arguments, result and errors as for `dct_cube`.
    """
    volume = checked_codec(data, grid, n_numbers)
    coefficients = fft.dctn(volume, norm="ortho")
    size = -np.abs(coefficients)
    return _rebuilt(coefficients, _lowest(size, size, n_numbers))


def cubic(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Average onto a coarser grid of n numbers, then interpolate by cubic splines.

    Anti-aliasing is the exact mean over each coarse voxel's cell; the coarse grid fills
    the same box with one pitch in mm (`coarse_shape`, never fewer than n numbers).
    Source: interpolating cubic splines (Unser 1999), edges mirrored.

    Arguments and errors as for `dct_cube`; `numbers_kept` is the true count.
    """
    volume = checked_codec(data, grid, n_numbers)
    shape = coarse_shape(grid, n_numbers)
    operators = []
    for n_fine, n_coarse in zip(grid.shape, shape, strict=True):
        average = overlap_matrix(np.linspace(0, n_fine, n_coarse + 1), np.arange(n_fine + 1.0))
        to_coefficients = np.linalg.inv(spline_matrix(n_coarse, n_coarse))
        operators.append(spline_matrix(n_fine, n_coarse) @ to_coefficients @ average)
    return Coded(apply_separable(volume, operators), math.prod(shape))


def bspline(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Least-squares cubic B-spline with n coefficients on a coarser grid.

    The exact projection onto the splines that `cubic` interpolates with: no other n
    numbers on that grid give a smaller squared error. Least squares over a volume is
    least squares along each axis in turn. Source: Unser, Aldroubi and Eden 1993.

    Arguments and errors as for `dct_cube`; `numbers_kept` is the true count.
    """
    volume = checked_codec(data, grid, n_numbers)
    shape = coarse_shape(grid, n_numbers)
    axes = zip(grid.shape, shape, strict=True)
    operators = [least_squares(spline_matrix(n_fine, n_coarse)) for n_fine, n_coarse in axes]
    return Coded(apply_separable(volume, operators), math.prod(shape))


def least_squares(basis: np.ndarray) -> np.ndarray:
    """[n, n] projection onto the columns of `basis`, [n, functions]."""
    normal = basis.T @ basis
    normal += RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    return basis @ np.linalg.solve(normal, basis.T)


LINEAR_CODECS: dict[str, Codec] = {
    "cubic": cubic,
    "dct_cube": dct_cube,
    "dct_ball": dct_ball,
    "bspline": bspline,
}
ORACLE_CODECS: dict[str, Codec] = {"dct_best": dct_best}
CODECS: dict[str, Codec] = LINEAR_CODECS | ORACLE_CODECS


# The pieces


def frequencies_per_mm(grid: Grid) -> list[np.ndarray]:
    """Frequency of each DCT-II coefficient along each axis, in cycles/mm.

    Coefficient k of n voxels of size s makes k / 2 cycles over the length n·s.

    Returns:
        Three float64 arrays that broadcast to [D, H, W].
    """
    axes = [np.arange(n) / (2 * e) for n, e in zip(grid.shape, grid.extent_mm, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def coarse_shape(grid: Grid, n_numbers: int) -> tuple[int, int, int]:
    """Sizes of the smallest coarse grid of at least n numbers with one pitch in mm.

    An axis whose voxels are already larger than the pitch keeps all of them, and what
    it saves goes to the others. Each size is then rounded up or down so that the product
    is not below n and exceeds it least, weighed against an uneven pitch. No size is above the
    fine grid's.

    Example:
        >>> coarse_shape(Grid.from_spacing((40, 40, 10), (1, 1, 4)), 2000)
        (14, 15, 10)
    """
    ideal = _ideal_sizes(grid, min(n_numbers, grid.n_voxels))
    options = [
        range(max(1, math.floor(m)), min(n, math.ceil(m) + 1) + 1)
        for m, n in zip(ideal, grid.shape, strict=True)
    ]
    enough = min(n_numbers, grid.n_voxels)

    def cost(sizes: tuple[int, ...]) -> float:
        uneven = max(abs(math.log(m / i)) for m, i in zip(sizes, ideal, strict=True))
        return math.prod(sizes) * (1 + uneven)

    a, b, c = min((s for s in itertools.product(*options) if math.prod(s) >= enough), key=cost)
    return a, b, c


def _ideal_sizes(grid: Grid, n_numbers: int) -> list[float]:
    """Fractional sizes of one pitch in mm whose product is n, none above the grid's."""
    capped: set[int] = set()
    while True:
        free = [a for a in range(3) if a not in capped]
        if not free:
            return [float(n) for n in grid.shape]
        left = n_numbers / math.prod(grid.shape[a] for a in capped)
        pitch_mm = (math.prod(grid.extent_mm[a] for a in free) / left) ** (1 / len(free))
        over = {a for a in free if grid.extent_mm[a] / pitch_mm > grid.shape[a] * (1 + 1e-9)}
        if not over:
            sizes = [grid.extent_mm[a] / pitch_mm for a in range(3)]
            return [float(grid.shape[a]) if a in capped else _snapped(sizes[a]) for a in range(3)]
        capped |= over


def _snapped(size: float) -> float:
    """A whole number if within rounding of one, so that ceil() does not add a voxel."""
    return float(round(size)) if abs(size - round(size)) < 1e-6 else size


def _radius(per_axis: Sequence[np.ndarray]) -> np.ndarray:
    squared = per_axis[0] ** 2 + per_axis[1] ** 2 + per_axis[2] ** 2
    radius: np.ndarray = np.sqrt(squared)  # [D, H, W]
    return radius


def _lowest(key: np.ndarray, tie_key: np.ndarray, n_numbers: int) -> np.ndarray:
    """[D, H, W] bool, True at exactly n places: lowest key, then lowest tie key, then order."""
    # Rounded: the same frequency summed in another order must count as a tie.
    flat = np.round(np.ravel(key), 12)
    if n_numbers >= flat.size:
        return np.ones(key.shape, dtype=bool)
    last = np.partition(flat, n_numbers - 1)[n_numbers - 1]
    keep: np.ndarray = flat < last
    tied = np.flatnonzero(flat == last)
    order = np.argsort(np.round(np.ravel(tie_key)[tied], 12), kind="stable")
    keep[tied[order][: n_numbers - int(keep.sum())]] = True
    return keep.reshape(key.shape)


def _keep_lowest(volume: np.ndarray, key: np.ndarray, tie_key: np.ndarray, n: int) -> Coded:
    return _rebuilt(fft.dctn(volume, norm="ortho"), _lowest(key, tie_key, n))


def _rebuilt(coefficients: np.ndarray, keep: np.ndarray) -> Coded:
    return Coded(fft.idctn(np.where(keep, coefficients, 0.0), norm="ortho"), int(keep.sum()))


def checked_codec(data: np.ndarray, grid: Grid, n_numbers: int) -> np.ndarray:
    """[D, H, W] float64 of a codec's arguments; raises `InputError` as `dct_cube` says."""
    if n_numbers < 1:
        raise InputError(f"a codec keeps at least one number, not {n_numbers}.")
    return checked(data, grid)
