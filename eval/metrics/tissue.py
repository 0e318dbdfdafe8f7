"""CSF, grey and white matter from intensity alone, and how well two of them overlap.

Not a segmentation for medicine: three classes of a T1-weighted brain, found the same way
every time, so that a border that moved or blurred can be counted in voxels.
"""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_multiotsu

from eval.metrics.checks import checked, inside
from medil.errors import InputError

TISSUES = {"csf": 1, "grey": 2, "white": 3}
BINS = 256
CLIP_PERCENTILES = (0.5, 99.5)  # a few bright vessels must not stretch the histogram


def thresholds(volume: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The intensities that part CSF from grey and grey from white matter, T1-weighted.

    Otsu's criterion with three classes: the least variance within classes, exactly, over
    all pairs of borders of a histogram of 256 bins (intensities clipped at the 0.5th and
    99.5th percentile inside the mask). At that optimum each border lies half-way between
    the means of its two classes. Nothing is random. A mask with fewer than three intensities has
    fewer classes, named from the darkest up: two are CSF and grey matter and a constant is all
    CSF. The thresholds above them are infinite.

    Source: Otsu 1979; Liao, Chen and Chung 2001, `skimage.filters.threshold_multiotsu`.

    Raises:
        InputError: Intensities are not finite.
    """
    values = inside(volume, mask)
    if not np.isfinite(values).all():
        raise InputError("the volume has intensities inside its mask that are not finite.")
    low, high = np.percentile(values, CLIP_PERCENTILES)
    if not high > low:
        return float("inf"), float("inf")
    counts, edges = np.histogram(np.clip(values, low, high), bins=BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    filled = centres[counts > 0]
    if filled.size < 3:
        return float(filled.mean()), float("inf")
    lower, upper = threshold_multiotsu(classes=3, hist=(counts, centres))
    return _halfway(counts, centres, lower, upper)


def _halfway(counts, centres, lower, upper) -> tuple[float, float]:
    """Between the means of the classes on either side, which does not depend on the bins."""
    classes = np.digitize(centres, (lower, upper), right=True)
    csf, grey, white = (
        np.average(centres[classes == k], weights=counts[classes == k]) for k in range(3)
    )
    return float((csf + grey) / 2), float((grey + white) / 2)


def segment(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[D, H, W] uint8 tissues by intensity: CSF 1, grey 2, white matter 3, 0 outside the mask.

    With fewer than three intensities the brighter labels stay empty (`thresholds`).
    """
    return _labelled(np.asarray(volume), np.asarray(mask, dtype=bool), thresholds(volume, mask))


def _labelled(volume: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    labels = np.ones(volume.shape, dtype=np.uint8)
    for level in levels:
        labels += volume > level
    return labels * mask


def dice(a: np.ndarray, b: np.ndarray, label: int) -> float:
    """Overlap of one label: twice the common voxels over the sum of both (Dice 1945).

    0 (apart) to 1 (equal, or neither has the label).

    Raises:
        InputError: Shapes differ.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise InputError(f"the two label maps differ in shape: {a.shape}, {b.shape}.")
    here, there = a == label, b == label
    total = int(here.sum()) + int(there.sum())
    return 2 * int((here & there).sum()) / total if total else 1.0


def tissue_dice(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """dice_csf, dice_grey and dice_white between a T1-weighted volume and its estimate.

    Our choice: the truth's two thresholds part both, so an estimate must have the truth's
    intensities as well as its borders; one that lost contrast loses overlap.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    levels = thresholds(truth, mask)
    ours, theirs = (_labelled(v, mask, levels) for v in (truth, estimate))
    return {f"dice_{name}": dice(ours, theirs, label) for name, label in TISSUES.items()}
