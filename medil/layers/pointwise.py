"""Resampling operators that answer one point at a time: a small MLP on what lies around it.

`LiteralLTE` is the paper's operator; the others take its ideas away one after the other.
`FixedMLP` keeps the waves but fixes their frequencies, `LIIF` hands the MLP the features and
the place within the cell, `Trilinear` (MedIL-Interp) the interpolated features alone. All are
evaluated at voxel centres: nothing here knows that a voxel is an average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid, centres_mm
from medil.layers.blocks import at_least_float, mlp
from medil.layers.literal_fast import render
from medil.regrid import sample_trilinear

QUERIES_PER_CHUNK = 2**15


def neighbours(
    index_vox: np.ndarray, shape: tuple[int, int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The 8 feature cells around each query, with distances and ensemble weights.

    Args:
        index_vox: [Q, 3] queries in cells of the feature grid.
        shape: (d, h, w) of the feature grid.

    Yields:
        Eight times: flat index of the cell [Q] (the edge's cell beyond the edge), delta
        [Q, 3] from the cell's centre in cells, and weight [Q]; weights sum to 1.
    """
    first = np.floor(index_vox).astype(int)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    for step in product((0, 1), repeat=3):
        node = first + np.array(step)
        delta = index_vox - node
        weight = np.prod(1 - np.abs(delta), axis=-1)  # the volume of the opposite corner's box
        yield node.clip(0, np.asarray(shape) - 1) @ strides, delta, weight


def cells_of(features: Tensor) -> Tensor:
    """[B, C, d, h, w] -> [B, N, C]: one row a cell, quick to look up."""
    return at_least_float(features).flatten(2).mT.contiguous()


def cell_size(nodes: Grid, voxels: Grid, like: Tensor) -> Tensor:
    """[3] size of a voxel in feature cells."""
    size = np.asarray(voxels.spacing_mm) / np.asarray(nodes.spacing_mm)
    return torch.from_numpy(size).to(like)


def local_ensemble(
    answer: Callable[[Tensor, Tensor], Tensor], nodes: Grid, voxels: Grid, like: Tensor
) -> Tensor:
    """Every voxel centre's 8 answers, weighed by nearness (LIIF Sec. 3.2, LTE Eq. 6).

    Args:
        answer: Cells [Q] and delta [Q, 3] in cells to values [B, Q, C].
        nodes: Feature grid.
        voxels: Target grid; may be oblique.
        like: Gives the result's precision and device.

    Returns:
        [B, C, D, H, W].
    """
    index_vox = nodes.ras_to_index(centres_mm(voxels).reshape(-1, 3).numpy())
    chunks = []
    for chunk in np.array_split(index_vox, math.ceil(len(index_vox) / QUERIES_PER_CHUNK)):
        total = torch.zeros((), dtype=like.dtype, device=like.device)
        for place, delta, weight in neighbours(chunk, nodes.shape):
            cell = torch.from_numpy(place).to(like.device)
            value = answer(cell, torch.from_numpy(delta).to(like))
            total = total + value * torch.from_numpy(weight).to(like)[:, None]
        chunks.append(total)
    flat = torch.cat(chunks, dim=1)  # [B, Q, C]
    return flat.mT.reshape(len(flat), -1, *voxels.shape)


def is_fast(nodes: Grid, voxels: Grid, features: Tensor) -> bool:
    """Whether `literal_fast.render` is the faster form: parallel grids and no gradients.

    It works row by row, which suits the caches of a CPU but not a GPU. Its gradients are right,
    but on patches of 24 and 40 voxels a side forward and backward took twice as long as with
    `local_ensemble`, in as much memory.
    """
    slow = torch.is_grad_enabled() or features.is_cuda
    return nodes.is_parallel_to(voxels) and not slow


class LiteralLTE(nn.Module):
    """The Local Texture Estimator of Lee & Jin (2022, Eq. 4-7), lifted from 2-D to 3-D.

    For each of the 8 cells around a query: h = A * [cos pi t, sin pi t] with
    t_k = F_k . delta + phi_k(cell), then an MLP, then the local ensemble's weighted mean.
    Amplitude A and frequencies F are 3x3x3 convolutions of the features, the phase phi is
    linear in the size of the target voxel, measured in feature cells.

    Our choices where the papers are silent: delta is in cells (LTE: two units a cell; the
    factor goes into F), weights are trilinear beyond the outermost centres too, and LTE's
    global skip (the interpolated image) is left to the caller.

    Args:
        channels_in: C of the features.
        channels_out: C of the result.
        frequencies: K, frequencies a cell.
        hidden: MLP width.

    Attributes:
        reach: How far beyond a voxel's faces it looks, in feature cells.
    """

    reach = 2

    def __init__(self, channels_in: int, channels_out: int, frequencies: int, hidden: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv3d(channels_in, 2 * frequencies, 3, padding=1)
        self.frequency = nn.Conv3d(channels_in, 3 * frequencies, 3, padding=1)
        self.phase = nn.Linear(3, frequencies, bias=False)
        self.mlp = mlp(2 * frequencies, hidden, channels_out)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        amplitude = at_least_float(self.amplitude(features))  # [B, 2K, d, h, w]
        frequency = at_least_float(self.frequency(features))  # [B, 3K, d, h, w], one by one
        phase = at_least_float(self.phase(cell_size(nodes, voxels, features)))  # [K]
        if is_fast(nodes, voxels, features):
            return render(amplitude, frequency, phase, self.mlp, nodes, voxels)
        return self.plain(amplitude, frequency, phase, nodes, voxels)

    def plain(
        self, amplitude: Tensor, frequency: Tensor, phase: Tensor, nodes: Grid, voxels: Grid
    ) -> Tensor:
        """One query and one cell at a time, for any grid; what the fast form is judged by.

        Args:
            amplitude: [B, 2K, d, h, w] on `nodes`: for cosines, then for sines.
            frequency: [B, 3K, d, h, w], frequency by frequency.
            phase: [K].
            nodes: Feature grid.
            voxels: Target grid; may be oblique.

        Returns:
            [B, channels_out, D, H, W].
        """
        amplitude, frequency = cells_of(amplitude), cells_of(frequency)  # [B, N, 2K], [B, N, 3K]

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            f = frequency.index_select(1, cell).unflatten(-1, (-1, 3))  # [B, Q, K, 3]
            angle = torch.pi * ((f * delta[:, None]).sum(-1) + phase)
            wave = torch.cat([angle.cos(), angle.sin()], dim=-1)  # [B, Q, 2K]
            return self.mlp(amplitude.index_select(1, cell) * wave)

        return local_ensemble(answer, nodes, voxels, amplitude)


class FixedMLP(nn.Module):
    """Half-way to the paper: `LiteralLTE` with its frequencies frozen to the integrated set.

    Args:
        channels_in: C of the features.
        channels_out: C of the result.
        waves: [K, 3] frequencies in half-cycles a cell, such as `content_lte.plane_waves`.
        hidden: MLP width.

    Attributes:
        reach: How far beyond a voxel's faces it looks, in feature cells.
    """

    reach = 2
    waves: Tensor

    def __init__(self, channels_in: int, channels_out: int, waves: Tensor, hidden: int) -> None:
        super().__init__()
        self.register_buffer("waves", waves.float(), persistent=False)
        self.amplitude = nn.Conv3d(channels_in, 2 * len(waves), 3, padding=1)
        self.phase = nn.Linear(3, len(waves), bias=False)
        self.mlp = mlp(2 * len(waves), hidden, channels_out)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        amplitude = at_least_float(self.amplitude(features))  # [B, 2K, d, h, w]
        phase = at_least_float(self.phase(cell_size(nodes, voxels, features)))  # [K]
        if is_fast(nodes, voxels, features):
            waves = self.waves.to(amplitude).reshape(1, -1, 1, 1, 1)
            frequency = waves.expand(len(amplitude), -1, *nodes.shape)  # the same in every cell
            return render(amplitude, frequency, phase, self.mlp, nodes, voxels)
        return self.plain(amplitude, phase, nodes, voxels)

    def plain(self, amplitude: Tensor, phase: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """As `LiteralLTE.plain`, from [B, 2K, d, h, w] amplitudes and [K] phases."""
        amplitude = cells_of(amplitude)  # [B, N, 2K]

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            with torch.autocast(delta.device.type, enabled=False):
                angle = torch.pi * (delta @ self.waves.T.to(delta) + phase)  # [Q, K]
            wave = torch.cat([angle.cos(), angle.sin()], dim=-1)  # [Q, 2K]
            return self.mlp(amplitude.index_select(1, cell) * wave)

        return local_ensemble(answer, nodes, voxels, amplitude)


class LIIF(nn.Module):
    """Local implicit image function (Chen et al. 2021): features, place in the cell, cell size.

    Our choice: no feature unfolding, since the convolutions before it see the neighbours.

    Args:
        channels_in: C of the features.
        channels_out: C of the result.
        hidden: MLP width.
    """

    reach = 1  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, hidden: int) -> None:
        super().__init__()
        self.mlp = mlp(channels_in + 6, hidden, channels_out)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        rows = cells_of(features)  # [B, N, C]
        size = cell_size(nodes, voxels, rows)

        def answer(cell: Tensor, delta: Tensor) -> Tensor:
            # Distances in units of half a cell, as in LIIF.
            place = torch.cat([2 * delta, size.expand_as(delta)], dim=-1)  # [Q, 6]
            near = rows.index_select(1, cell)
            return self.mlp(torch.cat([near, place.expand(len(near), -1, -1)], dim=-1))

        return local_ensemble(answer, nodes, voxels, rows)


class Trilinear(nn.Module):
    """MedIL-Interp: trilinear interpolation of the features, then the same MLP as LTE's."""

    reach = 1  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, hidden: int) -> None:
        super().__init__()
        self.mlp = mlp(channels_in, hidden, channels_out)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        points = centres_mm(voxels).reshape(-1, 3)
        n_chunks = math.ceil(len(points) / QUERIES_PER_CHUNK)
        values = [
            self.mlp(sample_trilinear(features, nodes, chunk).mT)  # [B, Q, C]
            for chunk in points.tensor_split(n_chunks)
        ]
        return torch.cat(values, dim=1).mT.reshape(len(features), -1, *voxels.shape)
