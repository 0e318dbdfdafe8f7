"""The resampling operator: features on one grid become values on any other.

Three forms behind one call, `layer(features, nodes, voxels)`:

- `IntegratedLTE` (ours, default): fixed local frequencies, amplitudes from the
  features, every function averaged over the target voxel. Linear in the amplitudes.
- `LiteralLTE` (the paper's): frequencies and amplitudes from the features, phase from
  the voxel size, a local ensemble over 8 neighbours, an MLP.
- `Trilinear` (MedIL-Interp): interpolated features and the same MLP.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from medil.blocks import silent
from medil.config import ModelConfig
from medil.grid import Grid, centres_mm, sample_trilinear
from medil.resample import synthesise
from medil.texture import local_fourier

QUERIES_PER_CHUNK = 2**15


class IntegratedLTE(nn.Module):
    """Fixed-frequency, cell-integrated Local Texture Estimator.

    y(voxel) = mean over the voxel of sum_n sum_j a_j(n) phi_j((x - p_n) / pitch), with
    phi = hat x {1, sin pi d, cos pi d, ...} an axis and a_j a 1x1x1 convolution of the
    features. The hat is LTE's local ensemble. Departures from LTE: the frequencies are
    fixed, there is no MLP, and a voxel is an average over its cell, not a point.

    Args:
        channels_in: C of the features.
        channels_out: C of the result.
        harmonics: K; J = 2 K + 1 functions an axis.
    """

    def __init__(self, channels_in: int, channels_out: int, harmonics: int) -> None:
        super().__init__()
        self.basis = local_fourier(harmonics)
        self.channels_out = channels_out
        n_amplitudes = channels_out * self.basis.n_functions**3
        self.amplitude = silent(nn.Conv3d(channels_in, n_amplitudes, 1))

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        j = self.basis.n_functions
        amplitudes = self.amplitude(features)
        shape = (len(features), self.channels_out, j, j, j, *features.shape[2:])
        return synthesise(amplitudes.reshape(shape), self.basis, nodes, voxels)


def neighbours(index_vox: np.ndarray, shape: tuple[int, int, int]):
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
    """

    def __init__(self, channels_in: int, channels_out: int, frequencies: int, hidden: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv3d(channels_in, 2 * frequencies, 3, padding=1)
        self.frequency = nn.Conv3d(channels_in, 3 * frequencies, 3, padding=1)
        self.phase = nn.Linear(3, frequencies, bias=False)
        self.mlp = mlp(2 * frequencies, hidden, channels_out)

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        amplitude = self.amplitude(features).flatten(2)  # [B, 2K, N]
        frequency = self.frequency(features).unflatten(1, (-1, 3)).flatten(3)  # [B, K, 3, N]
        cell = np.asarray(voxels.spacing_mm) / np.asarray(nodes.spacing_mm)
        phase = self.phase(torch.from_numpy(cell).to(features))  # [K]
        index_vox = nodes.ras_to_index(centres_mm(voxels).reshape(-1, 3).numpy())
        n_chunks = math.ceil(len(index_vox) / QUERIES_PER_CHUNK)
        values = [
            self._queries(amplitude, frequency, phase, chunk, nodes.shape)
            for chunk in np.array_split(index_vox, n_chunks)
        ]
        return torch.cat(values, dim=1).mT.reshape(len(features), -1, *voxels.shape)

    def _queries(
        self, amplitude: Tensor, frequency: Tensor, phase: Tensor, index_vox: np.ndarray, shape
    ) -> Tensor:
        total = torch.zeros((), dtype=amplitude.dtype, device=amplitude.device)
        for place, delta, weight in neighbours(index_vox, shape):
            cell = torch.from_numpy(place).to(amplitude.device)
            offset = torch.from_numpy(delta.T.copy()).to(amplitude)  # [3, Q]
            angle = torch.pi * ((frequency[..., cell] * offset).sum(2) + phase[:, None])
            wave = torch.cat([angle.cos(), angle.sin()], dim=1)  # [B, 2K, Q]
            value = self.mlp((amplitude[..., cell] * wave).mT)  # [B, Q, C]
            total = total + value * torch.from_numpy(weight).to(value)[:, None]
        return total


class Trilinear(nn.Module):
    """MedIL-Interp: trilinear interpolation of the features, then the same MLP as LTE's."""

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


def mlp(channels_in: int, hidden: int, channels_out: int) -> nn.Sequential:
    """Two hidden layers; the last one starts silent."""
    return nn.Sequential(
        nn.Linear(channels_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        silent(nn.Linear(hidden, channels_out)),
    )


def make_operator(config: ModelConfig, kind: str, channels_in: int, channels_out: int) -> nn.Module:
    """The resampling operator that a configuration names."""
    if kind == "integrated":
        return IntegratedLTE(channels_in, channels_out, config.harmonics)
    if kind == "literal":
        return LiteralLTE(channels_in, channels_out, config.frequencies, config.hidden)
    return Trilinear(channels_in, channels_out, config.hidden)
