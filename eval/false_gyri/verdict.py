"""The verdict of this experiment: three sentences at most, in words that the rows allow."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.cited import cited
from eval.false_gyri.arms import INTERPOLATION, MEDIL
from eval.false_gyri.blocks import ASKED
from eval.false_gyri.report import (
    BAR,
    MAP_NAMES,
    MOST_COST_DB,
    NAMES,
    SPREAD,
    chosen,
    density,
    effect,
    factor,
    heads_of,
    miscalibration,
    reliability,
    table_of,
)
from eval.false_gyri.score import COUNTS
from eval.false_gyri.tries import CONTROL
from eval.tables import with_interval

SHOWN = {"literal": "the paper's literal LTE", "conv-1mm": "a Conv AE"}  # tries in the sentence


def verdict(frame: pd.DataFrame) -> str:
    """What is invented, which guard pays, and what the map of uncertainty is worth."""
    lines = [invention(frame), guard(frame), uncertainty(frame)]
    return "\n".join(line for line in lines if line)


def invention(frame: pd.DataFrame) -> str:
    """MedIL beside interpolation of the scan itself, which knows every voxel."""
    heads = heads_of(frame)
    own, other = ([density(heads, a, c) for c in ASKED] for a in (MEDIL, INTERPOLATION))
    if not np.isfinite([*own, *other]).all():
        return ""
    n, signs = heads["subject"].nunique(), {bool(a < b) for a, b in zip(own, other, strict=True)}
    words = "sometimes more" if len(signs) > 1 else "fewer" if True in signs else "more"
    mine, theirs = (
        " and ".join(_cited(d, heads, arm, c) for d, c in zip(found, ASKED, strict=True))
        for found, arm in ((own, MEDIL), (other, INTERPOLATION))
    )
    return (
        f"A 1 mm scan rendered at 0.8 and 0.5 mm by MedIL shows {mine} "
        f"false bridges, holes and islands per cm³ of grey matter, {words} than cubic "
        f"interpolation of the scan itself, {theirs} (n = {n} heads){operators(heads)}."
    )


def operators(heads: pd.DataFrame, condition: str = ASKED[0]) -> str:
    """The paper's operator and a fixed grid beside ours, as the end of a sentence."""
    effects = {a: effect(heads, a, condition, CONTROL) for a in SHOWN}
    shares = {a: with_interval(e.left, e.low, e.high, 0) for a, e in effects.items() if e}
    if not shares:
        return ""
    told = [
        f"{SHOWN[arm]} shows "
        + cited(f"{share} %", arm=[arm, CONTROL], condition=condition,
                metric=list(COUNTS), subject=heads["subject"].tolist())
        for arm, share in shares.items()
    ]  # fmt: skip
    voxels = condition.split(" -> ")[1]
    return f"; trained briefly, {' and '.join(told)} of those of integrated LTE at {voxels} mm"


def _cited(density_per_cm3: float, heads: pd.DataFrame, arm: str, condition: str) -> str:
    return cited(
        f"{density_per_cm3:.1f}", subject=heads["subject"].tolist(), arm=arm, condition=condition,
        metric=[*COUNTS, "ribbon_cm3"],
    )  # fmt: skip


def guard(frame: pd.DataFrame) -> str:
    """The guard that was chosen on other heads."""
    best = chosen(frame)
    heads = heads_of(frame, False)
    effects = [effect(heads, best, c) for c in ASKED] if best else []
    found = [e for e in effects if e]
    if len(found) < len(ASKED) or best is None:
        return ""
    left = " and ".join(with_interval(e.left, e.low, e.high, 0) for e in found)
    gain = " and ".join(with_interval(e.gain_db, e.gain_low, e.gain_high, 2, True) for e in found)
    met = all(e.left <= BAR and e.gain_db >= -MOST_COST_DB for e in found)
    bar = "meets" if met else "misses"
    return (
        f"The guard *{NAMES[best]}* leaves {left} % of them and changes PSNR by {gain} dB: it "
        f"{bar} the bar, half of them for at most {MOST_COST_DB} dB (n = {found[0].n} other heads)."
    )


def uncertainty(frame: pd.DataFrame, which: str = SPREAD) -> str:
    """Calibration by one factor, and whether the map finds false topology."""
    heads = heads_of(frame, False)
    heads = heads[heads["condition"].isin(ASKED) & (heads["arm"] == which)]
    bins = reliability(heads, which, factor(frame, which))
    if bins.empty:
        return ""
    own = table_of(heads)[["auc", "auc_at_surfaces"]].mean()
    lights = "it lights up" if own["auc_at_surfaces"] > 0.6 else "it hardly lights up"
    return (
        f"The {MAP_NAMES[which]}, scaled by one factor, predicts the RMS error to within "
        f"{miscalibration(bins):.0f} % from the surest to the least sure tenth of the voxels; "
        f"where topology is false {lights}: a false voxel has the larger value with a chance of "
        f"{own['auc']:.2f} against any other and {own['auc_at_surfaces']:.2f} against one at a "
        "surface (0.50 is chance)."
    )
