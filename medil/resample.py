"""Linear maps between grids: render coefficients as voxels, and project voxels on coefficients.

On parallel grids every map is three small matrices, one an axis, whose entries are
basis functions averaged over voxels. Oblique grids take a general path that averages
over each voxel by quadrature.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from medil.grid import Grid, centres_mm
from medil.texture import Basis, cell_average

POINTS_PER_CHUNK = 2**17


@lru_cache(maxsize=96)
def _axis_matrix(
    basis: Basis, n_nodes: int, n_voxels: int, start_cells: float, step_cells: float
) -> np.ndarray:
    position = start_cells + step_cells * np.arange(n_voxels)  # in cells; node n lies at n
    width = basis.radius + step_cells / 2
    reach = math.ceil(width)
    matrix = np.zeros((n_voxels, basis.n_functions, n_nodes))
    nearest = np.round(position).astype(int)
    for step in range(-reach, reach + 1):
        node = nearest + step
        value = cell_average(basis, position - node, step_cells)  # [n_voxels, J]
        # Beyond the first and last node the edge's coefficients go on.
        matrix[np.arange(n_voxels), :, node.clip(0, n_nodes - 1)] += value
    matrix.setflags(write=False)
    return matrix


def axis_matrix(basis: Basis, nodes: Grid, voxels: Grid, axis: int) -> np.ndarray:
    """What each voxel sees of each basis function along one axis (cell-averaged).

    Args:
        basis: The local functions.
        nodes: The feature grid that carries coefficients.
        voxels: A grid parallel to it.
        axis: 0, 1 or 2.

    Returns:
        [n_voxels, J, n_nodes] float64: mean over the voxel of function j of node n.
    """
    pitch_mm = nodes.spacing_mm[axis]
    offsets_mm = voxels.axis_offsets_mm(axis, origin=nodes)
    step = round(voxels.spacing_mm[axis] / pitch_mm, 12)
    start = round(float(offsets_mm[0]) / pitch_mm, 12)
    return _axis_matrix(basis, nodes.shape[axis], voxels.shape[axis], start, step)


def _apply(matrices: list[Tensor], values: Tensor) -> Tensor:
    """Three matrices [out, in] on the last three axes of [..., X, Y, Z], last axis first."""
    # Reduced precision is for the networks: bf16 here would cap any image at about 50 dB.
    with torch.autocast(values.device.type, enabled=False):
        for matrix in reversed(matrices):  # each turn brings the next axis to the end
            values = torch.movedim(values @ matrix.T, -1, -3)
    return values


def synthesise(coefficients: Tensor, basis: Basis, nodes: Grid, voxels: Grid) -> Tensor:
    """Render coefficients: each voxel is the average over its cell of the function they define.

    Args:
        coefficients: [B, C, J, J, J, d, h, w] on `nodes`.
        basis: The local functions, J an axis.
        nodes: Feature grid.
        voxels: Target grid, parallel to `nodes` (fast) or oblique (quadrature).

    Returns:
        [B, C, D, H, W] in the dtype of `coefficients`.
    """
    if not nodes.is_parallel_to(voxels):
        return _synthesise_oblique(coefficients, basis, nodes, voxels)
    batch, channels = coefficients.shape[:2]
    # [B, C, Jx, Jy, Jz, X, Y, Z] -> [B, C, Jx X, Jy Y, Jz Z]: one flat axis a direction.
    flat = coefficients.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(
        batch, channels, *(basis.n_functions * n for n in nodes.shape)
    )
    matrices = [
        torch.tensor(axis_matrix(basis, nodes, voxels, axis).reshape(voxels.shape[axis], -1))
        for axis in range(3)
    ]
    return _apply([m.to(flat) for m in matrices], flat)


def analyse(values: Tensor, basis: Basis, voxels: Grid, nodes: Grid) -> Tensor:
    """Local Fourier analysis: the weighted mean of the voxels around each node, a mode at a time.

    The transpose of `synthesise`, normalised by the window's weight, so that a constant
    image has coefficient 1 in mode 0 at any voxel size.

    Args:
        values: [B, C, D, H, W] on `voxels`.
        basis: The local functions; function 0 is the window itself.
        voxels: Source grid, parallel to `nodes`.
        nodes: Feature grid.

    Returns:
        [B, C, J, J, J, d, h, w].
    """
    matrices = []
    for axis in range(3):
        matrix = axis_matrix(basis, nodes, voxels, axis)  # [Q, J, N]
        weight = matrix[:, 0].sum(0).clip(min=1e-6)
        adjoint = (matrix / weight).transpose(1, 2, 0)  # [J, N, Q]
        matrices.append(torch.from_numpy(adjoint.reshape(-1, voxels.shape[axis])).to(values))
    flat = _apply(matrices, values)  # [B, C, Jx X, Jy Y, Jz Z]
    j, (x, y, z) = basis.n_functions, nodes.shape
    shaped = flat.reshape(*flat.shape[:2], j, x, j, y, j, z)
    return shaped.permute(0, 1, 2, 4, 6, 3, 5, 7)


@lru_cache(maxsize=48)
def _least_squares_matrix(
    basis: Basis, n_nodes: int, n_voxels: int, start: float, step: float, ridge: float
) -> np.ndarray:
    matrix = _axis_matrix(basis, n_nodes, n_voxels, start, step).reshape(n_voxels, -1)
    gram = matrix.T @ matrix
    bend = np.diff(np.eye(n_nodes), n=min(2, n_nodes - 1), axis=0)  # second differences
    scale = np.trace(gram) / n_nodes
    penalty = ridge * (bend.T @ bend) + 1e-4 * np.eye(n_nodes)
    return np.linalg.solve(gram + scale * penalty, matrix.T)


def least_squares(values: Tensor, basis: Basis, voxels: Grid, nodes: Grid, ridge: float) -> Tensor:
    """The coefficients whose rendering comes nearest to the voxels: a closed-form encoder.

    Separable regularised least squares, (M^T M + r P)^-1 M^T along each axis, where M
    averages over voxels and P penalises second differences, so that voxels coarser than
    the nodes are joined smoothly instead of ringing. Departure: the paper's encoder is
    learned; ours is this projection plus a learned residual.

    Args:
        values: [B, C, D, H, W] on `voxels`.
        basis: A basis with one function (J = 1).
        voxels: Source grid, parallel to `nodes`.
        nodes: Feature grid.
        ridge: r, weight of the penalty relative to the mean diagonal of M^T M.

    Returns:
        [B, C, d, h, w].
    """
    matrices = []
    for axis in range(3):
        pitch_mm = nodes.spacing_mm[axis]
        start = round(float(voxels.axis_offsets_mm(axis, nodes)[0]) / pitch_mm, 12)
        step = round(voxels.spacing_mm[axis] / pitch_mm, 12)
        sizes = nodes.shape[axis], voxels.shape[axis]
        matrix = _least_squares_matrix(basis, *sizes, start, step, ridge)
        matrices.append(torch.from_numpy(matrix).to(values))
    return _apply(matrices, values)


# Oblique targets


def _gauss_offsets_mm(voxels: Grid, per_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature inside one voxel: offsets [P, 3] in mm (RAS+) and weights [P] that sum to 1."""
    counts = [max(2, math.ceil(round(per_mm * size, 6))) for size in voxels.spacing_mm]
    nodes, weights = zip(*(np.polynomial.legendre.leggauss(n) for n in counts), strict=True)
    index = np.array(list(product(*nodes))) / 2  # [P, 3], from a voxel's centre
    weight = np.prod(list(product(*weights)), axis=1) / 8
    return index @ voxels.affine_vox2ras[:3, :3].T, weight


def _synthesise_oblique(
    coefficients: Tensor, basis: Basis, nodes: Grid, voxels: Grid, per_cell: float = 4.0
) -> Tensor:
    """`synthesise` by quadrature: so many points a feature cell, at least two a voxel, an axis."""
    centres = centres_mm(voxels).reshape(-1, 3).numpy()
    offsets, weights = _gauss_offsets_mm(voxels, per_cell / min(nodes.spacing_mm))
    flat = coefficients.flatten(2, 4)  # [B, C, J^3, d, h, w]
    chunks = []
    for chunk in np.array_split(centres, math.ceil(len(centres) / POINTS_PER_CHUNK)):
        total = sum(
            weight * evaluate_points(flat, basis, nodes, chunk + offset)
            for offset, weight in zip(offsets, weights, strict=True)
        )
        chunks.append(total)
    return torch.cat(chunks, dim=-1).reshape(*coefficients.shape[:2], *voxels.shape)


def evaluate_points(
    coefficients: Tensor, basis: Basis, nodes: Grid, points_mm: np.ndarray
) -> Tensor:
    """The continuous function that coefficients define, at scattered points.

    Args:
        coefficients: [B, C, J^3, d, h, w] on `nodes`.
        basis: The local functions, J an axis.
        nodes: Feature grid.
        points_mm: [Q, 3] RAS+ points, in mm.

    Returns:
        [B, C, Q].
    """
    index_vox = nodes.ras_to_index(points_mm)  # [Q, 3]
    first = np.floor(index_vox).astype(int) - (basis.radius - 1)
    sizes = np.asarray(nodes.shape)
    strides = np.array([sizes[1] * sizes[2], sizes[2], 1])
    steps = range(2 * basis.radius)
    # Each step along each axis once; the products over axes are made below.
    value = np.stack([basis.value(index_vox - first - step) for step in steps])  # [S, Q, 3, J]
    place = np.stack([(first + step).clip(0, sizes - 1) * strides for step in steps])  # [S, Q, 3]
    values = torch.from_numpy(value).to(coefficients)
    places = torch.from_numpy(place).to(coefficients.device)
    rows = coefficients.flatten(3).movedim(-1, 0).contiguous()  # [N, B, C, J^3]: one a node
    total = rows.new_zeros(len(points_mm), *rows.shape[1:3])
    for a, b, c in product(steps, repeat=3):
        node = places[a, :, 0] + places[b, :, 1] + places[c, :, 2]
        weight = torch.einsum("qi,qj,qk->qijk", values[a, :, 0], values[b, :, 1], values[c, :, 2])
        total += (rows.index_select(0, node) * weight.flatten(1)[:, None, None]).sum(-1)
    return total.movedim(0, -1)
