"""The sentences on sampled heads, built from prepared rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import pandas as pd

from eval.cited import cited
from eval.generation import novelty, parts, scans
from eval.generation.arms import (
    ANATOMY,
    ANATOMY_ALIKE,
    CODECS,
    IMAGE,
    IMAGE_ALIKE,
    stands_for,
)
from eval.generation.report import NAMES, agreement, control_pairs, scan_rows

CLEAR_MS_SSIM = 0.01  # a smaller difference counts as none
KEPT_SHARE = 0.05  # of the shape spread: a smaller change counts as none
Means = Mapping[tuple[str, str, str], float]  # of sets, by arm, condition and metric


def verdict(rows: pd.DataFrame) -> str:
    """Sentences on samples, copies, control and blur; parts without rows are left out."""
    by_set = means(rows)
    writers = [
        *(partial(samples, by_set, arm) for arm in (ANATOMY, IMAGE)),
        partial(_bought, rows), partial(_shown, rows), partial(_solved, rows),
        partial(_arms, rows), *(partial(_copies, by_set, arm) for arm in (ANATOMY, IMAGE)),
        partial(_new, by_set), partial(_renderings, by_set), partial(_control, rows),
        partial(_real, rows),
        partial(_blur, by_set), *(partial(_matched, by_set, arm) for arm in (ANATOMY, IMAGE)),
        partial(_diversity, rows, by_set), partial(_one_map, by_set),
    ]  # fmt: skip
    return "\n".join(_said(writers))


def _said(writers: Sequence[Callable[[], str]]) -> list[str]:
    sentences = []
    for write in writers:
        with suppress(LookupError):  # a set of it, or a second arm, is not recorded
            sentences.append(write())
    return sentences


def of_anatomy(rows: pd.DataFrame) -> str:
    """The sentences on anatomy-first samples alone, as Markdown items."""
    by_set = means(rows)
    writers = (
        partial(samples, by_set, ANATOMY), partial(_bought, rows), partial(_shown, rows),
        partial(_solved, rows), partial(_copies, by_set, ANATOMY), partial(_new, by_set),
    )  # fmt: skip
    return "\n".join(f"- {sentence}" for sentence in _said(writers))


def means(rows: pd.DataFrame) -> Means:
    """Means over sets by arm, condition and metric."""
    groups = rows.dropna(subset="value").groupby(["arm", "condition", "metric"])
    return groups["value"].mean().to_dict()


def samples(means: Means, arm: str) -> str:
    """How far samples are from held-out heads, and how much of that the autoencoder causes.

    Raises:
        KeyError: They are not recorded.
    """
    sets = (
        (arm, parts.SAMPLED),
        (parts.HELD_OUT, parts.ANOTHER),
        (stands_for(arm), parts.REBUILT),
    )
    ours, _, alone = (means[arm, condition, "frechet"] for arm, condition in sets)
    texts = [_cited(means, *one) for one in sets]
    larger = "sampling" if ours - alone > alone else "the autoencoder"
    return (
        f"Samples of {NAMES[arm]} have a squared Fréchet distance of {texts[0]} from held-out "
        f"heads. Another set of held-out heads has {texts[1]}; held-out heads through the "
        f"autoencoder alone have {texts[2]}. Most of the distance comes from {larger}."
    )


def _cited(means: Means, arm: str, condition: str) -> str:
    text = f"{means[arm, condition, 'frechet']:.1f}"
    return cited(text, arm=arm, condition=condition, metric="frechet")


def _bought(rows: pd.DataFrame) -> str:
    """What a map buys at equal compute, every set with a flow of its own training seed."""
    table = sampled_sets(rows, (ANATOMY_ALIKE, IMAGE_ALIKE))
    own, without = (table.loc[arm] for arm in (ANATOMY_ALIKE, IMAGE_ALIKE))
    near = ", ".join(
        f"{name} {own[name].mean():.2f} and {without[name].mean():.2f}"
        for name in ("precision", "recall", "coverage")
    )
    apart = own["frechet"].max() < without["frechet"].min()
    seeds = "do not overlap" if apart else "overlap"
    return (
        f"At equal compute ({own['training_min'].mean():.1f} and "
        f"{without['training_min'].mean():.1f} minutes of one CPU thread, {len(own)} training "
        f"seeds each) samples of given maps have a squared Fréchet distance of "
        f"{own['frechet'].mean():.1f}, those without a map {without['frechet'].mean():.1f}; the "
        f"seeds {seeds}. With and without a map they have {near}."
    )


def sampled_sets(rows: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """One line a set of samples, by arm and subject; its metrics as columns.

    Raises:
        LookupError: One of the arms has no set.
    """
    own = rows[(rows["condition"] == parts.SAMPLED) & rows["arm"].isin(arms)]
    table = own.pivot_table(index=["arm", "subject"], columns="metric", values="value")
    if set(table.index.get_level_values("arm")) != set(arms):
        raise LookupError("not every arm has sets of samples")
    return table


def _shown(rows: pd.DataFrame) -> str:
    """Whether scans show their maps."""
    own, heads = scan_rows(rows, scans.SHOWN), scan_rows(rows, scans.FLOOR)
    said = [
        f"{name} with a Dice of {own[metric].mean():.2f} (heads of exact maps, through the "
        f"autoencoder alone: {heads[metric].mean():.2f})"
        for name, metric in (("white matter", "dice_white_matter"), ("cortex", "dice_cortex"))
    ]
    return (
        f"In {len(own)} scans of drawn maps the segmenter finds {' and '.join(said)}. It had "
        "also labelled the real scans that the sampler was trained on."
    )


def ventricle_pairs(rows: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The `control_pairs` of ventricles whose columns have some values.

    Raises:
        LookupError: There are none.
    """
    pairs = control_pairs(rows)
    own = pairs[pairs["what"].str.startswith("ventricles")]
    for column, value in where.items():
        own = own[own[column] == value]
    if own.empty:
        raise LookupError("no such ventricles are recorded")
    return own


def _solved(rows: pd.DataFrame) -> str:
    """Whether asked ventricles are in the scans of maps that have them."""
    pairs = ventricle_pairs(rows, arm=ANATOMY)
    own = agreement(pairs["asked"], pairs["measured"])
    return (
        f"Ventricles that were solved for in the map measure, in the scan, r² = {own['r2']:.3f}, "
        f"slope {own['slope']:.2f}, RMS error {own['rms']:.1f} ml (n = {len(pairs)})."
    )


def _arms(rows: pd.DataFrame) -> str:
    """Which autoencoder, trained alike, gives the samples nearest to held-out heads."""
    own = [arm for arm in CODECS if arm in set(rows["arm"])]
    seeds = sampled_sets(rows, own)["frechet"].groupby("arm").agg(["mean", "min", "max", "count"])
    seeds = seeds.sort_values("mean")
    apart = seeds["max"].iloc[0] < seeds["min"].iloc[1]
    if seeds["count"].min() < 2:
        sure = "from one set each"
    else:
        sure = "and its seeds do not overlap those of the next" if apart else "but seeds overlap"
    listed = "; ".join(f"{NAMES[str(arm)]} {mean:.1f}" for arm, mean in seeds["mean"].items())
    return (
        f"Of autoencoders trained alike, {NAMES[str(seeds.index[0])]} has the smallest Fréchet "
        f"distance, {sure} ({listed})."
    )


def _copies(means: Means, arm: str) -> str:
    ours = means[arm, parts.SAMPLED, "copies_percent"]
    ruler = means[parts.HELD_OUT, parts.ANOTHER, "copies_percent"]
    real = means[parts.TRAINING, parts.COPIES, "copies_percent"]
    says = "more often than" if ours > ruler else "as often as" if ours == ruler else "less than"
    return (
        f"{ours:.0f} % of samples of {NAMES[arm]} are flagged as copies of a training head, "
        f"{says} held-out heads ({ruler:.0f} %); of true copies, {real:.0f} % are flagged. A "
        "sample is flagged if its distance to the nearest training head, divided by its median "
        "distance to all, is smaller than for 95 % of the training heads themselves."
    )


def _new(means: Means) -> str:
    """How often drawn maps alone are taken for copies, by how far they are bent."""
    near, far = (
        means[ANATOMY, novelty.bends_name(bends), "copies_percent"] for bends in novelty.BENDS
    )
    others = means[novelty.HELD_OUT, f"{novelty.MAPS}, {novelty.ANOTHER}", "copies_percent"]
    return (
        f"On maps alone, {near:.0f} % of drawn anatomies are flagged where they are bent as far as "
        f"training heads, {far:.0f} % where they are bent {novelty.BENDS[-1]:g} times as far, as "
        f"samples are; of maps of other people, {others:.0f} %."
    )


def _renderings(means: Means) -> str:
    ratio = means[ANATOMY, parts.RENDERINGS, "renderings_ratio"]
    return (
        "One latent is rendered at 1 mm and averaged to 2 mm, and rendered at 2 mm: the two "
        f"differ {ratio:.1f} times less than two samples do. This is built in, since voxels are "
        "rendered as averages over their cells."
    )


def _control(rows: pd.DataFrame) -> str:
    pairs = control_pairs(rows)
    pairs = pairs[pairs["what"] == "ventricles"]
    by_arm = dict(list(pairs.groupby("arm")))
    own, ruler = by_arm[IMAGE], by_arm[parts.RULER]
    ruler = ruler[ruler["how"] != parts.REAL]
    by = {how: agreement(p["asked"], p["measured"]) for how, p in own.groupby("how")}
    best = max(by, key=lambda how: by[how]["r2"])
    true = agreement(ruler["asked"], ruler["measured"])
    return (
        f"Ventricles measured on samples follow the requested volume with r² = "
        f"{by[best]['r2']:.2f}, slope {by[best]['slope']:.2f} and an RMS error of "
        f"{by[best]['rms']:.1f} ml under {best}. The measurement itself, on n = {len(ruler)} "
        f"held-out heads of known volume, has r² = {true['r2']:.2f} and an RMS error of "
        f"{true['rms']:.1f} ml."
    )


def _real(rows: pd.DataFrame) -> str:
    """The ruler on real brains, beside the segmenter's count."""
    own = ventricle_pairs(rows, how=parts.REAL)
    found = agreement(own["asked"], own["measured"])
    return (
        f"On {len(own)} real brains the same ruler and the segmenter's count of ventricles have "
        f"r² = {found['r2']:.2f} and differ by {found['rms']:.1f} ml (RMS; ruler minus segmenter "
        f"{found['bias']:+.1f} ml)."
    )


def _blur(means: Means) -> str:
    ends = [(parts.HELD_OUT, parts.blur_name(mm)) for mm in (0, max(parts.BLURS_MM))]
    plain, soft = (means[*end, "ms_ssim"] for end in ends)
    spread, soft_spread = (means[*end, "shape_spread"] for end in ends)
    gain, kept = soft - plain, soft_spread / spread - 1
    effect = (
        f"raises their MS-SSIM by {gain:.3f}, as if they were more alike"
        if gain > CLEAR_MS_SSIM
        else f"changes their MS-SSIM by {gain:+.3f} only"
    )
    held = "does not change" if abs(kept) <= KEPT_SHARE else "changes too"
    return (
        f"A blur of {max(parts.BLURS_MM):g} mm on the same heads {effect}; their spread of shape "
        f"{held} ({100 * kept:+.0f} %)."
    )


def _matched(means: Means, arm: str) -> str:
    plain = means[parts.HELD_OUT, parts.PLAIN, "ms_ssim"]
    soft = means[parts.HELD_OUT, parts.MATCHED + arm, "ms_ssim"]
    ours = means[arm, parts.SAMPLED, "ms_ssim"]
    shape = means[arm, parts.SAMPLED, "shape_spread"]
    real = means[parts.HELD_OUT, parts.PLAIN, "shape_spread"]
    gap, left = ours - plain, ours - soft
    if abs(gap) <= CLEAR_MS_SSIM:
        difference = "do not differ clearly"
    elif abs(left) < abs(gap) / 2:
        difference = "differ mostly by sharpness"
    else:
        difference = "differ by more than sharpness"
    return (
        f"MS-SSIM is {ours:.3f} among samples of {NAMES[arm]} and {plain:.3f} among held-out "
        f"heads; held-out heads blurred to the samples' sharpness have {soft:.3f}. So the two "
        f"{difference}. Their spread of shape is {shape:.2f} and {real:.2f} of the reference's."
    )


MEDIL, FIXED = "integrated", "conv-1mm"  # arms of the paper's question


def _diversity(rows: pd.DataFrame, means: Means) -> str:
    """The paper's question: is MedIL less diverse than a fixed-size autoencoder, or sharper?"""
    plain = {arm: means[arm, parts.SAMPLED, "ms_ssim"] for arm in (MEDIL, FIXED)}
    power = {arm: means[arm, parts.SAMPLED, "power_4_8_db"] for arm in (MEDIL, FIXED)}
    right = [means[arm, parts.SAMPLED, "precision"] for arm in (MEDIL, FIXED)]
    soft = min(power, key=lambda arm: power[arm])
    sharp = FIXED if soft == MEDIL else MEDIL
    matched = means[sharp, parts.MATCHED + soft, "ms_ssim"]
    gap, left = plain[MEDIL] - plain[FIXED], matched - plain[soft]
    own = rows[rows["arm"].isin((MEDIL, FIXED)) & (rows["condition"] == parts.SAMPLED)]
    sets = int(own.groupby("arm")["subject"].nunique().min())
    left = left if sharp == MEDIL else -left
    if abs(gap) <= CLEAR_MS_SSIM and abs(left) <= CLEAR_MS_SSIM:
        says = "their diversity does not differ clearly either way"
    elif abs(left) <= CLEAR_MS_SSIM:
        says = "at equal sharpness their diversity does not differ clearly"
    else:
        says = f"at equal sharpness MedIL is {'less' if left > 0 else 'more'} diverse"
    return (
        f"Given the same maps, samples on latents of MedIL have an MS-SSIM of {plain[MEDIL]:.3f} "
        f"and a power at 4 to 8 mm of {power[MEDIL]:+.1f} dB of held-out heads'; on latents of "
        f"the fixed-size autoencoder {plain[FIXED]:.3f} and {power[FIXED]:+.1f} dB. With the "
        f"sharper set blurred to the other's power MS-SSIM differs by {left:+.3f}: {says} "
        f"(precision {right[0]:.2f} and {right[1]:.2f}; {sets} set{'s' * (sets > 1)} of samples "
        "each; a lower MS-SSIM means more diverse)."
    )


def _one_map(means: Means) -> str:
    """Diversity within one anatomy and across anatomies."""
    within = means[ANATOMY, parts.ONE_MAP, "ms_ssim"]
    across = means[ANATOMY, parts.SAMPLED, "ms_ssim"]
    more = within > across + CLEAR_MS_SSIM
    says = "most of the diversity is that of the maps" if more else "the maps add little diversity"
    return (
        f"MS-SSIM among samples of one map is {within:.3f}, among samples of different maps "
        f"{across:.3f}: {says}."
    )
