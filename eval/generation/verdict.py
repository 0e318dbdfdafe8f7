"""The sentences on sampled heads, built from prepared rows."""

from __future__ import annotations

import pandas as pd

from eval.generation import parts
from eval.generation.autoencoders import BASE, RELEASE, RELEASED, TITLES
from eval.generation.report import NAMES, agreement, control_pairs

CLEAR_MS_SSIM = 0.01  # a smaller difference counts as none
KEPT_SHARE = 0.05  # of the shape spread: a smaller change counts as none


def verdict(rows: pd.DataFrame) -> str:
    """Sentences on samples, copies, control and blur; parts without rows are left out."""
    table = by_set(rows)
    found = [
        samples(table, RELEASE), samples(table, BASE), _arms(table), _copies(table),
        _renderings(table),
        _control(rows), _blur(table), _matched(table),
    ]  # fmt: skip
    return "\n".join(sentence for sentence in found if sentence)


def by_set(rows: pd.DataFrame) -> pd.Series:
    """Values by arm, condition, subject and metric."""
    return rows.set_index(["arm", "condition", "subject", "metric"])["value"]


def value(table: pd.Series, arm: str, condition: str, metric: str) -> float | None:
    """The mean over sets; None where nothing is recorded."""
    levels = ["arm", "condition", "metric"]
    try:
        values = table.xs((arm, condition, metric), level=levels).dropna()
    except KeyError:
        return None
    return float(values.mean()) if len(values) else None


def samples(table: pd.Series, arm: str) -> str:
    """How far samples are from held-out heads, and how much of that the autoencoder causes."""
    ours = value(table, arm, parts.SAMPLED, "frechet")
    floor = value(table, parts.HELD_OUT, parts.ANOTHER, "frechet")
    alone = value(table, arm, parts.REBUILT, "frechet")
    if ours is None or floor is None or alone is None:
        return ""
    larger = "sampling" if ours - alone > alone else "the autoencoder"
    return (
        f"Samples of {NAMES[arm]} have a squared Fréchet distance of {ours:.1f} from held-out "
        f"heads. Another set of held-out heads has {floor:.1f}; held-out heads through the "
        f"autoencoder alone have {alone:.1f}. Most of the distance comes from {larger}."
    )


def _arms(table: pd.Series) -> str:
    found = {arm: value(table, arm, parts.SAMPLED, "frechet") for arm in TITLES}
    known = {arm: v for arm, v in found.items() if v is not None and arm not in RELEASED}
    if len(known) < 2:
        return ""
    order = sorted(known, key=lambda arm: known[arm])
    apart = _ranges(table, order[0], order[1])
    listed = "; ".join(f"{NAMES[arm]} {known[arm]:.1f}" for arm in order)
    sure = "and its seeds do not overlap those of the next" if apart else "but seeds overlap"
    return (
        f"Of arms trained alike, {NAMES[order[0]]} has the smallest Fréchet distance, {sure} "
        f"({listed})."
    )


def _ranges(table: pd.Series, near: str, far: str) -> bool:
    levels = ["arm", "condition", "metric"]
    ours, theirs = (table.xs((arm, parts.SAMPLED, "frechet"), level=levels) for arm in (near, far))
    return bool(ours.max() < theirs.min())


def _copies(table: pd.Series) -> str:
    ours = value(table, RELEASE, parts.SAMPLED, "copies_percent")
    ruler = value(table, parts.HELD_OUT, parts.ANOTHER, "copies_percent")
    real = value(table, parts.TRAINING, parts.COPIES, "copies_percent")
    if ours is None or ruler is None or real is None:
        return ""
    says = "more often than" if ours > ruler else "as often as" if ours == ruler else "less than"
    return (
        f"{ours:.0f} % of its samples are flagged as copies of a training head, {says} held-out "
        f"heads ({ruler:.0f} %); of true copies, {real:.0f} % are flagged. A sample is flagged if "
        "its distance to the nearest training head, divided by its median distance to all, is "
        "smaller than for 95 % of the training heads themselves."
    )


def _renderings(table: pd.Series) -> str:
    ratio = value(table, RELEASE, parts.RENDERINGS, "renderings_ratio")
    if ratio is None:
        return ""
    return (
        "One latent is rendered at 1 mm and averaged to 2 mm, and rendered at 2 mm: the two "
        f"differ {ratio:.1f} times less than two samples do. This is built in, since voxels are "
        "rendered as averages over their cells."
    )


def _control(rows: pd.DataFrame) -> str:
    pairs = control_pairs(rows)
    pairs = pairs[pairs["what"] == "ventricles"]
    own, ruler = pairs[pairs["arm"] == RELEASE], pairs[pairs["arm"] == parts.RULER]
    if own.empty or ruler.empty:
        return ""
    by = {how: agreement(p["asked"], p["measured"]) for how, p in own.groupby("how")}
    best = max(by, key=lambda how: by[how]["r2"])
    true = agreement(ruler["asked"], ruler["measured"])
    return (
        f"Ventricles measured on samples follow the requested volume with r2 = "
        f"{by[best]['r2']:.2f}, slope {by[best]['slope']:.2f} and an RMS error of "
        f"{by[best]['rms']:.1f} ml under {best}. The measurement itself, on n = {len(ruler)} "
        f"held-out heads of known volume, has r2 = {true['r2']:.2f} and an RMS error of "
        f"{true['rms']:.1f} ml."
    )


def _blur(table: pd.Series) -> str:
    most = parts.blur_name(max(parts.BLURS_MM))
    ends = [value(table, parts.HELD_OUT, c, "ms_ssim") for c in (parts.PLAIN, most)]
    spread = [value(table, parts.HELD_OUT, c, "shape_spread") for c in (parts.PLAIN, most)]
    if None in ends or None in spread:
        return ""
    gain, kept = ends[1] - ends[0], spread[1] / spread[0] - 1  # type: ignore[operator]
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


def _matched(table: pd.Series) -> str:
    plain = value(table, parts.HELD_OUT, parts.PLAIN, "ms_ssim")
    soft = value(table, parts.HELD_OUT, parts.MATCHED + RELEASE, "ms_ssim")
    ours = value(table, RELEASE, parts.SAMPLED, "ms_ssim")
    shape = value(table, RELEASE, parts.SAMPLED, "shape_spread")
    real = value(table, parts.HELD_OUT, parts.PLAIN, "shape_spread")
    if plain is None or soft is None or ours is None or shape is None or real is None:
        return ""
    gap, left = ours - plain, ours - soft
    if abs(gap) <= CLEAR_MS_SSIM:
        difference = "do not differ clearly"
    elif abs(left) < abs(gap) / 2:
        difference = "differ mostly by sharpness"
    else:
        difference = "differ by more than sharpness"
    return (
        f"MS-SSIM is {ours:.3f} among samples and {plain:.3f} among held-out heads; held-out "
        f"heads blurred to the samples' sharpness have {soft:.3f}. So the two {difference}. Their "
        f"spread of shape is {shape:.2f} and {real:.2f} of the reference's."
    )
