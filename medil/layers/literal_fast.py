"""Local waves on parallel grids: the angle is a sum over the axes, so the wave is a product.

exp(i pi (f . delta + phase)) = X Y Z, one phasor an axis, which depends on a feature cell and on
one coordinate of the voxels near it. So cosines and sines are taken for planes of (cell,
coordinate), not for every (voxel, cell), and each of a voxel's 8 cells is left with two products
and the MLP. The reference is `medil.layers.pointwise.local_ensemble`, point by point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.grid import Grid

PAIRS_PER_ROWS = 2**11  # (voxel, cell) pairs of one step: they fit a core's cache


def phasor(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of pi times a number of half-turns."""
    angle = torch.pi * turn
    return angle.cos(), angle.sin()


@dataclass(frozen=True)
class Axis:
    """The two feature cells around each of n voxels along one axis; all arrays are [n, 2]."""

    cell: np.ndarray  # index, the edge's cell beyond the edge
    delta: np.ndarray  # from the cell's centre, in cells
    weight: np.ndarray  # sums to 1 over the two

    @classmethod
    def between(cls, nodes: Grid, voxels: Grid, axis: int) -> Axis:
        """Where a grid's voxels lie along one axis of a grid parallel to it."""
        position = voxels.axis_offsets_mm(axis, origin=nodes) / nodes.spacing_mm[axis]
        node = np.floor(position).astype(int)[:, None] + np.array([0, 1])
        delta = position[:, None] - node
        return cls(node.clip(0, nodes.shape[axis] - 1), delta, 1 - np.abs(delta))

    def by_cell(self) -> tuple[Axis, np.ndarray]:
        """Flat arrays [2 n] ordered by cell, and each one's place in the flat order before."""
        order = np.argsort(self.cell, axis=None, kind="stable")
        flat = [part.reshape(-1)[order] for part in (self.cell, self.delta, self.weight)]
        return Axis(*flat), order


def groups(cell: np.ndarray, longest: int) -> Iterator[tuple[int, int, int]]:
    """Runs of one cell in a sorted list: (cell, start, stop), none longer than `longest`."""
    edges = np.flatnonzero(np.diff(cell, prepend=cell[0] - 1, append=cell[-1] + 1))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        for first in range(start, stop, longest):
            yield int(cell[start]), first, min(first + longest, stop)


class Layers:
    """An MLP in `reduced` precision, or in that of `like`, without its last bias."""

    def __init__(self, mlp: nn.Sequential, like: Tensor, reduced: torch.dtype | None) -> None:
        linear = [layer for layer in mlp if isinstance(layer, nn.Linear)]
        kind = reduced or like.dtype
        self.weights = [layer.weight.to(like).to(kind) for layer in linear]  # [out, in] each
        self.biases = [layer.bias.to(like).to(kind) for layer in linear[:-1]]
        self.last_bias = linear[-1].bias.to(like)

    def __call__(self, wave: Tensor) -> Tensor:
        """[Q, 2K] -> [Q, C]."""
        hidden = wave.to(self.weights[0])
        for weight, bias in zip(self.weights, self.biases, strict=False):
            hidden = functional.linear(hidden, weight, bias).relu_()
        return hidden @ self.weights[-1].T


@dataclass
class Geometry:
    """The tensors that depend on the two grids alone."""

    x: Axis  # [2 D], by cell
    y: Axis  # [2 H], by cell
    x_voxel: np.ndarray  # [2 D]: the voxel plane of each
    y_voxel: Tensor  # [2 H]: the voxel row of each
    y_delta: Tensor  # [2 H, 1, 1]
    z_delta: Tensor  # [2 W, 1], the two cells of a voxel side by side
    y_cell: Tensor  # [2 H]
    z_cell: Tensor  # [2 W]
    weight: Tensor  # [2 H, 2 W, 1]
    nodes: tuple[int, int, int]
    voxels: tuple[int, int, int]
    rows: list[tuple[int, int, int]] = field(default_factory=list)  # groups of y

    @classmethod
    def between(cls, nodes: Grid, voxels: Grid, like: Tensor) -> Geometry:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.copy()).to(like)

        def index(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.copy()).to(like.device)

        (x, in_x), (y, in_y) = (Axis.between(nodes, voxels, axis).by_cell() for axis in (0, 1))
        z = Axis.between(nodes, voxels, 2)
        weight = np.multiply.outer(y.weight, z.weight.reshape(-1))[..., None]
        longest = max(1, PAIRS_PER_ROWS // (2 * voxels.shape[2]))
        return cls(
            x, y, in_x // 2, index(in_y // 2),
            tensor(y.delta)[:, None, None], tensor(z.delta.reshape(-1))[:, None],
            index(y.cell), index(z.cell.reshape(-1)), tensor(weight),
            nodes.shape, voxels.shape, list(groups(y.cell, longest)),
        )  # fmt: skip


class RowPlane:
    """The contribution of a plane of cells to a plane of voxels, a few rows at a time."""

    def __init__(self, geometry: Geometry, layers: Layers) -> None:
        self.geometry, self.layers = geometry, layers

    def tables(self, frequency: Tensor) -> tuple[Tensor, ...]:
        """Phasors of a plane of cells, from [h, w, 3, K] half-turns per cell along each axis.

        Returns:
            Cosines then sines along y [2 H, w, 2K], the same a quarter turn on (-sines, cosines),
            and along z [h, 2 W, 2K] twice the cosines, and twice the sines.
        """
        g = self.geometry
        cos_y, sin_y = phasor(frequency[:, :, 1].index_select(0, g.y_cell) * g.y_delta)
        cos_z, sin_z = phasor(frequency[:, :, 2].index_select(1, g.z_cell) * g.z_delta)
        pairs = (cos_y, sin_y), (-sin_y, cos_y), (cos_z, cos_z), (sin_z, sin_z)
        return tuple(torch.cat(pair, dim=-1) for pair in pairs)

    def turned(
        self, amplitude: Tensor, frequency: Tensor, delta: float, phase: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Amplitudes [h, w, 2K] times the real and the imaginary part of X."""
        cos, sin = phasor(frequency[:, :, :1] * delta + phase)  # [h, w, 1, K]
        halves = amplitude.unflatten(-1, (2, -1))  # [h, w, 2, K]
        return (halves * cos).flatten(-2), (halves * sin).flatten(-2)

    def __call__(self, turned: tuple[Tensor, ...], tables: tuple[Tensor, ...]) -> Tensor:
        """Values [H, W, C] from the results of `turned` and `tables`."""
        real, imag = turned
        geometry, (y, y_turned, z_real, z_imag) = self.geometry, tables
        values = []
        for cell, start, stop in geometry.rows:
            here, after = y[start:stop], y_turned[start:stop]  # [R, w, 2K]
            p, q = real[cell], imag[cell]  # [w, 2K]
            even = torch.addcmul(p * here, q, after).index_select(1, geometry.z_cell)
            odd = torch.addcmul(p * after, q, here, value=-1).index_select(1, geometry.z_cell)
            wave = torch.addcmul(even * z_real[cell], odd, z_imag[cell])  # [R, 2 W, 2K]
            values.append(self.layers(wave.flatten(0, 1)).unflatten(0, (stop - start, -1)))
        weighed = torch.cat(values).to(geometry.weight) * geometry.weight  # [2 H, 2 W, C]
        rows: Tensor = weighed.unflatten(1, (-1, 2)).sum(2)  # both cells along z
        plane = rows.new_zeros(geometry.voxels[1], *rows.shape[1:])
        return plane.index_add(0, geometry.y_voxel, rows)  # both cells along y


def render(
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    mlp: nn.Sequential,
    nodes: Grid,
    voxels: Grid,
) -> Tensor:
    """The local ensemble of MLP(A * [cos pi t, sin pi t]), t = F . delta + phase.

    Angles are never taken in reduced precision; under `torch.autocast` the MLP is. Beside
    the result it holds the phasors of one plane of cells. Gradients flow.

    Args:
        amplitude: [B, 2K, d, h, w]: A, for cosines, then for sines.
        frequency: [B, 3K, d, h, w]: F in half-turns per cell, frequency by frequency.
        phase: [K].
        mlp: From `medil.layers.blocks.mlp`, 2K channels in.
        nodes: Feature grid.
        voxels: Target grid, parallel to it.

    Returns:
        [B, C, D, H, W].
    """
    kind = amplitude.device.type
    reduced = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    with torch.autocast(kind, enabled=False):
        geometry = Geometry.between(nodes, voxels, amplitude)
        layers = Layers(mlp, amplitude, reduced)
        finish = RowPlane(geometry, layers)
        items = [
            _render_one(a, f.unflatten(0, (-1, 3)), phase, geometry, finish)
            for a, f in zip(amplitude, frequency, strict=True)
        ]
        return torch.stack(items) + layers.last_bias.reshape(-1, 1, 1, 1)


def _render_one(
    amplitude: Tensor, frequency: Tensor, phase: Tensor, geometry: Geometry, finish: RowPlane
) -> Tensor:
    """[2K, d, h, w] amplitudes and [K, 3, d, h, w] frequencies -> [C, D, H, W]."""
    amplitudes, frequencies = amplitude.unbind(1), frequency.unbind(2)  # planes of cells
    planes: list[Tensor | None] = [None] * geometry.voxels[0]
    for cell, start, stop in groups(geometry.x.cell, 2 * len(planes)):
        a = channels_last(amplitudes[cell])  # [h, w, 2K]
        f = channels_last(frequencies[cell].transpose(0, 1).flatten(0, 1)).unflatten(2, (3, -1))
        tables = finish.tables(f)
        for pair in range(start, stop):
            turned = finish.turned(a, f, float(geometry.x.delta[pair]), phase)
            part = finish(turned, tables) * float(geometry.x.weight[pair])
            voxel = int(geometry.x_voxel[pair])
            before = planes[voxel]
            planes[voxel] = part if before is None else before + part
    return torch.stack([p for p in planes if p is not None]).movedim(-1, 0)


def channels_last(plane: Tensor) -> Tensor:
    """[C, h, w] -> [h, w, C], by way of one matrix, which is transposed a few times faster."""
    last: Tensor = plane.flatten(1).contiguous().T.contiguous().unflatten(0, plane.shape[1:])
    return last
