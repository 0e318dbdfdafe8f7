"""Sentences about images that can be encoded and are probably not what a person meant.

Each was measured on the image. None changes a value: a mistake is named, not repaired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medil.io.intensity import Intensity

PAIRS = 2_000_000  # neighbours that are compared, about
EQUAL_SHARE = 0.7  # of neighbours inside an object, above which it is drawn and not measured
NARROW = 0.05  # share of the range in which nearly all of an object lies
FAR = 100.0  # times its range that a value may lie beyond it
SPACINGS_MM = (0.1, 12.0)  # voxel sizes of scans of heads


def notices(data: Tensor, spacing_mm: Sequence[float], scale: Intensity) -> list[str]:
    """What a person should know before trusting what becomes of an image; often nothing.

    Args:
        data: [D, H, W] as loaded, in the units of the image.
        spacing_mm: Voxel size.
        scale: Its scaling, as `medil.model.autoencoder.MedIL.encode` takes it.
    """
    finite = torch.isfinite(data) if data.is_floating_point() else None
    found = [_missing(finite), odd_sizes(spacing_mm), _labels(data)]
    values = data.reshape(-1) if finite is None else data[finite]
    return [text for text in (*found, _far(values, scale), _narrow(values, scale)) if text]


def _missing(finite: Tensor | None) -> str:
    n = 0 if finite is None else finite.numel() - int(finite.sum())
    if not n:
        return ""
    return f"voxels that are NaN or Inf ({n:,}) are left out, and are NaN in what is rendered."


def odd_sizes(spacing_mm: Sequence[float]) -> str:
    """A sentence about voxel sizes that no scan of a head has; empty for others."""
    least, most = SPACINGS_MM
    if least <= min(spacing_mm) and max(spacing_mm) <= most:
        return ""
    sizes = " x ".join(f"{size:.4g}" for size in spacing_mm)
    return f"voxels of {sizes} mm are not those of a scan of a head; is the unit right?"


def _labels(data: Tensor) -> str:
    """Neighbours along an axis, of whole numbers, where not both are background."""
    rows = data.movedim(int(torch.tensor(data.shape).argmax()), -1).reshape(-1, max(data.shape))
    rows = rows[:: max(1, math.ceil(rows.numel() / PAIRS))].to(torch.float64)
    if not bool((rows == rows.round()).all()):  # NaN is not a label either
        return ""
    first, second = rows[:, :-1].reshape(-1), rows[:, 1:].reshape(-1)
    background = rows.mode().values.mode().values
    inside = (first != background) | (second != background)
    equal = (first == second)[inside]
    if equal.numel() == 0 or equal.double().mean() < EQUAL_SHARE:
        return ""
    return "neighbouring voxels are equal, as in a label map or a mask; intensities are expected."


def _far(values: Tensor, scale: Intensity) -> str:
    width = scale.high - scale.low
    low, high = (float(v) for v in torch.aminmax(values))
    if scale.low - FAR * width <= low and high <= scale.high + FAR * width:
        return ""
    wrong = (values < scale.low - FAR * width) | (values > scale.high + FAR * width)
    return (
        f"{int(wrong.sum()):,} voxels lie {FAR:g} ranges or more beyond {scale.low:g} to "
        f"{scale.high:g}, and spoil what is around them; clip them or make them NaN."
    )


def _narrow(values: Tensor, scale: Intensity) -> str:
    sample = values[:: max(1, math.ceil(values.numel() / PAIRS))].to(torch.float64)
    inside = sample[sample > scale.low].sort().values
    if not inside.numel():
        return ""
    low, high = (float(inside[int(share * (len(inside) - 1))]) for share in (0.01, 0.99))
    if low == high or high - low >= NARROW * (scale.high - scale.low):
        return ""
    return (
        f"nearly all of the object lies within {low:g} to {high:g}, a small part of the range "
        f"{scale.low:g} to {scale.high:g}, in which contrast is lost; name a window, and make the "
        "background NaN."
    )
