"""Intensity scaling that inverts exactly: two numbers, no clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medil.errors import InputError

MAX_SAMPLES = 2_000_000  # enough for a percentile to 1e-3 of the range
OFFSET_SHARE = 0.75  # of the high end, above which the darkest voxels are no background
FLOAT32_STEPS = 2.0**-13  # width of a range whose float32 numbers are 1024 steps apart or more
FARTHEST = 1e9  # on the 0 ... 1 scale; networks square their numbers
MOST = 1e32  # of either end; float32 ends at 3e38
LEAST_WIDTH = 1e-32  # of a range; float32 has no numbers for the fractions of smaller ones


@dataclass(frozen=True)
class Intensity:
    """The linear scaling that maps ``low`` to 0 and ``high`` to 1.

    Nothing is clipped, so `inverse` undoes `forward` for every value, also outside.

    Args:
        low: Intensity that becomes 0, in the units of the image.
        high: Intensity that becomes 1.

    Raises:
        InputError: Not finite, ``high`` not above ``low``, or a range that float32, in which
            images are rendered, cannot resolve.

    Example:
        >>> hu = Intensity(-1000, 1000)  # a window for CT
        >>> hu.forward(torch.tensor([-1000.0, 0.0, 3000.0])).tolist()
        [0.0, 0.5, 2.0]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.high > self.low):
            raise InputError(
                f"an intensity range needs finite low < high, not {self.low} to {self.high}."
            )
        reach, width = max(abs(self.low), abs(self.high)), self.high - self.low
        if reach > MOST or width < max(LEAST_WIDTH, FLOAT32_STEPS * reach):
            raise InputError(
                f"intensities of {self.low} to {self.high} cannot be rendered in float32; subtract "
                "an offset or change their unit first."
            )

    def check(self, x: Tensor) -> None:
        """Refuse finite values that lie too far beyond the range for a network in float32.

        Raises:
            InputError: States the values and the range.
        """
        low, high = float(x.min()), float(x.max())
        if max(high - self.low, self.high - low) > FARTHEST * (self.high - self.low):
            raise InputError(
                f"the image reaches from {low:g} to {high:g}, immensely beyond its range of "
                f"{self.low:g} to {self.high:g}; clip it, or make such voxels NaN."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Image units to about 0 ... 1, computed in float64, returned as float32."""
        return ((x.to(torch.float64) - self.low) / (self.high - self.low)).to(torch.float32)

    def inverse(self, x: Tensor) -> Tensor:
        """About 0 ... 1 back to image units, computed in float64, returned as float32."""
        return (x.to(torch.float64) * (self.high - self.low) + self.low).to(torch.float32)


def replace_nonfinite(data: Tensor, background: float | None = None) -> tuple[Tensor, int]:
    """Replace NaN and Inf, which would spread through every convolution; also returns how many.

    Args:
        data: [D, H, W]; integers pass unchanged.
        background: What they become. When None, the image is continued into them, so that a mask
            of NaN makes no edge: each becomes the mean of the finite voxels in the smallest block
            of 2, 4, 8 ... voxels that holds one (as the pyramid of The Lumigraph, Gortler 1996).

    Raises:
        InputError: No value is finite.
    """
    if not data.is_floating_point() or _all_finite(data):
        return data, 0
    missing = ~torch.isfinite(data)
    n_missing = int(missing.sum())
    if n_missing == data.numel():
        raise InputError("the image holds no finite value (all are NaN or Inf).")
    if background is None:
        return _continued(data, missing), n_missing
    return data.masked_fill(missing, background), n_missing


def _continued(data: Tensor, missing: Tensor) -> Tensor:
    """[D, H, W] with the means of blocks around them in place of missing voxels."""
    sums, counts = (_block_sums(x) for x in (data.masked_fill(missing, 0), (~missing).to(data)))
    means = sums / counts.clamp(min=1)
    if not bool(counts.all()):
        means = _continued(means, counts == 0)
    for axis, size in enumerate(data.shape):
        means = means.repeat_interleave(2, axis).narrow(axis, 0, size)
    return torch.where(missing, means, data)


def _block_sums(data: Tensor) -> Tensor:
    """The sum over blocks of 2 x 2 x 2 voxels; an odd axis is padded by a zero."""
    depth, height, width = (n % 2 for n in data.shape)
    even = functional.pad(data, (0, width, 0, height, 0, depth))
    blocks = [part for n in even.shape for part in (n // 2, 2)]
    return even.reshape(blocks).sum((1, 3, 5))


def _all_finite(data: Tensor) -> bool:
    """Checks in pieces, so that a large image needs no mask of its own size."""
    return all(bool(torch.isfinite(part).all()) for part in data.reshape(-1).split(2**22))


def robust_intensity(data: Tensor) -> Intensity:
    """The intensity range of an image of any shape, robust to a few outliers.

    ``low`` is 0 where no voxel is negative (magnitude images), else the 0.5th percentile
    of all voxels; ``high`` is the 99.5th percentile of the voxels above ``low``
    (the foreground), so that a wide black margin does not change the scale of a head. Where that
    would put nearly all voxels of an image without a background above 3/4 of the range, as an
    offset of its values does, ``low`` is the percentile too. NaN and Inf are left out.

    Raises:
        InputError: The image is constant or has no finite value.

    Example:
        >>> head = torch.cat([torch.zeros(900), torch.linspace(1, 100, 100)])
        >>> scale = robust_intensity(head)
        >>> scale.low, round(scale.high)
        (0.0, 100)
    """
    values = (data.to(torch.uint8) if data.dtype == torch.bool else data).reshape(-1)
    if values.is_floating_point() and not _all_finite(values):
        values = values[torch.isfinite(values)]
    if values.numel() == 0:
        raise InputError("the image holds no finite value (all are NaN or Inf).")
    lowest, highest = (float(v) for v in torch.aminmax(values))
    if lowest == highest:
        raise InputError(f"the image is constant (every voxel is {lowest:g}); nothing to scale.")
    values = values[:: max(1, math.ceil(values.numel() / MAX_SAMPLES))].to(torch.float64)
    floor = _percentile(values, 0.5)
    if lowest >= 0:
        high = _high_end(values, 0.0, highest)
        if floor <= OFFSET_SHARE * high:
            return Intensity(0.0, high)
    low = floor if floor < highest else lowest  # all but a few voxels share the highest value
    return Intensity(low, _high_end(values, low, highest))


def _high_end(values: Tensor, low: float, highest: float) -> float:
    """The 99.5th percentile of the values above the low end."""
    foreground = values[values > low]
    return _percentile(foreground, 99.5) if foreground.numel() else highest


def _percentile(values: Tensor, percent: float) -> float:
    """A percentile by order statistic (torch.quantile refuses more than 2**24 values)."""
    rank = 1 + round((values.numel() - 1) * percent / 100)
    return float(values.kthvalue(rank).values)
