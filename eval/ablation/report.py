"""From prepared rows of the ablation to its pairs and tables.

Runs of one recipe alone are compared (`eval.ablation.recipes`), so that two lengths of training
never mix. Intervals and tests are those of `eval.stats`.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np
import pandas as pd

from eval import primary
from eval.ablation.blocks import CONDITIONS, FINER, NATIVE, SCORED_MM
from eval.ablation.codecs import BEST_LINEAR, INTERPOLATION
from eval.ablation.curve import curve_of, curve_table
from eval.ablation.measure import BUDGETS, NAME, RUN
from eval.ablation.names import NAMES, base_of, name_of, shortcut_of
from eval.arms.catalogue import LEARNED, all_learned, size_of, sized
from eval.coders import neighbours
from eval.pairs import NO_SEED, Scores, compared, counted, difference, interval
from eval.stats import Paired
from eval.tables import decimals
from medil.model.codecs import LINEAR_CODECS

LTES = ("integrated", "integrated-j5", "literal", "literal-skip", "literal-skip-both")
LINEAR = (*LINEAR_CODECS, "lapped", neighbours.NAME)
ALL_GRIDS = "mean of grids"
HEADLINES = ("1 mm", NATIVE, "1.5 mm", ALL_GRIDS)
CONTEST = ["family", "first", "second", "shortcut", "spacing", "budget"]


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
    if not {(arm, grid, budget) for arm in (first, second) for grid in grids} <= psnr.keys:
        return None
    found = [difference(*(psnr.table(a, grid, budget) for a in (first, second))) for grid in grids]
    if any(table.empty for table in found):  # a mean of other grids would be another quantity
        return None
    return compared(pd.concat(found).groupby(level=0).mean().dropna(axis=1))


# Pairs


def pairs_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Every comparison: who, against whom, where, at which budget, with or without shortcut.

    Each LTE against every other arm, and every arm against the best linear codec (and against
    interpolation for 2 mm -> 1 mm). A line is primary where `eval.primary` names it and its rows
    are newer than that; Holm's correction runs over these alone.
    """
    psnr, contests = psnr_of(scores), []
    for ending in ("", LEARNED):
        both = "literal-skip-both" + ending
        arms = [arm for arm in trained_arms(scores) if all_learned(arm) == bool(ending)]
        contests += [
            (f"{first} and the others", first + ending, second)
            for first in LTES
            for second in arms
            if second != first + ending
        ]
        contests += [
            ("both ends", "literal-both" + ending, "trilinear-both" + ending),
            ("both ends", "literal-both" + ending, both),
            ("both ends", f"{both} @both+groups", f"{both} @both"),
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
            shortcut = shortcut_of(all_learned(first))
            about = f"{family}, {budget}, {shortcut}", first, second, shortcut, spacing, budget
            lines.append(dict(zip(CONTEST, about, strict=True)) | vars(pair))
    pairs = pd.DataFrame(lines, columns=[*CONTEST, *(field.name for field in fields(Paired))])
    return _with_roles(pairs, scores.groupby("arm")["recorded_at"].min())


def _with_roles(pairs: pd.DataFrame, recorded_at: pd.Series) -> pd.DataFrame:
    """Pairs with their role and, where that is primary, Holm's p."""
    named = {comparison.key: comparison for comparison in primary.comparisons(NAME)}
    found = {}
    for pair in pairs.itertuples():
        key = pair.first, pair.second, pair.spacing, pair.budget
        if key in named and _since(recorded_at, pair.first) and _since(recorded_at, pair.second):
            found[pair.Index] = named[key]
    adjusted = primary.corrected({c: pairs["p"][index] for index, c in found.items()})
    holm_p = pd.Series({index: adjusted[c] for index, c in found.items()}, dtype=float)
    roles = [primary.PRIMARY if index in found else primary.EXPLORATORY for index in pairs.index]
    return pairs.assign(role=roles, holm_p=holm_p.reindex(pairs.index))


def _since(recorded_at: pd.Series, arm: str) -> bool:
    """Whether every row of an arm is newer than the primary comparisons; codecs learn nothing."""
    return arm not in recorded_at or recorded_at[arm] >= primary.named_on()


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
        f"{counted(pair.n_seeds, 'seed')} ({pair.budget}, {pair.shortcut}; {role_of(pair)})"
    )


def role_of(pair) -> str:
    """``exploratory``, or ``primary, Holm p = 0.02``."""
    tested = f", Holm p = {pair.holm_p:.2g}" if pair.role == primary.PRIMARY else ""
    return pair.role + tested


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
            "Role": pairs["role"],
            "Wilcoxon p": pairs["p"].map("{:.3g}".format),
            "Holm p": pairs["holm_p"].map("{:.3g}".format).replace("nan", ""),
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
        "ablation_primary": primary_table(scores, pairs),
        "ablation_curve": curve_table(curve_of(frame)),
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


def primary_table(scores: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The primary comparisons of this experiment: with Holm's p, and on real people alone."""
    people = scores[~scores["subject"].str.startswith("made_")]
    of_people = None if people.empty else psnr_of(people)
    lines = []
    for comparison in primary.comparisons(NAME):
        pair = pair_of(pairs, *comparison.key)
        if pair is None or pair.role != primary.PRIMARY:
            continue
        real = lead(of_people, *comparison.key) if of_people else None
        lines.append(
            {
                "Primary comparison": contest(pair.first, pair.second, pair.spacing),
                "Setting": f"{pair.budget}, {pair.shortcut}",
                "Difference (dB) [95 %]": interval(pair),
                "Real people alone (dB)": interval(real) if real else "",
                "Wilcoxon p": f"{pair.p:.3g}",
                "Holm p": f"{pair.holm_p:.3g}",
                "Subjects": pair.n_subjects,
                "Real people": real.n_subjects if real else 0,
                "Seeds": pair.n_seeds,
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
    """LTEs by their stages of training: PSNR at 1 mm, and patches against the whole."""
    psnr, lines, arms = psnr_of(scores), [], trained_arms(scores)
    apart = scores[scores["metric"] == "patch_vs_whole"].groupby("arm")["value"].mean()
    staged = {arm.partition(" @")[0] for arm in arms if " @" in arm}
    for arm in (arm for arm in arms if base_of(arm) in LTES):
        own, plain = psnr.level(arm, "1 mm", BUDGETS[0]), arm.partition(" @")[0]
        if own is None or not (arm in apart or plain in staged):
            continue
        pair = lead(psnr, arm, plain, "1 mm", BUDGETS[0]) if arm != plain else None
        lines.append(
            {
                "Training": name_of(arm) + ", stage 2 only" * (arm == plain),
                "PSNR at 1 mm (dB)": f"{own.mean:.2f}",
                "Above stage 2 only (dB)": interval(pair) if pair else "",
                "Patches against whole (% of peak)": f"{apart[arm]:.2f}" if arm in apart else "",
                "Subjects": own.n_subjects,
                "Seeds": own.n_seeds,
            }
        )
    return pd.DataFrame(lines)
