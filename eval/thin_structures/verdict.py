"""The verdict of this experiment: three sentences that the intervals allow."""

from __future__ import annotations

import pandas as pd

from eval.cited import cited
from eval.pairs import Scores, counted, interval
from eval.thin_structures.coders import CODECS, SCAN
from eval.thin_structures.measure import ALL, HALF
from eval.thin_structures.report import (
    BAR,
    FIRST_SCAN,
    change,
    limits_mm,
    name_of,
    of_chests,
    of_ct,
    percent,
    released_arm,
    scores_of,
)
from eval.thin_structures.train import CONTROL, TRIES

BALL = CODECS[0]


def verdict(frame: pd.DataFrame) -> str:
    """What survives, what moved it, and what real scans lose: at most one sentence a line."""
    scores, release = scores_of(of_chests(frame)), released_arm(frame)
    lines = [survives(scores, release), moved(scores), lost(of_ct(frame), release)]
    return "\n".join(line for line in lines if line)


def survives(scores: Scores, release: str, scan: str = FIRST_SCAN) -> str:
    """At which radius half of the lumens are found: scan, release, cosines."""
    levels = {arm: scores.level(arm, scan, ALL, HALF) for arm in (SCAN, release, BALL)}
    known = {arm: level for arm, level in levels.items() if level}
    if SCAN not in known or release not in known:
        return ""
    parts = [f"{interval(v, 2, False)} mm in {name_of(a)}" for a, v in known.items() if a == SCAN]
    parts += [f"{interval(v, 2, False)} mm after {name_of(a)}" for a, v in known.items()
              if a != SCAN]  # fmt: skip
    limits = limits_mm(scan)
    n = counted(known[SCAN].n_subjects, "chest")
    beside = change(scores, release, scan, BALL)
    against = ""
    if beside:
        word = "no difference shown" if beside.low <= 0 <= beside.high else percent(beside)
        against = f" {name_of(release)} against the cosines: {word}."
    return (
        f"{scan.capitalize()}: half of the lumens are found at a radius of {'; '.join(parts)}"
        f" (the voxels' limit is {limits['voxels, in plane']:g} mm, the latent's "
        f"{limits['latent']:g} mm; {n}).{against}"
    )


def moved(scores: Scores, scan: str = FIRST_SCAN) -> str:
    """Whether a change lowered that radius by the bar at equal computing time."""
    shifts = {arm: change(scores, arm, scan) for arm in TRIES if arm != CONTROL}
    known = {arm: pair for arm, pair in shifts.items() if pair}
    if not known:
        return ""
    best = min(known, key=lambda arm: known[arm].mean)
    pair = known[best]
    met = "reaches" if pair.mean <= -BAR and pair.high < 0 else "does not reach"
    n = counted(pair.n_seeds, "training seed")
    text = cited(percent(pair), arm=[best, CONTROL], scan=scan, radii=ALL, metric=HALF)
    return (
        f"Of {len(known)} changes at equal computing time, *{name_of(best)}* lowers that radius "
        f"most, by {text}, which {met} the bar of {BAR:.0%} ({n}; exploratory)."
    ).replace("15%", "15 %")


def _cited(means: pd.Series, arm: str, scan: str) -> str:
    text = f"{means[arm, scan]:.1f}"
    return cited(text, arm=arm, scan=scan, radii="training", metric="mae_hu")


def lost(real: pd.DataFrame, release: str) -> str:
    """Mean errors of real scans in HU: the release beside the cosines, of scans that have both."""
    own = real[(real["radii"] == "training") & (real["metric"] == "mae_hu")]
    wanted = [(a, f"{w} window") for w in ("lung", "mediastinum") for a in (release, BALL)]
    wide = own.pivot_table(index="subject", columns=["arm", "scan"], values="value")
    if not set(wanted) <= set(wide.columns):
        return ""
    whole = wide[wanted].dropna()
    means = whole.mean()
    texts = [
        f"{_cited(means, release, w)} HU in the {w} (cosines {_cited(means, BALL, w)})"
        for w in ("lung window", "mediastinum window")
    ]
    n = counted(len(whole), "scan")
    return f"Real CT: {name_of(release)} errs by {' and '.join(texts)} ({n})."
