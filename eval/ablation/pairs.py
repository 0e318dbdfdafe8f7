"""Paired scores of arms: which subjects and seeds two arms share, by how much they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.arms.catalogue import LEARNED
from medil.model.codecs import LINEAR_CODECS

ALL_GRIDS = "mean of grids"
LINEAR = (*LINEAR_CODECS, "lapped")
NAMES = {  # in the order in which tables and verdict name them
    "integrated": "LTE",
    "trilinear": "trilinear",
    "subpixel": "sub-pixel",
    "conv-1mm": "conv AE (1 mm)",
    "conv-1.33mm": "conv AE (1.33 mm)",
    "resizing": "resizing AE",
    "integrated-j5": "LTE, J = 5",
    "literal": "literal LTE",
    "literal-both": "literal LTE at both ends",
    "integrated-content": "LTE, content-dependent frequencies",
    "fixed-mlp": "LTE, fixed frequencies and MLP",
    "liif": "LIIF",
    "cubic": "averaged, then cubic",
    "dct_cube": "DCT, lowest cube",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    "lapped": "lapped cosine",
    "dct_best": "DCT, largest (oracle)",
}


def name_of(arm: str) -> str:
    """An arm's name for people: its own where `NAMES` has no other.

    Example:
        >>> name_of("integrated/learned"), name_of("integrated @both+mix")
        ('LTE, all learned', 'LTE, stages: both + mix')
    """
    base, _, stage = arm.partition(" @")
    sizeless, bracket, size = base.partition(" (")
    plain = sizeless.removesuffix(LEARNED)
    text = NAMES.get(plain, plain) + ", all learned" * (plain != sizeless) + bracket + size
    staged = {"stage1": "1 only", "both": "both", "both+mix": "both + mix"}
    return f"{text}, stages: {staged.get(stage, stage)}" if stage else text


@dataclass(frozen=True)
class Tables:
    """Scores by (arm, spacing, budget): each a table of subjects x seeds.

    Args:
        of: The tables; what has no budget (codecs) lies under an empty one.
        grids: The spacings that `ALL_GRIDS` is the mean of, a subject's own each.
    """

    of: dict[tuple[str, str, str], pd.DataFrame]
    grids: tuple[str, ...]

    @property
    def arms(self) -> list[str]:
        """Every arm, in the order of `NAMES`."""
        order = {name: place for place, name in enumerate(NAMES)}
        arms = {arm for arm, _, _ in self.of}
        base = {arm: arm.partition(" @")[0].removesuffix(LEARNED) for arm in arms}
        return sorted(arms, key=lambda arm: (order.get(base[arm], 99), arm))

    @property
    def trained(self) -> list[str]:
        """The arms that were trained: those scored at some budget."""
        return [arm for arm in self.arms if any(a == arm and b for a, _, b in self.of)]

    def table(self, arm: str, spacing: str, budget: str) -> pd.DataFrame | None:
        """Subjects x seeds of an arm; None where nothing is recorded."""
        return self.of.get((arm, spacing, budget), self.of.get((arm, spacing, "")))

    def difference(self, first: str, second: str, spacing: str, budget: str) -> np.ndarray | None:
        """[subjects, seeds] first minus second, where both are recorded; None if nowhere.

        What has no seed (a codec) is the same for every seed of the other.
        """
        if spacing == ALL_GRIDS:
            return self._over_grids(first, second, budget)
        found = self._paired(first, second, spacing, budget)
        return None if found is None else found.to_numpy()

    def _paired(self, first: str, second: str, spacing: str, budget: str) -> pd.DataFrame | None:
        a, b = (self.table(arm, spacing, budget) for arm in (first, second))
        if a is None or b is None:
            return None
        if (second, spacing, "") in self.of:
            b = pd.DataFrame({seed: b.iloc[:, 0] for seed in a.columns})
        subjects, seeds = a.index.intersection(b.index), a.columns.intersection(b.columns)
        both = (a.loc[subjects, seeds] - b.loc[subjects, seeds]).dropna()
        return None if both.empty or not both.shape[1] else both

    def _over_grids(self, first: str, second: str, budget: str) -> np.ndarray | None:
        found = [self._paired(first, second, spacing, budget) for spacing in self.grids]
        if any(f is None for f in found):  # a mean of other grids would be another quantity
            return None
        stacked = pd.concat(found, keys=self.grids)
        return stacked.groupby(level=1).mean().dropna(axis=1).to_numpy()
