"""Intensity scaling that inverts exactly: two numbers, no clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medil.errors import InputError

MAX_SAMPLES = 2_000_000  # enough for a percentile to 1e-3 of the range


@dataclass(frozen=True)
class Intensity:
    """The linear scaling that maps ``low`` to 0 and ``high`` to 1.

    Nothing is clipped, so `inverse` undoes `forward` for every value, also outside.

    Args:
        low: Intensity that becomes 0, in the units of the image.
        high: Intensity that becomes 1.

    Raises:
        InputError: Not finite, or ``high`` not above ``low``.

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

    def forward(self, x: Tensor) -> Tensor:
        """Image units to about 0 ... 1, computed in float64, returned as float32."""
        return ((x.to(torch.float64) - self.low) / (self.high - self.low)).to(torch.float32)

    def inverse(self, x: Tensor) -> Tensor:
        """About 0 ... 1 back to image units, computed in float64, returned as float32."""
        return (x.to(torch.float64) * (self.high - self.low) + self.low).to(torch.float32)


def replace_nonfinite(data: Tensor) -> tuple[Tensor, int]:
    """Replace NaN and Inf, which would spread through every convolution; also returns how many.

    NaN and -Inf become the lowest finite value (the background), +Inf the highest. Integers pass
    unchanged.

    Raises:
        InputError: No value is finite.
    """
    if not data.is_floating_point():
        return data, 0
    if _all_finite(data):
        return data, 0
    finite = torch.isfinite(data)
    n_bad = int(data.numel() - finite.sum())
    if n_bad == data.numel():
        raise InputError("the image holds no finite value (all are NaN or Inf).")
    low, high = (float(v) for v in torch.aminmax(data[finite]))
    return torch.nan_to_num(data, nan=low, neginf=low, posinf=high), n_bad


def _all_finite(data: Tensor) -> bool:
    """Checks in pieces, so that a large image needs no mask of its own size."""
    return all(bool(torch.isfinite(part).all()) for part in data.reshape(-1).split(2**22))


def robust_intensity(data: Tensor) -> Intensity:
    """The intensity range of an image of any shape, robust to a few outliers.

    ``low`` is 0 where no voxel is negative (magnitude images), else the 0.5th percentile
    of all voxels; ``high`` is the 99.5th percentile of the voxels above ``low``
    (the foreground), so that a wide black margin does not change the scale of a head. NaN and
    Inf are left out.

    Raises:
        InputError: The image is constant or has no finite value.
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
    low = 0.0 if lowest >= 0 else _percentile(values, 0.5)
    if low >= highest:  # all but a few voxels share the highest value
        low = lowest
    foreground = values[values > low]
    high = _percentile(foreground, 99.5) if foreground.numel() else highest
    return Intensity(low, high)


def _percentile(values: Tensor, percent: float) -> float:
    """A percentile by order statistic (torch.quantile refuses more than 2**24 values)."""
    rank = 1 + round((values.numel() - 1) * percent / 100)
    return float(values.kthvalue(rank).values)
