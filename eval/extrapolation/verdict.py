"""The verdict of this experiment, in words that the intervals allow."""

from __future__ import annotations

from typing import Any

import pandas as pd

from eval.extrapolation.coders import RELEASE, TRUTH
from eval.extrapolation.paired import (
    ASKED,
    CONTROL,
    FIRST,
    RIVALS,
    Answer,
    Level,
    Scores,
    codec_beside,
    gap,
    interval,
    level,
    name_of,
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
    splines = codec_beside(scores, (arm, ASKED), "bspline")
    smoothed, invented = (
        values(scores, (arm, ASKED), f"detail_{part}_fine") for part in ("smoothed", "invented")
    )
    kept: dict[str, Any] = {
        band: gap(scores, (arm, ASKED), (splines, ASKED), f"detail_kept_{band}")
        for band in ("fine", "beyond")
    }
    if smoothed.empty or not all(kept.values()):
        return ""
    lead = compare((smoothed - invented).to_numpy())
    word = "smooths more than it invents" if lead.low > 0 else "does not only smooth"
    word = "invents more than it smooths" if lead.high < 0 else word
    return (
        f"{ASKED} mm, {_who(arm)}: between 2 and 4 mm it {word} (smoothed minus invented "
        f"{interval(lead, 2, True)}). It keeps {_more(kept['fine'])} there than splines of the "
        f"same size without a network, and {_more(kept['beyond'])} below 2 mm ({_n(lead)})."
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
    parts: dict[str, dict[str, Any]] = {
        band: {p: level(scores, (arm, condition), f"detail_{p}_{band}") for p in PARTS}
        for band in ("fine", "beyond")
    }
    fine, beyond = parts["fine"], parts["beyond"]
    if not (fine["kept"] and beyond["kept"]):
        return ""
    kept, lost = fine["kept"], fine["smoothed"]
    share = "most" if kept.low > 0.5 else "less than half" if kept.high < 0.5 else "about half"
    first = (
        f"{condition} mm, {_who(arm)}: between 2 and 4 mm it keeps {share} of the amplitude, "
        f"{interval(kept)}; smoothed {interval(lost)}, invented {interval(fine['invented'])}"
    )
    worth = "more" if beyond["kept"].mean > beyond["invented"].mean else "less"
    return (
        f"{first}. Below 2 mm, finer than any 1 mm voxel holds, it keeps "
        f"{interval(beyond['kept'])} and invents {interval(beyond['invented'])}: "
        f"{worth} of the detail that it shows there is true than false ({_n(kept)})."
    )


def _gap_line(scores: Scores, first: Answer, second: Answer) -> str:
    psnr = gap(scores, first, second, "psnr")
    kept = gap(scores, first, second, "detail_kept_fine")
    if not (psnr and kept):
        return ""
    return (
        f"{first[1]} mm, {name_of(first[0])} − {name_of(second[0])}: "
        f"PSNR {interval(psnr, 2, True)} dB, {_side(psnr)}; amplitude kept between 2 and 4 mm "
        f"{interval(kept, 3, True)}, {_side(kept)} ({_n(psnr)})."
    )


def _cost(scores: Scores, arm: str) -> str:
    kept = gap(scores, (arm, ASKED), (arm, CONTROL), "detail_kept_fine")
    if not kept:
        return ""
    return (
        f"{ASKED} mm minus {CONTROL} mm, {_who(arm)}: amplitude kept between 2 and 4 mm "
        f"{interval(kept, 3, True)}, {_side(kept)} ({_n(kept)})."
    )


def _finer_scan(scores: Scores, arm: str) -> str:
    psnr = gap(scores, (arm, ASKED), (arm, "1 -> 0.8"), "psnr")
    kept = gap(scores, (arm, ASKED), (arm, "1 -> 0.8"), "detail_kept_beyond")
    if not (psnr and kept):
        return ""
    return (
        f"A 0.8 mm scan minus a 1 mm scan, both rendered at 0.8 mm, {_who(arm)}: PSNR "
        f"{interval(psnr, 2, True)} dB, {_side(psnr)}; amplitude kept below 2 mm "
        f"{interval(kept, 3, True)}, {_side(kept)} ({_n(psnr)})."
    )


def _false(scores: Scores, arm: str, condition: str) -> str:
    answer, truth = (arm, condition), (TRUTH, condition)
    own = level(scores, truth, SURFACE[0])
    more: list[Any] = [gap(scores, answer, truth, metric) for metric in SURFACE]
    if not (own and all(more)):
        return ""
    handles, pieces = more
    return (
        f"{condition} mm, white matter of {_who(arm)}: {interval(handles, 3, True)} handles per "
        f"cm³ over the truth's {own.mean:.3f}, {_side(handles)}; "
        f"{interval(pieces, 3, True)} pieces, {_side(pieces)} ({_n(handles)})."
    )


def _who(arm: str) -> str:
    return f"{name_of(arm)}, trained at 1 mm alone" if arm in TITLES else name_of(arm)


def _more(pair: Paired) -> str:
    """Such as ``0.010 less of the amplitude (-0.010 [-0.012, -0.008], below zero)``."""
    word = "less" if pair.mean < 0 else "more"
    text = f"{interval(pair, 3, True)}, {_side(pair)}"
    return f"{abs(pair.mean):.3f} {word} of the amplitude ({text})"


def _side(pair: Paired) -> str:
    if pair.low > 0:
        return "above zero"
    return "below zero" if pair.high < 0 else "no difference shown"


def _n(counts: Paired | Level) -> str:
    seeds = f"{counts.n_seeds} seed{'s' * (counts.n_seeds > 1)}"
    return f"{counts.n_subjects} heads × {seeds}"
