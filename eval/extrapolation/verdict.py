"""The verdict of this experiment, in words that the intervals allow."""

from __future__ import annotations

import pandas as pd

from eval.extrapolation.coders import RELEASE, TRUTH
from eval.extrapolation.paired import (
    ASKED,
    CONTROL,
    FIRST,
    NAMES,
    RIVALS,
    Answer,
    Level,
    Scores,
    gap,
    interval,
    level,
    of_heads,
    scores_of,
    values,
)
from eval.extrapolation.score import PARTS, SURFACE
from eval.extrapolation.train import TITLES
from eval.stats import Paired, compare


def headline(frame: pd.DataFrame) -> str:
    """The three answers that matter most, one sentence a line."""
    heads = of_heads(frame)
    scores = scores_of(heads)
    lines = [_answer(scores, FIRST), _gap_line(scores, (FIRST, ASKED), ("trilinear", ASKED))]
    lines += [_false(scores, FIRST, condition) for condition in (CONTROL, ASKED)]
    return "\n".join(line for line in [*lines, _caution(heads)] if line)


def _answer(scores: Scores, arm: str) -> str:
    """What leads the error, and whether more is kept than splines keep without a network."""
    smoothed, invented = (
        values(scores, (arm, ASKED), f"detail_{part}_fine") for part in ("smoothed", "invented")
    )
    kept = {
        band: gap(scores, (arm, ASKED), ("bspline", ASKED), f"detail_kept_{band}")
        for band in ("fine", "beyond")
    }
    if smoothed.empty or not all(kept.values()):
        return ""
    lead = compare((smoothed - invented).to_numpy())
    word = "smooths more than it invents" if lead.low > 0 else "does not only smooth"
    word = "invents more than it smooths" if lead.high < 0 else word
    return (
        f"{ASKED} mm, {_who(arm)}, in waves of 2 to 4 mm {word}: smoothed less invented "
        f"{interval(lead, 2, True)}. What it keeps less what splines of equal size keep without a "
        f"network: {interval(kept['fine'], 3, True)} there, {_side(kept['fine'])}, and "
        f"{interval(kept['beyond'], 3, True)} in waves below 2 mm, {_side(kept['beyond'])} "
        f"({_n(lead)})."
    )


def verdict(frame: pd.DataFrame) -> str:
    """Every answer in words that the intervals allow, one sentence a line."""
    heads = of_heads(frame)
    scores = scores_of(heads)
    lines = [_answer(scores, arm) for arm in (FIRST, "trilinear", RELEASE)]
    lines += [_detail(scores, arm, ASKED) for arm in (FIRST, "trilinear", RELEASE)]
    lines += [_gap_line(scores, (FIRST, ASKED), (rival, ASKED)) for rival in RIVALS]
    for arm in (FIRST, RELEASE):
        lines += [_cost(scores, arm), _finer_scan(scores, arm)]
    for condition in (CONTROL, ASKED, "0.5 -> 0.5", "1 -> 0.8", "1 -> 0.5"):
        lines += [_false(scores, arm, condition) for arm in (FIRST, "trilinear", RELEASE)]
    lines += [_caution(heads)]
    return "\n".join(line for line in lines if line)


def _caution(heads: pd.DataFrame) -> str:
    """What such intervals do not know, where subjects or seeds are few."""
    n_heads = heads["subject"].nunique()
    n_seeds = heads[heads["arm"].isin(TITLES)]["seed"].nunique()
    few = [f"{n_heads} heads cannot reach p < 0.05 in a signed-rank test"] * (n_heads < 6)
    few += ["one seed says nothing of what another would give"] * (n_seeds == 1)
    return f"Beware: {', and '.join(few)}." if few else ""


def _detail(scores: Scores, arm: str, condition: str) -> str:
    parts = {
        band: {p: level(scores, (arm, condition), f"detail_{p}_{band}") for p in PARTS}
        for band in ("fine", "beyond")
    }
    fine, beyond = parts["fine"], parts["beyond"]
    if not (fine["kept"] and beyond["kept"]):
        return ""
    kept, lost = fine["kept"], fine["smoothed"]
    share = "most" if kept.low > 0.5 else "less than half" if kept.high < 0.5 else "about half"
    first = (
        f"{condition} mm, {_who(arm)}: of waves of 2 to 4 mm it keeps {share} of the amplitude, "
        f"{interval(kept)}; smoothed {interval(lost)}, invented {interval(fine['invented'])}"
    )
    worth = "more" if beyond["kept"].mean > beyond["invented"].mean else "less"
    return (
        f"{first}. Of waves below 2 mm, which no 1 mm voxel holds, it keeps "
        f"{interval(beyond['kept'])} and invents {interval(beyond['invented'])}: "
        f"{worth} of what it shows there is true than not ({_n(kept)})."
    )


def _gap_line(scores: Scores, first: Answer, second: Answer) -> str:
    psnr = gap(scores, first, second, "psnr")
    kept = gap(scores, first, second, "detail_kept_fine")
    if not (psnr and kept):
        return ""
    return (
        f"{first[1]} mm, {NAMES[first[0]]} − {NAMES[second[0]]}: "
        f"{interval(psnr, 2, True)} dB, {_side(psnr)}; "
        f"waves of 2 to 4 mm kept {interval(kept, 3, True)}, {_side(kept)} ({_n(psnr)})."
    )


def _cost(scores: Scores, arm: str) -> str:
    kept = gap(scores, (arm, ASKED), (arm, CONTROL), "detail_kept_fine")
    if not kept:
        return ""
    return (
        f"{ASKED} mm less {CONTROL} mm, {_who(arm)}: waves of 2 to 4 mm kept "
        f"{interval(kept, 3, True)}, {_side(kept)} ({_n(kept)})."
    )


def _finer_scan(scores: Scores, arm: str) -> str:
    psnr = gap(scores, (arm, ASKED), (arm, "1 -> 0.8"), "psnr")
    kept = gap(scores, (arm, ASKED), (arm, "1 -> 0.8"), "detail_kept_beyond")
    if not (psnr and kept):
        return ""
    return (
        f"What a 0.8 mm scan adds to a 1 mm scan, both rendered at 0.8 mm, {_who(arm)}: "
        f"{interval(psnr, 2, True)} dB, {_side(psnr)}; waves below 2 mm kept "
        f"{interval(kept, 3, True)}, {_side(kept)} ({_n(psnr)})."
    )


def _false(scores: Scores, arm: str, condition: str) -> str:
    answer, truth = (arm, condition), (TRUTH, condition)
    own = level(scores, truth, SURFACE[0])
    more = [gap(scores, answer, truth, metric) for metric in SURFACE]
    if not (own and all(more)):
        return ""
    handles, pieces = more
    return (
        f"{condition} mm, white matter of {_who(arm)}: {interval(handles, 3, True)} handles per "
        f"cm³ over the truth's {own.mean:.3f}, {_side(handles)}; "
        f"{interval(pieces, 3, True)} pieces, {_side(pieces)} ({_n(handles)})."
    )


def _who(arm: str) -> str:
    return f"{NAMES[arm]}, trained at 1 mm alone" if arm in TITLES else NAMES[arm]


def _side(found: Paired) -> str:
    if found.low > 0:
        return "above zero"
    return "below zero" if found.high < 0 else "no difference shown"


def _n(found: Paired | Level) -> str:
    seeds = f"{found.n_seeds} seed{'s' * (found.n_seeds > 1)}"
    return f"{found.n_subjects} heads × {seeds}"
