"""From the rows of `eval.evaluate` to tables and the verdict on a user's scans.

Every arm is set beside the best linear code of the release's size, chosen anew for each
scan and metric, so that no single rival is picked to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pandas as pd

from eval.coders.base import LINEAR, SPLINES, TITLES, models, title_of
from eval.metrics.catalogue import METRICS
from eval.stats import bootstrap_interval
from eval.tables import signed_db

NAME = "evaluate"
NATIVE = "native -> native"
COARSER = "native -> 2x coarser"
FROM_HALF = "half resolution -> native"
CONDITIONS = (NATIVE, COARSER, FROM_HALF)
FROM_COARSER = (FROM_HALF, "2 mm -> 1 mm")  # where interpolation keeps no more than a latent
IN_WORDS = {
    NATIVE: "on its own grid",
    COARSER: "rendered with voxels twice as long",
    FROM_HALF: "encoded at half resolution, rendered on the native grid",
}
FEWEST = 5  # scans that an interval is made from; the bootstrap of fewer is too narrow
KEEPS_ALL = 0.999  # numbers a voxel from which on a linear code loses nothing
IN_SUMMARY = ("psnr", "ssim", "ms_ssim", "fsc_05_mm", "gradient_error", "edge_width_mm")


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a scan, condition and arm; one column a metric, by its name in the rows."""
    what = ["subject", "condition", "arm", "spacing_in_mm", "spacing_out_mm", "numbers_per_voxel"]
    table = frame.pivot_table(
        index=what, columns="metric", values="value", aggfunc="last", dropna=False, observed=True
    )
    return table.dropna(how="all").reset_index().rename_axis(columns=None)


def scan_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every scan, condition and arm with every metric, for people; best PSNR first."""
    table = scores(frame)
    order = {condition: place for place, condition in enumerate(CONDITIONS)}
    table["place"] = table["condition"].map(order).fillna(len(order))
    table = table.sort_values(
        ["subject", "place", "psnr"], ascending=[True, True, False], kind="stable"
    )
    table["arm"] = table["arm"].map(title_of)
    table["numbers_per_voxel"] = table["numbers_per_voxel"].round(3)
    shown = {
        "subject": "Scan", "condition": "Question", "arm": "Code", "spacing_in_mm": "In (mm)",
        "spacing_out_mm": "Out (mm)", "numbers_per_voxel": "Numbers per voxel",
    }  # fmt: skip
    for metric in metrics_of(table):
        shown[metric] = header(metric)
        table[metric] = table[metric].round(decimals(metric))
    return table[[*shown]].rename(columns=shown).assign(n=1).reset_index(drop=True)


def summary_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over scans that were compressed, one line a condition and arm, with n scans."""
    table = scores(compressed(frame))
    chosen = [m for m in IN_SUMMARY if m in table]
    lines = []
    for condition in present(table):
        part = table[table["condition"] == condition]
        means = part.groupby("arm")[[*chosen, "numbers_per_voxel"]].mean()
        n = part.groupby("arm")["subject"].nunique()
        for arm, mean in means.sort_values("psnr", ascending=False).iterrows():
            line = {"Question": condition, "Code": title_of(arm)}
            line["Numbers per voxel"] = round(mean["numbers_per_voxel"], 3)
            line |= {header(m): round(mean[m], decimals(m)) for m in chosen}
            lines.append(line | {"n": int(n[arm])})
    return pd.DataFrame(lines)


def compressed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows without the questions in which linear codes simply kept every voxel.

    A scan with fewer voxels than the latent has numbers is no test of a code on its own grid;
    from half its resolution it still is one.
    """
    kept = frame[frame["arm"].isin(LINEAR) & frame["condition"].isin((NATIVE, COARSER))]
    kept_all = set(kept.loc[kept["numbers_per_voxel"] >= KEEPS_ALL, "subject"])
    dropped = frame["subject"].isin(kept_all) & frame["condition"].isin((NATIVE, COARSER))
    return frame[~dropped]


def gains(frame: pd.DataFrame, metric: str, arm: str, condition: str) -> pd.Series:
    """How much better an arm is than the best linear rival, scan by scan: above 0 is better.

    In the metric's unit. Where detail is missing, interpolation of every voxel is a rival too.
    """
    part = compressed(frame)
    part = part[(part["metric"] == metric) & (part["condition"] == condition)]
    table = part.pivot_table(index="subject", columns="arm", values="value", aggfunc="last")
    rivals = (*LINEAR, "interpolation") if condition in FROM_COARSER else LINEAR
    linear = [name for name in rivals if name in table]
    if arm not in table or not linear:
        return pd.Series(dtype=float)
    sign = 1 if METRICS[metric].higher_is_better else -1
    best = (sign * table[linear]).max(axis=1)
    return (sign * table[arm] - best).dropna()


def gains_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every arm against the best linear rival: mean, interval and wins, by question and metric."""
    table, lines = scores(frame), []
    judged = [m for m in metrics_of(table) if METRICS[m].higher_is_better is not None]
    arms = [arm for arm in table["arm"].unique() if arm not in TITLES]
    for condition, arm, metric in product(present(table), arms, judged):
        gain = gains(frame, metric, arm, condition)
        if gain.empty:
            continue
        line = {"Question": condition, "Code": title_of(arm), "Metric": header(metric)}
        names = ("Better than the best linear rival by", "Low", "High")
        for name, value in zip(names, (gain.mean(), *interval(gain)), strict=True):
            line[name] = round(value, decimals(metric))
        lines.append(line | {"Scans won": int((gain > 0).sum()), "n": len(gain)})
    return pd.DataFrame(lines)


def interval(values: pd.Series) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over scans; NaN for fewer than `FEWEST`."""
    if len(values) < FEWEST:
        return float("nan"), float("nan")
    return bootstrap_interval(values.to_numpy()[:, None])


def verdict(frame: pd.DataFrame) -> str:
    """What the rows say in sentences, one an arm and condition, with n and intervals."""
    table = scores(compressed(frame))
    ours = models(table["arm"])
    others = set(table["arm"]) - {*ours, *TITLES}
    arms = [*ours, *sorted(arm for arm in others if not arm.endswith(SPLINES))]
    sentences = [
        _sentence(table, arm, condition, found)
        for condition in present(table)
        for arm in arms
        if not (found := gains(frame, "psnr", arm, condition)).empty
    ]
    if not sentences:
        sentences = ["No arm is recorded beside a linear code, so nothing can be compared."]
    return "\n".join([*sentences, *_resolution(table, arms), *_uncompressed(frame)])


def _uncompressed(frame: pd.DataFrame) -> list[str]:
    """Which scans were no test of a code, because it kept every voxel."""
    judged = compressed(frame)
    before, after = (set(f[f["condition"] == NATIVE]["subject"]) for f in (frame, judged))
    if not (names := sorted(before - after)):
        return []
    return [
        f"Left out on their own grids, n = {len(names)}: {', '.join(names)}. The latent keeps as "
        "many numbers as they have voxels, or more, so nothing is compressed."
    ]


def _sentence(table: pd.DataFrame, arm: str, condition: str, found: pd.Series) -> str:
    """Mean lead in dB with its interval, in the words that the interval allows."""
    low, high = interval(found)
    part = table[(table["condition"] == condition) & (table["arm"] == arm)]
    means = part["numbers_per_voxel"].mean()
    rival = "the best linear code of the release's size"
    if condition == FROM_HALF:
        rival = "the best of linear codes and cubic interpolation"
    start = (
        f"A scan {IN_WORDS.get(condition, condition)}: {title_of(arm)} ({means:.3f} numbers a "
        f"voxel encoded) is {signed_db(found.mean())} {rival}"
    )
    if len(found) == 1:
        return f"{start}; n = 1 scan, so no interval."
    if len(found) < FEWEST:
        return (
            f"{start} ({found.min():+.2f} to {found.max():+.2f} dB over n = {len(found)} scans, "
            f"too few for an interval; {(found > 0).sum()} of them above)."
        )
    decided = "which leaves out zero" if low > 0 or high < 0 else "which holds zero: undecided"
    return (
        f"{start} [95 % interval {low:+.2f} to {high:+.2f} dB, {decided}]; "
        f"{(found > 0).sum()} of n = {len(found)} scans above."
    )


def _resolution(table: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """The finest detail that came through, of scans on their own grids; in mm."""
    native = table[table["condition"] == NATIVE]
    if "fsc_05_mm" not in native or native.empty:
        return []
    medians = native.groupby("arm")["fsc_05_mm"].median()
    linear = medians[medians.index.isin(LINEAR)]
    texts = [f"{title_of(a)} {medians[a]:.1f} mm" for a in arms if a in medians]
    texts += [f"{title_of(linear.idxmin())} {linear.min():.1f} mm"] if len(linear) else []
    return [
        "Effective resolution on the scan's own grid (Fourier shell correlation of 0.5, never "
        f"below twice the longest voxel side; median over n = {native['subject'].nunique()}, lower "
        f"is finer): {', '.join(texts)}."
    ]


def present(table: pd.DataFrame) -> list[str]:
    """The conditions that a table holds, in their usual order."""
    have = list(table["condition"].unique())
    return [c for c in CONDITIONS if c in have] + [c for c in have if c not in CONDITIONS]


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The metrics that a table holds, in the catalogue's order."""
    return [metric for metric in METRICS if metric in table]


def header(metric: str) -> str:
    """A metric's title with its unit."""
    known = METRICS[metric]
    return known.title if known.unit == "1" else f"{known.title} ({known.unit})"


def decimals(metric: str) -> int:
    """How many decimals a metric is shown with."""
    return 2 if METRICS[metric].unit in ("dB", "mm") else 3


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {
        NAME: scan_table(frame),
        f"{NAME}_summary": summary_table(frame),
        f"{NAME}_gains": gains_table(frame),
    }
