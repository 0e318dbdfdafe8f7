"""Attributes measured on an image alone, to compare a sample with what was requested of it.

The volumes of a synthetic head are known; those of a sample are not. The rulers here use
intensities only. They are rough (dark voxels in two ellipsoids where ventricles lie), so a
straight line that was fitted on synthetic training heads corrects each, and each is itself
tested on held-out ones.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from eval.metrics.checks import inside
from eval.metrics.tissue import thresholds
from medil.errors import InputError
from medil.grid import Triple

VOXEL_MM = 2.0  # of all sets of volumes
SPACING_MM: Triple = (VOXEL_MM, VOXEL_MM, VOXEL_MM)
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


def measure_attributes(volume: np.ndarray, spacing_mm: Triple = SPACING_MM) -> dict[str, float]:
    """Ventricles (ml), brain (ml) and contrast of a volume, from its intensities alone.

    The volume [D, H, W] is skull-stripped on the 0 ... 1 scale, axes R, A, S, nearly upright; the
    calibration lines were fitted at 2 mm.
    """
    mask = brain_mask(volume)
    return {
        "ventricles": ventricles_ml(volume, mask, spacing_mm),
        "brain": brain_ml(volume, mask, spacing_mm),
        "contrast": contrast(volume, mask),
    }


def ventricles_ml(
    volume: np.ndarray, mask: np.ndarray, spacing_mm: Triple = SPACING_MM, calibrated: bool = True
) -> float:
    """Volume of the lateral ventricles: dark voxels where ventricles lie.

    Dark is below half-way from the darkest voxels deep inside the brain to grey matter.
    Dark cracks narrower than `OPENING_MM` fall away, and of what is left the pieces count
    that reach the frontal horns and bodies. Our choice.

    Args:
        volume: [D, H, W], T1-weighted, axes R, A, S.
        mask: [D, H, W] bool, from `brain_mask`.
        spacing_mm: Voxel size.
        calibrated: Apply the line fitted on synthetic heads (never below 0).

    Returns:
        In ml.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    inside(volume, mask)
    across, along, down = _place(mask, spacing_mm)
    levels = thresholds(volume, mask)
    grey = _grey(volume, mask, levels)
    near = (across < 0.2) & (abs(along) < 0.3) & (down > 0.2) & (down < 0.45)
    if not near.any():
        return _on_line("ventricles", 0.0) if calibrated else 0.0
    black = np.percentile(volume[near], 1)
    where = np.minimum(*(_ellipsoid(across, along, down, body) for body in BODIES)) < 1
    third = (across < THIRD[0]) & (along > THIRD[1]) & (down > THIRD[2])
    dark = (volume < (black + grey) / 2) & where & ~third
    steps = max(1, round(OPENING_MM / min(spacing_mm)))
    wide = ndimage.binary_opening(dark, iterations=steps)
    wide = ndimage.binary_dilation(wide, iterations=steps) & dark
    pieces, _ = ndimage.label(wide)
    seed = _ellipsoid(across, along, down, SEED) < 1
    kept = np.unique(pieces[seed & wide])
    raw = np.isin(pieces, kept[kept > 0]).sum() * math.prod(spacing_mm) / 1000
    return _on_line("ventricles", raw) if calibrated else float(raw)


def brain_ml(
    volume: np.ndarray, mask: np.ndarray, spacing_mm: Triple = SPACING_MM, calibrated: bool = True
) -> float:
    """Volume of brain tissue and ventricles, in ml: voxels brighter than CSF, plus ventricles.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    inside(volume, mask)
    lower, _ = thresholds(volume, mask)
    tissue = (np.asarray(volume)[mask] > lower).sum() * math.prod(spacing_mm) / 1000
    raw = tissue + ventricles_ml(volume, mask, spacing_mm, calibrated=False)
    return _on_line("brain", raw) if calibrated else float(raw)


def contrast(volume: np.ndarray, mask: np.ndarray, calibrated: bool = True) -> float:
    """White over grey matter, mean intensities of the two classes of `tissue.thresholds`.

    Dimensionless; 1 without white matter. `calibrated` applies the line fitted on synthetic heads.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    values = inside(volume, mask)
    levels = thresholds(volume, mask)
    white = values[values > levels[1]]
    grey = _grey(volume, mask, levels)
    raw = float(white.mean() / grey) if white.size and grey > 0 else 1.0
    return _on_line("contrast", raw) if calibrated else raw


def _grey(volume: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> float:
    values = np.asarray(volume)[mask]
    grey = values[(values > levels[0]) & (values <= levels[1])]
    return float(grey.mean()) if grey.size else float(values.mean())


def _on_line(name: str, raw: float) -> float:
    slope, offset = LINES[name]
    return max(0.0, slope * float(raw) + offset)


def _place(mask: np.ndarray, spacing_mm: Triple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each voxel's place in the brain: from the midplane, ahead of the middle, below the top.

    All in units of the brain's length from back to front; arrays that broadcast to [D, H, W].
    """
    ends = []
    for axis in range(3):
        filled = np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        ends.append((filled[0] - 0.5, filled[-1] + 0.5))
    length_mm = (ends[1][1] - ends[1][0]) * spacing_mm[1]
    x, y, z = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    across = abs(x - np.mean(ends[0])) * spacing_mm[0] / length_mm
    along = (y - np.mean(ends[1])) * spacing_mm[1] / length_mm
    down = (ends[2][1] - z) * spacing_mm[2] / length_mm
    return across, along, down


def _ellipsoid(across, along, down, body) -> np.ndarray:
    """[D, H, W]: below 1 inside an ellipsoid (and its mirror image in the midplane)."""
    centre, half = body
    parts = zip((across, along, down), centre, half, strict=True)
    return sum(((p - c) / h) ** 2 for p, c, h in parts)
