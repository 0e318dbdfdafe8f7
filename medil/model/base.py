"""What every autoencoder of the comparison shares: a latent in mm, and the closed-form shortcut.

With `closed_form` the latent is a least-squares projection on cubic B-splines plus what a
network adds, and rendering is those splines plus what a network adds (our departure: the
paper learns both ends). Without it both ends are the network's alone. `MedIL` and its rivals
differ in two methods only, `encode_features` and `decode_residual`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medil.config import ModelConfig
from medil.grid import Grid
from medil.layers.bases import cubic_bspline
from medil.layers.blocks import at_least_float, depth_to_space, space_to_depth
from medil.layers.projection import least_squares_slabs, synthesise, synthesise_points
from medil.model.tiles import support

MIDDLE = 0.4  # intensity that the latent's zero stands for, on the 0 ... 1 scale
RESIDUAL_GAIN = 8.0  # the projection's residual is small; the encoder sees it enlarged
DETAIL_GAIN = 8.0  # Haar details are small beside the mean; the decoder sees them enlarged


def haar_matrix(channels: int) -> Tensor:
    """[C, C] orthonormal 3-D Haar transform of a 2x2x2 block, mean first; identity if C != 8."""
    if channels != 8:
        return torch.eye(channels)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
    return torch.kron(torch.kron(pair, pair), pair)


def mix_channels(matrix: Tensor, x: Tensor) -> Tensor:
    """[O, C] on the channels of [B, C, d, h, w], never in reduced precision."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("oc,bcxyz->boxyz", matrix, x.to(matrix))


class SplineShortcut(nn.Module):
    """The closed form: cubic B-splines on the fine grid, whose coefficients are the latent.

    Projection is their least-squares fit to an image, rendering their averages over voxels.
    Coefficients are folded, `fine_per_latent` a latent cell and axis, and Haar-transformed.

    Attributes:
        reach_cells: How far beyond a voxel's faces rendering looks, in latent cells.
    """

    haar: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.factor, self.ridge = config.fine_per_latent, config.ridge
        self.reach_cells = cubic_bspline().radius / self.factor
        self.register_buffer("haar", haar_matrix(self.factor**3), persistent=False)

    def fine_grid(self, latent_grid: Grid) -> Grid:
        """The grid inside a latent grid: `fine_per_latent` cells to a cell, an axis."""
        return latent_grid.resized([self.factor * n for n in latent_grid.shape])

    def project(self, x: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """The latent whose splines come nearest to an image, 0 ... 1 scale, on a parallel grid.

        [B, 1, D, H, W] on `grid` -> [B, f^3, d, h, w] on `latent_grid`.
        """
        return self.project_slabs([(0, x)], grid, latent_grid)

    def project_slabs(
        self, slabs: Iterable[tuple[int, Tensor]], grid: Grid, latent_grid: Grid
    ) -> Tensor:
        """`project` of an image that comes in slabs: first index and [B, 1, n, H, W] of each."""
        centred = ((start, x - MIDDLE) for start, x in slabs)
        nodes = self.fine_grid(latent_grid)
        spline = least_squares_slabs(centred, cubic_bspline(), grid, nodes, self.ridge)
        return mix_channels(self.haar, space_to_depth(spline, self.factor))

    def render(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, f^3, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on any grid, 0 ... 1 scale."""
        (i, j, k), cells = support(latent_grid, grid, self.reach_cells)
        spline, nodes = self.coefficients(z[:, :, i, j, k], cells)
        return synthesise(spline, cubic_bspline(), nodes, grid) + MIDDLE

    def at(
        self, z: Tensor, latent_grid: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """The splines at [Q, 3] points, or their means over voxels there: [B, 1, Q]."""
        spline, nodes = self.coefficients(z, latent_grid)
        return synthesise_points(spline, cubic_bspline(), nodes, points_mm, edges_mm) + MIDDLE

    def coefficients(self, z: Tensor, latent_grid: Grid) -> tuple[Tensor, Grid]:
        """Spline coefficients [B, 1, 1, 1, 1, f d, f h, f w] of a latent, and their grid."""
        spline = depth_to_space(mix_channels(self.haar.T, z), self.factor)
        return spline[:, :, None, None, None], self.fine_grid(latent_grid)


class LatentAutoencoder(nn.Module, ABC):
    """Base of MedIL and its rivals: voxels -> mean and log-variance on a latent grid -> voxels.

    A subclass has `encode_features`, which turns images into 2 C numbers per latent cell
    (mean, then log-variance), and `decode_residual`, which renders latents on any grid.
    """

    latent_gain: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weights_id = ""  # digest of trained weights
        self.facts: dict[str, Any] = {}  # of the run that trained them
        self.channels_in = 2 if config.closed_form else 1  # of what `encode_features` takes
        self.splines = SplineShortcut(config)
        gain = torch.full((config.latent_channels, 1, 1, 1), DETAIL_GAIN)
        gain[0] = 1.0
        self.register_buffer(
            "latent_gain", gain if config.closed_form else torch.ones_like(gain), persistent=False
        )

    # The two methods of a subclass

    @abstractmethod
    def encode_features(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""

    @abstractmethod
    def decode_residual(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""

    # Grids

    def latent_grid(self, grid: Grid) -> Grid:
        """The latent grid of a volume: the model's pitch over its box, from its first corner.

        Our choice: where the pitch is a whole number of voxels, every cell then holds whole
        voxels, and scans of one box at several voxel sizes share one latent grid.
        """
        return grid.covering_from_corner(self.config.latent_spacing_mm)

    def fine_grid(self, latent_grid: Grid) -> Grid:
        """The grid inside a latent grid, on which the splines and the networks' fine level lie."""
        return self.splines.fine_grid(latent_grid)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.splines.haar.device

    # Both ends

    def encode_tensor(self, x: Tensor, grid: Grid, latent_grid: Grid) -> tuple[Tensor, Tensor]:
        """Encode images [B, 1, D, H, W], 0 ... 1 scale, on one grid parallel to the latent grid.

        Returns:
            mean and log-variance, [B, C, d, h, w] each, on `latent_grid`.
        """
        projected = self.splines.project(x, grid, latent_grid) if self.config.closed_form else None
        images = self.encoder_input(x, projected, grid, latent_grid)
        return self.distribution(self.encode_features(images, grid, latent_grid), projected)

    def encoder_input(
        self, x: Tensor, projected: Tensor | None, grid: Grid, latent_grid: Grid
    ) -> Tensor:
        """The image and the residual of its projection, if any: [B, channels_in, D, H, W]."""
        if projected is None:
            return x - MIDDLE
        residual = x - self.splines.render(projected, latent_grid, grid)
        return torch.cat([x - MIDDLE, RESIDUAL_GAIN * residual], dim=1)

    def distribution(self, coded: Tensor, projected: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean and log-variance of a latent, from the [B, 2 C, d, h, w] of the encoder."""
        mean, log_var = at_least_float(coded).chunk(2, dim=1)
        mean = mean if projected is None else mean + projected
        return mean, (log_var + self.config.log_var_start).clamp(-30, 10)

    def decode_tensor(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """Render latents on one grid: [B, C, d, h, w] -> [B, 1, D, H, W], 0 ... 1 scale."""
        return self.compose(self.decode_residual(z, latent_grid, grid), z, latent_grid, grid)

    def compose(self, learned: Tensor, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """Add the network's rendering to the shortcut, or to the middle intensity."""
        if self.config.closed_form:
            return at_least_float(learned) + self.splines.render(z, latent_grid, grid)
        return at_least_float(learned) + MIDDLE

    def forward(
        self, x: Tensor, grid: Grid, latent_grid: Grid, target_grid: Grid, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw z = mean + noise * sigma, decode: what training calls.

        Args:
            x: [B, 1, D, H, W] on `grid`, 0 ... 1 scale.
            grid: Parallel to `latent_grid`.
            latent_grid: Latent grid.
            target_grid: Grid to render on.
            noise: [B, C, d, h, w], standard normal.

        Returns:
            The estimate [B, 1, D', H', W'], and the mean and log-variance it was drawn from.
        """
        mean, log_var = self.encode_tensor(x, grid, latent_grid)
        z = mean + noise * torch.exp(log_var / 2)
        return self.decode_tensor(z, latent_grid, target_grid), mean, log_var
