"""Rows of this experiment as tables of subjects by seeds: levels, differences, intervals.

Statistics are over synthetic heads; phantoms, of which there are few, have a table of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.extrapolation.coders import RELEASE, SPLINES, TRUTH
from eval.extrapolation.train import TITLES
from eval.stats import Paired, bootstrap_interval, compare

NAMES = TITLES | {
    RELEASE: "release, many voxel sizes",
    SPLINES: "release, splines alone",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    "interpolation": "cubic interpolation",
    TRUTH: "the truth",
}
FIRST = "integrated"
RIVALS = ("trilinear", "subpixel", "conv-1mm", "dct_ball", "bspline")
CONTROL, ASKED = "1 -> 1", "0.8 -> 0.8"
Answer = tuple[str, str]  # arm, condition
Scores = dict[tuple[str, str, str], pd.DataFrame]  # arm, condition, metric -> their rows


@dataclass(frozen=True)
class Level:
    """Mean and 95 % interval of one arm's values, over so many subjects and seeds."""

    mean: float
    low: float
    high: float
    n_subjects: int
    n_seeds: int


def of_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of synthetic heads."""
    return frame[~frame["subject"].str.startswith("cortex_phantom")]


def arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms that have rows, in the order of the tables; those without a name come last."""
    present = set(frame["arm"])
    return [*(arm for arm in NAMES if arm in present), *sorted(present - set(NAMES))]


def name_of(arm: str) -> str:
    """An arm's name for people: its own where `NAMES` has no other."""
    base, bracket, size = arm.partition(" (")
    return NAMES.get(base, base) + bracket + size


def codec_beside(scores: Scores, answer: Answer, codec: str) -> str:
    """The codec whose count of numbers is nearest to an arm's: that of its latent's size."""
    if (*answer, "psnr") not in scores:
        return codec

    def numbers(arm: str) -> float:
        return float(np.log(scores[arm, answer[1], "psnr"]["numbers_kept"].mean()))

    known = [a for a, c, m in scores if c == answer[1] and m == "psnr"]
    sizes = [arm for arm in known if arm.partition(" (")[0] == codec]
    return min(sizes, key=lambda arm: abs(numbers(arm) - numbers(answer[0])), default=codec)


def scores_of(frame: pd.DataFrame) -> Scores:
    """The rows by what they answer, so that each is looked up once."""
    return dict(iter(frame.groupby(["arm", "condition", "metric"], sort=False)))


def values(scores: Scores, answer: Answer, metric: str) -> pd.DataFrame:
    """Subjects x seeds of one arm under one condition; only subjects that have every seed."""
    chosen = scores.get((*answer, metric))
    if chosen is None:
        return pd.DataFrame()
    return chosen.set_index(["subject", "seed"])["value"].unstack().dropna()


def difference(scores: Scores, first: Answer, second: Answer, metric: str) -> np.ndarray | None:
    """[subjects, seeds] first less second; an arm without seeds of its own meets every seed."""
    a, b = values(scores, first, metric), values(scores, second, metric)
    subjects = a.index.intersection(b.index)
    a, b = a.loc[subjects], b.loc[subjects]
    if first[0] in TITLES and second[0] in TITLES:
        seeds = a.columns.intersection(b.columns)
        a, b = a[seeds], b[seeds]
    if a.empty or b.empty:
        return None
    return a.to_numpy() - b.to_numpy()


def level(scores: Scores, answer: Answer, metric: str) -> Level | None:
    """Mean and interval of one arm under one condition; None where it is not recorded."""
    table = values(scores, answer, metric)
    if table.empty:
        return None
    numbers = table.to_numpy()
    return Level(float(numbers.mean()), *bootstrap_interval(numbers), *numbers.shape)


def gap(scores: Scores, first: Answer, second: Answer, metric: str) -> Paired | None:
    """Mean and interval of a difference; None where it is not recorded."""
    table = difference(scores, first, second, metric)
    return None if table is None else compare(table)


def interval(found: Paired | Level, digits: int = 2, sign: bool = False) -> str:
    """Mean [lower, upper end]; the mean alone of a single measurement."""
    form = f"{'+' if sign else ''}.{digits}f"
    if found.n_subjects * found.n_seeds == 1:
        return f"{found.mean:{form}}"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"
