"""Tables and sentences on robustness, from recorded rows; measures nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from eval import stats
from eval import tables as shared
from eval.cited import cited
from eval.coders.base import TITLES
from eval.robustness import damage as damages
from eval.robustness.damage import BRAIN, DAMAGES, FAR, NEAR
from eval.robustness.measure import CLEAN, CODECS, INPUT, NAME, RENDERED

MODEL, SPLINES, LINEAR = "medil", "medil_splines", CODECS
ARMS = {MODEL: "MedIL tiny", SPLINES: "MedIL tiny, splines alone"}
ARMS |= {codec: TITLES[codec] for codec in LINEAR}
TITLE = ARMS[MODEL]
ABSORBED_PERCENT = 0.1  # of the peak: a smaller change cannot be seen
COLUMNS = {  # header -> compared with, metric, decimals
    "Passed on": (RENDERED, "passed_on", 2),
    "Change (% of peak)": (RENDERED, "change", 2),
    "Nearer to clean than the input (dB)": (CLEAN, "nearer", 2),
    "PSNR against input (dB)": (INPUT, "psnr", 2),
    "PSNR against clean (dB)": (CLEAN, "psnr", 2),
    "SSIM against clean": (CLEAN, "ssim", 3),
    "HFEN against clean": (CLEAN, "hfen", 3),
    "FSC 0.5 against clean (mm)": (CLEAN, "fsc_05_mm", 2),
}
WHOLE = 0.05  # so far from 1, and no farther, counts as passed through


def metrics_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over heads and 95 % interval of every metric, for every damage and arm."""
    table = shared.means(rows, ["kind", "level", "where", "against", "metric", "arm"])
    table = table.set_axis(
        [
            *("Damage", "Strength", "Where", "Compared", "Metric", "Arm"),
            *("Mean", "Low", "High", "Unit", "n"),
        ],
        axis="columns",
    )
    return table.sort_values(
        ["Damage", "Strength", "Where", "Arm"], key=_order, kind="stable", ignore_index=True
    )


def _order(column: pd.Series) -> pd.Series:
    """Sort key: damages and strengths in the order of `DAMAGES`, arms of `ARMS`; others last."""
    known = {
        "Damage": [d.kind for d in DAMAGES],
        "Strength": [d.level for d in DAMAGES],
        "Where": [BRAIN, NEAR, FAR],
        "Arm": list(ARMS),
    }[str(column.name)]
    place = {name: number for number, name in reversed(list(enumerate(known)))}
    return column.map(lambda name: (place.get(name, len(known)), name))


def robustness_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per damage, strength, region and arm, for people.

    Share of the damage passed on and change of the rendering, with 95 % intervals over heads;
    PSNR against the input and against the clean block; n heads.
    """
    lines = []
    keys = ["Damage", "Strength", "Where", "Arm"]
    for (*place, arm), group in metrics_table(rows).groupby(keys, sort=False):
        line = dict(zip(keys, place)) | {"Code": ARMS.get(arm, arm)}
        means = {(r.Compared, r.Metric): r for r in group.itertuples(index=False)}
        for header, (against, metric, places) in COLUMNS.items():
            line[header], mean = "", means.get((against, metric))
            if mean is not None and against == RENDERED:
                line[header] = shared.with_interval(mean.Mean, mean.Low, mean.High, places)
            elif mean is not None:
                line[header] = shared.decimals(mean.Mean, places)
        lines.append(line | {"n": int(group["n"].max())})
    return pd.DataFrame(lines)


# In words


def verdict(rows: pd.DataFrame) -> str:
    """How each kind of damage affects the rendering: lines with n and 95 % intervals over heads."""
    sentences = [
        f"Blocks of n = {rows['subject'].nunique()} held-out heads [95 % interval over heads]. The "
        "share passed on is the change of the rendering divided by the change of the input."
        f"{shared.few_heads(rows['subject'].nunique())}"
    ]
    kinds = (damages.NOISE, damages.BIAS, damages.GHOSTS, damages.MOTION)
    sentences += [_passed(rows[rows["kind"] == kind], kind) for kind in kinds]
    return "\n".join([s for s in [*sentences, *_scale(rows), *_places(rows)] if s])


def answer(rows: pd.DataFrame) -> list[str]:
    """What becomes of noise, of a bias field and of motion: a line each."""
    lines = []
    for kind in (damages.NOISE, damages.BIAS, damages.MOTION):
        passed = rows[(rows["metric"] == "passed_on") & (rows["kind"] == kind)]
        levels = [d.level for d in DAMAGES if d.kind == kind and d.level in set(passed["level"])]
        means = _means(passed, MODEL, levels)
        if means:
            ends = (
                f"{_cited(means[level], kind, level)} ({level})"
                for level in (levels[0], levels[-1])
            )
            lines.append(
                f"{kind.capitalize()}: {_fate(means.values())}. Share passed on: "
                f"{', '.join(ends)}; n = {rows['subject'].nunique()} heads [95 % interval]."
            )
    return lines


def _passed(rows: pd.DataFrame, kind: str) -> str:
    passed = rows[rows["metric"] == "passed_on"]
    levels = [d.level for d in DAMAGES if d.kind == kind and d.level in set(passed["level"])]
    model = _means(passed, MODEL, levels)
    if not model:
        return ""
    ends = [levels[0], levels[-1]]
    texts = []
    for arm in ARMS:
        means = _means(passed, arm, ends)
        if len(means) == len(ends):
            texts.append(f"{ARMS[arm]} {' and '.join(map(_text, means.values()))}")
    return (
        f"{kind.capitalize()}, {' and '.join(ends)}: {_fate(model.values())}; share passed on "
        f"{'; '.join(texts)}.{_against_linear(passed)}{_nearer(rows, ends)}"
    )


def _nearer(rows: pd.DataFrame, ends: Sequence[str]) -> str:
    """Whether MedIL's rendering is nearer to the clean block than the damaged input is."""
    gains = _means(rows[rows["metric"] == "nearer"], MODEL, ends)
    if len(gains) < len(ends):
        return ""
    texts = [f"{abs(f.mean):.1f} dB {'higher' if f.mean > 0 else 'lower'}" for f in gains.values()]
    return (
        f" Its rendering's PSNR against the clean block is {' and '.join(texts)} than that of the "
        "damaged input."
    )


def _fate(means: Collection[stats.Paired]) -> str:
    """How MedIL treats a kind of damage, over all its strengths."""
    if all(f.high < 1 - WHOLE for f in means):
        return f"{TITLE} damps it at every strength"
    if all(f.low > 1 + WHOLE for f in means):
        return f"{TITLE} makes it larger at every strength"
    if all(abs(f.mean - 1) <= WHOLE for f in means):
        return f"{TITLE} passes it on unchanged"
    return "it depends on the strength"


def _against_linear(rows: pd.DataFrame) -> str:
    """MedIL minus the linear code that passes on least, paired by head over all strengths."""
    wide = rows.pivot_table(index="subject", columns="arm", values="value")
    codecs = [c for c in LINEAR if c in wide]
    if MODEL not in wide or not codecs:
        return ""
    best = min(codecs, key=lambda c: wide[c].mean())
    apart = stats.compare((wide[MODEL] - wide[best]).dropna().to_numpy()[:, None])
    if abs(apart.mean) < 0.01:
        return f" {ARMS[best]} passes on the same share, to within 0.01 (n = {apart.n_subjects})."
    word = "more" if apart.mean > 0 else "less"
    return (
        f" Over all strengths {TITLE} passes on {abs(apart.mean):.2f} {word} than {ARMS[best]} "
        f"[{apart.low:+.2f}, {apart.high:+.2f}] (n = {apart.n_subjects})."
    )


def _scale(rows: pd.DataFrame) -> list[str]:
    rows = rows[rows["arm"] == MODEL]
    change = rows[(rows["kind"] == damages.SCALE) & (rows["metric"] == "change")]
    means = _means(change, MODEL, [d.level for d in DAMAGES])
    absorbed = [level for level, f in means.items() if f.high <= ABSORBED_PERCENT]
    sentences = []
    if absorbed:
        sentences.append(
            f"Intensity scale: {TITLE} absorbs {', '.join(absorbed)} (its rendering changes by at "
            f"most {ABSORBED_PERCENT} % of the peak)."
        )
    for level in (name for name in means if name not in absorbed):
        clean = rows[(rows["metric"] == "psnr") & (rows["against"] == CLEAN)]
        wide = clean.pivot_table(index="subject", columns="level", values="value")
        lost = stats.compare((wide[damages.DAMAGES[0].level] - wide[level]).to_numpy()[:, None])
        sentences.append(
            f"Intensity scale, {level}: not absorbed; the rendering changes by "
            f"{_text(means[level])} % of the peak and loses {_text(lost)} dB."
        )
    return sentences


def _places(rows: pd.DataFrame) -> list[str]:
    """How far the effect of hot voxels and cuts reaches."""
    sentences = []
    for damage in DAMAGES:
        if damage.kind not in (damages.OUTLIER, damages.CROP):
            continue
        of_level = (rows["level"] == damage.level) & (rows["metric"] == "change")
        near, far = (rows[of_level & (rows["where"] == place)] for place in (NEAR, FAR))
        texts = []
        for arm in (MODEL, *LINEAR):
            means = [m for part in (near, far) for m in _means(part, arm, [damage.level]).values()]
            if len(means) == 2:
                texts.append(f"{ARMS[arm]} {_text(means[0])} and {_text(means[1])}")
        if texts:
            sentences.append(
                f"{damage.kind.capitalize()}, {damage.level}: the rendering changes within "
                f"10 mm and farther away, in % of the peak, by {'; '.join(texts)}."
            )
    return sentences


def _means(rows: pd.DataFrame, arm: str, levels: Sequence[str]) -> dict[str, stats.Paired]:
    """Mean and interval of an arm at those of the levels that are recorded."""
    values = rows[rows["arm"] == arm].dropna(subset="value").groupby("level")["value"]
    groups = {level: own.to_numpy()[:, None] for level, own in values}
    return {level: stats.compare(groups[level]) for level in levels if level in groups}


def _cited(mean: stats.Paired, kind: str, level: str) -> str:
    return cited(_text(mean), metric="passed_on", arm=MODEL, kind=kind, level=level)


def _text(mean: stats.Paired) -> str:
    return shared.with_interval(mean.mean, mean.low, mean.high)


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {NAME: robustness_table(rows), f"{NAME}_metrics": metrics_table(rows).round(4)}
