"""MedIL: native voxels -> latent grid of fixed pitch in mm -> voxels of any grid.

Native grids are touched by the resampling operators alone; every convolution in between
lives on a grid of fixed physical pitch, so one kernel means the same millimetres in every
scan. The closed-form shortcut beside the networks is in `medil.shortcut`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from medil.blocks import fold, residual_blocks, silent, unfold, unit_gain
from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid
from medil.implicit import make_operator
from medil.latent import Latent
from medil.memory import require_memory
from medil.resample import analyse
from medil.shortcut import LatentAutoencoder
from medil.texture import local_fourier
from medil.volume import Intensity, Volume, replace_nonfinite, robust_intensity

SLAB_VOXELS = 2**22  # rendered at a time
ENCODE_BYTES = 32  # peak memory a voxel of the input, beside what the networks take
DECODE_BYTES = 32  # a voxel of the output, likewise


class Intake(nn.Module):
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
        if self.kind == "integrated":
            self.mix = nn.Conv3d(channels_in * self.basis.n_functions**3 + 3, self.width, 1)
        else:
            self.stem = nn.Sequential(
                nn.Conv3d(channels_in, self.width, 3, padding=1), *residual_blocks(self.width, 1)
            )
            self.operator = make_operator(config, self.kind, self.width, self.width)
            self.mix = nn.Conv3d(self.width + 3, self.width, 1)
            coefficients = 5 * config.frequencies if self.kind == "literal" else 0
            self.bytes_per_voxel = 4 * (6 * self.width + coefficients)

    def forward(self, images: Tensor, voxels: Grid, nodes: Grid) -> Tensor:
        """[B, C, D, H, W] on `voxels` -> [B, width, d, h, w] on `nodes`."""
        if self.kind == "integrated":
            features = analyse(images, self.basis, voxels, nodes).flatten(1, 4)
        else:
            features = self.operator(self.stem(images), voxels, nodes)
        cells = torch.tensor(voxels.spacing_mm) / torch.tensor(nodes.spacing_mm)
        told = cells.log().to(features)[None, :, None, None, None]
        told = told.expand(len(images), 3, *nodes.shape)
        return self.mix(torch.cat([features, told], dim=1))


class MedIL(LatentAutoencoder):
    """The autoencoder.

    Args:
        config: Its shape; `medil.config.preset(name).model` for a named one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        factor, c = config.fine_per_latent, config
        # Encoder
        self.intake = Intake(config, self.channels_in)
        self.encode_fine = residual_blocks(c.width_encoder, c.depth_encoder)
        self.encode_down = nn.Conv3d(c.width_encoder * factor**3, c.width_latent, 1)
        self.encode_latent = residual_blocks(c.width_latent, c.depth_encoder)
        to_latent = nn.Conv3d(c.width_latent, 2 * c.latent_channels, 1)
        self.to_latent = silent(to_latent) if c.closed_form else to_latent
        # Decoder
        self.from_latent = nn.Conv3d(c.latent_channels, c.width_latent, 3, padding=1)
        self.decode_latent = residual_blocks(c.width_latent, c.depth_latent)
        self.decode_up = nn.Conv3d(c.width_latent, c.width_fine * factor**3, 1)
        self.decode_fine = residual_blocks(c.width_fine, c.depth_fine)
        self.render = make_operator(config, c.operator, c.width_fine, 1)
        unit_gain(self)

    def code(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""
        h = self.encode_fine(self.intake(images, grid, self.fine_grid(latent_grid)))
        h = self.encode_latent(self.encode_down(fold(h, self.config.fine_per_latent)))
        return self.to_latent(h)

    def decode_features(self, z: Tensor) -> Tensor:
        """[B, C, d, h, w] latents -> [B, width_fine, f d, f h, f w] features on the fine grid."""
        h = self.decode_latent(self.from_latent(z * self.latent_gain))
        return self.decode_fine(unfold(self.decode_up(h), self.config.fine_per_latent))

    def texture(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""
        return self.render_features(self.decode_features(z), latent_grid, grid)

    def render_features(self, features: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, width_fine, f d, f h, f w] on the fine grid -> [B, 1, D, H, W] on `grid`."""
        return self.render(features.float(), self.fine_grid(latent_grid), grid)

    # Volumes

    def _require_memory(self, voxels: Grid, latent_grid: Grid, voxel_bytes: int, what: str) -> None:
        """Refuse what would not fit: the networks' work goes with latent cells, not voxels."""
        c, basis = self.config, local_fourier(self.config.harmonics)
        # Numbers alive at once in a fine cell, rounded up: local analyses, feature maps.
        alive = 6 * basis.n_functions**3 + 5 * max(c.width_encoder, 2 * c.width_fine)
        network = 4 * alive * c.fine_per_latent**3 * latent_grid.n_voxels
        require_memory(voxels.n_voxels, voxel_bytes + network / voxels.n_voxels, what)

    @torch.inference_mode()
    def encode(self, volume: Volume, intensity: Intensity | None = None) -> Latent:
        """Encode a volume at its native grid (paper: implicit encoder).

        Args:
            volume: Any shape, spacing and orientation; NaN and Inf become background.
            intensity: Its scaling; `robust_intensity` when None (give `hu_window` for CT).

        Returns:
            The latent.

        Raises:
            InputError: A constant image, no finite value, or not enough free memory.
        """
        latent_grid = self.latent_grid(volume.grid)
        voxel_bytes = ENCODE_BYTES + self.intake.bytes_per_voxel
        self._require_memory(volume.grid, latent_grid, voxel_bytes, "encoding this image")
        data, _ = replace_nonfinite(volume.data)
        intensity = intensity or robust_intensity(data)
        x = intensity.forward(data)[None, None].to(self.haar)  # [1, 1, D, H, W]
        mean, log_var = self.encode_tensor(x, volume.grid, latent_grid)
        return Latent(
            mean[0].cpu(), log_var[0].cpu(), latent_grid, volume.grid, intensity, volume.source,
            self.weights_id,
        )  # fmt: skip

    @torch.inference_mode()
    def decode(
        self,
        latent: Latent,
        grid: Grid | None = None,
        linear_only: bool = False,
        progress: bool = False,
    ) -> Volume:
        """Render a latent on any grid (paper: implicit decoder).

        Args:
            latent: From `encode`, or sampled.
            grid: Target grid, parallel to the latent's or oblique; the native one when None.
            linear_only: Leave the network out and render the closed form's splines alone.
            progress: Show a bar; oblique grids take minutes for a whole head.

        Returns:
            The volume, in the units of the encoded image; where the target reaches outside
            the encoded box nothing is known, and the voxels hold `intensity.low`.

        Raises:
            InputError: A latent of other weights, or not enough free memory.
        """
        grid = grid or latent.native
        if latent.weights_id != self.weights_id:
            raise InputError(
                "this latent was made by other weights; decode it with the weights that made it."
            )
        if linear_only and not self.config.closed_form:
            raise InputError("these weights have no closed form to render; leave linear_only out.")
        self._require_memory(grid, latent.grid, DECODE_BYTES, "this output")
        z = latent.mean[None].to(self.haar)
        features = z if linear_only else self.decode_features(z)
        out = torch.empty(grid.shape)
        bar = tqdm(total=grid.n_voxels, unit="vox", unit_scale=True, disable=not progress)
        for start, slab in slabs(grid, SLAB_VOXELS if grid.is_parallel_to(latent.grid) else 2**16):
            if linear_only:
                x = self.render_linear(z, latent.grid, slab)
            else:
                learned = self.render_features(features, latent.grid, slab)
                x = self.compose(learned, z, latent.grid, slab)
            values = latent.intensity.inverse(x[0, 0].cpu())
            outside = ~inside_box(latent.grid, slab)
            stop = start + slab.shape[0]
            out[start:stop] = values.masked_fill(outside, latent.intensity.low)
            bar.update(slab.n_voxels)
        bar.close()
        return Volume(out, grid, latent.source)


def slabs(grid: Grid, n_voxels: int) -> Iterator[tuple[int, Grid]]:
    """A grid cut across its first axis: first index and grid of slabs of about so many voxels."""
    rows = max(1, n_voxels // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], rows):
        yield start, grid.crop((start, 0, 0), (min(rows, grid.shape[0] - start), *grid.shape[1:]))


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
