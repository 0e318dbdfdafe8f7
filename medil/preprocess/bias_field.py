"""The smooth field by which coils brighten one side of a head: N4 (Tustison et al. 2010)."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError, needs
from medil.volume import Volume

WORKING_MM = 4.0  # voxels that N4 sees; the field is smoother than this
ITERATIONS = (50, 50, 50, 50)  # most, of each level of the splines
CONVERGENCE = 1e-4


def bias_field(volume: Volume, mask: Tensor) -> Tensor:
    """The multiplicative field of a scan, from voxels averaged to about `WORKING_MM`.

    Args:
        volume: The scan; values in the mask should be above zero, others do not count.
        mask: [D, H, W] bool, the brain.

    Returns:
        [D, H, W] float32 on the scan's own grid, of geometric mean 1 in the mask. The corrected
        scan is the scan over it.

    Raises:
        InputError: SimpleITK is missing, or the mask holds too few bright voxels.
    """
    with needs("preprocess", "bias correction needs SimpleITK"):
        import SimpleITK as sitk
    seen = mask & (volume.data > 0) & torch.isfinite(volume.data.float())
    if int(seen.sum()) < 1000:
        raise InputError("fewer than 1000 voxels of the brain are above zero; N4 needs more.")
    data = torch.where(seen, volume.data.float(), 0.0)
    scan, inside = (_image(sitk, t, volume) for t in (data, seen.to(torch.uint8)))
    sizes = [
        max(1, min(round(WORKING_MM / mm), n // 4))
        for mm, n in zip(volume.grid.spacing_mm, volume.grid.shape, strict=True)
    ]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(ITERATIONS))
    corrector.SetConvergenceThreshold(CONVERGENCE)
    corrector.Execute(sitk.Shrink(scan, sizes), sitk.Shrink(inside, sizes))
    log_field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(scan))
    field = torch.from_numpy(np.ascontiguousarray(log_field.transpose(2, 1, 0)))
    return (field - field[seen].mean()).exp().float()


def _image(sitk: ModuleType, data: Tensor, volume: Volume) -> Any:
    """[D, H, W] as an image of SimpleITK, whose arrays run the other way round."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.numpy().transpose(2, 1, 0)))
    image.SetSpacing([float(mm) for mm in volume.grid.spacing_mm])
    return image


def field_range(field: Tensor, mask: Tensor) -> float:
    """The bright end of a field over its dark end in a mask (99th over 1st percentile)."""
    low, high = np.percentile(field[mask].numpy(), (1, 99))
    return float(high / low) if low > 0 else math.inf
