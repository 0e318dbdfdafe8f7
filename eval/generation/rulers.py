"""Attributes measured on an image alone, to compare a sample with what was requested of it.

The volumes of a synthetic head are known; those of a sample are not. The rulers here use
intensities only. They are rough (dark voxels in two ellipsoids where ventricles lie), so a
straight line that was fitted on synthetic training heads corrects each, and each is itself
tested on held-out ones.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from eval.metrics.checks import inside
from eval.metrics.tissue import thresholds
from medil.errors import InputError

VOXEL_MM = 2.0  # of all sets of volumes
VOXEL_ML = VOXEL_MM**3 / 1000
HEAD_SHARE = 0.1  # of the 0 ... 1 scale: what is brighter is the brain with its CSF
OPENING_MM = 2.0  # narrower dark cracks are no ventricle
BODIES = (  # ellipsoids: centre and half axes, in brain lengths; see `_place`
    ((0.0, 0.03, 0.31), (0.208, 0.384, 0.136)),
    ((0.12, -0.17, 0.37), (0.12, 0.208, 0.144)),
)
SEED = ((0.035, 0.05, 0.29), (0.035, 0.14, 0.035))
THIRD = (0.025, -0.1, 0.345)  # the third ventricle: nearer the middle, ahead of, below
LINES = {  # truth = slope x raw + offset, least squares on 32 drawn training heads at 2 mm
    "ventricles": (1.133, 4.69),
    "brain": (1.011, 29.9),
    "contrast": (1.588, -0.780),
}


def brain_mask(volume: np.ndarray) -> np.ndarray:
    """[D, H, W] bool: voxels above a tenth of the scale, largest piece, holes filled.

    Raises:
        InputError: No voxel is bright enough.
    """
    pieces, count = ndimage.label(np.asarray(volume) > HEAD_SHARE)
    if not count:
        raise InputError("the volume holds no brain: nothing is above a tenth of its scale.")
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(pieces == sizes.argmax())


def measure_attributes(volume: np.ndarray) -> dict[str, float]:
    """Ventricles (ml), brain (ml) and contrast of a volume, from its intensities alone.

    The volume [D, H, W] is skull-stripped on the 0 ... 1 scale, with voxels of 2 mm and axes
    R, A, S, nearly upright.
    """
    mask = brain_mask(volume)
    raw = {
        "ventricles": ventricles_ml(volume, mask),
        "brain": brain_ml(volume, mask),
        "contrast": contrast(volume, mask),
    }
    return {name: slope * raw[name] + offset for name, (slope, offset) in LINES.items()}


def ventricles_ml(volume: np.ndarray, mask: np.ndarray) -> float:
    """Volume of the lateral ventricles in ml, not corrected: dark voxels where ventricles lie.

    Dark is below half-way from the darkest voxels deep inside the brain to grey matter.
    Dark cracks narrower than `OPENING_MM` fall away, and of what is left the pieces count
    that reach the frontal horns and bodies. Our choice. The volume is T1-weighted, axes R, A, S.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    inside(volume, mask)
    across, along, down = _place(mask)
    near = (across < 0.2) & (abs(along) < 0.3) & (down > 0.2) & (down < 0.45)
    if not near.any():
        return 0.0
    black = np.percentile(volume[near], 1)
    where = np.minimum(*(_ellipsoid(across, along, down, body) for body in BODIES)) < 1
    third = (across < THIRD[0]) & (along > THIRD[1]) & (down > THIRD[2])
    grey = _grey(volume, mask, thresholds(volume, mask))
    dark = (volume < (black + grey) / 2) & where & ~third
    steps = max(1, round(OPENING_MM / VOXEL_MM))
    wide = ndimage.binary_opening(dark, iterations=steps)
    wide = ndimage.binary_dilation(wide, iterations=steps) & dark
    pieces, _ = ndimage.label(wide)
    seed = _ellipsoid(across, along, down, SEED) < 1
    kept = np.unique(pieces[seed & wide])
    return float(np.isin(pieces, kept[kept > 0]).sum() * VOXEL_ML)


def brain_ml(volume: np.ndarray, mask: np.ndarray) -> float:
    """Volume of brain tissue and ventricles, in ml: voxels brighter than CSF, plus ventricles.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    values = inside(volume, mask)
    lower, _ = thresholds(volume, mask)
    return float((values > lower).sum() * VOXEL_ML + ventricles_ml(volume, mask))


def contrast(volume: np.ndarray, mask: np.ndarray) -> float:
    """White over grey matter, mean intensities of the two classes of `tissue.thresholds`.

    Dimensionless; 1 without white matter.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    values = inside(volume, mask)
    levels = thresholds(volume, mask)
    white = values[values > levels[1]]
    grey = _grey(volume, mask, levels)
    return float(white.mean() / grey) if white.size and grey > 0 else 1.0


def _grey(volume: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> float:
    values = np.asarray(volume)[mask]
    grey = values[(values > levels[0]) & (values <= levels[1])]
    return float(grey.mean()) if grey.size else float(values.mean())


def _place(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each voxel's place in the brain: from the midplane, ahead of the middle, below the top.

    All in units of the brain's length from back to front; arrays that broadcast to [D, H, W].
    """
    ends = []
    for axis in range(3):
        filled = np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        ends.append((filled[0] - 0.5, filled[-1] + 0.5))
    length = ends[1][1] - ends[1][0]
    x, y, z = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    across = abs(x - np.mean(ends[0])) / length
    along = (y - np.mean(ends[1])) / length
    down = (ends[2][1] - z) / length
    return across, along, down


def _ellipsoid(across, along, down, body) -> np.ndarray:
    """[D, H, W]: below 1 inside an ellipsoid (and its mirror image in the midplane)."""
    centre, half = body
    parts = zip((across, along, down), centre, half, strict=True)
    return sum(((p - c) / h) ** 2 for p, c, h in parts)
