"""Convolutions on grids of fixed physical pitch, normalised voxel by voxel.

Norms over space (group, instance) make a patch disagree with the whole volume, since
their statistics differ; a norm over one voxel's channels cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# oneDNN is used on x86 alone, where its kernels are known to be faster.
ONEDNN = torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()


def convolved(layer: nn.Conv3d, x: Tensor, padding: Sequence[int] | None = None) -> Tensor:
    """A layer's convolution (stride 1), by oneDNN also where PyTorch would not use it.

    PyTorch gives float32 inputs on the CPU with few planes and rows (B = 1, C D H up to
    20,480: most slabs) to a kernel of its own that is several times slower. Channels last
    is the layout that oneDNN takes and gives without reordering.

    Args:
        layer: Its weights [O, C, ...] and bias are used.
        x: [B, C, D, H, W].
        padding: Voxels of zeros per axis; the layer's own when None.
    """
    zeros = list(cast(Sequence[int], layer.padding if padding is None else padding))
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    if x.device.type != "cpu" or not (exact and ONEDNN and torch.backends.mkldnn.enabled):
        return functional.conv3d(x, layer.weight, layer.bias, padding=zeros)
    x, one = x.contiguous(memory_format=torch.channels_last_3d), [1, 1, 1]
    return torch.mkldnn_convolution(x, layer.weight, layer.bias, zeros, one, one, 1)


class Conv3d(nn.Conv3d):
    """A convolution of stride 1 that is fast on slabs too, by `convolved`."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, D, H, W] -> [B, O, D', H', W']
        return convolved(self, x)


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each voxel (no statistics over space)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, D, H, W]
        power = x.square().mean(dim=1, keepdim=True)
        scale = torch.rsqrt(power + 1e-6).to(x)  # CUDA's autocast would keep float32
        return x * scale * self.gain.to(x.dtype)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ChannelNorm(channels),
            nn.SiLU(),
            Conv3d(channels, channels, 3, padding=1),
            ChannelNorm(channels),
            nn.SiLU(),
            Conv3d(channels, channels, 3, padding=1),
        )

    @property
    def last(self) -> nn.Conv3d:
        """The convolution whose output is added."""
        return cast(nn.Conv3d, self.body[-1])

    def forward(self, x: Tensor) -> Tensor:  # [B, C, D, H, W] -> the same
        return x + self.body(x)


def residual_blocks(channels: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))


def zero_init(layer: nn.Conv3d | nn.Linear) -> nn.Conv3d | nn.Linear:
    """The layer with zero weights, so that its output is zero until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(channels_in: int, hidden: int, channels_out: int) -> nn.Sequential:
    """An MLP with two hidden layers, whose output is zero until it is trained."""
    return nn.Sequential(
        nn.Linear(channels_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        zero_init(nn.Linear(hidden, channels_out)),
    )


def at_least_float(x: Tensor) -> Tensor:
    """Convert to at least float32; in less, the angle of a wave would be off by degrees."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def init_weights(network: nn.Module) -> None:
    """Start every layer of a network with unit gain, residual branches at a third.

    Our choice: PyTorch's default start shrinks the signal at every layer; convolutions did
    not learn from it in short runs, and MLPs learned more slowly. Layers of zero weights stay zero.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.Linear) and layer.weight.any():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if isinstance(layer, nn.Linear):
                layer.weight.data.mul_(2**0.5)  # what the MLPs' ReLUs halve
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.last.weight.data.mul_(0.3)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Blocks of voxels into channels: [B, C, f d, f h, f w] -> [B, C f^3, d, h, w]."""
    batch, channels, depth, height, width = x.shape
    blocks = x.reshape(
        batch, channels, depth // factor, factor, height // factor, factor, width // factor, factor
    )
    order = blocks.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return order.reshape(batch, -1, depth // factor, height // factor, width // factor)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Channels back into blocks of voxels, the inverse of `space_to_depth`."""
    batch, channels, depth, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**3, factor, factor, factor, depth, height, width)
    order = blocks.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return order.reshape(batch, -1, depth * factor, height * factor, width * factor)
