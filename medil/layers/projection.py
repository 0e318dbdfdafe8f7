"""Linear maps between grids: render coefficients as voxels, and project voxels on coefficients.

On parallel grids every map is three small matrices, one per axis, whose entries are
basis functions averaged over voxels. Oblique grids take a general path that averages
over each voxel by quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from medil.grid import Grid, centres_mm, points_to_index
from medil.layers import banded_triton as gpu
from medil.layers.banded import Band, part_from, plan, render, separable, slab_numbers
from medil.layers.bases import Basis, cell_average
from medil.layers.blocks import at_least_float

POINTS_PER_CHUNK = 2**14
LONG_NODES = 1536  # along an axis, beyond which it is inverted run by run
RUN, RUN_MARGIN = 512, 96  # nodes
NEGLIGIBLE = 1e-10  # relative to a least-squares matrix's largest entry: smaller ones become 0


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
        # Beyond the first and last node, edge coefficients are repeated.
        matrix[np.arange(n_voxels), :, node.clip(0, n_nodes - 1)] += value
    matrix.setflags(write=False)
    return matrix


def axis_matrix(basis: Basis, nodes: Grid, voxels: Grid, axis: int) -> np.ndarray:
    """The mean of each basis function over each voxel, along one axis of parallel grids.

    Returns:
        [n_voxels, J, n_nodes] float64: mean over the voxel of function j of node n.
    """
    return _axis_matrix(basis, *_place(nodes, voxels, axis))


Bands = tuple[Band, Band, Band]
Place = tuple[int, int, float, float]


def _place(nodes: Grid, voxels: Grid, axis: int) -> Place:
    """Of two grids along an axis: both sizes, the first voxel's centre and the step, in cells."""
    pitch_mm = nodes.spacing_mm[axis]
    start = float(voxels.axis_offsets_mm(axis, origin=nodes)[0]) / pitch_mm
    step = voxels.spacing_mm[axis] / pitch_mm
    return nodes.shape[axis], voxels.shape[axis], round(start, 12), round(step, 12)


@lru_cache(maxsize=96)
def _band(basis: Basis, place: Place, mean: bool) -> Band:
    matrix = _axis_matrix(basis, *place)
    if mean:  # analysis divides by the window's weight
        matrix = matrix / matrix[:, 0].sum(0).clip(min=1e-6)
    return Band(matrix)


@lru_cache(maxsize=256)
def _bands(basis: Basis, nodes: Grid, voxels: Grid, mean: bool = False) -> Bands | None:
    """The maps from coefficients on `nodes` to averages over `voxels`; None when oblique."""
    if not nodes.is_parallel_to(voxels):
        return None
    x, y, z = (_band(basis, _place(nodes, voxels, axis), mean) for axis in range(3))
    return x, y, z


def synthesise(coefficients: Tensor, basis: Basis, nodes: Grid, voxels: Grid) -> Tensor:
    """Render coefficients: each voxel is the average over its cell of the function they define.

    Args:
        coefficients: [B, C, J, J, J, d, h, w] on `nodes`.
        basis: The local functions, J per axis.
        nodes: Feature grid.
        voxels: Target grid, parallel to `nodes` (fast) or oblique (quadrature).

    Returns:
        [B, C, D, H, W] in the dtype of `coefficients`, or in float32 if that has less.
    """
    coefficients = at_least_float(coefficients)
    bands = _bands(basis, nodes, voxels)
    if bands is None:
        points = centres_mm(voxels).reshape(-1, 3)
        values = synthesise_points(coefficients, basis, nodes, points, voxels.edges_mm)
        at_points: Tensor = values.unflatten(-1, voxels.shape)
        return at_points
    image = separable(coefficients.flatten(0, 1), bands)
    rendered: Tensor = image.unflatten(0, coefficients.shape[:2])
    return rendered


def synthesise_features(
    features: Tensor, weight: Tensor, bias: Tensor | None, basis: Basis, nodes: Grid, voxels: Grid
) -> Tensor:
    """`synthesise` of the output of a 1x1x1 convolution, which is never stored as a whole.

    Without gradients the coefficients are made for a few planes of nodes, rendered while
    they lie in the cache, and dropped.

    Args:
        features: [B, C, d, h, w] on `nodes`.
        weight: [O J^3, C], the convolution's.
        bias: [O J^3], likewise; nothing when None.
        basis: The local functions, J per axis.
        nodes: Feature grid.
        voxels: Target grid.

    Returns:
        [B, O, D, H, W].
    """
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    features, weight, bias = (at_least_float(t) for t in (features, weight, bias))
    batch, j = len(features), basis.n_functions

    def amplitudes(start: int, stop: int) -> Tensor:
        planes = features[:, :, start:stop].flatten(2)  # [B, C, N], a view
        each = [_mixed(weight, one, bias) for one in planes]
        flat = each[0] if batch == 1 else torch.cat(each)
        return flat.reshape(-1, j, j, j, stop - start, *features.shape[3:])

    with torch.autocast(features.device.type, enabled=False):
        bands = _bands(basis, nodes, voxels)
        if bands is None or torch.is_grad_enabled():
            whole = amplitudes(0, nodes.shape[0]).unflatten(0, (batch, -1))
            return synthesise(whole, basis, nodes, voxels)
        image = render(amplitudes, bands, batch * len(weight) // j**3, slab_numbers(features))
    rendered: Tensor = image.unflatten(0, (batch, -1))
    return rendered


def _mixed(weight: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """A 1x1x1 convolution: [O, C] on the channels of [C, N], plus [O]."""
    if gpu.mixes(values, len(weight)) and not torch.is_grad_enabled():
        return gpu.mixed(weight, values, bias)
    return torch.addmm(bias[:, None], weight, values)


def work(basis: Basis, nodes: Grid, voxels: Grid, channels: int) -> tuple[float, float]:
    """Operations and memory traffic of `synthesise_features`, per voxel of one channel.

    Counts a multiplication and an addition for every weight that is not zero: the 1x1x1
    convolution of C = `channels` features at the nodes, then the three axes in their order. The
    bytes are those of float32 features read once, coefficients and both intermediate results
    written and read once each, and the voxels of a parallel grid written.

    Returns:
        Floating-point operations and bytes, a voxel.
    """
    bands = _bands(basis, nodes, voxels)
    assert bands is not None, "only parallel grids have a fast path"
    numbers = basis.n_functions**3 * nodes.n_voxels  # coefficients
    flops, moved = 2 * channels * numbers, channels * nodes.n_voxels
    for step in plan(bands, 1):
        flops += 2 * step.band.n_entries * step.groups * step.inner * step.tail
        moved += 2 * numbers
        numbers = step.groups * step.inner * step.band.n_out * step.tail
    return flops / voxels.n_voxels, 4 * (moved + numbers) / voxels.n_voxels


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
    bands = _bands(basis, nodes, voxels, mean=True)
    assert bands is not None, "analysis needs parallel grids"
    coefficients = separable(at_least_float(values).flatten(0, 1), bands, adjoint=True)
    analysed: Tensor = coefficients.unflatten(0, values.shape[:2])
    return analysed


@lru_cache(maxsize=48)
def _least_squares_band(basis: Basis, place: Place, ridge: float) -> Band:
    n_nodes, n_voxels = place[:2]
    matrix = _axis_matrix(basis, *place).reshape(n_voxels, -1)
    if n_nodes > LONG_NODES:
        return Band(_long_inverse(basis, matrix, place, ridge)[:, None])
    gram = matrix.T @ matrix
    # Without a ridge, values inside a block must not depend on its size: `medil.model.tiles`.
    scale = np.trace(gram) / n_nodes if ridge else np.median(np.diag(gram))
    inverse = _regularised_inverse(matrix, gram, scale, ridge)
    inverse[np.abs(inverse) < NEGLIGIBLE * np.abs(inverse).max()] = 0
    return Band(inverse[:, None])


def _regularised_inverse(
    matrix: np.ndarray, gram: np.ndarray, scale: float, ridge: float
) -> np.ndarray:
    """[n_nodes, n_voxels]; it decays away from the node."""
    n_nodes = len(gram)
    bend = np.diff(np.eye(n_nodes), n=min(2, n_nodes - 1), axis=0)  # second differences
    penalty = ridge * (bend.T @ bend) + 1e-4 * np.eye(n_nodes)
    return np.linalg.solve(gram + scale * penalty, matrix.T)


def _long_inverse(basis: Basis, matrix: np.ndarray, place: Place, ridge: float) -> np.ndarray:
    """The inverse of a long axis, run by run with a margin: the time does not grow as n^3."""
    n_nodes, n_voxels, _, step = place
    reach = basis.radius + step / 2 + 1
    inverse = np.zeros((n_nodes, n_voxels))  # takes no memory where it stays zero
    squares = [_run(matrix, a, a + RUN, place, reach)[0] for a in range(0, n_nodes, RUN)]
    scale = sum(float((part**2).sum()) for part in squares) / n_nodes
    for first in range(0, n_nodes, RUN):
        low, high = max(0, first - RUN_MARGIN), min(n_nodes, first + RUN + RUN_MARGIN)
        part, voxels = _run(matrix, low, high, place, reach)
        solved = _regularised_inverse(part, part.T @ part, scale, ridge)
        solved[np.abs(solved) < NEGLIGIBLE * np.abs(solved).max()] = 0
        inverse[first : first + RUN, voxels] = solved[first - low : first - low + RUN]
    return inverse


def _run(
    matrix: np.ndarray, low: int, high: int, place: Place, reach: float
) -> tuple[np.ndarray, slice]:
    """The part of an axis matrix for a run of nodes, and the voxels that it depends on."""
    _, n_voxels, start, step = place
    ends = [math.floor((low - reach - start) / step), math.ceil((high + reach - start) / step)]
    if low == 0:  # voxels beyond the first node depend on it
        ends[0] = 0
    if high >= matrix.shape[1]:
        ends[1] = n_voxels
    voxels = slice(max(0, ends[0]), min(n_voxels, ends[1]))
    return matrix[voxels, low:high], voxels


@lru_cache(maxsize=64)
def _projection(basis: Basis, nodes: Grid, voxels: Grid, ridge: float) -> Bands:
    places = (_place(nodes, voxels, axis) for axis in range(3))
    x, y, z = (_least_squares_band(basis, place, ridge) for place in places)
    return x, y, z


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
    return least_squares_slabs([(0, values)], basis, voxels, nodes, ridge)


def least_squares_slabs(
    slabs: Iterable[tuple[int, Tensor]], basis: Basis, voxels: Grid, nodes: Grid, ridge: float
) -> Tensor:
    """`least_squares` of an image that comes in slabs along its first axis, each used once.

    `slabs` are first index and values [B, C, n, H, W] of each; together they are the whole image,
    which lies on `voxels`.
    """
    x, y, z = _projection(basis, nodes, voxels, ridge)
    total: Tensor | None = None
    for start, values in slabs:
        band, first, last = part_from(x, start, start + values.shape[2])
        flat = at_least_float(values).flatten(0, 1)[:, None, None, None]
        added: Tensor = separable(flat, (band, y, z)).unflatten(0, values.shape[:2])
        if band is x:
            return added
        total = added.new_zeros(*added.shape[:2], *nodes.shape) if total is None else total
        total[:, :, first:last] += added
    assert total is not None
    return total


# Scattered points, and the voxels of oblique grids


def _gauss_offsets_mm(edges_mm: np.ndarray, per_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature inside one voxel: offsets [P, 3] in mm (RAS+) and weights [P] that sum to 1."""
    sizes_mm = np.linalg.norm(edges_mm, axis=0).tolist()
    counts = [max(2, math.ceil(round(per_mm * size, 6))) for size in sizes_mm]
    nodes, weights = zip(*(np.polynomial.legendre.leggauss(n) for n in counts), strict=True)
    index = np.array(list(product(*nodes))) / 2  # [P, 3], from a voxel's centre
    weight = np.prod(list(product(*weights)), axis=1) / 8
    return index @ edges_mm.T, weight


def synthesise_points(
    coefficients: Tensor,
    basis: Basis,
    nodes: Grid,
    points_mm: Tensor,
    edges_mm: np.ndarray | None = None,
) -> Tensor:
    """The continuous function that coefficients define, at scattered points.

    A mean over a voxel around each point is taken by Gauss quadrature. It costs
    prod(max(2, points_per_cell * size in cells)) evaluations per point, each of which looks up
    (2 radius)^3 nodes of J^3 numbers: far more than a voxel of `synthesise` on a parallel grid.

    Args:
        coefficients: [B, C, J, J, J, d, h, w] on `nodes`.
        basis: The local functions, J per axis.
        nodes: Feature grid; beyond its edge, edge coefficients are repeated.
        points_mm: [Q, 3] RAS+ points, in mm; gradients flow to them.
        edges_mm: [3, 3] edges of the voxels in RAS+ mm, one per column; None: the point values.

    Returns:
        [B, C, Q].
    """
    coefficients = at_least_float(coefficients)
    rows = coefficients.flatten(5).flatten(2, 4).movedim(-1, 0).contiguous()  # [N, B, C, J^3]
    offsets, weights = np.zeros((1, 3)), np.ones(1)
    if edges_mm is not None:
        per_mm = basis.points_per_cell / min(nodes.spacing_mm)
        offsets, weights = _gauss_offsets_mm(edges_mm, per_mm)
    parts = []
    for chunk in points_mm.to(torch.float64).split(POINTS_PER_CHUNK):
        total = rows.new_zeros(len(chunk), *rows.shape[1:3])
        for weight, offset in zip(weights.tolist(), torch.from_numpy(offsets), strict=True):
            total = total + weight * _at_points(rows, basis, nodes, chunk + offset.to(chunk))
        parts.append(total)
    return torch.cat(parts).movedim(0, -1)


def _at_points(rows: Tensor, basis: Basis, nodes: Grid, points_mm: Tensor) -> Tensor:
    """[N, B, C, J^3] coefficients, a row a node, at [Q, 3] points: [Q, B, C]."""
    index_vox = points_to_index(nodes, points_mm)  # [Q, 3]
    first = index_vox.detach().floor() - (basis.radius - 1)
    sizes = torch.tensor(nodes.shape, device=first.device)
    strides = torch.tensor((nodes.shape[1] * nodes.shape[2], nodes.shape[2], 1)).to(sizes)
    steps = range(2 * basis.radius)
    # Each step along each axis once; the products over axes are made below.
    values = torch.stack([basis.value(index_vox - first - step) for step in steps]).to(rows)
    places = [(first.long() + step).clamp(min=0).minimum(sizes - 1) * strides for step in steps]
    total = rows.new_zeros(len(points_mm), *rows.shape[1:3])
    for a, b, c in product(steps, repeat=3):
        node = (places[a][:, 0] + places[b][:, 1] + places[c][:, 2]).to(rows.device)
        weight = torch.einsum("qi,qj,qk->qijk", values[a, :, 0], values[b, :, 1], values[c, :, 2])
        total = total + (rows.index_select(0, node) * weight.flatten(1)[:, None, None]).sum(-1)
    return total
