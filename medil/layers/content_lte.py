"""Waves whose frequencies a network predicts, averaged over voxels by closed-form integrals.

For any frequency f the mean over a voxel of hat(d) * exp(i pi f d) is elementary, and so is
its derivative in f: content-dependent frequencies need no quadrature either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid
from medil.layers.blocks import at_least_float, zero_init
from medil.layers.pointwise import PointOperator, local_ensemble

NUMBERS_PER_CHUNK = 2**24  # size of the largest intermediate
POINTS_PER_CELL = 4  # quadrature points per cell and axis, on oblique grids


def plane_waves(harmonics: int) -> Tensor:
    """The frequencies in {-K ... K}^3, one of each pair +f, -f; the first is 0.

    The cosines and sines of f . d over this set span the products of 1, sin j pi d and
    cos j pi d an axis, j <= K, of `medil.layers.bases.local_fourier`.

    Returns:
        [((2 K + 1)^3 + 1) / 2, 3], in half-cycles per cell.

    Example:
        >>> list(plane_waves(1).shape)
        [14, 3]
    """
    waves = list(product(range(-harmonics, harmonics + 1), repeat=3))
    return torch.tensor([f for f in waves if f >= (0, 0, 0)], dtype=torch.float32)


def _sine_part(u: Tensor) -> Tensor:
    """Sin u / u^2 - cos u / u, by its series near 0."""
    small = u.abs() < 0.3
    safe = torch.where(small, torch.ones_like(u), u)
    series = u / 3 * (1 - u**2 / 10 * (1 - u**2 / 28 * (1 - u**2 / 54)))
    return torch.where(small, series, (safe.sin() / safe - safe.cos()) / safe)


def hat_wave_integral(delta: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Integral from 0 to delta of hat(d) * (cos, sin)(pi f d): odd in delta, and even.

    `delta` is in cells and broadcasts with `frequency` f, in half-cycles per cell.
    """
    d = delta.clamp(-1.0, 1.0)
    far = d.abs()
    half = torch.sinc(frequency * far / 2).square() / 2  # (1 - cos w d) / (w d)^2
    cosine = d * ((1 - far) * torch.sinc(frequency * far) + far * half)
    omega = math.pi * frequency
    return cosine, far.square() * (omega * half - _sine_part(omega * far))


@dataclass(frozen=True)
class Reach:
    """Along one axis: the cells that touch a target grid, and the voxels that each touches."""

    cells: np.ndarray  # [n] index of each cell, beyond the edge as well
    edges: np.ndarray  # [n, L + 1] edges of its voxels, measured from its centre in cells
    voxels: np.ndarray  # [n, L] index of its voxels; outside the grid where it has fewer than L
    n_voxels: int  # size of the target grid
    width: float  # of a voxel, in cells

    @classmethod
    def of(cls, nodes: Grid, voxels: Grid, axis: int) -> Reach:
        """The reach of a feature grid's cells on a target grid parallel to it."""
        position = voxels.axis_offsets_mm(axis, nodes) / nodes.spacing_mm[axis]  # in cells
        width = voxels.spacing_mm[axis] / nodes.spacing_mm[axis]
        reach = 1 + width / 2
        first, last = math.floor(position[0] - reach), math.ceil(position[-1] + reach)
        cells = np.arange(first, last + 1)
        start = np.ceil((cells - reach - position[0]) / width).astype(int)
        index = start[:, None] + np.arange(math.floor(2 * reach / width) + 1)
        low = position[0] + index * width - cells[:, None] - width / 2
        return cls(cells, np.c_[low, low[:, -1] + width], index, len(position), width)

    def part(self, start: int, stop: int) -> Reach:
        """The reach of a run of the cells."""
        chosen = slice(start, stop)
        return Reach(
            self.cells[chosen], self.edges[chosen], self.voxels[chosen], self.n_voxels, self.width
        )

    def means(self, frequency: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Mean of hat * (cos, sin)(pi f d) over each cell's voxels along `axis`.

        Frequencies [B, x, y, z, K] along this axis, which runs over these cells, give
        [B, x, y, z, L, K] each, 0 for voxels outside the grid.
        """
        shape = [len(self.cells) if n == axis else 1 for n in range(3)]
        inside = (self.voxels >= 0) & (self.voxels < self.n_voxels)
        scale = torch.from_numpy(inside / self.width).to(frequency).reshape(*shape, -1, 1)
        edges = torch.from_numpy(self.edges).to(frequency).reshape(*shape, -1, 1)
        integrals = hat_wave_integral(edges, frequency[..., None, :])
        cosine, sine = (integral.diff(dim=-2) * scale for integral in integrals)
        return cosine, sine


class ContentLTE(PointOperator):
    """Cell-integrated LTE whose frequencies come from the features, as in the paper.

    y(voxel) = mean over the voxel of sum_n hat(d) sum_k A_k(n) cos(pi F_k(n) . d) +
    B_k(n) sin(pi F_k(n) . d), d = (x - p_n) / pitch. The mean over a box of a complex wave is
    the product of three 1-D means. The frequencies start at `plane_waves(harmonics)`, where the
    operator equals `medil.layers.operators.IntegratedLTE`, and the features move them. Oblique
    targets take quadrature.
    """

    reach = 1  # beyond a voxel's faces, in feature cells
    waves: Tensor

    def __init__(self, channels_in: int, channels_out: int, harmonics: int) -> None:
        super().__init__()
        waves = plane_waves(harmonics)
        self.register_buffer("waves", waves, persistent=False)
        self.channels_out = channels_out
        self.amplitude = zero_init(nn.Conv3d(channels_in, 2 * len(waves) * channels_out, 1))
        self.frequency = zero_init(nn.Conv3d(channels_in, 3 * len(waves), 1))

    def coefficients(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes and frequencies of every cell, from features [B, C, d, h, w].

        Returns:
            [B, channels_out, 2, K, d, h, w], for cosines and for sines, and
            [B, 3, K, d, h, w] in half-cycles per cell.
        """
        amplitude = at_least_float(self.amplitude(features))
        offset = at_least_float(self.frequency(features)).unflatten(1, (3, -1))
        frequency = self.waves.T.to(offset)[..., None, None, None] + offset
        return amplitude.unflatten(1, (self.channels_out, 2, -1)), frequency

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        if not nodes.is_parallel_to(voxels):
            return super().forward(features, nodes, voxels)
        amplitude, frequency = self.coefficients(features)
        with torch.autocast(features.device.type, enabled=False):
            return render_waves(amplitude, frequency, nodes, voxels)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `PointOperator.at`; voxels are averaged by `render_points`."""
        amplitude, frequency = self.coefficients(features)
        with torch.autocast(features.device.type, enabled=False):
            return render_points(amplitude, frequency, nodes, points_mm, edges_mm)


def render_waves(amplitude: Tensor, frequency: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
    """The waves of every cell, averaged over the voxels of a parallel grid.

    Args:
        amplitude: [B, C, 2, K, d, h, w] on `nodes`, for cosines and for sines.
        frequency: [B, 3, K, d, h, w], in half-cycles per cell.
        nodes: Feature grid; beyond its edge, edge cells are repeated.
        voxels: Target grid, parallel to it.

    Returns:
        [B, C, D, H, W].
    """
    axes = [Reach.of(nodes, voxels, axis) for axis in range(3)]
    cells = [r.cells.clip(0, n - 1) for r, n in zip(axes, nodes.shape, strict=True)]
    x, y, z = (torch.from_numpy(c).to(frequency.device) for c in cells)
    amplitude, frequency = (
        t.index_select(-2, y).index_select(-1, z) for t in (amplitude, frequency)
    )
    total = frequency.new_zeros(math.prod(amplitude.shape[:2]), voxels.n_voxels)
    row = 2 * amplitude[:, :, 0, :, 0, 0, 0].numel() * len(y) * len(z)
    row *= axes[0].voxels.shape[1] * axes[1].voxels.shape[1]
    rows = max(1, NUMBERS_PER_CHUNK // row)  # planes of cells at a time
    for start in range(0, len(x), rows):
        here = [axes[0].part(start, start + rows), *axes[1:]]
        plane = x[start : start + rows]
        tiles = _tiles(amplitude.index_select(-3, plane), frequency.index_select(-3, plane), here)
        places = _places(here, voxels.shape).to(total.device)
        total = total.index_add(1, places, tiles.flatten(1))
    return total.reshape(*amplitude.shape[:2], *voxels.shape)


def _tiles(amplitude: Tensor, frequency: Tensor, axes: list[Reach]) -> Tensor:
    """The contribution of each cell to each of its voxels: [B C, x y z Lx Ly Lz]."""
    batch, channels = amplitude.shape[:2]
    rows = frequency.permute(1, 0, 3, 4, 5, 2).contiguous()  # [3, B, x, y, z, K]
    (xc, xs), (yc, ys), (zc, zs) = (r.means(rows[n], n) for n, r in enumerate(axes))
    xc, xs, yc, ys = (m.unsqueeze(d) for m, d in ((xc, -2), (xs, -2), (yc, -3), (ys, -3)))
    plane = torch.cat([xc * yc - xs * ys, xs * yc + xc * ys], dim=-1)  # [B, x, y, z, Lx, Ly, 2K]
    a, b = amplitude.permute(2, 1, 0, 4, 5, 6, 3).unsqueeze(-2)  # [C, B, x, y, z, 1, K]
    line = torch.cat([a * zc + b * zs, b * zc - a * zs], dim=-1)  # [C, B, x, y, z, Lz, 2K]
    tiles = plane.flatten(-3, -2) @ line.mT  # [C, B, x, y, z, Lx Ly, Lz]
    return tiles.transpose(0, 1).reshape(batch * channels, -1)


def _places(axes: list[Reach], shape: tuple[int, int, int]) -> Tensor:
    """[x y z Lx Ly Lz] flat voxel indices of all tiles; clipped where they hold zeros."""
    i, j, k = (r.voxels.clip(0, n - 1) for r, n in zip(axes, shape, strict=True))
    i, j, k = i[:, None, None, :, None, None], j[:, None, None, :, None], k[:, None, None, :]
    return torch.from_numpy((i * shape[1] + j) * shape[2] + k).flatten()


def wave_points(amplitude: Tensor, frequency: Tensor, cell: Tensor, delta: Tensor) -> Tensor:
    """sum_k A_k cos(pi F_k . d) + B_k sin(pi F_k . d) of chosen cells: [B, C, Q].

    Args:
        amplitude: [B, C, 2, K, N].
        frequency: [B, 3, K, N].
        cell: [Q] which cells.
        delta: [Q, 3], distance from the cell's centre, in cells.
    """
    angle = torch.pi * torch.einsum("bdkq,qd->bkq", frequency.index_select(-1, cell), delta)
    wave = torch.stack([angle.cos(), angle.sin()], dim=1)  # [B, 2, K, Q]
    return (amplitude.index_select(-1, cell) * wave[:, None]).sum((2, 3))


def render_points(
    amplitude: Tensor,
    frequency: Tensor,
    nodes: Grid,
    points_mm: Tensor,
    edges_mm: np.ndarray | None = None,
) -> Tensor:
    """The waves at scattered points, or their means over voxels there by midpoint quadrature.

    Args:
        amplitude: [B, C, 2, K, d, h, w] on `nodes`, as `render_waves` takes it.
        frequency: [B, 3, K, d, h, w].
        nodes: Feature grid.
        points_mm: [Q, 3] RAS+ points, in mm.
        edges_mm: [3, 3] edges of the voxels, one per column; None: the point values.

    Returns:
        [B, C, Q].
    """
    offsets = torch.zeros(1, 3, dtype=torch.float64)
    if edges_mm is not None:
        sizes = POINTS_PER_CELL * np.linalg.norm(edges_mm, axis=0) / min(nodes.spacing_mm)
        counts = [max(2, math.ceil(size)) for size in sizes.tolist()]
        index = product(*((np.arange(n) + 0.5) / n - 0.5 for n in counts))
        offsets = torch.from_numpy(np.array(list(index)) @ edges_mm.T)
    points_mm = points_mm[:, None] + offsets.to(points_mm)  # [Q, P, 3]
    flat = amplitude.flatten(4), frequency.flatten(3)
    values = local_ensemble(
        lambda cell, delta: wave_points(*flat, cell, delta).mT, nodes, points_mm.flatten(0, 1),
        frequency,
    )  # fmt: skip
    mean: Tensor = values.unflatten(-1, points_mm.shape[:2]).mean(-1)
    return mean
