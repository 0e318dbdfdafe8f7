"""From prepared rows of the ablation to its tables and verdict.

Runs of one recipe alone are compared (`eval.ablation.recipes`), so that two lengths of training
never mix. Intervals and tests are those of `eval.stats`.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from eval.ablation.blocks import CONDITIONS, FINER, SCORED_MM
from eval.ablation.codecs import INTERPOLATION
from eval.ablation.measure import BUDGETS, NAME, RUN
from eval.ablation.pairs import ALL_GRIDS, LINEAR, Tables, name_of
from eval.ablation.recipes import RECIPE
from eval.arms.catalogue import LEARNED, all_learned, size_of, sized
from eval.rows import RESULTS
from eval.stats import compare, holm

LTES = ("integrated", "integrated-j5", "literal")
BEST_LINEAR = "best linear codec"
HEADLINES = ("1 mm", "1.5 mm", ALL_GRIDS)


def scores_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores among prepared rows."""
    return frame[frame["experiment"] == NAME]


def runs_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Facts of the runs that are compared, among prepared rows."""
    return frame[(frame["experiment"] == RUN) & frame["compared"]]


def tables_of(scores: pd.DataFrame, metric: str = "psnr") -> Tables:
    """(arm, spacing, budget) -> subjects x seeds; the best linear codec counts as an arm."""
    chosen = scores[(scores["metric"] == metric) & scores["value"].notna()]
    tables = {
        key: group.pivot(index="subject", columns="seed", values="value")
        for key, group in chosen.groupby(["arm", "spacing", "budget"])
    }
    codec, _, size = (chosen["arm"].str.partition(" (")[k] for k in range(3))
    ending = (" (" + size).where(size != "", "")
    linear = chosen.assign(best=BEST_LINEAR + ending)[codec.isin(LINEAR)]
    for (best, spacing), group in linear.groupby(["best", "spacing"]):
        highest = group.groupby("subject")["value"].max()  # each subject's own: a strict rival
        tables[best, spacing, ""] = highest.to_frame(0)
    return Tables(tables, tuple(SCORED_MM))


def pairs_table(tables: Tables) -> pd.DataFrame:
    """Every comparison: who, against whom, where, at which budget, with or without shortcut.

    Each LTE against every other arm, and every arm against the best linear codec (and against
    interpolation for 2 mm -> 1 mm). Holm's correction runs over all lines of one family: one
    first arm (or, against codecs, all arms), one budget, one shortcut setting.
    """
    lines = []
    for shortcut in ("", LEARNED):
        arms = [a for a in tables.trained if all_learned(a) == bool(shortcut)]
        contests = [
            (f"{first} and the others", first + shortcut, second)
            for first in LTES
            for second in arms
            if second != first + shortcut and first + shortcut in arms
        ]
        contests += [
            ("codecs", arm, fixed)
            for arm in arms
            for fixed in (sized(BEST_LINEAR, size_of(arm)), INTERPOLATION)
        ]
        for family, first, second in contests:
            for budget in BUDGETS:
                for spacing in (*CONDITIONS, ALL_GRIDS):
                    table = tables.difference(first, second, spacing, budget)
                    if table is None:
                        continue
                    lines.append(
                        {
                            "family": f"{family}, {budget}, {_shortcut(shortcut)}",
                            "first": first,
                            "second": second,
                            "shortcut": _shortcut(shortcut),
                            "spacing": spacing,
                            "budget": budget,
                            **asdict(compare(table)),
                        }
                    )
    pairs = pd.DataFrame(lines)
    if not pairs.empty:
        pairs["holm_p"] = pairs.groupby("family")["p"].transform(lambda p: holm(p.to_numpy()))
    return pairs


def _shortcut(ending: str) -> str:
    return "without the shortcut" if ending else "with the shortcut"


def arms_table(scores: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Arm by spacing at equal steps: means, and the default LTE's lead with its interval."""
    at_steps = scores[scores["budget"].isin([BUDGETS[0], ""])]
    means = at_steps.pivot_table(index=["arm", "spacing"], columns="metric", values="value")
    sizes = at_steps[at_steps["metric"] == "psnr"].groupby(["arm", "spacing"])
    lines = []
    order = {s: i for i, s in enumerate(CONDITIONS)}
    for arm, spacing in sorted(means.index, key=lambda k: (order.get(k[1], 9), k[0])):
        mean, group = means.loc[(arm, spacing)], sizes.get_group((arm, spacing))
        lead = _lead(pairs, arm, spacing)
        lines.append(
            {
                "Arm": name_of(arm),
                "Spacing": spacing,
                "PSNR (dB)": f"{mean['psnr']:.2f}",
                "LTE above it (dB)": "" if lead is None else interval_text(lead),
                "SSIM": f"{mean['ssim']:.3f}",
                "HFEN": f"{mean['hfen']:.3f}",
                "Subjects": group["subject"].nunique(),
                "Seeds": group["seed"].nunique() if group["weights_sha256"].iloc[0] else "",
            }
        )
    return pd.DataFrame(lines)


def _lead(pairs: pd.DataFrame, arm: str, spacing: str) -> pd.Series | None:
    if pairs.empty:
        return None
    default = LTES[0] + LEARNED * all_learned(arm)
    found = pairs[
        (pairs["first"] == default)
        & (pairs["second"] == arm)
        & (pairs["spacing"] == spacing)
        & (pairs["budget"] == BUDGETS[0])
    ]
    return None if found.empty else found.iloc[0]


def interval_text(pair: pd.Series) -> str:
    """Such as ``+1.20 [+0.90, +1.51]``."""
    return f"{pair['mean']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]"


def pairs_for_people(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs as they are written: text of fixed decimals."""
    if pairs.empty:
        return pairs
    return pd.DataFrame(
        {
            "First": pairs["first"].map(name_of),
            "Second": pairs["second"].map(name_of),
            "Shortcut": pairs["shortcut"],
            "Spacing": pairs["spacing"],
            "Budget": pairs["budget"],
            "First - second (dB) [95 %]": [interval_text(p) for _, p in pairs.iterrows()],
            "Wilcoxon p": pairs["p"].map("{:.3g}".format),
            "Holm p": pairs["holm_p"].map("{:.3g}".format),
            "Rank biserial": pairs["rank_biserial"].map("{:+.2f}".format),
            "Cohen's dz": pairs["cohens_dz"].map("{:+.2f}".format).replace("+nan", ""),
            "Subjects": pairs["n_subjects"],
            "Seeds": pairs["n_seeds"],
        }
    )


def sentence(pair: pd.Series) -> str:
    """One line of the verdict."""
    spacing, shortcut = pair["spacing"], pair["shortcut"]
    where = f", {spacing}" if spacing in (FINER, ALL_GRIDS) else f" at {spacing}"
    first, second = (name_of(pair[k].replace(LEARNED, "")) for k in ("first", "second"))
    return (
        f"{first} − {second}{where}: {pair['mean']:+.2f} dB "
        f"[{pair['low']:+.2f}, {pair['high']:+.2f}], {counted(pair['n_subjects'], 'subject')} × "
        f"{counted(pair['n_seeds'], 'seed')} ({pair['budget']}, {shortcut}; "
        f"Holm p = {pair['holm_p']:.2g})"
    )


def counted(number: int, what: str) -> str:
    """Such as ``1 seed`` or ``3 seeds``."""
    return f"{number} {what}{'s' * (number != 1)}"


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    scores, runs = scores_of(frame), runs_of(frame)
    of_arms = tables_of(scores)
    pairs = pairs_table(of_arms)
    return {
        "ablation": arms_table(scores, pairs),
        "ablation_pairs": pairs_for_people(pairs),
        "ablation_speed": speed_table(runs),
        "ablation_stages": stages_table(scores, of_arms),
    }


def verdict(frame: pd.DataFrame) -> str:
    """What prepared rows say, one comparison a line, whatever it is."""
    runs, pairs = runs_of(frame), pairs_table(tables_of(scores_of(frame)))
    lines = [f"Training: {recipe}." for recipe in recipes(runs)] + other_recipes(frame)
    if not pairs.empty:
        of_codecs = pairs["family"].str.startswith("codecs")
        shown = pairs[~of_codecs & pairs["spacing"].isin(HEADLINES)]
        of_stages = shown["second"].str.contains(" @")
        chapters = {
            f"{name_of(first)} against other operators and architectures": shown[
                shown["first"].str.removesuffix(LEARNED).eq(first) & ~of_stages
            ]
            for first in LTES
        }
        chapters["Stages of training (the first: stage 2 only)"] = shown[
            shown["first"].str.removesuffix(LEARNED).eq(LTES[0]) & of_stages
        ]
        at_1_mm = pairs[of_codecs & pairs["spacing"].isin(["1 mm", FINER])]
        chapters["Against codes that learn nothing"] = at_1_mm
        for title, chosen in chapters.items():
            if not chosen.empty:
                lines += ["", title, *(sentence(p) for _, p in chosen.iterrows())]
    fell = runs[runs["metric"] == "diverged_at_step"]
    lines += [
        f"{name_of(r.arm)}, seed {r.seed}: the loss was no longer finite at step {r.value:.0f}"
        for r in fell.itertuples()
    ]
    return "\n".join(lines)


def other_recipes(frame: pd.DataFrame) -> list[str]:
    """One line a recipe that is recorded and not compared, with its arms and why."""
    others = frame[(frame["experiment"] == RUN) & ~frame["compared"]]
    return [
        f"Also recorded, with fewer runs or other blocks, so not compared: {recipe}, "
        f"{counted(int(subjects), 'subject')} ({_shortcut(LEARNED * learned)}): "
        f"{', '.join(dict.fromkeys(map(name_of, part['arm'])))}."
        for (learned, recipe, subjects), part in others.groupby(RECIPE, sort=False)
    ]


def recipes(runs: pd.DataFrame) -> list[str]:
    """How arms were trained, with the shortcut and without, such as ``600 steps, 16 heads``."""
    learned = runs["arm"].map(all_learned)
    return [
        f"{part['condition'].iloc[-1]}, {counted(part['seed'].nunique(), 'seed')} "
        f"({_shortcut(ending)})"
        for ending, part in (("", runs[~learned]), (LEARNED, runs[learned]))
        if not part.empty
    ]


def speed_table(runs: pd.DataFrame) -> pd.DataFrame:
    """How fast each arm trains, and how many times the literal LTE's pace that is."""
    table = runs.pivot_table(index="arm", columns="metric", values="value", sort=False)
    table = table.dropna(subset=["voxels_per_s"]) if "voxels_per_s" in table else table.iloc[:0]
    lines = []
    for arm, r in table.iterrows():
        literal = "literal" + LEARNED * all_learned(str(arm))
        known = literal in table.index
        ratio = r["voxels_per_s"] / table.loc[literal, "voxels_per_s"] if known else np.nan
        lines.append(
            {
                "Arm": name_of(str(arm)),
                "Parameters": f"{r['parameters']:,.0f}",
                "CPU s a step": f"{r['cpu_s_per_step']:.3f}",
                "Voxels/s": f"{r['voxels_per_s']:,.0f}",
                "Times literal LTE": "" if np.isnan(ratio) else f"{ratio:.2f}",
                "Steps at equal compute": f"{r['steps_at_equal_compute']:.0f}",
                "Training loss": f"{r['training_loss']:.4f}",
                "Seeds": runs[runs["arm"] == arm]["seed"].nunique(),
            }
        )
    return pd.DataFrame(lines)


def stages_table(scores: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """The default LTE by its stages of training: PSNR at 1 mm, and patches against the whole."""
    lines = []
    for arm in [a for a in tables.arms if a.partition(" @")[0].removesuffix(LEARNED) == LTES[0]]:
        base = arm.partition(" @")[0]
        apart = scores[(scores["arm"] == arm) & (scores["metric"] == "patch_vs_whole")]
        own = tables.table(arm, "1 mm", BUDGETS[0])
        if own is None or apart.empty:
            continue
        lead = None if arm == base else tables.difference(arm, base, "1 mm", BUDGETS[0])
        text = "" if lead is None else interval_text(pd.Series(asdict(compare(lead))))
        lines.append(
            {
                "Training": name_of(arm) if arm != base else f"{name_of(arm)}, stage 2 only",
                "PSNR at 1 mm (dB)": f"{own.to_numpy().mean():.2f}",
                "Above stage 2 only (dB)": text,
                "Patches against whole (% of peak)": f"{apart['value'].mean():.2f}",
                "Subjects": own.shape[0],
                "Seeds": own.shape[1],
            }
        )
    return pd.DataFrame(lines)


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
    ours, theirs = (pairs_table(tables_of(scores_of(rows))) for rows in (quick, recorded))
    keys = ["first", "second", "spacing", "budget"]
    if ours.empty or theirs.empty:
        return "agrees in sign with the recorded rows: nothing to compare"
    both = ours.merge(theirs, on=keys, suffixes=("", "_recorded"))
    for side in ("", "_recorded"):
        both = both[(both["low" + side] > 0) | (both["high" + side] < 0)]
    both = both[(both["budget"] == BUDGETS[0]) & ~both["family"].str.startswith("codecs")]
    same = int((np.sign(both["mean"]) == np.sign(both["mean_recorded"])).sum())
    answer = "nothing to compare" if both.empty else "yes" if same == len(both) else "no"
    return f"agrees in sign with the recorded rows: {answer} ({same} of {len(both)} differences)"
