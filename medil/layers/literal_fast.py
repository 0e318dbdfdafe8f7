"""Local waves on parallel grids: the angle is a sum over the axes, so the wave is a product.

exp(i pi (f . delta + phase)) = X Y Z, one phasor an axis. A phasor depends on a feature cell
and on one coordinate of the voxels near it, so that cosines and sines are taken for planes of
(cell, coordinate), not for every (voxel, cell); what is left to each of a voxel's 8
cells is two products and the MLP. Same maths as
`medil.layers.pointwise.local_ensemble`, which judges.

Two forms of one loop: rows of voxels with plain tensor operations, and longer blocks of
voxels with waves by `torch.compile`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid
from medil.layers.fused import PRODUCT_ROWS, compiler, of_any_length, packed, phasor, relu_linear

PAIRS_PER_ROWS = 2**11  # (voxel, cell) pairs that an eager step takes: fits a core's cache
VOXELS_PER_BLOCK = PRODUCT_ROWS // 2  # of a plane, four cells each: two products


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


@dataclass
class Layers:
    """An MLP as matrices, in the precision its products are taken in."""

    weights: list[Tensor]  # [out, in] each
    biases: list[Tensor]  # of the hidden layers
    last_bias: Tensor
    packs: list[Tensor]  # of the hidden layers, as `relu_linear` takes them

    @classmethod
    def of(cls, mlp: nn.Sequential, like: Tensor, reduced: torch.dtype | None) -> Layers:
        """Matrices in `reduced` precision, or that of `like`."""
        linear = [layer for layer in mlp if isinstance(layer, nn.Linear)]
        low = reduced or like.dtype
        weights = [layer.weight.to(like).to(low) for layer in linear]
        hidden = [layer.bias.to(like).to(low) for layer in linear[:-1]]
        packs = [packed(weight) for weight in weights[:-1]]
        return cls(weights, hidden, linear[-1].bias.to(like), packs)

    def __call__(self, wave: Tensor) -> Tensor:
        """[Q, 2K] through the MLP, without its last bias: [Q, C]."""
        values = []
        for hidden in wave.to(self.weights[0]).split(PRODUCT_ROWS):
            for layer in zip(self.weights, self.biases, self.packs, strict=False):
                hidden = relu_linear(hidden, *layer)
            values.append(hidden @ self.weights[-1].T)
        return values[0] if len(values) == 1 else torch.cat(values)


@dataclass
class Geometry:
    """What depends on the two grids alone, as tensors."""

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
    """What one plane of cells adds to one plane of voxels, a few rows at a time."""

    def __init__(self, geometry: Geometry, layers: Layers) -> None:
        self.geometry, self.layers = geometry, layers

    def tables(self, frequency: Tensor) -> Any:
        """Phasors of a plane of cells, from [h, w, 3, K] half-turns a cell along each axis."""
        return widened(*plane_phasors(frequency, self.geometry))

    def turned(
        self, amplitude: Tensor, frequency: Tensor, delta: float, phase: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Amplitudes [h, w, 2K] times the real and the imaginary part of X."""
        cos, sin = phasor(frequency[:, :, :1] * delta + phase)  # [h, w, 1, K]
        halves = amplitude.unflatten(-1, (2, -1))  # [h, w, 2, K]
        return (halves * cos).flatten(-2), (halves * sin).flatten(-2)

    def __call__(self, turned: tuple[Tensor, ...], tables: Any) -> Tensor:
        """From what the other two methods return to values [H, W, C]."""
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
        rows = weighed.unflatten(1, (-1, 2)).sum(2)  # both cells along z
        plane = rows.new_zeros(geometry.voxels[1], *rows.shape[1:])
        return plane.index_add(0, geometry.y_voxel, rows)  # both cells along y


def plane_phasors(frequency: Tensor, geometry: Geometry) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Cosines, then sines along y in one [2 H, w, 2K], and along z in two [h, 2 W, K]."""
    along_y = frequency[:, :, 1].index_select(0, geometry.y_cell) * geometry.y_delta
    along_z = frequency[:, :, 2].index_select(1, geometry.z_cell) * geometry.z_delta
    return torch.cat(phasor(along_y), dim=-1), phasor(along_z)


def widened(y: Tensor, z: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """y, y a quarter turn on (-sines, cosines), the cosines of z twice, its sines twice."""
    cos_y, sin_y = y.chunk(2, dim=-1)
    turned = torch.cat([-sin_y, cos_y], dim=-1)
    cos_z, sin_z = z
    return y, turned, torch.cat([cos_z, cos_z], dim=-1), torch.cat([sin_z, sin_z], dim=-1)


def block_index(geometry: Geometry, longest: int) -> tuple[list[tuple[Tensor, ...]], Tensor]:
    """Every voxel of a plane and its four cells, as rows of the tables and as weights.

    Args:
        geometry: Of the two grids.
        longest: Voxels of a block at most.

    Returns:
        Blocks of rows [4 Q] of the amplitudes, of y and of z; and weights [4 H W, 1].
    """
    (_, _, n_columns), (_, height, width) = geometry.nodes, geometry.voxels
    device = geometry.z_cell.device
    place = torch.argsort(geometry.y_voxel, stable=True)  # [2 H]: both cells of voxel 0, of 1, ...
    place = place.reshape(height, 1, 2, 1)
    cell_y = geometry.y_cell[place]
    cell_z = geometry.z_cell.reshape(1, width, 1, 2)
    pair_z = torch.arange(2 * width, device=device).reshape(1, width, 1, 2)
    parts = (cell_y * n_columns + cell_z, place * n_columns + cell_z, cell_y * 2 * width + pair_z)
    index = torch.stack([p.expand(height, width, 2, 2).reshape(-1, 4) for p in parts])
    blocks = index.tensor_split(math.ceil(height * width / longest), dim=1)
    share = geometry.weight[place, pair_z, 0].reshape(-1, 1)
    return [part.flatten(1).unbind() for part in blocks], share


class BlockPlane:
    """`RowPlane` by compiled blocks of voxels."""

    def __init__(self, geometry: Geometry, layers: Layers) -> None:
        self.geometry, self.layers, self.compiler = geometry, layers, compiler()
        self.index, self.share = block_index(geometry, VOXELS_PER_BLOCK)
        of_any_length(*(rows for block in self.index for rows in block))
        (n_rows, n_columns), y, z = geometry.nodes[1:], geometry.y_cell, geometry.z_cell
        columns = torch.arange(n_columns, device=y.device)
        rows = torch.arange(n_rows, device=y.device)[:, None]
        self.y_cell = (y[:, None] * n_columns + columns).flatten()  # [2 H w]
        self.y_delta = geometry.y_delta.expand(-1, n_columns, 1).reshape(-1, 1)
        self.z_cell = (rows * n_columns + z).flatten()  # [h 2 W]
        self.z_delta = geometry.z_delta.repeat(n_rows, 1)
        of_any_length(self.y_cell, self.y_delta, self.z_cell, self.z_delta)

    def tables(self, frequency: Tensor) -> Any:
        """As `RowPlane.tables`: cosines and sines along y, along z, all rows in one list."""
        _, along_y, along_z = frequency.flatten(0, 1).unbind(1)
        of_any_length(along_y, along_z)
        y = self.compiler.axis_phasors(along_y, self.y_cell, self.y_delta)
        z = self.compiler.axis_phasors(along_z, self.z_cell, self.z_delta)
        of_any_length(*y, *z)
        return y, z

    def turned(
        self, amplitude: Tensor, frequency: Tensor, delta: float, phase: Tensor
    ) -> tuple[Tensor, ...]:
        """As `RowPlane.turned`: the planes as lists."""
        amplitudes, along_x = amplitude.flatten(0, 1), frequency[:, :, 0].flatten(0, 1)
        of_any_length(amplitudes, along_x)
        return self.compiler.turned_amplitudes(amplitudes, along_x, phase.new_tensor(delta), phase)

    def __call__(self, turned: tuple[Tensor, ...], tables: Any) -> Tensor:
        """As `RowPlane`."""
        y, z = tables
        of_any_length(*turned)
        values = []
        for cell, row, column in self.index:
            wave = self.compiler.waves(turned, y, z, cell, row, column, self.layers.weights[0])
            values.append(self.layers(wave))
        weighed = torch.cat(values).to(self.share) * self.share  # [4 H W, C]
        _, height, width = self.geometry.voxels
        return weighed.unflatten(0, (height, width, 4)).sum(2)


def render(
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    mlp: nn.Sequential,
    nodes: Grid,
    voxels: Grid,
    compiled: bool = False,
) -> Tensor:
    """The local ensemble of MLP(A * [cos pi t, sin pi t]), t = F . delta + phase.

    Angles are never taken in reduced precision; under `torch.autocast` the MLP is. Beside
    the result it holds the phasors of one plane of cells. Gradients flow; while they are
    on, nothing is compiled.

    Args:
        amplitude: [B, 2K, d, h, w]: A, for cosines, then for sines.
        frequency: [B, 3K, d, h, w]: F in half-turns a cell, frequency by frequency.
        phase: [K].
        mlp: From `medil.layers.blocks.mlp`, 2K channels in.
        nodes: Feature grid.
        voxels: Target grid, parallel to it.
        compiled: Compile the inner loop (tens of seconds, once in a process and a width).

    Returns:
        [B, C, D, H, W].
    """
    kind = amplitude.device.type
    reduced = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    with torch.autocast(kind, enabled=False):
        geometry = Geometry.between(nodes, voxels, amplitude)
        layers = Layers.of(mlp, amplitude, reduced)
        given = amplitude, frequency, phase, geometry
        # A plane of one cell would be compiled apart: torch.compile takes a size of 1 as fixed.
        sizes = min(geometry.nodes[1] * geometry.nodes[2], geometry.voxels[1] * geometry.voxels[2])
        if compiled and sizes > 1 and not torch.is_grad_enabled() and compiler().works:
            try:
                values = _render_all(*given, BlockPlane(geometry, layers))
            except Exception as error:  # whatever a missing or broken compiler raises
                compiler().give_up(error)
                values = _render_all(*given, RowPlane(geometry, layers))
        else:
            values = _render_all(*given, RowPlane(geometry, layers))
        return values + layers.last_bias.reshape(-1, 1, 1, 1)


def _render_all(
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    geometry: Geometry,
    finish: RowPlane | BlockPlane,
) -> Tensor:
    items = [
        _render_one(a, f.unflatten(0, (-1, 3)), phase, geometry, finish)
        for a, f in zip(amplitude, frequency, strict=True)
    ]
    return torch.stack(items)


def _render_one(
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    geometry: Geometry,
    finish: RowPlane | BlockPlane,
) -> Tensor:
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
    return plane.flatten(1).contiguous().T.contiguous().unflatten(0, plane.shape[1:])
