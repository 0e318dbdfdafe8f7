"""From prepared rows to the tables of this experiment.

What is invented is pooled: all bridges, holes and islands of all heads over all of their grey
matter. The guard and the scale of a map are chosen on heads of some label maps (`CHOOSING`), and
judged on heads of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.coders.base import TITLES
from eval.false_gyri.arms import BALL, GUARDS, INTERPOLATION, MAPS, MEDIL, RIVALS, SPLINES
from eval.false_gyri.blocks import ASKED, BRAIN, CONDITIONS, FOLDS, HEAD, THIN
from eval.false_gyri.measure import NAME
from eval.false_gyri.score import COUNTS, MEASURED, PREDICTED
from eval.false_gyri.tries import CONTROL, TRIES
from eval.rows import WHAT, newest
from eval.stats import LEVEL, RESAMPLES, bootstrap_interval
from eval.tables import with_interval

NAMES = {
    MEDIL: "MedIL",
    SPLINES: "its splines alone",
    BALL: TITLES[BALL],
    INTERPOLATION: "cubic interpolation of the scan",
    "mirrors": "mean of 8 mirrors",
    "band_50": "half averaged over scan voxels",
    "band_100": "averaged over scan voxels",
    "mirrors_band_50": "8 mirrors, half averaged",
    "mirrors_band_75": "8 mirrors, three quarters averaged",
    "mirrors_band_100": "8 mirrors, averaged",
    "consistent_50": "half corrected by the scan",
    "consistent_100": "corrected by the scan",
    "mirrors_consistent_50": "8 mirrors, half corrected",
    "projected": "null-space projection",
    **TRIES,
}
MAP_NAMES = {
    "spread": "spread of 8 mirrors",
    "disagreement": "disagreement with the scan",
    "spread_disagreement": "both (geometric mean)",
    "draws": "spread of draws of the latent",
    "gradient": "gradient of the image (no model)",
}
CHOOSING, MAPS_OF_HEADS = (0, 1), 4  # heads are drawn on so many label maps in turn
MOST_COST_DB, BAR = 0.2, 50.0  # the bar: half of what is invented, for at most so much
SPREAD = "spread"


class Effect(NamedTuple):
    """What a guard does: share of the invented topology that is left, and the change of PSNR."""

    left: float  # %
    low: float  # ends of the 95 % bootstrap interval over heads
    high: float
    gain_db: float
    gain_low: float
    gain_high: float
    n: int  # heads


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that count: of the newest weights, but of a try those of every seed."""
    own = frame[frame["experiment"] == NAME]
    tried = own["arm"].isin(list(TRIES))
    seeds = newest(own[tried], ("config_hash",), (*WHAT, "seed"))
    return pd.concat([newest(own[~tried]), seeds], ignore_index=True)


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a subject, condition and arm, one column a metric; with `invented`, the sum.

    Seeds of an arm are averaged.
    """
    key = ["subject", "condition", "arm", "metric"]
    wide = frame.groupby(key)["value"].mean().unstack()
    if set(COUNTS) <= set(wide):
        wide["invented"] = wide[list(COUNTS)].sum(axis=1, min_count=len(COUNTS))
    return wide


def heads_of(frame: pd.DataFrame, choosing: bool | None = None) -> pd.DataFrame:
    """Rows of synthetic heads: those to choose on, those to judge on, or all."""
    own = frame[frame["subject"].str.startswith(HEAD)]
    if choosing is None:
        return own
    index = own["subject"].str.removeprefix(HEAD).str.split("_").str[0].astype(int)
    return own[(index % MAPS_OF_HEADS).isin(CHOOSING) == choosing]


def density(frame: pd.DataFrame, arm: str, condition: str, counts: Sequence[str] = COUNTS) -> float:
    """What an arm invents per cm3 of grey matter, pooled over subjects; NaN without rows."""
    wide = table_of(frame)
    if (condition, arm) not in wide.droplevel("subject").index:
        return float("nan")
    own = wide.xs((condition, arm), level=("condition", "arm"))
    return float(own[list(counts)].to_numpy().sum() / own["ribbon_cm3"].sum())


def effect(frame: pd.DataFrame, guard: str, condition: str, of: str = MEDIL) -> Effect | None:
    """What a guard does to MedIL's rendering, or an arm beside another; None without rows."""
    wide = table_of(frame)
    known = wide.droplevel("subject").index
    if not {(condition, guard), (condition, of)} <= set(known):
        return None
    level = ("condition", "arm")
    changed, plain = (wide.xs((condition, arm), level=level) for arm in (guard, of))
    changed = changed.loc[plain.index]
    left, low, high = ratio(changed["invented"].to_numpy(), plain["invented"].to_numpy())
    gains = (changed["psnr"] - plain["psnr"]).to_numpy()
    return Effect(left, low, high, gains.mean(), *bootstrap_interval(gains[:, None]), len(gains))


def ratio(part: np.ndarray, whole: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """100 * sum(part) / sum(whole), and its 95 % percentile interval over subjects; NaN of 0."""
    drawn = np.random.default_rng(seed).integers(len(part), size=(RESAMPLES, len(part)))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 100 * part[drawn].sum(1) / whole[drawn].sum(1)
        share = 100 * part.sum() / whole.sum()
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.nanquantile(shares, tails) if np.isfinite(shares).any() else (np.nan,) * 2
    return float(share), float(low), float(high)


def chosen(frame: pd.DataFrame) -> str | None:
    """The guard that leaves least on the heads to choose on, for at most `MOST_COST_DB`."""
    heads, left = heads_of(frame, True), {}
    for guard in GUARDS:
        effects = [effect(heads, guard, condition) for condition in ASKED]
        if all(e is not None and e.gain_db >= -MOST_COST_DB for e in effects):
            left[guard] = sum(e.left for e in effects if e)
    return min(left, key=lambda guard: left[guard]) if left else None


# Maps of uncertainty


def factor(frame: pd.DataFrame, which: str = SPREAD) -> float:
    """The scale of a map: median over the heads to choose on, at `ASKED`, of what each asks for."""
    rows = heads_of(frame, True)
    rows = rows[(rows["arm"] == which) & rows["condition"].isin(ASKED)]
    return float(rows.loc[rows["metric"] == "factor", "value"].median())


def reliability(frame: pd.DataFrame, which: str, scale: float) -> pd.DataFrame:
    """Predicted and measured RMS error of every bin, averaged over subjects; empty without rows."""
    own = frame[frame["arm"] == which].groupby("metric")["value"].mean()
    if MEASURED[0] not in own:
        return pd.DataFrame(columns=["predicted", "measured"])
    predicted, measured = own[list(PREDICTED)].to_numpy(), own[list(MEASURED)].to_numpy()
    return pd.DataFrame({"predicted": scale * predicted, "measured": measured})


def miscalibration(bins: pd.DataFrame) -> float:
    """Mean distance of the predicted from the measured error over bins, % of the measured mean."""
    apart = (bins["predicted"] - bins["measured"]).abs().mean()
    return float(100 * apart / bins["measured"].mean())


def groups(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What maps are judged on: name to rows."""
    heads, start = heads_of(frame, False), frame["subject"].str.startswith
    return {
        "heads, 0.8 mm": heads[heads["condition"] == "1 -> 0.8"],
        "heads, 0.5 mm": heads[heads["condition"] == "1 -> 0.5"],
        "heads, 3 mm slices": heads[heads["condition"] == "1x1x3 -> 0.8"],
        "phantoms, 0.5 mm": frame[start((FOLDS, THIN)) & (frame["condition"] == "1 -> 0.5")],
        "real brains, 2 → 1 mm": frame[start(BRAIN)],
    }


# Tables


def invented_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Invented topology per cm3 of grey matter, by arm, at every voxel size."""
    heads, lines = heads_of(frame), []
    wide = table_of(heads)
    for arm in RIVALS:
        line = {"Rendering": NAMES[arm]}
        for condition in CONDITIONS:
            thick = ", thick" if condition.startswith("1x1x3") else ""
            line[f"{condition.split(' -> ')[1]} mm{thick}"] = (
                f"{density(heads, arm, condition):.2f}"
            )
        lines.append(line)
    return pd.DataFrame(lines) if len(wide) else pd.DataFrame()


def tries_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Arms that were trained alike: what they invent per cm3, and beside the control."""
    heads, lines = heads_of(frame), []
    for condition in ASKED:
        for arm in TRIES:
            found = effect(heads, arm, condition, CONTROL)
            if not found:
                continue
            beside = arm != CONTROL
            share = with_interval(found.left, found.low, found.high, 0)
            gain = with_interval(found.gain_db, found.gain_low, found.gain_high, 2, True)
            lines.append({
                "Trained alike": NAMES[arm],
                "mm": condition.split(" -> ")[1],
                "per cm³": f"{density(heads, arm, condition):.1f}",
                "of the control (%)": share if beside else "",
                "PSNR (dB)": gain if beside else "",
                "n": f"{found.n} × {seeds_of(heads, arm)}",
            })  # fmt: skip
    return pd.DataFrame(lines)


def seeds_of(frame: pd.DataFrame, arm: str) -> int:
    """How many training seeds of an arm are recorded."""
    return int(frame.loc[frame["arm"] == arm, "seed"].nunique())


def guards_table(frame: pd.DataFrame, condition: str = ASKED[0]) -> pd.DataFrame:
    """What is left of the invented topology and the change of PSNR, by guard, on judged heads."""
    heads, lines = heads_of(frame, False), []
    for guard in GUARDS:
        found = effect(heads, guard, condition)
        if found:
            left = with_interval(found.left, found.low, found.high, 0)
            gain = with_interval(found.gain_db, found.gain_low, found.gain_high, 2, True)
            lines.append({"Guard": NAMES[guard], "Left (%)": left, "PSNR (dB)": gain, "n": found.n})
    return pd.DataFrame(lines)


def parts_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Bridges, holes and islands of both surfaces per cm3 at 0.8 and 0.5 mm, by arm."""
    heads, lines, best = heads_of(frame), [], chosen(frame)
    for arm in (MEDIL, INTERPOLATION, *([best] if best else [])):
        for condition in ASKED:
            found = {c: density(heads, arm, condition, [c]) for c in COUNTS}
            texts = {c.replace("_", ", "): f"{value:.2f}" for c, value in found.items()}
            lines.append({"Rendering": NAMES[arm], "mm": condition.split(" -> ")[1]} | texts)
    return pd.DataFrame(lines)


def maps_table(frame: pd.DataFrame) -> pd.DataFrame:
    """How well each map predicts the error and finds false topology, on judged heads."""
    heads, lines = heads_of(frame, False), []
    heads = heads[heads["condition"].isin(ASKED)]
    for which in MAPS:
        own = heads[heads["arm"] == which].groupby("metric")["value"].mean()
        if "correlation" in own:
            off = miscalibration(reliability(heads, which, factor(frame, which)))
            lines.append({
                "Map": MAP_NAMES[which],
                "Correlation": f"{own['correlation']:.2f}",
                "AUC": f"{own.get('auc', np.nan):.2f}",
                "AUC at surfaces": f"{own.get('auc_at_surfaces', np.nan):.2f}",
                "Off by (%)": f"{off:.0f}",
            })  # fmt: skip
    return pd.DataFrame(lines)


def calibration_table(frame: pd.DataFrame, which: str = SPREAD) -> pd.DataFrame:
    """One scale for all: predicted over measured error, and how far bins are off, by group."""
    scale, lines = factor(frame, which), []
    for name, rows in groups(frame).items():
        bins = reliability(rows, which, scale)
        if len(bins):
            over = np.sqrt((bins["predicted"] ** 2).mean() / (bins["measured"] ** 2).mean())
            off, n = miscalibration(bins), rows["subject"].nunique()
            line = {"Predicted / measured": f"{over:.2f}", "Off by (%)": f"{off:.0f}", "n": n}
            lines.append({"Judged on": name} | line)
    return pd.DataFrame(lines)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem, from prepared rows."""
    made = {
        "invented": invented_table(frame),
        "tries": tries_table(frame),
        "parts": parts_table(frame),
        "guards_08": guards_table(frame, ASKED[0]),
        "guards_05": guards_table(frame, ASKED[1]),
        "maps": maps_table(frame),
        "calibration": calibration_table(frame),
    }
    return {f"false_gyri_{name}": table for name, table in made.items()}
