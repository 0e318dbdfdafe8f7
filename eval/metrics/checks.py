"""What every metric requires of its input, and small tools that several share."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medil.box import Triple
from medil.errors import InputError


def checked(truth, estimate, mask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, estimate = (np.asarray(v, dtype=np.float64) for v in (truth, estimate))
    if truth.shape != estimate.shape:
        raise InputError(f"truth and estimate differ in shape: {truth.shape}, {estimate.shape}.")
    inside(truth, mask)
    return truth, estimate, np.asarray(mask, dtype=bool)


def inside(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    values, mask = np.asarray(values, dtype=np.float64), np.asarray(mask, dtype=bool)
    if values.shape != mask.shape:
        raise InputError(f"the volume has shape {values.shape} but its mask {mask.shape}.")
    if not mask.any():
        raise InputError("the mask is empty, so there is nothing to score.")
    return values[mask]


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)


def depth_mm(mask: np.ndarray, spacing_mm: np.ndarray | Triple) -> np.ndarray:
    """[D, H, W] distance from the nearest voxel centre outside; beyond the faces is outside."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    return ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]


def relative(error: np.ndarray, reference: np.ndarray) -> float:
    size = float(np.linalg.norm(reference))
    wrong = float(np.linalg.norm(error))
    if size == 0:
        return 0.0 if wrong == 0 else float("inf")
    return wrong / size
