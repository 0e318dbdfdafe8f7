"""From prepared rows of the ablation to its tables and verdict.

Runs of one recipe alone are compared (`eval.ablation.recipes`), so that two lengths of training
never mix. Intervals and tests are those of `eval.stats`.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np
import pandas as pd

from eval.ablation.blocks import CONDITIONS, FINER, NATIVE, SCORED_MM
from eval.ablation.codecs import INTERPOLATION
from eval.ablation.measure import BUDGETS, NAME, RUN
from eval.ablation.recipes import RECIPE
from eval.arms.catalogue import LEARNED, all_learned, size_of, sized
from eval.pairs import NO_SEED, Scores, compared, counted, difference, interval
from eval.rows import RESULTS
from eval.stats import Paired, holm
from eval.tables import decimals
from medil.model.codecs import LINEAR_CODECS

LTES = ("integrated", "integrated-j5", "literal")
BEST_LINEAR = "best linear codec"
LINEAR = (*LINEAR_CODECS, "lapped")
ALL_GRIDS = "mean of grids"
HEADLINES = ("1 mm", "1.5 mm", ALL_GRIDS)
NAMES = {  # in the order in which tables and verdict name them
    "integrated": "LTE",
    "trilinear": "trilinear",
    "subpixel": "sub-pixel",
    "conv-1mm": "conv AE (1 mm)",
    "conv-1.33mm": "conv AE (1.33 mm)",
    "resizing": "resizing AE",
    "integrated-j5": "LTE, J = 5",
    "literal": "literal LTE",
    "literal-both": "literal LTE at both ends",
    "integrated-content": "LTE, content-dependent frequencies",
    "fixed-mlp": "LTE, fixed frequencies and MLP",
    "liif": "LIIF",
    "cubic": "averaged, then cubic",
    "dct_cube": "DCT, lowest cube",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    "lapped": "lapped cosine",
    "dct_best": "DCT, largest (oracle)",
}
CONTEST = ["family", "first", "second", "shortcut", "spacing", "budget"]


def base_of(arm: str) -> str:
    """An arm without its stage of training and its shortcut setting."""
    return arm.partition(" @")[0].removesuffix(LEARNED)


def name_of(arm: str) -> str:
    """An arm's name for people: its own where `NAMES` has no other.

    Example:
        >>> name_of("integrated/learned"), name_of("integrated @both+mix")
        ('LTE, all learned', 'LTE, stages: both + mix')
    """
    base, _, stage = arm.partition(" @")
    sizeless, bracket, size = base.partition(" (")
    plain = sizeless.removesuffix(LEARNED)
    text = NAMES.get(plain, plain) + ", all learned" * (plain != sizeless) + bracket + size
    staged = {"stage1": "1 only", "both": "both", "both+mix": "both + mix"}
    return f"{text}, stages: {staged.get(stage, stage)}" if stage else text


# Rows


def scores_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores among prepared rows."""
    return frame[frame["experiment"] == NAME]


def runs_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Facts of the runs that are compared, among prepared rows."""
    return frame[(frame["experiment"] == RUN) & frame["compared"]]


def trained_arms(scores: pd.DataFrame) -> list[str]:
    """The arms that are scored at some budget, in the order of `NAMES`."""
    place = {name: i for i, name in enumerate(NAMES)}
    arms = scores.loc[scores["budget"] != "", "arm"].unique()
    return sorted(arms, key=lambda arm: (place.get(base_of(arm), 99), arm))


def psnr_of(scores: pd.DataFrame) -> Scores:
    """PSNR by (arm, spacing, budget); the best linear codec counts as an arm.

    Codecs are the same at every budget.
    """
    chosen = scores[scores["metric"] == "psnr"]
    fixed = chosen[chosen["budget"] == ""]
    linear = fixed[fixed["arm"].str.partition(" (")[0].isin(LINEAR)]
    linear = linear.assign(arm=linear["arm"].str.replace(r"^\w+", BEST_LINEAR, regex=True))
    # Each subject's own best codec: a strict rival.
    best = linear.groupby(["arm", "spacing", "subject"], as_index=False)["value"].max()
    fixed = pd.concat([fixed, best]).assign(seed=NO_SEED)
    at_budgets = [fixed.assign(budget=budget) for budget in BUDGETS]
    frame = pd.concat([chosen[chosen["budget"] != ""], *at_budgets])
    return Scores(frame, ["arm", "spacing", "budget"])


def lead(psnr: Scores, first: str, second: str, spacing: str, budget: str) -> Paired | None:
    """The paired difference of two arms; None where it is not recorded.

    `ALL_GRIDS` is the mean over `SCORED_MM`, of each subject over the grids that it has; `NATIVE`
    counts where it was scored.
    """
    grids = [spacing]
    if spacing == ALL_GRIDS:
        native = {(arm, NATIVE, budget) for arm in (first, second)} & psnr.keys
        grids = [grid for grid in SCORED_MM if native or grid != NATIVE]
    found = [difference(*(psnr.table(a, grid, budget) for a in (first, second))) for grid in grids]
    if any(table.empty for table in found):  # a mean of other grids would be another quantity
        return None
    return compared(pd.concat(found).groupby(level=0).mean().dropna(axis=1))


# Pairs


def pairs_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Every comparison: who, against whom, where, at which budget, with or without shortcut.

    Each LTE against every other arm, and every arm against the best linear codec (and against
    interpolation for 2 mm -> 1 mm). Holm's correction runs over all lines of one family: one
    first arm (or, against codecs, all arms), one budget, one shortcut setting.
    """
    psnr, contests = psnr_of(scores), []
    for ending in ("", LEARNED):
        arms = [arm for arm in trained_arms(scores) if all_learned(arm) == bool(ending)]
        contests += [
            (f"{first} and the others", first + ending, second)
            for first in LTES
            for second in arms
            if second != first + ending
        ]
        contests += [
            ("codecs", arm, fixed)
            for arm in arms
            for fixed in (sized(BEST_LINEAR, size_of(arm)), INTERPOLATION)
        ]
    lines = []
    everywhere = product(contests, BUDGETS, (*CONDITIONS, ALL_GRIDS))
    for (family, first, second), budget, spacing in everywhere:
        pair = lead(psnr, first, second, spacing, budget)
        if pair:
            shortcut = _shortcut(all_learned(first))
            about = f"{family}, {budget}, {shortcut}", first, second, shortcut, spacing, budget
            lines.append(dict(zip(CONTEST, about, strict=True)) | vars(pair))
    pairs = pd.DataFrame(lines, columns=[*CONTEST, *(field.name for field in fields(Paired))])
    return pairs.assign(holm_p=pairs.groupby("family")["p"].transform(lambda p: holm(p.tolist())))


def _shortcut(learned: bool) -> str:
    return "without the shortcut" if learned else "with the shortcut"


def pair_of(pairs: pd.DataFrame, first: str, second: str, spacing: str, budget: str = BUDGETS[0]):
    """One comparison as a named tuple; None where it is not recorded."""
    about = ["first", "second", "spacing", "budget"]
    chosen = (pairs[about] == [first, second, spacing, budget]).all(axis=1)
    return next(pairs[chosen].itertuples(), None)


def contest(first: str, second: str, spacing: str) -> str:
    """Such as ``LTE − trilinear at 1 mm``."""
    where = f", {spacing}" if spacing in (FINER, ALL_GRIDS) else f" at {spacing}"
    return " − ".join(name_of(arm.replace(LEARNED, "")) for arm in (first, second)) + where


def sentence(pair) -> str:
    """One line of the verdict, from a named tuple of `pairs_table`."""
    return (
        f"{contest(pair.first, pair.second, pair.spacing)}: {pair.mean:+.2f} dB "
        f"[{pair.low:+.2f}, {pair.high:+.2f}], {counted(pair.n_subjects, 'subject')} × "
        f"{counted(pair.n_seeds, 'seed')} ({pair.budget}, {pair.shortcut}; "
        f"Holm p = {pair.holm_p:.2g})"
    )


def pairs_for_people(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs as they are written: text of fixed decimals."""
    return pd.DataFrame(
        {
            "First": pairs["first"].map(name_of),
            "Second": pairs["second"].map(name_of),
            "Shortcut": pairs["shortcut"],
            "Spacing": pairs["spacing"],
            "Budget": pairs["budget"],
            "First - second (dB) [95 %]": [interval(pair) for pair in pairs.itertuples()],
            "Wilcoxon p": pairs["p"].map("{:.3g}".format),
            "Holm p": pairs["holm_p"].map("{:.3g}".format),
            "Rank biserial": pairs["rank_biserial"].map("{:+.2f}".format),
            "Cohen's dz": pairs["cohens_dz"].map("{:+.2f}".format).replace("+nan", ""),
            "Subjects": pairs["n_subjects"],
            "Seeds": pairs["n_seeds"],
        }
    )


# Tables


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    scores = scores_of(frame)
    pairs = pairs_table(scores)
    return {
        "ablation": arms_table(scores, pairs),
        "ablation_pairs": pairs_for_people(pairs),
        "ablation_speed": speed_table(runs_of(frame)),
        "ablation_stages": stages_table(scores),
    }


def arms_table(scores: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Arm by spacing at equal steps: means, and the default LTE's lead with its interval."""
    at_steps, lines = scores[scores["budget"].isin([BUDGETS[0], ""])], []
    for spacing in CONDITIONS:
        for arm, group in at_steps[at_steps["spacing"] == spacing].groupby("arm"):
            mean = group.groupby("metric")["value"].mean()
            pair = pair_of(pairs, LTES[0] + LEARNED * all_learned(arm), arm, spacing)
            lines.append(
                {
                    "Arm": name_of(arm),
                    "Spacing": spacing,
                    "PSNR (dB)": f"{mean['psnr']:.2f}",
                    "LTE above it (dB)": interval(pair) if pair else "",
                    "SSIM": f"{mean['ssim']:.3f}",
                    "HFEN": f"{mean['hfen']:.3f}",
                    "Subjects": group["subject"].nunique(),
                    "Seeds": group["seed"].nunique() if group["weights_sha256"].iloc[0] else "",
                }
            )
    return pd.DataFrame(lines)


def speed_table(runs: pd.DataFrame) -> pd.DataFrame:
    """How fast each arm trains, and how many times the literal LTE's pace that is."""
    table = runs.pivot_table(index="arm", columns="metric", values="value", sort=False)
    if "voxels_per_s" not in table:  # every run diverged
        return pd.DataFrame()
    seeds, pace, lines = runs.groupby("arm")["seed"].nunique(), table["voxels_per_s"].dropna(), []
    for arm, r in table.loc[pace.index].iterrows():
        literal = pace.get("literal" + LEARNED * all_learned(arm), np.nan)
        lines.append(
            {
                "Arm": name_of(arm),
                "Parameters": f"{r['parameters']:,.0f}",
                "CPU s a step": f"{r['cpu_s_per_step']:.3f}",
                "Voxels/s": f"{r['voxels_per_s']:,.0f}",
                "Times literal LTE": decimals(r["voxels_per_s"] / literal, 2),
                "Steps at equal compute": f"{r['steps_at_equal_compute']:.0f}",
                "Training loss": f"{r['training_loss']:.4f}",
                "Seeds": seeds[arm],
            }
        )
    return pd.DataFrame(lines)


def stages_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The default LTE by its stages of training: PSNR at 1 mm, and patches against the whole."""
    psnr, lines = psnr_of(scores), []
    apart = scores[scores["metric"] == "patch_vs_whole"].groupby("arm")["value"].mean()
    for arm in (arm for arm in trained_arms(scores) if base_of(arm) == LTES[0]):
        own, plain = psnr.level(arm, "1 mm", BUDGETS[0]), arm.partition(" @")[0]
        if own is None or arm not in apart:
            continue
        pair = lead(psnr, arm, plain, "1 mm", BUDGETS[0]) if arm != plain else None
        lines.append(
            {
                "Training": name_of(arm) + ", stage 2 only" * (arm == plain),
                "PSNR at 1 mm (dB)": f"{own.mean:.2f}",
                "Above stage 2 only (dB)": interval(pair) if pair else "",
                "Patches against whole (% of peak)": f"{apart[arm]:.2f}",
                "Subjects": own.n_subjects,
                "Seeds": own.n_seeds,
            }
        )
    return pd.DataFrame(lines)


# Verdict


def verdict(frame: pd.DataFrame) -> str:
    """What prepared rows say, one comparison a line, whatever it is."""
    runs, pairs = runs_of(frame), pairs_table(scores_of(frame))
    lines = [f"Training: {recipe}." for recipe in recipes(runs)] + other_recipes(frame)
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
    chapters["Stages of training (the first: stage 2 only)"] = (
        shown & of_stages & (first == LTES[0])
    )
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


def recipes(runs: pd.DataFrame) -> list[str]:
    """How arms were trained, with the shortcut and without, such as ``600 steps, 16 heads``."""
    return [
        f"{part['condition'].iloc[-1]}, {counted(part['seed'].nunique(), 'seed')} "
        f"({_shortcut(learned)})"
        for learned, part in runs.groupby("learned")
    ]


def other_recipes(frame: pd.DataFrame) -> list[str]:
    """One line a recipe that is recorded and not compared, with its arms and why."""
    others = frame[(frame["experiment"] == RUN) & ~frame["compared"]]
    return [
        f"Also recorded, with fewer runs or other blocks, so not compared: {recipe}, "
        f"{counted(int(subjects), 'subject')} ({_shortcut(learned)}): "
        f"{', '.join(dict.fromkeys(map(name_of, part['arm'])))}."
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
