"""From prepared rows to the tables and the verdict of this experiment; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.extrapolation.coders import RELEASE, TRUTH
from eval.extrapolation.report import FIRST, arms_of, codec_beside, heading, name_of, scores_of
from eval.extrapolation.score import ERRORS, PARTS, SURFACE
from eval.extrapolation_real.blocks import CONDITIONS
from eval.pairs import counted, interval

ASKED = "1 mm -> native"
SHOWN = (FIRST, "trilinear", RELEASE, "interpolation")
DETAIL = [f"detail_{p}_{band}" for band in ("fine", "beyond") for p in PARTS if p != "error"]


def wide(frame: pd.DataFrame, metrics: tuple[str, ...] | list[str]) -> pd.DataFrame:
    """One line an arm and condition, one column a metric: mean [interval], and n."""
    scores, lines = scores_of(frame), []
    for condition in CONDITIONS:
        for arm in arms_of(frame):
            levels = {heading(m): scores.level(arm, condition, m) for m in metrics}
            known = [level for level in levels.values() if level]
            texts = {n: interval(p, 3, False) if p else "" for n, p in levels.items()}
            line = {"Condition": condition, "Arm": "the scan" if arm == TRUTH else name_of(arm)}
            lines += [line | texts | {"n": f"{p.n_subjects} × {p.n_seeds}"} for p in known[:1]]
    return pd.DataFrame(lines)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    made = {"errors": wide(frame, ERRORS), "detail": wide(frame, DETAIL)}
    made["surface"] = wide(frame, SURFACE)
    return {f"extrapolation_real_{name}": table for name, table in made.items()}


def verdict(frame: pd.DataFrame) -> str:
    """What is kept, smoothed and invented of real detail, one sentence a line."""
    lines = [_detail(frame, arm) for arm in SHOWN]
    lines += [_beside(frame, codec) for codec in ("bspline", "dct_ball")]
    return "\n".join(filter(None, lines)) or "No arm is recorded."


def _detail(frame: pd.DataFrame, arm: str) -> str:
    scores = scores_of(frame)
    levels = [scores.level(arm, ASKED, metric) for metric in DETAIL]
    found = [interval(level, 2, False) for level in levels if level]
    if len(found) < len(DETAIL) or not levels[0]:
        return ""
    return (
        f"{ASKED}, {name_of(arm)}: between 2 and 4 mm it keeps {found[0]} of the scan's amplitude, "
        f"smooths {found[1]} and invents {found[2]}; below 2 mm it keeps {found[3]}, smooths "
        f"{found[4]} and invents {found[5]} ({_n(levels[0])})."
    )


def _beside(frame: pd.DataFrame, codec: str) -> str:
    """The first arm minus a codec of its size, where neither has seen the scan's voxels."""
    scores, rival = scores_of(frame), codec_beside(frame, (FIRST, ASKED), codec)
    db, kept, invented = (
        scores.gap((FIRST, ASKED, metric), (rival, ASKED, metric))
        for metric in ("psnr", "detail_kept_fine", "detail_invented_fine")
    )
    if not (db and kept and invented):
        return ""
    return (
        f"{ASKED}, {name_of(FIRST)} − {name_of(rival)}: PSNR {interval(db)} dB; between 2 and 4 mm "
        f"kept {interval(kept, 3)}, invented {interval(invented, 3)} ({_n(db)})."
    )


def _n(pair) -> str:
    return f"{pair.n_subjects} brains × {counted(pair.n_seeds, 'seed')}"
