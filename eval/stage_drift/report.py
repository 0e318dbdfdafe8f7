"""A table and sentences on drift in stage two, from recorded rows; measures nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval import stats
from eval.cited import cited
from eval.stage_drift.measure import AT_ONCE, BY_PATCHES, LOW
from eval.tables import with_interval

PLAIN, MIXED, SMALL = "patches", "patches and whole volumes", "small patches"
TITLES = {
    PLAIN: "patches of 24 mm",
    MIXED: "patches of 24 mm, a quarter whole volumes",
    SMALL: "patches of 12 mm",
}


def values(rows: pd.DataFrame, way: str, asked: str, step: int) -> pd.DataFrame:
    """[subjects, seeds] PSNR in dB."""
    own = rows[(rows["arm"] == way) & (rows["asked"] == asked) & (rows["step"] == step)]
    return own.pivot_table(index="subject", columns="seed", values="value")


def change(rows: pd.DataFrame, way: str, asked: str) -> np.ndarray | None:
    """[subjects, seeds] PSNR after the last step minus that at the end of stage one."""
    steps = sorted(rows["step"].unique())
    before, after = (values(rows, way, asked, step) for step in (steps[0], steps[-1]))
    both = (after - before).dropna()
    return both.to_numpy() if both.size else None


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a way and question: PSNR through stage two (means), and its change."""
    lines = []
    steps = sorted(rows["step"].unique())
    for asked in (LOW, AT_ONCE, BY_PATCHES):
        for way, title in TITLES.items():
            if (gained := change(rows, way, asked)) is None:
                continue
            line: dict[str, object] = {"Asked for": asked, "Stage two": title}
            for step in steps:
                line[f"{step} steps (dB)"] = round(
                    float(values(rows, way, asked, step).mean(axis=None)), 2
                )
            line["Change (dB)"] = text(gained)
            line["n"] = count(gained)
            lines.append(line)
    return pd.DataFrame(lines)


def apart(rows: pd.DataFrame, way: str, other: str, asked: str) -> str:
    """One way minus another after the last step, in dB with its interval; "" without rows."""
    last = max(rows["step"])
    both = values(rows, way, asked, last) - values(rows, other, asked, last)
    return text(both.dropna().to_numpy()) if both.dropna().size else ""


def text(found: np.ndarray) -> str:
    """Mean with its 95 % interval over subjects and seeds."""
    return with_interval(found.mean(), *stats.bootstrap_interval(found), 2, True)


def count(found: np.ndarray) -> str:
    """Such as ``8 heads × 3 seeds``."""
    return f"{found.shape[0]} heads × {found.shape[1]} seeds"


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table by file stem."""
    return {"stage_drift": table(rows)}


def verdict(rows: pd.DataFrame) -> str:
    """What stage two forgets, what mixing keeps, and what small patches cost."""
    lines = []
    plain, mixed = (change(rows, way, LOW) for way in (PLAIN, MIXED))
    if plain is not None:
        told = "forgets whole volumes" if stats.bootstrap_interval(plain)[1] < 0 else (
            "does not forget whole volumes"
        )  # fmt: skip
        lines.append(
            f"Training on patches alone {told}: through stage two their PSNR at low resolution "
            f"changes by {cited(text(plain), arm=PLAIN, asked=LOW)} dB (n = {count(plain)})."
        )
    above = apart(rows, MIXED, PLAIN, LOW)
    if mixed is not None and above:
        lines.append(
            "With whole volumes in a quarter of the steps it changes by "
            f"{cited(text(mixed), arm=MIXED, asked=LOW)} dB; at the end that is "
            f"{cited(above, arm=[MIXED, PLAIN], asked=LOW)} dB from patches alone."
        )
    costs = [apart(rows, way, PLAIN, AT_ONCE) for way in (MIXED, SMALL)]
    if all(costs):
        for cost, way in zip(costs, (MIXED, SMALL), strict=True):
            cited(cost, arm=[way, PLAIN], asked=AT_ONCE)
        lines.append(
            f"On native blocks that are coded at once, whole volumes in the mix change the PSNR by "
            f"{costs[0]} dB, and patches of 12 mm instead of 24 mm, with as many voxels a step, "
            f"by {costs[1]} dB."
        )
    return "\n".join(lines)
