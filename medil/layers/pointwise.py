"""Resampling operators that evaluate one point at a time: a small MLP on nearby features.

`LiteralLTE` is the paper's operator; the others take its ideas away one after the other.
`FixedMLP` keeps the waves but fixes their frequencies, `LIIF` hands the MLP the features and
the place within the cell, `Trilinear` (MedIL-Interp) the interpolated features alone. All are
evaluated at voxel centres: nothing here knows that a voxel is an average.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid, centres_mm, points_to_index
from medil.layers.blocks import at_least_float, mlp
from medil.layers.literal_fast import render
from medil.regrid import sample_trilinear

QUERIES_PER_CHUNK = 2**15


def neighbours(
    index_vox: Tensor, shape: tuple[int, int, int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The 8 feature cells around each query, with distances and ensemble weights.

    Args:
        index_vox: [Q, 3] float64 queries in cells of the feature grid; gradients flow to them.
        shape: (d, h, w) of the feature grid.

    Yields:
        Eight times: flat index of the cell [Q] (the edge's cell beyond the edge), delta
        [Q, 3] from the cell's centre in cells, and weight [Q]; weights sum to 1.
    """
    first = index_vox.detach().floor()
    last = torch.tensor(shape, device=first.device) - 1
    strides = torch.tensor((shape[1] * shape[2], shape[2], 1), device=first.device)
    for step in product((0, 1), repeat=3):
        node = first + torch.tensor(step, device=first.device)
        delta = index_vox - node
        weight = (1 - delta.abs()).prod(-1)  # the volume of the opposite corner's box
        yield (node.long().clamp(min=0).minimum(last) * strides).sum(-1), delta, weight


def cells_of(features: Tensor) -> Tensor:
    """[B, C, d, h, w] -> [B, N, C]: one row per cell, quick to look up."""
    return at_least_float(features).flatten(2).mT.contiguous()


def cell_size(nodes: Grid, edges_mm: np.ndarray | None, like: Tensor) -> Tensor:
    """[3] size of a voxel in feature cells, from its edges; zero for a point (None)."""
    edges_mm = np.zeros((3, 3)) if edges_mm is None else edges_mm
    size = np.linalg.norm(edges_mm, axis=0) / np.asarray(nodes.spacing_mm)
    return torch.from_numpy(size).to(like)


def local_ensemble(
    answer: Callable[[Tensor, Tensor], Tensor], nodes: Grid, points_mm: Tensor, like: Tensor
) -> Tensor:
    """The 8 predictions around each point, weighted by nearness (LIIF 3.2, LTE Eq. 6): [B, C, Q].

    Args:
        answer: Cells [Q] and delta [Q, 3] in cells to values [B, Q, C].
        nodes: Feature grid.
        points_mm: [Q, 3] RAS+ points, in mm.
        like: Gives the result's precision and device.
    """
    chunks = []
    for chunk in points_mm.split(QUERIES_PER_CHUNK):
        total = torch.zeros((), dtype=like.dtype, device=like.device)
        for cell, delta, weight in neighbours(points_to_index(nodes, chunk), nodes.shape):
            value = answer(cell.to(like.device), delta.to(like))
            total = total + value * weight.to(like)[:, None]
        chunks.append(total)
    return torch.cat(chunks, dim=1).mT  # [B, C, Q]


class PointOperator(nn.Module, ABC):
    """An operator that is defined at points; on a grid it is evaluated at voxel centres."""

    @abstractmethod
    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """Values at scattered points.

        Args:
            features: [B, C, d, h, w] on `nodes`.
            nodes: Feature grid.
            points_mm: [Q, 3] RAS+ points, in mm; gradients flow to them.
            edges_mm: [3, 3] edges of the voxel around each point, in RAS+ mm, one per column;
                None: a point, which is a voxel of size 0.

        Returns:
            [B, channels_out, Q].
        """

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        points_mm = centres_mm(voxels).reshape(-1, 3)
        values = self.at(features, nodes, points_mm, voxels.edges_mm)
        image: Tensor = values.unflatten(-1, voxels.shape)
        return image


def is_fast(nodes: Grid, voxels: Grid, features: Tensor) -> bool:
    """Whether `literal_fast.render` is the faster form: parallel grids and no gradients.

    It works row by row, which suits the caches of a CPU but not a GPU. Its gradients are right,
    but on patches of 24^3 and 40^3 voxels forward and backward took twice as long as with
    `local_ensemble`, in as much memory.
    """
    slow = torch.is_grad_enabled() or features.is_cuda
    return nodes.is_parallel_to(voxels) and not slow


class WaveMLP(PointOperator):
    """Waves of each of the 8 cells around a query, an MLP, then the local ensemble's weighted mean.

    h = A * [cos pi t, sin pi t] with t_k = F_k . delta + phi_k(cell) enters the MLP. Amplitude A
    is a 3x3x3 convolution of the features, the phase phi is linear in the size of the target
    voxel, measured in feature cells.
    """

    reach = 2  # beyond a voxel's faces, in feature cells
    amplitude: nn.Conv3d
    phase: nn.Linear
    mlp: nn.Sequential

    @abstractmethod
    def frequency_maps(self, features: Tensor) -> Tensor:
        """[B, 3K, d, h, w] F of every cell, in half-cycles per cell, frequency by frequency."""

    @abstractmethod
    def turns(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of cells [Q] and delta [Q, 3] in cells: F . delta, [..., Q, K]."""

    def coefficients(
        self, features: Tensor, nodes: Grid, edges_mm: np.ndarray | None
    ) -> tuple[Tensor, Tensor]:
        """Amplitudes [B, 2K, d, h, w], for cosines, then for sines, and phases [K]."""
        phase = self.phase(cell_size(nodes, edges_mm, features))
        return at_least_float(self.amplitude(features)), at_least_float(phase)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        if not is_fast(nodes, voxels, features):
            return super().forward(features, nodes, voxels)
        amplitude, phase = self.coefficients(features, nodes, voxels.edges_mm)
        return render(amplitude, self.frequency_maps(features), phase, self.mlp, nodes, voxels)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `PointOperator.at`, one point and one cell at a time: the reference of `render`."""
        amplitude, phase = self.coefficients(features, nodes, edges_mm)
        amplitude, turns = cells_of(amplitude), self.turns(features)  # [B, N, 2K]

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            angle = torch.pi * (turns(cell, delta) + phase)
            wave = torch.cat([angle.cos(), angle.sin()], dim=-1)  # [..., Q, 2K]
            values: Tensor = self.mlp(amplitude.index_select(1, cell) * wave)
            return values

        return local_ensemble(answer, nodes, points_mm, amplitude)


class LiteralLTE(WaveMLP):
    """The Local Texture Estimator of Lee & Jin (2022, Eq. 4-7), lifted from 2-D to 3-D.

    `WaveMLP` with K frequencies that are 3x3x3 convolutions of the features. Our choices where
    the papers are silent: delta is in cells (LTE: two units per cell; the factor goes into F),
    weights are trilinear beyond the outermost centres too, and LTE's global skip (the
    interpolated image) is left to the caller.
    """

    def __init__(self, channels_in: int, channels_out: int, frequencies: int, hidden: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv3d(channels_in, 2 * frequencies, 3, padding=1)
        self.frequency = nn.Conv3d(channels_in, 3 * frequencies, 3, padding=1)
        self.phase = nn.Linear(3, frequencies, bias=False)
        self.mlp = mlp(2 * frequencies, hidden, channels_out)

    def frequency_maps(self, features: Tensor) -> Tensor:
        """The convolution, never in reduced precision."""
        return at_least_float(self.frequency(features))

    def turns(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """As `WaveMLP.turns`: [B, Q, K]."""
        rows = cells_of(self.frequency_maps(features))  # [B, N, 3K]

        def turned(cell: Tensor, delta: Tensor) -> Tensor:
            f = rows.index_select(1, cell).unflatten(-1, (-1, 3))  # [B, Q, K, 3]
            half_turns: Tensor = (f * delta[:, None]).sum(-1)
            return half_turns

        return turned


class FixedMLP(WaveMLP):
    """Half-way to the paper: `LiteralLTE` with its frequencies frozen to the integrated set.

    `waves` are [K, 3] frequencies in half-cycles per cell, such as `content_lte.plane_waves`.
    """

    waves: Tensor

    def __init__(self, channels_in: int, channels_out: int, waves: Tensor, hidden: int) -> None:
        super().__init__()
        self.register_buffer("waves", waves.float(), persistent=False)
        self.amplitude = nn.Conv3d(channels_in, 2 * len(waves), 3, padding=1)
        self.phase = nn.Linear(3, len(waves), bias=False)
        self.mlp = mlp(2 * len(waves), hidden, channels_out)

    def frequency_maps(self, features: Tensor) -> Tensor:
        """The same in every cell: a view."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        waves = self.waves.to(features.device, dtype).reshape(1, -1, 1, 1, 1)
        return waves.expand(len(features), -1, *features.shape[2:])

    def turns(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """As `WaveMLP.turns`: [Q, K], never in reduced precision."""

        def turned(cell: Tensor, delta: Tensor) -> Tensor:
            with torch.autocast(delta.device.type, enabled=False):
                return delta @ self.waves.T.to(delta)

        return turned


class LIIF(PointOperator):
    """Local implicit image function (Chen et al. 2021): features, place in the cell, cell size.

    Our choice: no feature unfolding, since the convolutions before it see the neighbours.
    """

    reach = 1  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, hidden: int) -> None:
        super().__init__()
        self.mlp = mlp(channels_in + 6, hidden, channels_out)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `PointOperator.at`."""
        rows = cells_of(features)  # [B, N, C]
        size = cell_size(nodes, edges_mm, rows)

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            # Distances in units of half a cell, as in LIIF.
            place = torch.cat([2 * delta, size.expand_as(delta)], dim=-1)  # [Q, 6]
            near = rows.index_select(1, cell)
            told = torch.cat([near, place.expand(len(near), -1, -1)], dim=-1)
            values: Tensor = self.mlp(told)
            return values

        return local_ensemble(answer, nodes, points_mm, rows)


class Trilinear(PointOperator):
    """MedIL-Interp: trilinear interpolation of the features, then the same MLP as LTE's."""

    reach = 1  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, hidden: int) -> None:
        super().__init__()
        self.mlp = mlp(channels_in, hidden, channels_out)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `PointOperator.at`; the size of the voxels plays no part."""
        values = [
            self.mlp(sample_trilinear(features, nodes, chunk).mT)  # [B, Q, C]
            for chunk in points_mm.split(QUERIES_PER_CHUNK)
        ]
        return torch.cat(values, dim=1).mT


class SkipLTE(PointOperator):
    """LTE as the paper's first author builds it in a later library: waves by axis, and a skip.

    For each of the 8 cells around a query an MLP takes A * [cos pi t, sin pi t], where
    t_ka = F_ka delta_a + phi_ka for K frequencies along each axis a: 6 K numbers. The phase phi is
    linear in the size of the target voxel in mm. MedIL-Interp (`Trilinear`) is added, and the
    MLP's last layer starts at zero, so that training starts from MedIL-Interp.

    Source: TylerSpears/epinr; whether the paper's own runs had the skip is not known.
    """

    reach = 2  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, frequencies: int, hidden: int) -> None:
        super().__init__()
        n = 3 * frequencies
        self.amplitude = nn.Conv3d(channels_in, 2 * n, 3, padding=1)
        self.frequency = nn.Conv3d(channels_in, n, 3, padding=1)
        self.phase = nn.Linear(3, n, bias=False)
        self.mlp = mlp(2 * n, hidden, channels_out)
        self.skip = Trilinear(channels_in, channels_out, hidden)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `PointOperator.at`."""
        amplitude = cells_of(self.amplitude(features))  # [B, N, 6K]
        frequency = cells_of(self.frequency(features))  # [B, N, 3K], axis by axis for each k
        edges_mm = np.zeros((3, 3)) if edges_mm is None else edges_mm
        size_mm = torch.from_numpy(np.linalg.norm(edges_mm, axis=0)).to(features)
        phase = at_least_float(self.phase(size_mm))

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            along = delta.repeat(1, len(phase) // 3)  # [Q, 3K]
            angle = torch.pi * (frequency.index_select(1, cell) * along + phase)
            wave = torch.cat([angle.cos(), angle.sin()], dim=-1)
            values: Tensor = self.mlp(amplitude.index_select(1, cell) * wave)
            return values

        skip = self.skip.at(features, nodes, points_mm, edges_mm)
        return local_ensemble(answer, nodes, points_mm, amplitude) + skip
