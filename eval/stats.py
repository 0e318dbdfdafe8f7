"""Is one arm better than another? Paired over subjects and seeds, with interval and p value.

Every arm answers the same questions, so differences are taken subject by subject and seed
by seed. Subjects and seeds are crossed: a seed's weights are shared by all its subjects,
so both are resampled for the interval, which is bias-corrected and accelerated (BCa).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from medil.errors import InputError

LEVEL = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Paired:
    """Statistics of values, or paired differences, over subjects and seeds."""

    mean: float
    low: float  # lower end of the 95 % BCa bootstrap interval
    high: float
    p: float  # Wilcoxon signed rank, two-sided, on subjects' means over seeds
    rank_biserial: float  # matched pairs, -1 ... 1: 1 when every subject gains
    cohens_dz: float  # mean over standard deviation of the subjects' means; NaN if undefined
    n_subjects: int
    n_seeds: int


def compare(differences: np.ndarray, seed: int = 0) -> Paired:
    """Mean, BCa interval, test and effect sizes of [subjects, seeds] paired differences.

    Raises:
        InputError: Not a table of finite numbers.
    """
    table = _checked(differences)
    return _compared(table.tobytes(), table.shape, seed)


@lru_cache(maxsize=8192)  # several tables ask for the same comparison
def _compared(numbers: bytes, shape: tuple[int, int], seed: int) -> Paired:
    """`compare` of the numbers of a table."""
    table = np.frombuffer(numbers).reshape(shape)
    subjects = table.mean(axis=1)
    low, high = bootstrap_interval(table, seed)
    return Paired(
        float(table.mean()), low, high, wilcoxon_p(subjects), rank_biserial(subjects),
        cohens_dz(subjects), *table.shape,
    )  # fmt: skip


def bootstrap_interval(
    differences: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """BCa interval of the mean, subjects and seeds both drawn with replacement.

    With one seed it is Efron's bootstrap over subjects, as in
    `scipy.stats.bootstrap(method="BCa")`; it knows nothing of what another seed would give.

    Our choice for several seeds: means come from the crossed bootstrap (Owen 2007, "The
    pigeonhole bootstrap"), which is a little too wide where both vary, and are corrected as
    those of a statistic of two samples: the bias from the share of means below the observed
    one, the acceleration from leaving out each subject and each seed in turn. Two or three
    seeds tell little of the next one, and with few seeds or subjects an end of the interval
    can be the most extreme mean that can be drawn.

    One subject with one seed, or values that are all equal, give an interval without width;
    read n beside it.

    Raises:
        InputError: Not a table of finite numbers.

    Source:
        Efron 1987; several samples: Davison and Hinkley 1997, sec. 5.3.
    """
    table = _checked(differences)
    means = _crossed_means(table, seed, resamples)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(means, _bca_shares(table, means, tails))
    return float(low), float(high)


def _crossed_means(table: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """[resamples] means of tables whose rows and columns were drawn with replacement."""
    rows, columns = _draws(*table.shape, seed, resamples)
    return ((rows @ table) * columns).sum(axis=1) / table.size


@lru_cache(maxsize=16)
def _draws(
    n_subjects: int, n_seeds: int, seed: int, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each row and each column is drawn: the mean depends on nothing else."""
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), resamples)
    columns = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), resamples)
    return rows.astype(np.float64), columns.astype(np.float64)


def _bca_shares(table: np.ndarray, means: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """The shares of drawn means below the ends, where plain percentiles take `tails`."""
    tie = 1e-12 * np.abs(table).max()  # equal but for rounding
    off = means - table.mean()
    below = (np.mean(off < -tie) + np.mean(off <= tie)) / 2  # half of the ties
    # A share of 0 or 1 would put both ends at infinity.
    bias = special.ndtri(np.clip(below, 0.5 / means.size, 1 - 0.5 / means.size))
    shifted = bias + special.ndtri(tails)
    return special.ndtr(bias + shifted / (1 - _acceleration(table) * shifted))


def _acceleration(table: np.ndarray) -> float:
    """How fast the standard error changes with the mean, from leaving one out; 0 if none.

    For a mean, leaving one of n out moves it by the value's distance from the mean over
    n - 1, so no mean has to be computed again. The samples' parts are independent: their
    third and second moments add up.
    """
    third = second = 0.0
    for axis in (0, 1):
        n = table.shape[axis]
        apart = table.mean(axis=1 - axis) - table.mean()
        third += float(np.sum(apart**3)) / n**3
        second += float(np.sum(apart**2)) / n**2
    return third / (6 * second**1.5) if second > (1e-12 * np.abs(table).max()) ** 2 else 0.0


def wilcoxon_p(values: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that values lie around 0; 1 if all are 0.

    Its smallest possible value is 2 / 2^n, so 5 subjects can never reach 0.05.
    """
    return 1.0 if not np.any(values) else float(stats.wilcoxon(values).pvalue)


def rank_biserial(values: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation: (ranks above 0 - ranks below) / all ranks.

    Source: Kerby 2014. From -1 to 1; 0 if all values are 0.
    """
    values = values[values != 0]
    if values.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def cohens_dz(values: np.ndarray) -> float:
    """Mean over standard deviation (n - 1) of paired differences; NaN if undefined."""
    spread = values.std(ddof=1) if values.size > 1 else 0.0
    return float(values.mean() / spread) if spread > 0 else float("nan")


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: p values adjusted for a family of tests, in their order.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (p.size - np.arange(p.size))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _checked(differences: np.ndarray) -> np.ndarray:
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise InputError(
            f"differences are a table of subjects by seeds, all finite, not shape {table.shape}."
        )
    return table
