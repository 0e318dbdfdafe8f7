"""Rival autoencoders, trained on the same data with a latent of the same size.

`ConvAE` works on one fixed grid and resamples at both ends, as pipelines usually do.
`ResizingAE` takes any voxels and resizes by whatever factor it needs at every level.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from medil.config import ModelConfig
from medil.errors import InputError, needs
from medil.grid import Grid
from medil.layers.bases import local_fourier
from medil.layers.blocks import at_least_float, init_weights, residual_blocks, zero_init
from medil.layers.operators import resample_cubic
from medil.layers.projection import synthesise
from medil.model.autoencoder import MedIL
from medil.model.base import LatentAutoencoder

GROUPS = 8  # groups of ConvAE's group norms
STRIDES = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}  # working voxels in a latent cell -> its levels


def build(config: ModelConfig) -> LatentAutoencoder:
    """The autoencoder that a configuration names."""
    kinds: dict[str, Callable[[ModelConfig], LatentAutoencoder]] = {
        "medil": MedIL,
        "conv": ConvAE,
        "resizing": ResizingAE,
    }
    return kinds[config.architecture](config)


class ConvAE(LatentAutoencoder):
    """Fixed-size convolutional autoencoder: MONAI's `AutoencoderKL` on a grid of `working_mm`.

    Native voxels are resampled in by anti-aliased cubic splines and the output is resampled
    out the same way. Norms are MONAI's (groups, over space), there is no attention, and the
    latent keeps as many numbers as MedIL's. Channels from the working grid inwards are
    `width_encoder`, `width_fine` (where there are two levels) and `width_latent`; so are the
    depths, which encoder and decoder share.

    Our choice: the working pitch is the nearest that goes a whole 1 to 4 times into the
    latent's, so that "1.5 mm" is 1.33 mm under a 4 mm latent; its one level then has a stride
    of 3, where MONAI's own is always 2.

    Raises:
        InputError: MONAI is missing, or channels that its norms cannot divide.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.factor = min(
            STRIDES, key=lambda factor: abs(config.latent_spacing_mm / factor - config.working_mm)
        )
        self.net = monai_autoencoder(config, self.channels_in, STRIDES[self.factor])
        if config.closed_form:
            last = self.net.decoder.blocks[-1]
            for layer in (self.net.quant_conv_mu, self.net.quant_conv_log_sigma, last):
                zero_init(layer.conv)

    def working_grid(self, latent_grid: Grid) -> Grid:
        """The fixed grid under a latent grid."""
        return latent_grid.resized([self.factor * n for n in latent_grid.shape])

    def encode_features(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""
        h = self.net.encoder(resample_cubic(images, grid, self.working_grid(latent_grid)))
        return torch.cat([self.net.quant_conv_mu(h), self.net.quant_conv_log_sigma(h)], dim=1)

    def decode_residual(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""
        image = self.net.decoder(self.net.post_quant_conv(z * self.latent_gain))
        return resample_cubic(image, self.working_grid(latent_grid), grid)


def monai_autoencoder(config: ModelConfig, channels_in: int, strides: tuple[int, ...]) -> Any:
    """MONAI's `AutoencoderKL`, one level a stride (2, MONAI's own, or 3), from the image inwards.

    Raises:
        InputError: MONAI is missing, or channels that its norms cannot divide.
    """
    with needs("rivals", "the fixed-size rival is MONAI's"):
        from monai.networks.nets import AutoencoderKL
    c, levels = config, len(strides) + 1
    widths = [c.width_encoder, c.width_fine, c.width_latent]
    depths = [c.depth_encoder, c.depth_fine, c.depth_latent]
    if levels < 3:
        widths, depths = ([values[0], values[2]][-levels:] for values in (widths, depths))
    if any(width % GROUPS for width in widths):
        raise InputError(f"the fixed-size rival needs widths that {GROUPS} divides, not {widths}.")
    net = AutoencoderKL(
        3, channels_in, 1, depths, widths, [False] * levels, c.latent_channels, GROUPS,
        with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    if 3 in strides:
        _stride_of_three(net, *widths)
    return net


def _stride_of_three(net: Any, outer: int, inner: int) -> None:
    """Swap MONAI's halving and doubling for thirds; as many weights as before."""
    from monai.networks.blocks import UpSample
    from monai.networks.nets.autoencoderkl import AEKLDownsample

    for blocks in (net.encoder.blocks, net.decoder.blocks):
        for index, block in enumerate(blocks):
            if isinstance(block, AEKLDownsample):
                blocks[index] = nn.Conv3d(outer, outer, 3, stride=3)
            elif isinstance(block, UpSample):
                conv = nn.Conv3d(inner, inner, 3, padding=1)
                blocks[index] = nn.Sequential(nn.Upsample(scale_factor=3), conv)


class Resize(nn.Module):
    """Learned variable resizing: a convolution that knows the factor, then interpolation.

    The convolution's channels are scaled and shifted by a linear function of the logarithm of
    the factor of each axis, then features go to the new grid by linear interpolation averaged
    over its cells (anti-aliased), and a 1x1x1 convolution follows.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.before = nn.Conv3d(channels_in, channels_in, 3, padding=1)
        self.told = zero_init(nn.Linear(3, 2 * channels_in))
        self.after = nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, grid: Grid, target: Grid) -> Tensor:
        """[B, C, D, H, W] on `grid` -> [B, channels_out, D', H', W'] on `target`."""
        factor = torch.tensor(target.spacing_mm) / torch.tensor(grid.spacing_mm)
        scale, shift = self.told(factor.log().to(x))[:, None, None, None].chunk(2)
        h = at_least_float(self.before(x) * (1 + scale) + shift)
        hats = local_fourier(0)  # one function an axis: linear interpolation
        resized: Tensor = self.after(synthesise(h[:, :, None, None, None], hats, grid, target))
        return resized


class ResizingAE(LatentAutoencoder):
    """Resolution-invariant autoencoder (arXiv 2503.09828): learned resizing at each level.

    In place of fixed factors of 2, every level resizes by what brings any input to the
    latent's pitch in equal ratios: native -> geometric mean -> latent, an axis at a time, and
    back to any target's voxels. Widths and depths of the levels, from the voxels inwards, are
    `width_encoder`, `width_fine`, `width_latent`; both ends share them.

    Our reading, where the paper's code was not at hand: two resizings an end, `Resize` for
    the learned one, our residual blocks, and latents on the same grid in mm as MedIL's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        c = config
        widths = (c.width_encoder, c.width_fine, c.width_latent)
        depths = (c.depth_encoder, c.depth_fine, c.depth_latent)
        sizes = list(zip(widths, depths, strict=True))
        self.from_image = nn.Conv3d(self.channels_in, widths[0], 3, padding=1)
        self.encode_blocks = nn.ModuleList(residual_blocks(*size) for size in sizes)
        self.shrink = nn.ModuleList(Resize(a, b) for a, b in pairwise(widths))
        to_latent = nn.Conv3d(widths[-1], 2 * c.latent_channels, 1)
        self.to_latent = zero_init(to_latent) if c.closed_form else to_latent
        self.from_latent = nn.Conv3d(c.latent_channels, widths[-1], 3, padding=1)
        self.decode_blocks = nn.ModuleList(residual_blocks(*size) for size in reversed(sizes))
        self.grow = nn.ModuleList(Resize(b, a) for b, a in pairwise(reversed(widths)))
        self.to_image = zero_init(nn.Conv3d(widths[0], 1, 3, padding=1))
        init_weights(self)

    def encode_features(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""
        middle = between(grid, latent_grid)
        h = self.encode_blocks[0](self.from_image(images))
        h = self.encode_blocks[1](self.shrink[0](h, grid, middle))
        h = self.encode_blocks[2](self.shrink[1](h, middle, latent_grid))
        numbers: Tensor = self.to_latent(h)
        return numbers

    def decode_residual(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""
        middle = between(grid, latent_grid)
        h = self.decode_blocks[0](self.from_latent(z * self.latent_gain))
        h = self.decode_blocks[1](self.grow[0](h, latent_grid, middle))
        image: Tensor = self.to_image(self.decode_blocks[2](self.grow[1](h, middle, grid)))
        return image


def between(grid: Grid, latent_grid: Grid) -> Grid:
    """A grid over the latent's box whose spacing is the geometric mean of both grids'."""
    spacing = [(a * b) ** 0.5 for a, b in zip(grid.spacing_mm, latent_grid.spacing_mm, strict=True)]
    extent = zip(latent_grid.extent_mm, spacing, strict=True)
    return latent_grid.resized([max(1, round(length / step)) for length, step in extent])
