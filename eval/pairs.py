"""Scores of arms as tables of subjects x seeds: their means, and paired differences of two arms."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eval.stats import Paired, compare

NO_SEED = -1  # the seed of what is not trained: it is paired with every seed of another arm


class Scores:
    """Tables of subjects x seeds, by a key that begins with the arm.

    Args:
        frame: Rows, one a key, subject and seed; `NO_SEED` where an arm has no seeds.
        key: Columns that identify a table.
    """

    def __init__(self, frame: pd.DataFrame, key: Sequence[str]) -> None:
        self._wide = frame.set_index([*key, "subject", "seed"])["value"].unstack().sort_index()
        self.keys = set(self._wide.index.droplevel("subject"))

    def table(self, *key: str) -> pd.DataFrame:
        """Subjects x seeds; empty where nothing is recorded."""
        found = self._wide.loc[key] if key in self.keys else pd.DataFrame()
        return found.dropna(axis=1, how="all")

    def level(self, *key: str) -> Paired | None:
        """Mean and interval of one table; None where it is not recorded."""
        return compared(self.table(*key))

    def gap(self, first: Sequence[str], second: Sequence[str]) -> Paired | None:
        """Mean and interval of a paired difference; None where it is not recorded."""
        return compared(difference(self.table(*first), self.table(*second)))


def difference(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Subjects x seeds, first minus second where both are recorded; empty where nowhere."""
    a, b = _with_seeds(first, second.columns), _with_seeds(second, first.columns)
    return (a - b).dropna(axis=1, how="all").dropna()


def _with_seeds(table: pd.DataFrame, seeds: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({s: table[NO_SEED] for s in seeds}) if NO_SEED in table else table


def compared(table: pd.DataFrame) -> Paired | None:
    """`compare` of the subjects that have every seed; None of an empty table."""
    whole = table.dropna()
    # Row by row: the rounding of a mean depends on the order of the numbers in memory.
    return None if whole.empty else compare(whole.to_numpy().copy(order="C"))


def interval(pair: Paired, n: int = 2, sign: bool = True) -> str:
    """Such as ``+1.20 [+0.90, +1.51]``, with n decimals; the mean alone of a single value."""
    form = f"{'+' if sign else ''}.{n}f"
    if pair.n_subjects * pair.n_seeds == 1:
        return f"{pair.mean:{form}}"
    return f"{pair.mean:{form}} [{pair.low:{form}}, {pair.high:{form}}]"


def counted(number: int, what: str) -> str:
    """Such as ``1 seed`` or ``3 seeds``."""
    return f"{number:,} {what}{'s' * (number != 1)}"
