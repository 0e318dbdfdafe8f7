"""The primary comparisons, which ``primary.toml`` names in advance, and Holm's correction."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from eval.stats import holm

FILE = Path(__file__).with_suffix(".toml")
ALPHA = 0.05
PRIMARY, EXPLORATORY = "primary", "exploratory"


@dataclass(frozen=True)
class Comparison:
    """First arm minus second, in PSNR: where, at which budget, and why it matters."""

    experiment: str
    first: str
    second: str
    spacing: str
    budget: str
    why: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies it within its experiment."""
        return self.first, self.second, self.spacing, self.budget


@lru_cache(maxsize=1)
def _table() -> dict:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def named_on() -> pd.Timestamp:
    """The day from whose beginning (UTC) recorded rows may answer a primary comparison."""
    return pd.Timestamp(_table()["named_on"], tz="UTC")


def comparisons(experiment: str | None = None) -> tuple[Comparison, ...]:
    """All primary comparisons, or those of one experiment, in their order."""
    every = (Comparison(**entry) for entry in _table()["comparison"])
    return tuple(c for c in every if experiment in (None, c.experiment))


def corrected(p_values: Mapping[Comparison, float]) -> dict[Comparison, float]:
    """P values of some primary comparisons after Holm's correction over all of them.

    Those without a p value, not recorded or of another experiment, count as 1: each experiment
    can be corrected by itself, and none looks better for that.
    """
    every = comparisons()
    adjusted = holm([p_values.get(c, 1.0) for c in every])
    return {c: float(p) for c, p in zip(every, adjusted, strict=True) if c in p_values}


def can_reject(n_subjects: int) -> bool:
    """Whether Wilcoxon's smallest p of so many subjects stays below 0.05 after the correction."""
    return 2 / 2**n_subjects * len(comparisons()) < ALPHA
