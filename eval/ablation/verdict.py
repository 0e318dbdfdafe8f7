"""From prepared rows of the ablation to its verdict: primary comparisons first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval import primary
from eval.ablation.blocks import FINER
from eval.ablation.curve import curve_of, levels_off
from eval.ablation.measure import BUDGETS, NAME, RUN
from eval.ablation.names import name_of, shortcut_of
from eval.ablation.recipes import RECIPE
from eval.ablation.report import (
    CONTEST,
    HEADLINES,
    LTES,
    contest,
    pair_of,
    pairs_table,
    runs_of,
    scores_of,
    sentence,
)
from eval.arms.catalogue import LEARNED
from eval.pairs import counted
from eval.rows import RESULTS


def verdict(frame: pd.DataFrame) -> str:
    """What prepared rows say, one comparison a line, whatever it is."""
    runs, pairs = runs_of(frame), pairs_table(scores_of(frame))
    lines = [f"Training: {recipe}." for recipe in told(runs)] + other_recipes(frame)
    lines += ["", *primary_lines(pairs)]
    curve = curve_of(frame)
    lines += [] if curve.empty else ["", levels_off(curve)]
    first, of_codecs = (
        pairs["first"].str.removesuffix(LEARNED),
        pairs["family"].str.startswith("codecs"),
    )
    of_stages = pairs["second"].str.contains(" @")
    shown = pairs["spacing"].isin(HEADLINES) & ~of_codecs
    chapters = {
        f"{name_of(lte)} against other operators and architectures": shown
        & ~of_stages
        & (first == lte)
        for lte in LTES
    }
    own_stages = of_stages & (pairs["second"].str.partition(" @")[0] == pairs["first"])
    chapters["Stages of training (the first: stage 2 only)"] = shown & own_stages
    chapters["At both ends"] = shown & pairs["family"].str.startswith("both ends")
    chapters["Against codes that learn nothing"] = of_codecs & pairs["spacing"].isin(
        ["1 mm", FINER]
    )
    for title, chosen in chapters.items():
        if chosen.any():
            lines += ["", title, *map(sentence, pairs[chosen].itertuples())]
    fell = runs[runs["metric"] == "diverged_at_step"]
    lines += [
        f"{name_of(r.arm)}, seed {r.seed}: the loss was no longer finite at step {r.value:.0f}"
        for r in fell.itertuples()
    ]
    return "\n".join(lines)


def primary_lines(pairs: pd.DataFrame) -> list[str]:
    """A title, then one line a primary comparison of this experiment, recorded or not."""
    lines = [
        f"Primary comparisons, named on {primary.named_on():%Y-%m-%d} "
        f"(Holm's correction over all {len(primary.comparisons())}; others are exploratory)"
    ]
    for comparison in primary.comparisons(NAME):
        pair = pair_of(pairs, *comparison.key)
        if pair is None or pair.role != primary.PRIMARY:
            about = contest(comparison.first, comparison.second, comparison.spacing)
            learned = shortcut_of(comparison.first.endswith(LEARNED))
            lines.append(f"{about} ({comparison.budget}, {learned}): not recorded since then")
        else:
            lines.append(sentence(pair))
    return lines


def recipes(runs: pd.DataFrame) -> dict[str, str]:
    """How arms were trained, such as ``600 steps, 16 heads, 3 seeds``.

    Returns:
        `shortcut_of` (with the shortcut, without) -> the recipe.
    """
    return {
        shortcut_of(learned): f"{part['condition'].iloc[-1]}, "
        f"{counted(part['seed'].nunique(), 'seed')}"
        for learned, part in runs.groupby("learned")
    }


def told(runs: pd.DataFrame) -> list[str]:
    """Each of `recipes` with the setting that it is for."""
    return [f"{recipe} ({shortcut})" for shortcut, recipe in recipes(runs).items()]


def other_recipes(frame: pd.DataFrame) -> list[str]:
    """One line a recipe that is recorded and not compared, with its arms and why."""
    others = frame[(frame["experiment"] == RUN) & ~frame["compared"]]
    return [
        f"Also recorded, with fewer runs or other blocks, so not compared: {recipe}, "
        f"{counted(int(subjects), 'subject')} ({shortcut_of(learned)}): "
        f"{'; '.join(dict.fromkeys(map(name_of, part['arm'])))}."
        for (learned, recipe, subjects), part in others.groupby(RECIPE, sort=False)
    ]


def summary(frame: pd.DataFrame) -> str:
    """What the command prints: the verdict and, after a quick run, its agreement."""
    from eval.ablation import EXPERIMENT

    recorded = EXPERIMENT.recorded(RESULTS)
    if set(runs_of(frame)["profile"]) != {"quick"} or recorded is None or recorded.equals(frame):
        return verdict(frame)
    return f"{verdict(frame)}\n{agreement(frame, recorded)}"


def agreement(quick: pd.DataFrame, recorded: pd.DataFrame) -> str:
    """Whether a quick run says the same as the recorded rows, one sentence.

    Compared are the LTEs' differences at equal steps that both hold, where both intervals
    leave out 0: the others have no sign yet.
    """
    ours, theirs = (pairs_table(scores_of(rows)) for rows in (quick, recorded))
    both = ours.merge(theirs, on=CONTEST, suffixes=("", "_recorded"))
    both = both[(both["budget"] == BUDGETS[0]) & ~both["family"].str.startswith("codecs")]
    for side in ("", "_recorded"):
        both = both[(both["low" + side] > 0) | (both["high" + side] < 0)]
    same = int((np.sign(both["mean"]) == np.sign(both["mean_recorded"])).sum())
    answer = "nothing to compare" if both.empty else "yes" if same == len(both) else "no"
    return f"agrees in sign with the recorded rows: {answer} ({same} of {len(both)} differences)"
