"""Where a metric counts: the brain of a stripped scan, the head of a raw one."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from medil.errors import InputError


def brain_mask(data: np.ndarray) -> np.ndarray:
    """The brain of a skull-stripped volume: above zero, largest piece, holes filled.

    Raises:
        InputError: Nothing is above zero.
    """
    return ndimage.binary_fill_holes(_largest_piece(np.asarray(data) > 0))


def head_mask(data: np.ndarray) -> np.ndarray:
    """The head of a raw scan with skull, for scoring; not a segmentation.

    Half of Otsu's threshold (intensities clipped at the 99.5th percentile, smoothed by
    one voxel, so that fat does not set it and skin is not lost), the largest piece,
    closed by two voxels, holes filled in 3-D and then slice by slice along the last
    axis, which points up, since a neck that leaves the field of view opens the cavities of
    the head.

    Raises:
        InputError: The volume is constant.
    """
    volume = np.asarray(data, dtype=np.float64)
    smooth = ndimage.gaussian_filter(np.minimum(volume, np.percentile(volume, 99.5)), 1.0)
    if not np.ptp(smooth) > 0:
        raise InputError("a constant volume has no head to find.")
    head = _largest_piece(smooth > threshold_otsu(smooth) / 2)
    padded = ndimage.binary_closing(np.pad(head, 2), iterations=2)
    head = ndimage.binary_fill_holes(padded)[2:-2, 2:-2, 2:-2]
    planes = [ndimage.binary_fill_holes(head[..., k]) for k in range(head.shape[-1])]
    return np.stack(planes, axis=-1)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    labels, n_pieces = ndimage.label(mask)
    if n_pieces == 0:
        raise InputError("nothing in this volume is above the threshold, so there is no mask.")
    sizes = np.bincount(labels.ravel())
    return labels == 1 + int(np.argmax(sizes[1:]))
