"""What makes a voxel size and an affine usable; everything else about them is in `grid`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medil.errors import InputError

Triple = tuple[float, float, float]


def as_triple(value: float | Sequence[float], name: str) -> Triple:
    """Three finite positive numbers from one number or three.

    Args:
        value: One number for all axes, or one for each voxel axis.
        name: What to call it in an error.

    Returns:
        Three floats.

    Raises:
        InputError: Not one or three numbers, or any is not finite and above zero.
    """
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if numbers.shape not in ((1,), (3,)):
        raise InputError(f"{name} takes one number or three, not {numbers.size}: {value}.")
    triple = tuple(float(n) for n in np.broadcast_to(numbers, (3,)))
    if not all(math.isfinite(n) and n > 0 for n in triple):
        raise InputError(f"{name} must be finite and above zero, not {value}.")
    return triple  # type: ignore[return-value]


def check_affine(affine_vox2ras: np.ndarray) -> np.ndarray:
    """A float64 copy of a usable voxel-to-RAS+ affine.

    Args:
        affine_vox2ras: [4, 4], mm.

    Returns:
        [4, 4] float64, read-only.

    Raises:
        InputError: Wrong shape, NaN or Inf, all zero, or singular.
    """
    affine = np.array(affine_vox2ras, dtype=np.float64)
    if affine.shape != (4, 4):
        raise InputError(f"the affine must be 4 x 4, not {' x '.join(map(str, affine.shape))}.")
    if not np.isfinite(affine).all():
        raise InputError("the affine holds NaN or Inf; repair the header before using this image.")
    if not affine[:3, :3].any():
        raise InputError("the affine is zero; repair the header before using this image.")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        raise InputError(f"the affine's last row must be 0 0 0 1, not {affine[3].tolist()}.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise InputError("the affine is singular (two voxel axes coincide); repair the header.")
    affine.setflags(write=False)
    return affine
