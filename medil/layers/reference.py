"""The equations as slow loops: the reference that the fast code is tested against.

Nothing here is used outside tests and pages. One query, one neighbour, one frequency at a
time, in Python floats; read it beside the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import numpy as np
from scipy.integrate import quad

from medil.grid import Grid


def clamp(node: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The nearest cell that exists: beyond the edge, edge features are repeated."""
    return tuple(min(max(n, 0), size - 1) for n, size in zip(node, shape, strict=True))


def mode(j: int, delta: float) -> float:
    """Local Fourier function j: 1, sin pi d, cos pi d, sin 2 pi d, cos 2 pi d, ..."""
    if j == 0:
        return 1.0
    harmonic = (j + 1) // 2
    wave = math.sin if j % 2 else math.cos
    return wave(math.pi * harmonic * delta)


def mean_over_cell(j: int, delta: float, width: float) -> float:
    """Mean of hat(d) * mode_j(d) for d within width / 2 of delta, by adaptive quadrature.

    A width of 0 gives the value at delta.
    """
    if width == 0:
        return max(0.0, 1 - abs(delta)) * mode(j, delta)
    low, high = delta - width / 2, delta + width / 2
    kinks = [k for k in (-1.0, 0.0, 1.0) if low < k < high]
    area, _ = quad(
        lambda d: max(0.0, 1 - abs(d)) * mode(j, d), low, high, points=kinks or None,
        epsabs=1e-13, epsrel=1e-13, limit=200,
    )  # fmt: skip
    return float(area / width)


def integrated_lte(
    amplitudes: np.ndarray, nodes: Grid, voxels: Grid, voxel: tuple[int, int, int]
) -> float:
    """Cell-integrated LTE at one voxel of a parallel grid.

    y = sum over cells n and modes (a, b, c) of amplitude[a, b, c, n] times the product over
    the axes of the mean of hat * mode over the voxel's cell.

    Args:
        amplitudes: [J, J, J, d, h, w], one channel.
        nodes: Feature grid.
        voxels: Target grid, parallel to it.
        voxel: Index of the target voxel.
    """
    width = np.asarray(voxels.spacing_mm) / np.asarray(nodes.spacing_mm)
    return integrated_lte_at(amplitudes, nodes, voxels.index_to_ras(np.array(voxel)), width)


def integrated_lte_at(
    amplitudes: np.ndarray,
    nodes: Grid,
    point_mm: np.ndarray,
    width: Sequence[float] = (0.0, 0.0, 0.0),
) -> float:
    """`integrated_lte` at any point, averaged over a box around it.

    Args:
        amplitudes: [J, J, J, d, h, w], one channel.
        nodes: Feature grid.
        point_mm: [3] RAS+, in mm.
        width: Size of the box along the axes of `nodes`, in cells; zeros give the point's value.
    """
    centre = nodes.ras_to_index(point_mm)  # in cells
    reach = [math.ceil(1 + w / 2) for w in width]
    near = [range(round(c) - r, round(c) + r + 1) for c, r in zip(centre, reach, strict=True)]
    n_modes, total = amplitudes.shape[0], 0.0
    means = [
        {
            (n, j): mean_over_cell(j, centre[axis] - n, width[axis])
            for n in near[axis]
            for j in range(n_modes)
        }
        for axis in range(3)
    ]
    for node in product(*near):
        for a, b, c in product(range(n_modes), repeat=3):
            weight = means[0][node[0], a] * means[1][node[1], b] * means[2][node[2], c]
            total += weight * amplitudes[(a, b, c, *clamp(node, nodes.shape))]
    return total


def separable(coefficients: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Three dense matrices on three axes, zeros and all: the reference of `medil.layers.banded`.

    Coefficients [J, J, J, d, h, w] and a matrix [voxels, J, nodes] for each axis, such as
    `medil.layers.projection.axis_matrix`, give [D, H, W].
    """
    image: np.ndarray = np.einsum("abcxyz,Xax,Yby,Zcz->XYZ", coefficients, *matrices, optimize=True)
    return image


def literal_lte(
    amplitude: np.ndarray,
    frequency: np.ndarray,
    phase_weight: np.ndarray,
    mlp: Callable[[np.ndarray], np.ndarray],
    nodes: Grid,
    voxels: Grid,
    voxel: tuple[int, int, int],
) -> np.ndarray:
    """LTE (Lee & Jin 2022, Eq. 4-7, in 3-D) at one voxel.

    Args:
        amplitude: [2K, d, h, w]: for cosines, then for sines.
        frequency: [K, 3, d, h, w], in half-cycles per cell.
        phase_weight: [K, 3]: the phase is this times the voxel size in cells.
        mlp: Takes [2K] to [C].
        nodes: Feature grid.
        voxels: Target grid; may be oblique.
        voxel: Index of the target voxel.

    Returns:
        [C], its values.
    """
    query = nodes.ras_to_index(voxels.index_to_ras(np.array(voxel)))  # in cells
    cell = [v / p for v, p in zip(voxels.spacing_mm, nodes.spacing_mm, strict=True)]
    n_frequencies = len(frequency)
    corner, total = [math.floor(q) for q in query], np.zeros(1)
    for step in product((0, 1), repeat=3):  # the local ensemble
        node = tuple(c + s for c, s in zip(corner, step, strict=True))
        delta = [q - n for q, n in zip(query, node, strict=True)]
        weight = math.prod(1 - abs(d) for d in delta)
        place = clamp(node, nodes.shape)
        texture = [0.0] * (2 * n_frequencies)
        for k in range(n_frequencies):
            angle = sum(frequency[(k, axis, *place)] * delta[axis] for axis in range(3))
            angle += sum(phase_weight[k, axis] * cell[axis] for axis in range(3))
            texture[k] = amplitude[(k, *place)] * math.cos(math.pi * angle)
            texture[n_frequencies + k] = amplitude[(n_frequencies + k, *place)] * math.sin(
                math.pi * angle
            )
        total = total + weight * mlp(np.array(texture))
    return total


def trilinear(values: np.ndarray, nodes: Grid, point_mm: np.ndarray) -> float:
    """Trilinear interpolation of [d, h, w] at one point, the edge's value beyond the edge."""
    query = nodes.ras_to_index(point_mm)
    corner, total = [math.floor(q) for q in query], 0.0
    for step in product((0, 1), repeat=3):
        node = tuple(c + s for c, s in zip(corner, step, strict=True))
        weight = math.prod(1 - abs(q - n) for q, n in zip(query, node, strict=True))
        total += weight * values[clamp(node, nodes.shape)]
    return total


def cubic_spline(coefficients: np.ndarray, nodes: Grid, point_mm: np.ndarray) -> float:
    """The cubic B-spline with [d, h, w] coefficients, the edge's going on, at one point."""
    query = nodes.ras_to_index(point_mm)
    corner, total = [math.floor(q) - 1 for q in query], 0.0
    for step in product(range(4), repeat=3):
        node = tuple(c + s for c, s in zip(corner, step, strict=True))
        weight = math.prod(cubic_bspline(q - n) for q, n in zip(query, node, strict=True))
        total += weight * coefficients[clamp(node, nodes.shape)]
    return total


def cubic_bspline(delta: float) -> float:
    """The centred cubic B-spline."""
    d = abs(delta)
    return 2 / 3 - d**2 + d**3 / 2 if d < 1 else max(0.0, 2 - d) ** 3 / 6


def content_lte(
    amplitude: np.ndarray,
    frequency: np.ndarray,
    nodes: Grid,
    voxels: Grid,
    voxel: tuple[int, int, int],
) -> float:
    """Cell-integrated LTE with a cell's own frequencies, at one voxel of a parallel grid.

    y = sum over cells n and waves k of A cos + B sin of pi F . d under the hat, averaged over
    the voxel: the box is a product of intervals, and so is the mean of exp(i pi F . d).

    Args:
        amplitude: [2, K, d, h, w]: A of cosines, B of sines, one channel.
        frequency: [3, K, d, h, w], in half-cycles per cell.
        nodes: Feature grid.
        voxels: Target grid, parallel to it.
        voxel: Index of the target voxel.
    """
    centre = nodes.ras_to_index(voxels.index_to_ras(np.array(voxel)))  # in cells
    width = np.asarray(voxels.spacing_mm) / np.asarray(nodes.spacing_mm)
    reach = [math.ceil(1 + w / 2) for w in width]
    near = [range(round(c) - r, round(c) + r + 1) for c, r in zip(centre, reach, strict=True)]
    total = 0.0
    for node in product(*near):
        place = clamp(node, nodes.shape)
        delta = [c - n for c, n in zip(centre, node, strict=True)]
        if any(abs(d) >= 1 + w / 2 for d, w in zip(delta, width, strict=True)):
            continue
        wave = np.ones(amplitude.shape[1], dtype=complex)  # [K]
        for axis in range(3):
            own = frequency[axis][at_cell(place)]
            wave *= wave_over_cell(own, delta[axis], width[axis])
        a, b = (part[at_cell(place)] for part in amplitude)
        total += a @ wave.real + b @ wave.imag
    return total


def at_cell(place: tuple[int, ...]) -> tuple[slice | int, ...]:
    """Index of one cell in an array whose first axis is kept whole."""
    return (slice(None), *place)


def wave_over_cell(frequency: np.ndarray, delta: float, width: float) -> np.ndarray:
    """[K] mean of hat(d) * exp(i pi f d) for d within width / 2 of delta, by Gauss quadrature."""
    edges = [delta - width / 2, *(k for k in (-1.0, 0.0, 1.0)), delta + width / 2]
    inside = sorted(e for e in edges if edges[0] <= e <= edges[-1])
    points, weights = np.polynomial.legendre.leggauss(40)
    area = np.zeros(len(frequency), dtype=complex)
    for low, high in pairwise(inside):
        d = low + (high - low) * (points + 1) / 2
        value = np.maximum(0, 1 - np.abs(d)) * np.exp(1j * math.pi * frequency[:, None] * d)
        area += (high - low) / 2 * (value @ weights)
    return area / width


def liif(
    features: np.ndarray,
    mlp: Callable[[np.ndarray], np.ndarray],
    nodes: Grid,
    voxels: Grid,
    voxel: tuple[int, int, int],
) -> np.ndarray:
    """LIIF (Chen et al. 2021, Eq. 4) in 3-D, at one voxel.

    Args:
        features: [C, d, h, w].
        mlp: Takes [C + 6], features, distances and voxel size, both in LIIF's units.
        nodes: Feature grid.
        voxels: Target grid; may be oblique.
        voxel: Index of the target voxel.
    """
    query = nodes.ras_to_index(voxels.index_to_ras(np.array(voxel)))  # in cells
    cell = [v / p for v, p in zip(voxels.spacing_mm, nodes.spacing_mm, strict=True)]
    corner, total = [math.floor(q) for q in query], np.zeros(1)
    for step in product((0, 1), repeat=3):  # the local ensemble
        node = tuple(c + s for c, s in zip(corner, step, strict=True))
        delta = [q - n for q, n in zip(query, node, strict=True)]
        weight = math.prod(1 - abs(d) for d in delta)
        near = features[at_cell(clamp(node, nodes.shape))]
        total = total + weight * mlp(np.concatenate([near, [2 * d for d in delta], cell]))
    return total
