"""Resampling without learning: cell averages, cubic splines and trilinear interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid, points_to_index


def cell_average(data: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """The mean of a volume over each cell of a parallel grid: downsampling without aliasing.

    Each voxel of [D, H, W] data is taken as constant over its cell. A target cell that is partly
    outside takes the mean of what is inside; one wholly outside gets 0.

    Returns:
        [D', H', W'] float64 on `target`.

    Raises:
        InputError: Shapes differ, or the grids are not parallel.
    """
    volume = checked(data, grid)
    if not grid.is_parallel_to(target):
        raise InputError("cell averages need parallel grids; use cubic_resample for oblique ones.")
    return apply_separable(volume, averaging_matrices(grid, target))


def averaging_matrices(grid: Grid, target: Grid) -> list[np.ndarray]:
    """The matrix [n', n] of `cell_average` along each axis of two parallel grids."""
    return [overlap_matrix(*_edges_mm(grid, target, axis)) for axis in range(3)]


def cubic_resample(data: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Cubic spline interpolation of [D, H, W] data at the voxel centres of any grid.

    No anti-aliasing: for coarser targets use `cell_average`. The splines interpolate the
    voxels and mirror them at the faces; outside the box the value at its face is repeated.
    Oblique targets take longer than parallel ones.

    Returns:
        [D', H', W'] float64 on `target`.

    Raises:
        InputError: Shapes differ.
    """
    volume = checked(data, grid)
    if not grid.is_parallel_to(target):
        return _cubic_oblique(volume, grid, target)
    operators = []
    for axis, n in enumerate(grid.shape):
        position = target.axis_offsets_mm(axis, origin=grid) / grid.spacing_mm[axis]
        basis = _spline_basis(np.clip(position, -0.5, n - 0.5), n)
        operators.append(basis @ np.linalg.inv(spline_matrix(n, n)))
    return apply_separable(volume, operators)


def _cubic_oblique(volume: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    from scipy import ndimage  # slow to import, and not needed to load the package

    coefficients = ndimage.spline_filter(volume, order=3, mode="reflect")
    result = np.empty(target.shape)
    rows = np.stack(np.meshgrid(*map(np.arange, target.shape[1:]), indexing="ij"), axis=-1)
    for i in range(target.shape[0]):  # by plane: all query points at once need 24 bytes per voxel
        index = np.concatenate([np.full_like(rows[..., :1], i), rows], axis=-1)  # [H', W', 3]
        source = grid.ras_to_index(target.index_to_ras(index))
        source = np.clip(source, -0.5, np.asarray(grid.shape) - 0.5)
        result[i] = ndimage.map_coordinates(
            coefficients, np.moveaxis(source, -1, 0), order=3, mode="reflect", prefilter=False
        )
    return result


def resample(data: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Resample to a parallel grid: cubic splines through the voxels, averaged over target cells.

    Where target cells are larger than voxels, the splines are sampled several times in each
    cell and averaged, so coarser targets are anti-aliased and finer ones are interpolated.

    Returns:
        [D', H', W'] float64 on `target`.
    """
    ratio = np.asarray(target.spacing_mm) / np.asarray(grid.spacing_mm)
    parts = np.maximum(1, np.rint(ratio)).astype(int)
    inner = target.resized(np.asarray(target.shape) * parts)
    if _same_voxels(grid, inner):
        return cell_average(data, grid, target)
    return cell_average(cubic_resample(data, grid, inner), inner, target)


def _same_voxels(grid: Grid, other: Grid) -> bool:
    """Whether every voxel of `other` that lies in `grid` is one of its voxels."""
    corners = grid.ras_to_index(
        other.index_to_ras(np.array([(0, 0, 0), np.asarray(other.shape) - 1]))
    )
    span = np.asarray(other.shape) - 1
    whole = np.abs(corners - np.rint(corners)).max() < 1e-6
    return whole and bool(np.abs(corners[1] - corners[0] - span).max() < 1e-6)


def sample_trilinear(values: Tensor, grid: Grid, points_mm: Tensor) -> Tensor:
    """Trilinear interpolation at any points; outside the box the edge value is repeated.

    The one place where (i, j, k) turns into the (x, y, z) of `grid_sample`.

    Args:
        values: [B, C, D, H, W] on `grid`.
        grid: Where the values lie.
        points_mm: [..., 3] RAS+ points, in mm.

    Returns:
        [B, C, ...] in the dtype of `values`.
    """
    index_vox = points_to_index(grid, points_mm)
    sizes = torch.tensor(grid.shape, dtype=torch.float64, device=index_vox.device)
    coord_norm = (2 * index_vox + 1) / sizes - 1
    xyz = coord_norm.flip(-1).reshape(1, -1, 1, 1, 3).to(values)  # grid_sample wants W, H, D
    sampled = torch.nn.functional.grid_sample(
        values, xyz.expand(len(values), -1, -1, -1, -1), padding_mode="border", align_corners=False
    )
    return sampled.reshape(*values.shape[:2], *points_mm.shape[:-1])


def sample_nearest(values: Tensor, grid: Grid, points_mm: Tensor) -> Tensor:
    """Values of [D, H, W] at the voxels nearest to points [..., 3] (R, A, S) mm; 0 outside."""
    index = torch.from_numpy(grid.ras_to_index(points_mm.cpu().double().numpy())).round().long()
    sizes = torch.tensor(grid.shape)
    inside = ((index >= 0) & (index < sizes)).all(-1).to(values.device)
    index = index.clamp(torch.zeros(3, dtype=torch.long), sizes - 1).to(values.device)
    nearest = values[index[..., 0], index[..., 1], index[..., 2]]
    return torch.where(inside, nearest, torch.zeros_like(nearest))


def box_average(data: Tensor, shape: Sequence[int]) -> Tensor:
    """Average [D, H, W] float32 to fewer voxels [d, h, w] of the same box.

    Voxels across a border count in proportion.
    """
    for axis, (n, count) in enumerate(zip(data.shape, shape, strict=True)):
        weights = torch.from_numpy(box_weights(n, count)).to(data)
        data = torch.tensordot(weights, data.movedim(axis, 0), 1).movedim(0, axis)
    return data


def box_weights(n: int, count: int) -> np.ndarray:
    """[count, n] share of each of n voxels in the mean over each of `count` voxels of one box."""
    edges, first = np.arange(count + 1) * n / count, np.arange(n)  # in voxels
    shared = np.minimum(edges[1:, None], first + 1) - np.maximum(edges[:-1, None], first)
    return shared.clip(min=0) * count / n


def checked(data: np.ndarray, grid: Grid) -> np.ndarray:
    """The data as float64, once its shape is checked.

    Raises:
        InputError: Its shape is not the grid's.
    """
    volume = np.asarray(data, dtype=np.float64)
    if volume.shape != grid.shape:
        raise InputError(f"the data has shape {volume.shape} but its grid {grid.shape}.")
    return volume


def apply_separable(volume: np.ndarray, operators: Sequence[np.ndarray]) -> np.ndarray:
    """Apply one [n_out, n_in] matrix along each axis of [D, H, W]."""
    for axis, operator in enumerate(operators):
        volume = np.moveaxis(np.tensordot(operator, volume, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(volume)


def spline_matrix(n_fine: int, n_coarse: int) -> np.ndarray:
    """[n_fine, n_coarse] cubic B-splines around coarse centres, evaluated at fine centres.

    Both grids fill one box: ``c = (i + 0.5) * n_coarse / n_fine - 0.5``.
    """
    return _spline_basis((np.arange(n_fine) + 0.5) * n_coarse / n_fine - 0.5, n_coarse)


def _spline_basis(position: np.ndarray, n_centres: int) -> np.ndarray:
    """[Q, n] cubic B-splines around 0 ... n - 1, evaluated at positions from -0.5 to n - 0.5.

    Coefficients beyond an edge mirror those inside (half-sample symmetry, as in the DCT-II).
    """
    matrix = np.zeros((len(position), n_centres))
    for centre in range(-2, n_centres + 2):
        inside = centre % (2 * n_centres)
        inside = min(inside, 2 * n_centres - 1 - inside)
        matrix[:, inside] += _cubic_bspline(position - centre)
    return matrix


def _cubic_bspline(x: np.ndarray) -> np.ndarray:
    """The centred cubic B-spline, support -2 ... 2."""
    x = np.abs(x)
    near = 2 / 3 - x**2 + x**3 / 2
    far = np.clip(2 - x, 0, None) ** 3 / 6
    return np.where(x < 1, near, far)


def overlap_matrix(edges_out: np.ndarray, edges_in: np.ndarray) -> np.ndarray:
    """[n_out, n_in] share of each input cell in the mean over each output cell."""
    low = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    high = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    overlap = np.clip(high - low, 0, None)
    covered = overlap.sum(axis=1, keepdims=True)
    share: np.ndarray = np.zeros_like(overlap)
    np.divide(overlap, covered, out=share, where=covered > 1e-9)
    return share


def _edges_mm(grid: Grid, target: Grid, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell faces of the target and of the grid along one axis, from one origin, in mm."""
    faces = []
    for g in (target, grid):
        first_mm = g.axis_offsets_mm(axis, grid)[0] - g.spacing_mm[axis] / 2
        faces.append(first_mm + np.arange(g.shape[axis] + 1) * g.spacing_mm[axis])
    return faces[0], faces[1]
