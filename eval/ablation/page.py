"""Tables, sentences and the forest plot that pages show of the recorded ablation.

Pages are built at any time, so rows may be missing in part or altogether; then a page says
which, and shows the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval.ablation import EXPERIMENT
from eval.ablation.answer import answers
from eval.ablation.blocks import CONDITIONS, FINER, NATIVE
from eval.ablation.curve import curve_of
from eval.ablation.measure import NAME, RUN
from eval.ablation.names import name_of
from eval.ablation.report import (
    ALL_GRIDS,
    BEST_LINEAR,
    BUDGETS,
    INTERPOLATION,
    contest,
    pair_of,
    pairs_table,
    runs_of,
    scores_of,
    sentence,
    stages_table,
)
from eval.ablation.verdict import other_recipes, told
from eval.arms.catalogue import LEARNED, all_learned
from eval.pairs import interval
from eval.rows import RESULTS
from eval.rows_file import parts, read_rows
from medil.plots import COLOURS, panels

QUESTIONS = (  # first, second, where: the bars of the comparison, the paper's claim first
    ("literal-skip-both", "trilinear-both", "1 mm"),
    ("literal-skip-both", "trilinear-both", NATIVE),
    ("integrated", "trilinear", "1 mm"),
    ("integrated", "trilinear", "1.5 mm"),
    ("integrated", "subpixel", ALL_GRIDS),
    ("integrated", "conv-1mm", ALL_GRIDS),
    ("integrated", "resizing", ALL_GRIDS),
    ("integrated-j5", "trilinear", "1 mm"),
    ("integrated-j5", "trilinear", "1.5 mm"),
    ("integrated-j5", "subpixel", ALL_GRIDS),
    ("literal", "trilinear", "1 mm"),
    ("literal", "trilinear", "1.5 mm"),
    ("integrated", "literal", "1 mm"),
    ("integrated", BEST_LINEAR, "1 mm"),
    ("integrated", INTERPOLATION, FINER),
)
PANELS = ("with the shortcut", "without the shortcut")
SETTINGS = tuple((budget, shortcut) for shortcut in ("with", "without") for budget in BUDGETS)


@dataclass(frozen=True)
class Ablation:
    """The recorded comparison: scores, runs, every pair, recipes left out, curves of learning."""

    scores: pd.DataFrame
    runs: pd.DataFrame
    pairs: pd.DataFrame
    others: list[str]
    curve: pd.DataFrame

    @property
    def answers(self) -> list[str]:
        """The answer to the page's title, with numbers that name their rows."""
        return EXPERIMENT.marked(self.scores, lambda _: answers(self.pairs, self.runs, self.curve))


def recorded_ablation(folder: Path = RESULTS) -> Ablation | None:
    """The ablation's rows in a folder; None where no run is recorded yet."""
    frame = EXPERIMENT.recorded(folder)
    if frame is None:
        return None
    scores = scores_of(frame)
    others, curve = other_recipes(frame), curve_of(frame)
    return Ablation(scores, runs_of(frame), pairs_table(scores), others, curve)


STAGES = {  # how `name_of` calls a way of training -> in a sentence
    "both": "whole volumes first, then patches",
    "both + mix": "the same with whole volumes mixed into stage two",
    "1 only": "whole volumes alone",
}


def stages(folder: Path = RESULTS) -> tuple[pd.DataFrame, str]:
    """The stages of training, from the recipe that trained them: `stages_table`, and a sentence.

    That recipe need not be the one that answers the primary comparisons. Empty where nothing is
    recorded.
    """
    path = folder / f"{NAME}.jsonl"
    if not parts(path):
        return pd.DataFrame(), ""
    rows = read_rows(path)
    runs = rows[rows["experiment"] == RUN]
    recipes = runs.loc[runs["arm"].str.contains(" @"), "condition"].unique()
    hashes = runs.loc[runs["condition"].isin(recipes), "config_hash"]
    if hashes.empty:
        return pd.DataFrame(), ""
    learns_nothing = (rows["experiment"] == NAME) & (rows["weights_sha256"] == "")
    frame = EXPERIMENT.prepare(rows[rows["config_hash"].isin(hashes) | learns_nothing])
    table = stages_table(scores_of(frame))
    recipe = " and ".join(told(runs_of(frame)))
    return table, f"{stages_answer(table)} Trained with {recipe}."


def stages_answer(table: pd.DataFrame) -> str:
    """What each way of training gains over patches alone, in one sentence."""
    gains = table[table["Above stage 2 only (dB)"] != ""]
    ways = gains["Training"].str.partition("stages: ")[2].map(lambda way: STAGES.get(way, way))
    said = "; ".join(f"{w} {g} dB" for w, g in zip(ways, gains["Above stage 2 only (dB)"]))
    people, seeds = table["Subjects"].max(), table["Seeds"].max()
    return f"PSNR at 1 mm against patches alone: {said} ({people} subjects × {seeds} seeds)."


def missing_runs(runs: pd.DataFrame, arms: Sequence[str], seeds: int) -> str:
    """One sentence: which runs of a plan are not among the recorded ones."""
    have = runs.groupby("arm")["seed"].nunique()
    short = [a for a in arms if have.get(a, 0) < seeds]
    if not short:
        return f"All {len(arms)} arms have their {seeds} seeds."
    none = [name_of(a) for a in short if a not in have]
    some = [f"{name_of(a)} ({have[a]} of {seeds} seeds)" for a in short if a in have]
    parts = [f"not recorded ({len(none)}): {'; '.join(none)}"] * bool(none)
    parts += [f"in part: {'; '.join(some)}"] * bool(some)
    return f"Complete: {len(arms) - len(short)} of {len(arms)} arms; {'; '.join(parts)}."


def about_runs(ablation: Ablation) -> str:
    """One sentence on what was recorded: recipe, device, seeds, subjects, cost."""
    runs, scores = ablation.runs, ablation.scores
    spent_s = runs[runs["metric"] == "cpu_s_to_steps"]["value"]
    of_models = scores[scores["weights_sha256"] != ""]
    devices = ", ".join(sorted(of_models["device"].unique())) or "none"
    days = ", ".join(sorted(set(runs["recorded_at"].dt.strftime("%Y-%m-%d"))))
    cost = (
        f"; {spent_s.min():.0f} to {spent_s.max():.0f} s of computing a run" if len(spent_s) else ""
    )
    sentence = (
        f"Recorded {days}, {' and '.join(told(runs))}: {runs['arm'].nunique()} arms, "
        f"{of_models['subject'].nunique()} held-out subjects, device {devices}{cost}."
    )
    return " ".join([sentence, *ablation.others])


def overview(scores: pd.DataFrame) -> pd.DataFrame:
    """PSNR of every arm (and code) at every voxel size: equal steps / equal compute, in dB."""
    chosen = scores[scores["metric"] == "psnr"]
    means = chosen.groupby(["arm", "spacing", "budget"])["value"].mean()
    n = chosen.groupby("arm")["subject"].nunique()
    seeds = chosen[chosen["weights_sha256"] != ""].groupby("arm")["seed"].nunique()
    lines = []
    for arm in sorted(n.index, key=lambda a: (a not in seeds, all_learned(a), " @" in a, a)):
        line = {"Arm": name_of(arm)}
        for spacing in (s for s in CONDITIONS if s in set(chosen["spacing"])):
            values = [means.get((arm, spacing, budget)) for budget in (*BUDGETS, "")]
            line[f"{spacing} (dB)"] = " / ".join(f"{v:.2f}" for v in values if v is not None)
        lines.append(line | {"n": f"{n[arm]} × {seeds[arm]}" if arm in seeds else f"{n[arm]}"})
    return pd.DataFrame(lines)


def lead(pairs: pd.DataFrame, question: Sequence[str], budget: str, shortcut: str):
    """The comparison that answers a question in one setting; None if it is not recorded."""
    first, second, spacing = question
    ending = LEARNED if shortcut == "without" else ""
    rival = second if second in (BEST_LINEAR, INTERPOLATION) else second + ending
    return pair_of(pairs, first + ending, rival, spacing, budget)


def headlines(pairs: pd.DataFrame) -> pd.DataFrame:
    """One line a question of `QUESTIONS` that rows answer, one column a setting: dB, interval."""
    lines = []
    for question in QUESTIONS:
        line: dict[str, str] = {"First − second (dB)": contest(*question)}
        known = []
        for budget, shortcut in SETTINGS:
            pair = lead(pairs, question, budget, shortcut)
            line[f"{shortcut} shortcut, {budget}"] = interval(pair) if pair else ""
            known += [pair] * (pair is not None)
        counts = sorted({(p.n_subjects, p.n_seeds) for p in known}, reverse=True)
        n = " or ".join(f"{subjects} × {seeds}" for subjects, seeds in counts)
        if known:
            lines.append(line | {"Verdict": conclusion(known), "n": n})
    return pd.DataFrame(lines)


def open_questions(pairs: pd.DataFrame) -> str:
    """Which of `QUESTIONS` no compared run answers, one sentence; empty without any."""
    answered = set(headlines(pairs).get("First − second (dB)", []))
    left = [text for q in QUESTIONS if (text := contest(*q)) not in answered]
    return f"No compared run answers: {'; '.join(left)}." if left else ""


def conclusion(known: Sequence) -> str:
    """What the intervals of all settings say together, in a few words."""
    n, above, below = len(known), sum(p.low > 0 for p in known), sum(p.high < 0 for p in known)
    if n in (above, below):
        return f"{'above' if above else 'below'} zero ({n} of {n})"
    return f"above zero {above}, below {below}, undecided {n - above - below} (of {n})"


def verdict_lines(pairs: pd.DataFrame) -> list[str]:
    """The verdict on LTE against other operators, one sentence a question, at equal steps."""
    chosen = [q for q in QUESTIONS if q[1] in ("trilinear", "subpixel", "conv-1mm")]
    answers = [lead(pairs, q, BUDGETS[0], s) for q in chosen for s in ("with", "without")]
    return [sentence(pair) for pair in answers if pair]


def forest_pairs(pairs: pd.DataFrame, first: str, spacing: str) -> pd.DataFrame:
    """One LTE against every other arm at one spacing: both budgets, with and without shortcut.

    Lines of `pairs` with a column `rival`, the second arm whatever its shortcut, in the order of
    the mean lead over it.
    """
    chosen = pairs[
        pairs["first"].str.removesuffix(LEARNED).eq(first)
        & pairs["spacing"].eq(spacing)
        & ~pairs["second"].str.contains(" @")
    ]
    chosen = chosen.assign(rival=chosen["second"].str.removesuffix(LEARNED))
    order = chosen.groupby("rival")["mean"].mean()
    return chosen.sort_values("rival", key=lambda r: -r.map(order), kind="stable")


def forest(chosen: pd.DataFrame):
    """Differences of `forest_pairs`: a line a rival, a panel a shortcut, a colour a budget.

    Lines are 95 % intervals; marks are filled where the interval leaves out zero. The axis holds
    the operators; the codec, far away, is an arrow at its end with the numbers beside it.
    """
    rivals = list(dict.fromkeys(chosen["rival"]))
    recorded = [s for s in PANELS if (chosen["shortcut"] == s).any()]
    figure, axes = panels(1, len(recorded), panel_in=(4.4, 1.4 + 0.42 * len(rivals)))
    for ax, shortcut in zip(axes[0], recorded, strict=True):
        _forest_panel(ax, chosen[chosen["shortcut"] == shortcut], rivals)
        ax.set(title=shortcut, xlabel="difference in PSNR (dB), 95 % interval")
        ax.set_yticks(range(len(rivals)), [f"− {name_of(r)}" for r in rivals])
        ax.set_ylim(len(rivals) - 0.4, -0.6)
    for ax in axes[0, 1:]:
        ax.set_yticklabels([])
    handles = [
        axes[0, 0].plot([], [], f"{mark}-", color=colour, label=budget)[0]
        for mark, colour, budget in zip("os", COLOURS, BUDGETS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _forest_panel(ax, pairs: pd.DataFrame, rivals: Sequence[str]) -> None:
    near = pairs[pairs["rival"] != BEST_LINEAR]
    near = pairs if near.empty else near
    low, high = min(near["low"].min(), 0), max(near["high"].max(), 0)
    room = 0.12 * (high - low) or 1.0
    ax.set_xlim(low - room, high + room)
    ax.axvline(0, color="#777777", lw=1)
    for pair in pairs.itertuples():
        which = BUDGETS.index(pair.budget)
        place, colour = rivals.index(pair.rival) + 0.3 * which - 0.15, COLOURS[which]
        if pair.low < low - room or pair.high > high + room:
            _beyond(ax, pair, place, colour)
            continue
        settled = pair.low > 0 or pair.high < 0
        ax.plot([pair.low, pair.high], [place, place], color=colour, lw=2)
        ax.plot(pair.mean, place, "os"[which], color=colour, mfc=colour if settled else "w", ms=5)


def _beyond(ax, pair, place: float, colour: str) -> None:
    """A difference outside the axis: an arrow to its end, and its numbers."""
    low, high = ax.get_xlim()
    below = pair.low < low
    end, step = (low, 0.04) if below else (high, -0.04)
    ax.plot(end + 0.5 * step * (high - low), place, "<>"[not below], color=colour, ms=6)
    text = f"{pair.mean:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}]".replace("-", "−")
    ax.text(end + step * (high - low), place, text, color=colour, fontsize=7.5, va="center",
            ha="left" if below else "right",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
