"""The verdict of this experiment, in words that the intervals allow."""

from __future__ import annotations

import pandas as pd

from eval.cited import cited
from eval.extrapolation.coders import CODECS, RELEASE, TRUTH
from eval.extrapolation.report import (
    CONTROL,
    FINER,
    FIRST,
    FIRST_OF_BRAINS,
    REAL,
    RIVALS,
    Answer,
    codec_beside,
    name_of,
    of_brains,
    of_heads,
    scores_of,
)
from eval.extrapolation.score import SURFACE
from eval.extrapolation.train import TITLES
from eval.pairs import Scores, compared, counted, difference, interval
from eval.stats import Paired

SHOWN = (FIRST, "trilinear", RELEASE)
SHOWN_OF_BRAINS = (FIRST_OF_BRAINS, "trilinear @brains", FIRST, RELEASE, "interpolation")


def answer(frame: pd.DataFrame) -> list[str]:
    """What leads the error, what splines keep beside it, and what became of white matter."""
    heads = of_heads(frame)
    scores = scores_of(heads)
    lines = [*_answer(heads, scores, FIRST).splitlines(), _false(scores, FIRST, FINER)]
    return [line for line in lines if line]


def verdict(frame: pd.DataFrame) -> str:
    """Every answer in words that the intervals allow, one sentence a line."""
    heads = of_heads(frame)
    scores = scores_of(heads)
    lines = [_answer(heads, scores, arm) for arm in SHOWN]
    lines += [_detail(scores, arm) for arm in SHOWN]
    lines += [_rival(scores, rival) for rival in RIVALS]
    for arm in (FIRST, RELEASE):
        cost = f"{_asked(FINER)}, minus both at 1 mm, {_who(arm)}"
        finer = f"A 0.8 mm scan minus a 1 mm scan, both rendered at 0.8 mm, {_who(arm)}"
        lines += [_gaps(scores, cost, (arm, FINER), (arm, CONTROL), KEPT_FINE)]
        lines += [_gaps(scores, finer, (arm, FINER), (arm, "1 -> 0.8"), PSNR, KEPT_BEYOND)]
    for condition in (CONTROL, FINER, "0.5 -> 0.5", "1 -> 0.8", "1 -> 0.5"):
        lines += [_false(scores, arm, condition) for arm in SHOWN]
    return "\n".join(line for line in [*lines, _caution(heads), real(frame)] if line)


def real(frame: pd.DataFrame) -> str:
    """The answers about real brains, whose truth is the scan; empty where there are none."""
    brains = of_brains(frame)
    scores = scores_of(brains)
    lines = [_detail(scores, arm, REAL, "brains") for arm in SHOWN_OF_BRAINS]
    rivals = [FIRST, "trilinear @brains"]
    rivals += [codec_beside(brains, (FIRST_OF_BRAINS, REAL), c) for c in CODECS]
    lines += [_rival(scores, rival, (FIRST_OF_BRAINS, REAL), "brains") for rival in rivals]
    return "\n".join(line for line in lines if line)


def real_answer(frame: pd.DataFrame) -> list[str]:
    """What is kept of real detail, what is made up, and whether real brains in training pay."""
    brains = of_brains(frame)
    scores = scores_of(brains)

    def level(arm: str, part: str) -> Paired | None:
        return scores.level(arm, REAL, f"detail_{part}")

    lines = []
    kept, cubic = (level(arm, "kept_fine") for arm in (FIRST_OF_BRAINS, "interpolation"))
    if kept and cubic:
        lines.append(
            f"Between 2 and 4 mm, {name_of(FIRST_OF_BRAINS)} keeps {interval(kept, 2, False)} of "
            f"the amplitude, cubic interpolation of every 1 mm voxel {interval(cubic, 2, False)} "
            f"({_n(kept, 'brains')})."
        )
    true, false = (level(FIRST_OF_BRAINS, part) for part in ("kept_beyond", "invented_beyond"))
    if true and false:
        lines.append(
            f"Below 2 mm, finer than any 1 mm voxel holds, it keeps {interval(true, 2, False)} and "
            f"invents {interval(false, 2, False)}."
        )
    pays = scores.gap((FIRST_OF_BRAINS, REAL, "psnr"), (FIRST, REAL, "psnr"))
    if pays:
        lines.append(
            f"Training on real brains instead of synthetic heads changes PSNR by {interval(pays)} "
            f"dB, {_side(pays)} ({_n(pays, 'brains')})."
        )
    return lines


def _answer(heads: pd.DataFrame, scores: Scores, arm: str) -> str:
    """What leads the error, and whether more is kept than splines keep without a network."""
    splines = codec_beside(heads, (arm, FINER), "bspline")
    parts = (scores.table(arm, FINER, f"detail_{part}_fine") for part in ("smoothed", "invented"))
    lead = compared(difference(*parts))
    fine, beyond = (
        scores.gap((arm, FINER, metric), (splines, FINER, metric))
        for metric in ("detail_kept_fine", "detail_kept_beyond")
    )
    if not (lead and fine and beyond):
        return ""
    metrics = ["detail_smoothed_fine", "detail_invented_fine"]
    led = cited(interval(lead), arm=arm, condition=FINER, metric=metrics)
    kept, kept_beyond = (
        _more(pair, arm=[arm, splines], condition=FINER, metric=f"detail_kept_{band}")
        for pair, band in ((fine, "fine"), (beyond, "beyond"))
    )
    word = "smooths more than it invents" if lead.low > 0 else "does not only smooth"
    word = "invents more than it smooths" if lead.high < 0 else word
    return (
        f"{_asked(FINER)}, {_who(arm)} {word} in waves of 2 to 4 mm (smoothed minus invented "
        f"{led}; {_n(lead)}).\n"
        f"{_asked(FINER)}, {_who(arm)} keeps, beside plain splines of the same size, {kept} "
        f"between 2 and 4 mm, and {kept_beyond} below 2 mm ({_n(lead)})."
    )


def _caution(heads: pd.DataFrame) -> str:
    """What such intervals do not know, where subjects or seeds are few."""
    n_heads = heads["subject"].nunique()
    n_seeds = heads[heads["arm"].isin(TITLES)]["seed"].nunique()
    few = [f"{n_heads} heads cannot reach p < 0.05 in a signed-rank test"] * (n_heads < 6)
    few += ["one seed says nothing of what another would give"] * (n_seeds == 1)
    return f"Beware: {', and '.join(few)}." if few else ""


def _detail(scores: Scores, arm: str, condition: str = FINER, of: str = "heads") -> str:
    names = ("kept_fine", "smoothed_fine", "invented_fine", "kept_beyond", "invented_beyond")
    levels = [scores.level(arm, condition, f"detail_{name}") for name in names]
    kept, smoothed, invented, kept_beyond, invented_beyond = levels
    if not (kept and smoothed and invented and kept_beyond and invented_beyond):
        return ""
    share = "most" if kept.low > 0.5 else "less than half" if kept.high < 0.5 else "about half"
    worth = "more" if kept_beyond.mean > invented_beyond.mean else "less"
    return (
        f"{_asked(condition)}, {_who(arm)}: between 2 and 4 mm it keeps {share} of the amplitude, "
        f"{interval(kept, 2, False)}, smooths {interval(smoothed, 2, False)} "
        f"and invents {interval(invented, 2, False)}. "
        f"Below 2 mm, finer than any 1 mm voxel holds, it keeps "
        f"{interval(kept_beyond, 2, False)} and invents {interval(invented_beyond, 2, False)}: "
        f"{worth} of the detail that it shows there is true than false ({_n(kept, of)})."
    )


# Metric, what it is called, and its interval's format
PSNR = ("psnr", "PSNR", 2, " dB")
KEPT_FINE = ("detail_kept_fine", "amplitude kept between 2 and 4 mm", 3, "")
INVENTED_FINE = ("detail_invented_fine", "invented", 3, "")
KEPT_BEYOND = ("detail_kept_beyond", "amplitude kept below 2 mm", 3, "")


def _rival(scores: Scores, rival: str, first: Answer = (FIRST, FINER), of: str = "heads") -> str:
    arm, condition = first
    about = f"{_asked(condition)}, {name_of(arm)} − {name_of(rival)}"
    return _gaps(scores, about, first, (rival, condition), PSNR, KEPT_FINE, INVENTED_FINE, of=of)


def _gaps(
    scores: Scores, about: str, first: Answer, second: Answer,
    *metrics: tuple[str, str, int, str], of: str = "heads",
) -> str:  # fmt: skip
    """The differences of two answers in some metrics; empty where one is not recorded."""
    parts = []
    for metric, name, digits, unit in metrics:
        pair = scores.gap((*first, metric), (*second, metric))
        if pair is None:
            return ""
        parts.append(f"{name} {interval(pair, digits)}{unit}, {_side(pair)}")
        n = _n(pair, of)
    return f"{about}: {'; '.join(parts)} ({n})."


def _false(scores: Scores, arm: str, condition: str) -> str:
    own = scores.level(TRUTH, condition, SURFACE[0])
    handles, pieces = (
        scores.gap((arm, condition, metric), (TRUTH, condition, metric)) for metric in SURFACE
    )
    if not (own and handles and pieces):
        return ""
    more, pieces_more = (
        cited(interval(pair, 3), arm=[arm, TRUTH], condition=condition, metric=metric)
        for pair, metric in zip((handles, pieces), SURFACE, strict=True)
    )
    return (
        f"{_asked(condition)}, the white matter of {_who(arm)} has {more} handles per "
        f"cm³ more than the truth's {own.mean:.3f}, {_side(handles)}, and "
        f"{pieces_more} pieces, {_side(pieces)} ({_n(handles)})."
    )


def _who(arm: str) -> str:
    if arm == RELEASE:
        return "the release (trained at many voxel sizes)"
    return f"{name_of(arm)} (trained at 1 mm alone)" if arm in TITLES else name_of(arm)


def _asked(condition: str) -> str:
    """Such as ``Scanned at 1 mm, rendered at 0.8 mm``."""
    if condition == REAL:
        return "Averaged to 1 mm, rendered on its own voxels"
    scanned, rendered = condition.split(" -> ")
    if scanned == rendered:
        return f"Scanned and rendered at {scanned} mm"
    return f"Scanned at {scanned} mm, rendered at {rendered} mm"


def _more(pair: Paired, **rows: object) -> str:
    """Such as ``0.010 less of the amplitude (-0.010 [-0.012, -0.008], below zero)``."""
    if pair.low <= 0 <= pair.high:
        return f"about as much ({cited(interval(pair, 3), **rows)}, {_side(pair)})"
    word, text = "less" if pair.mean < 0 else "more", cited(interval(pair, 3), **rows)
    return f"{abs(pair.mean):.3f} {word} of the amplitude ({text}, {_side(pair)})"


def _side(pair: Paired) -> str:
    if pair.low > 0:
        return "above zero"
    return "below zero" if pair.high < 0 else "no difference shown"


def _n(pair: Paired, of: str = "heads") -> str:
    return f"{pair.n_subjects} {of} × {counted(pair.n_seeds, 'seed')}"
