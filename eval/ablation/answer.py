"""Is LTE worth it? Three sentences from rows: the paper's recipe, the release's, the limits."""

from __future__ import annotations

import pandas as pd

from eval.ablation.blocks import NATIVE
from eval.ablation.curve import curve_of, levels_off
from eval.ablation.measure import BUDGETS, NAME
from eval.ablation.names import name_of
from eval.ablation.report import (
    BEST_LINEAR,
    pair_of,
    pairs_table,
    role_of,
    runs_of,
    scores_of,
)
from eval.ablation.verdict import recipes
from eval.arms.catalogue import LEARNED
from eval.cited import cited
from eval.coders.base import LINEAR
from eval.pairs import counted, interval

PAPER = ("literal-skip-both" + LEARNED, "trilinear-both" + LEARNED)  # at both ends, all learned
NEAREST = ("literal" + LEARNED, "trilinear" + LEARNED)  # its nearest relative: the decoder alone
RELEASE = ("integrated", "trilinear")
EQUAL_COMPUTE = BUDGETS[1]


def answers(pairs: pd.DataFrame, runs: pd.DataFrame, curve: pd.DataFrame) -> list[str]:
    """What the page's title asks, answered by rows alone.

    Args:
        pairs: Of `eval.ablation.report.pairs_table`.
        runs: Facts of the runs that are compared.
        curve: Of `eval.ablation.curve.curve_of`.
    """
    return [of_paper(pairs), of_release(pairs), limits(runs, curve)]


def of_rows(frame: pd.DataFrame) -> list[str]:
    """`answers` from prepared rows."""
    return answers(pairs_table(scores_of(frame)), runs_of(frame), curve_of(frame))


def of_paper(pairs: pd.DataFrame) -> str:
    """The paper's claim, both ends learned; its nearest relative where that is not recorded."""
    found = [pair for where in ("1 mm", NATIVE) if (pair := pair_of(pairs, *PAPER, where))][:1]
    if found:
        after_time = pair_of(pairs, *PAPER, "1 mm", EQUAL_COMPUTE)
        timed = ""
        if after_time:
            timed = f"; after equal computing time {_cited(after_time)} dB, {_judged(after_time)}"
        return f"The paper's recipe, LTE at both ends, all learned: {_said(found)}{timed}."
    near = pair_of(pairs, *NEAREST, "1 mm")
    known = f"; at the decoder alone, without a skip, {_said([near])}" if near else ""
    return f"The paper's recipe, LTE at both ends, all learned: nothing is recorded yet{known}."


def of_release(pairs: pd.DataFrame) -> str:
    """The default LTE beside the closed-form shortcut, against interpolation and against codes."""
    rivals = (RELEASE, (RELEASE[0], BEST_LINEAR))
    found = [pair for names in rivals if (pair := pair_of(pairs, *names, "1 mm"))]
    said = _said(found) if found else "nothing is recorded yet"
    return f"The release's recipe, our LTE with the closed-form shortcut: {said}."


def limits(runs: pd.DataFrame, curve: pd.DataFrame) -> str:
    """How small the budget was, and whether the curves had levelled off."""
    size = runs.loc[runs["metric"] == "parameters", "value"]
    low, high = size.min() / 1e6, size.max() / 1e6
    weights = f" of {low:.1f} to {high:.1f} million weights" if len(size) else ""
    level, trained = levels_off(curve), " and ".join(dict.fromkeys(recipes(runs).values()))
    return f"These are models{weights}, trained with {trained}. {level}"


def _said(pairs: list) -> str:
    return "; ".join(
        f"{_cited(p)} dB against {name_of(p.second.replace(LEARNED, ''))} at {p.spacing}, "
        f"{_judged(p)} ({counted(p.n_subjects, 'subject')} × {counted(p.n_seeds, 'seed')}, "
        f"{role_of(p)})"
        for p in pairs
    )


def _cited(pair) -> str:
    """Its interval, with the rows of both arms; those of all linear codecs where they compete."""
    rivals = [pair.second.replace(BEST_LINEAR, codec) for codec in LINEAR]
    return cited(
        interval(pair), experiment=NAME, metric="psnr", arm=[pair.first, *rivals],
        spacing=pair.spacing, budget=[pair.budget, ""],
    )  # fmt: skip


def _judged(pair) -> str:
    return "above zero" if pair.low > 0 else "below zero" if pair.high < 0 else "undecided"
