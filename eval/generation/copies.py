"""Is a sample a copy? Its nearest training head, compared with distances among training heads.

Heads drawn on one label map count as neighbours too, so near ones exist and the bar is low.
A dull sample is near to everybody without being a copy, so nearness is also taken relative to
the sample's distance from all training heads.
"""

from __future__ import annotations

import numpy as np

from eval.generation.sets import Volumes, distances

FLAGGED_PERCENT = 5.0
UNITS = {
    "nearest": "1", "nearest_in_training": "1", "bar": "1", "flagged_percent": "%",
    "copies_percent": "%",
}  # fmt: skip


def memorisation(volumes: Volumes, training: Volumes) -> tuple[dict[str, float], np.ndarray]:
    """Measure how near volumes [D, H, W] (2 mm, 0 ... 1) come to two or more training heads.

    The distance is the RMS difference of intensities over blocks of 4 mm in the box. A volume
    is flagged if its nearest training head is nearer than the 5th percentile of the distances
    between training heads and their nearest other one.

    Returns:
        `nearest` and `nearest_in_training` (medians), `bar` (that percentile),
        `flagged_percent`, and `copies_percent`, flagged by the nearest distance over the median
        one; and [n] bool, the volumes that the latter flags.
    """
    among = distances(training, training)
    np.fill_diagonal(among, np.nan)
    theirs, away = np.nanmin(among, axis=1), np.nanmedian(among, axis=1)
    bar, bar_ratio = (float(np.percentile(d, FLAGGED_PERCENT)) for d in (theirs, theirs / away))
    apart = distances(volumes, training)
    nearest = apart.min(axis=1)
    flagged = nearest / np.median(apart, axis=1) < bar_ratio
    values = {
        "nearest": float(np.median(nearest)),
        "nearest_in_training": float(np.median(theirs)),
        "bar": bar,
        "flagged_percent": 100 * float((nearest < bar).mean()),
        "copies_percent": 100 * float(flagged.mean()),
    }
    return values, flagged
