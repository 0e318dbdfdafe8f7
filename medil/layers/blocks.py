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

SILENT_POWER = 1e-6  # added to the mean square of a voxel's channels
# oneDNN is used on x86 alone, where its kernels are known to be faster.
ONEDNN = torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()


def _as_in_memory(x: Tensor) -> list[int]:
    """The spatial axes 0, 1, 2 of [B, C, D, H, W], the outermost in memory first."""
    return sorted(range(3), key=lambda axis: -x.stride(axis + 2))


def convolved(layer: nn.Conv3d, x: Tensor, padding: Sequence[int] | None = None) -> Tensor:
    """A layer's convolution (stride 1), by oneDNN also where PyTorch would not use it.

    PyTorch gives float32 inputs on the CPU with few planes and rows (B = 1, C D H up to
    20,480: most slabs) to a kernel of its own that is several times slower. Channels last
    is the layout that oneDNN takes and gives without reordering. Where the axes lie in memory in
    another order, the kernel is turned to it and the volume stays as it is.

    Args:
        layer: Its weights [O, C, ...] and bias are used.
        x: [B, C, D, H, W].
        padding: Voxels of zeros per axis; the layer's own when None.
    """
    zeros = list(cast(Sequence[int], layer.padding if padding is None else padding))
    if x.device.type != "cpu":
        return functional.conv3d(x, layer.weight, layer.bias, padding=zeros)
    axes = _as_in_memory(x)
    order = [0, 1, *(axis + 2 for axis in axes)]
    x, weight = x.permute(order), layer.weight.permute(order)
    zeros, one = [zeros[axis] for axis in axes], [1, 1, 1]
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if exact and ONEDNN and torch.backends.mkldnn.enabled:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        out = torch.mkldnn_convolution(x, weight, layer.bias, zeros, one, one, 1)
    else:
        out = functional.conv3d(x, weight, layer.bias, padding=zeros)
    return out.permute(0, 1, *(axes.index(axis) + 2 for axis in range(3)))


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
        scale = torch.rsqrt(power + SILENT_POWER).to(x)  # CUDA's autocast would keep float32
        return x * scale * self.gain.to(x.dtype)


def activate_into(out: Tensor, x: Tensor, norm: ChannelNorm) -> None:
    """Write SiLU of the norm of x [B, C, D, H, W] into a tensor of its shape.

    On the CPU, without gradients, nothing of the size of x is allocated: fresh pages of
    memory cost more than the arithmetic.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        out.copy_(functional.silu(norm(x)))
        return
    rows = [0, *(axis + 2 for axis in _as_in_memory(x)), 1]  # channels last: fast sums over them
    x, out = at_least_float(x).permute(rows), out.permute(rows)
    y = out if out.dtype == x.dtype else torch.empty_like(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(SILENT_POWER).rsqrt_()
    torch.mul(x, scale, out=y)
    functional.silu(y.mul_(norm.gain.flatten()), inplace=True)
    if y is not out:
        out.copy_(y)


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
        y: Tensor = x + self.body(x)
        return y


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
