"""MedIL: native voxels -> latent grid of fixed pitch in mm -> voxels of any grid.

Native grids are touched by the resampling operators alone; every convolution in between
lives on a grid of fixed physical pitch, so one kernel means the same millimetres in every
scan. The closed-form shortcut beside the networks is in `medil.model.base`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid
from medil.latent import Latent
from medil.layers.bases import local_fourier
from medil.layers.blocks import (
    Conv3d,
    depth_to_space,
    init_weights,
    residual_blocks,
    space_to_depth,
    zero_init,
)
from medil.layers.operators import make_operator
from medil.layers.projection import analyse
from medil.model.base import MIDDLE
from medil.model.streaming import Piecewise, course_of, slabs
from medil.model.streaming_conv import Course
from medil.model.tiles import Block
from medil.system.device import network_precision, to_host
from medil.system.memory import require_memory
from medil.volume import Intensity, Volume, replace_nonfinite, robust_intensity


class Stem(nn.Module):
    """Native voxels -> features on the fine grid, the encoder's resampling operator.

    `integrated` analyses the image in the local Fourier functions of the fine grid, each
    averaged over the native voxel, so it is anti-aliased by the same integral as rendering.
    The others convolve at native resolution, as the paper does, and then resample.
    """

    def __init__(self, config: ModelConfig, channels_in: int) -> None:
        super().__init__()
        self.kind, self.width = config.encoder_operator, config.width_encoder
        self.basis = local_fourier(config.harmonics)
        self.bytes_per_voxel = 0  # of feature maps at native resolution
        self.halo_nodes, self.reach = 1, 0  # nodes beyond which, voxels around them that count
        if self.kind == "integrated":
            self.mix = nn.Conv3d(channels_in * self.basis.n_functions**3 + 3, self.width, 1)
        else:
            self.stem = nn.Sequential(
                Conv3d(channels_in, self.width, 3, padding=1), *residual_blocks(self.width, 1)
            )
            operator: Any = make_operator(config, self.kind, self.width, self.width, encodes=True)
            self.operator = operator
            self.mix = nn.Conv3d(self.width + 3, self.width, 1)
            coefficients = 5 * config.frequencies if self.kind == "literal" else 0
            self.bytes_per_voxel = 4 * (6 * self.width + coefficients)
            self.halo_nodes, self.reach = 0, 3 + operator.reach  # 3 convolutions in the stem

    def forward(self, images: Tensor, voxels: Grid, nodes: Grid) -> Tensor:
        """[B, C, D, H, W] on `voxels` -> [B, width, d, h, w] on `nodes`."""
        if self.kind == "integrated":
            features = analyse(images, self.basis, voxels, nodes).flatten(1, 4)
        else:
            features = self.operator(self.stem(images), voxels, nodes)
        cells = torch.tensor(voxels.spacing_mm) / torch.tensor(nodes.spacing_mm)
        weight, told = self.mix.weight.flatten(1).split([features.shape[1], 3], dim=1)
        bias = self.mix.bias + told @ cells.log().to(told)  # the same in every cell
        rows = functional.linear(features.flatten(2).transpose(1, 2), weight, bias)  # [B, N, width]
        return rows.flatten().view(len(images), *nodes.shape, -1).movedim(-1, 1)


class MedIL(Piecewise):
    """The autoencoder.

    Args:
        config: Its shape; `medil.config.preset(name).model` for a named one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        factor, c = config.fine_per_latent, config
        # Encoder
        self.intake = Stem(config, self.channels_in)
        self.encode_fine = residual_blocks(c.width_encoder, c.depth_encoder)
        self.encode_down = Conv3d(c.width_encoder * factor**3, c.width_latent, 1)
        self.encode_latent = residual_blocks(c.width_latent, c.depth_encoder)
        to_latent = Conv3d(c.width_latent, 2 * c.latent_channels, 1)
        self.to_latent = zero_init(to_latent) if c.closed_form else to_latent
        # Decoder
        self.from_latent = Conv3d(c.latent_channels, c.width_latent, 3, padding=1)
        self.decode_latent = residual_blocks(c.width_latent, c.depth_latent)
        self.decode_up = Conv3d(c.width_latent, c.width_fine * factor**3, 1)
        self.decode_fine = residual_blocks(c.width_fine, c.depth_fine)
        self.render = make_operator(config, c.operator, c.width_fine, 1)
        init_weights(self)

    def encode_features(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""
        h = self.encode_fine(self.intake(images, grid, self.fine_grid(latent_grid)))
        h = self.encode_latent(self.encode_down(space_to_depth(h, self.config.fine_per_latent)))
        return self.to_latent(h)

    def decode_features(self, z: Tensor) -> Tensor:
        """[B, C, d, h, w] latents -> [B, width_fine, f d, f h, f w] features on the fine grid."""
        h = self.decode_latent(self.from_latent(z * self.latent_gain))
        return self.decode_fine(depth_to_space(self.decode_up(h), self.config.fine_per_latent))

    def decode_residual(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""
        return self.render_features(self.decode_features(z), latent_grid, grid)

    def render_features(self, features: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, width_fine, f d, f h, f w] on the fine grid -> [B, 1, D, H, W] on `grid`."""
        return self.render(features.float(), self.fine_grid(latent_grid), grid)

    # Volumes

    @torch.inference_mode()
    def encode(
        self,
        volume: Volume,
        intensity: Intensity | None = None,
        *,
        memory_bytes: int | None = None,
        tile: int | None = None,
    ) -> Latent:
        """Encode a volume at its native grid (paper: implicit encoder), slab by slab.

        Args:
            volume: Any shape, spacing and orientation; NaN and Inf become background.
            intensity: Its scaling; `robust_intensity` when None (`Intensity(-1000, 1000)` for CT).
            memory_bytes: Budget of the process; a share of what is free when None.
            tile: Thickness of the slabs in latent cells; from the budget when None.

        Returns:
            The latent; it does not depend on the thickness.

        Raises:
            InputError: A constant image, no finite value, or not enough memory.
        """
        latent_grid = self.latent_grid(volume.grid)
        planes = tile or self.planes_to_encode(volume.grid, latent_grid, memory_bytes)
        data, _ = replace_nonfinite(volume.data)
        scale = intensity or robust_intensity(data)

        def read(block: Block) -> Tensor:
            return scale.forward(data[block])[None, None].to(self.device)  # [1, 1, d, h, w]

        mean, log_var = self.encode_slabs(read, volume.grid, latent_grid, planes)
        return Latent(
            mean[0].cpu(), log_var[0].cpu(), latent_grid, volume.grid, scale, volume.source,
            self.weights_id,
        )  # fmt: skip

    def decode(
        self,
        latent: Latent,
        grid: Grid | None = None,
        linear_only: bool = False,
        progress: bool = False,
        memory_bytes: int | None = None,
        precision: str = "auto",
    ) -> Volume:
        """Render a latent on any grid (paper: implicit decoder), whole.

        Args:
            latent: From `encode`, or sampled.
            grid: Target grid, parallel to the latent's or oblique; the native one when None.
            linear_only: Leave the network out and render the closed form's splines alone.
            progress: Show a bar; oblique grids take minutes for a whole head.
            memory_bytes: Budget of the process beside the output; a share of what is free
                when None.
            precision: Of the networks, see `medil.system.device.network_precision`.

        Returns:
            The volume, in the units of the encoded image; where the target reaches outside
            the encoded box nothing is known, and the voxels hold `intensity.low`.

        Raises:
            InputError: A latent of other weights, no such precision, or not enough memory.
        """
        grid = grid or latent.native
        require_memory(grid.n_voxels, 4, "this output")
        pieces = self.decode_slabs(
            latent, grid, memory_bytes=memory_bytes, linear_only=linear_only, progress=progress,
            precision=precision,
        )  # fmt: skip
        out = torch.empty(grid.shape)
        for start, slab in pieces:
            out[start : start + len(slab)] = slab
        return Volume(out, grid, latent.source)

    def decode_slabs(
        self,
        latent: Latent,
        grid: Grid | None = None,
        *,
        axis: int = 0,
        descending: bool = False,
        memory_bytes: int | None = None,
        linear_only: bool = False,
        progress: bool = False,
        precision: str = "auto",
    ) -> Iterator[tuple[int, Tensor]]:
        """Render a latent in slabs, so that memory does not grow with the output.

        Args:
            latent: From `encode`, or sampled.
            grid: Target grid, parallel to the latent's or oblique; the native one when None.
            axis: Of the target, along which the slabs follow each other.
            descending: From the axis's end.
            memory_bytes: Budget of the process; a share of what is free when None.
            linear_only: Leave the network out and render the closed form's splines alone.
            progress: Show a bar.
            precision: Of the networks, see `medil.system.device.network_precision`.

        Returns:
            Index of each slab's first voxel along `axis`, and the slab: [D, H, W] float32 on
            the CPU, in the units of the encoded image. Together they are what `decode` gives.

        Raises:
            InputError: At once: a latent of other weights, no such precision, or not enough
                memory.
        """
        grid = grid or latent.native
        if latent.weights_id != self.weights_id:
            raise InputError(
                "this latent was made by other weights; decode it with the weights that made it."
            )
        if linear_only and not self.config.closed_form:
            raise InputError("these weights have no closed form to render; leave linear_only out.")
        planes, rows = self.planes_and_rows(latent.grid, grid, axis, memory_bytes)
        network_precision(self.device, precision)  # refuses what it does not know
        course = course_of(latent.grid, grid, axis, descending)
        network = None if linear_only else (course, planes, precision)
        pieces = slabs(grid, rows, axis, descending)
        rendered = to_host(self._rendered(latent, grid, pieces, network))
        return _watched(rendered, grid.n_voxels, progress)

    @torch.no_grad()
    def _rendered(
        self,
        latent: Latent,
        grid: Grid,
        pieces: Iterator[tuple[int, Grid]],
        network: tuple[Course, int, str] | None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Slabs in the units of the image, where the weights are."""
        z = latent.mean[None].to(self.haar)
        texture = self.texture_slabs(z, latent.grid, grid, *network) if network else None
        for start, slab in pieces:
            if self.config.closed_form:
                x = self.render_linear_near(z, latent.grid, slab)
            else:
                x = z.new_full((1, 1, *slab.shape), MIDDLE)
            x = x + texture(slab) if texture else x
            yield start, self._in_units(x, latent, slab)
            del x

    def _in_units(self, x: Tensor, latent: Latent, slab: Grid) -> Tensor:
        """[1, 1, D, H, W], 0 ... 1 scale -> [D, H, W]; beyond the encoded box the background."""
        if x.device.type == "mps":
            x = x.cpu()  # it has no float64
        values = latent.intensity.inverse(x[0, 0])
        if is_inside(latent.grid, slab):
            return values
        outside = ~inside_box(latent.grid, slab).to(values.device)
        return values.masked_fill_(outside, latent.intensity.low)


def _watched(
    pieces: Iterator[tuple[int, Tensor]], n_voxels: int, progress: bool
) -> Iterator[tuple[int, Tensor]]:
    """Slabs under a bar that counts voxels."""
    with tqdm(total=n_voxels, unit="vox", unit_scale=True, disable=not progress) as bar:
        for start, slab in pieces:
            n = slab.numel()
            yield start, slab
            del slab
            bar.update(n)


def is_inside(box: Grid, grid: Grid) -> bool:
    """Whether a grid lies as a whole in the box that another grid fills."""
    corners_vox = box.ras_to_index(grid.corners_mm)
    low, high = corners_vox.min(0), corners_vox.max(0)
    return bool((low > -0.5 - 1e-6).all() and (high < np.array(box.shape) - 0.5 + 1e-6).all())


def inside_box(box: Grid, grid: Grid) -> Tensor:
    """Which voxel centres of `grid` lie in the box that another grid fills: [D, H, W] bool."""
    to_box = np.linalg.inv(box.affine_vox2ras) @ grid.affine_vox2ras  # index to index
    depth, height, width = grid.shape
    i, j, k = (torch.from_numpy(n) for n in np.ogrid[:depth, :height, :width])
    inside = torch.ones(grid.shape, dtype=torch.bool)
    for row, size in zip(to_box[:3].tolist(), box.shape, strict=True):
        index_vox = row[0] * i + row[1] * j + row[2] * k + row[3]
        inside &= (index_vox > -0.5 - 1e-6) & (index_vox < size - 0.5 + 1e-6)
    return inside
