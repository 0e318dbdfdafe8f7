"""Tables and sentences on training with samples, from recorded rows; measures nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval import stats
from eval.cited import cited
from eval.downstream.measure import RELEASE
from eval.downstream.training import PAINTED, REAL, SAMPLES, TITLES
from eval.segmentation.measure import EXACT, INTENSITY
from eval.tables import with_interval

TESTS = {  # what a map is compared with -> on which brains, against what
    INTENSITY: "Real brains, three classes of intensity (Dice)",
    RELEASE: "Real brains, the released segmenter (Dice)",
    EXACT: "Painted heads, exact maps (Dice)",
}


def scores(rows: pd.DataFrame, against: str) -> pd.DataFrame:
    """Mean Dice over parts: one line a brain and seed, one column a kind of training volumes."""
    own = rows[rows["against"] == against]
    return own.pivot_table(index=["subject", "seed"], columns="arm", values="value")


def over_brains(values: pd.Series) -> np.ndarray:
    """[brains, seeds] of a column of `scores`."""
    return values.unstack("seed").to_numpy()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a kind of training volumes: mean over brains and seeds with a 95 % interval."""
    lines = []
    for kind, title in TITLES.items():
        line, counts = {"Trained on": title}, {}
        for against, header in TESTS.items():
            own = scores(rows, against)
            if kind in own:
                values = over_brains(own[kind])
                line[header] = _text(values)
                counts["painted" if against == EXACT else "real"] = values.shape
        seeds = {shape[1] for shape in counts.values()}
        heads = ", ".join(f"{shape[0]} {where}" for where, shape in counts.items())
        line["n"] = f"{heads} × {max(seeds, default=0)} seeds"
        lines.append(line)
    return pd.DataFrame(lines)


def differences_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Training on samples minus training on the other kinds, over the same brains and seeds."""
    lines = []
    for other in (PAINTED, REAL):
        line = {"Samples minus": TITLES[other]}
        for against, header in TESTS.items():
            if (values := gain(rows, against, other)) is not None:
                line[header] = _text(values, sign=True)
        lines.append(line)
    return pd.DataFrame(lines)


def gain(rows: pd.DataFrame, against: str, other: str) -> np.ndarray | None:
    """[brains, seeds] Dice of samples minus another kind; None where one of them has no rows."""
    own = scores(rows, against)
    if not {SAMPLES, other} <= set(own):
        return None
    return over_brains(own[SAMPLES] - own[other])


def _text(values: np.ndarray, sign: bool = False) -> str:
    low, high = stats.bootstrap_interval(values)
    return with_interval(values.mean(), low, high, 3, sign)


def _cited(values: np.ndarray, against: str) -> str:
    return cited(_text(values, sign=True), against=against, arm=[SAMPLES, PAINTED])


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {"downstream_scores": table(rows), "downstream_differences": differences_table(rows)}


def verdict(rows: pd.DataFrame) -> str:
    """Does training on samples help on real brains, and what does it cost on painted heads?"""
    places = {
        INTENSITY: "agreement with three classes of intensity on real brains",
        RELEASE: "agreement with the released segmenter on real brains",
        EXACT: "Dice with exact maps of painted heads",
    }
    lines = []
    for against, place in places.items():
        if (values := gain(rows, against, PAINTED)) is not None:
            people = "heads" if against == EXACT else "brains"
            low, high = stats.bootstrap_interval(values)
            says = "raises" if low > 0 else "lowers" if high < 0 else "does not clearly change"
            lines.append(
                f"Training on samples instead of painted heads {says} {place}: "
                f"{_cited(values, against)} (n = {values.shape[0]} {people} × {values.shape[1]} "
                "seeds)."
            )
    return "\n".join(lines)
