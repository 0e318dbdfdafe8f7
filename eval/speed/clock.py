"""How things are timed: in turns, so that what slows the machine slows all of them alike.

One round runs every job once (A B C, A B C, ...). A ratio is taken within each round, and the
median over rounds is reported with the lowest and the highest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

MOST_CALLS = 1000  # of a short job in one round
PATIENCE = 10  # a first run so many times longer than asked for is not repeated


@dataclass(frozen=True)
class Spread:
    """A median over rounds, with the lowest and the highest round."""

    median: float
    low: float
    high: float
    n: int

    def times(self, factor: float) -> Spread:
        """The same in another unit; `factor` is above zero."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.n)


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest of one or more values."""
    return Spread(median(values), min(values), max(values), len(values))


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Spread of the ratio within each round: `over` / `under`."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def interleaved(
    jobs: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], None] = lambda: None,
    at_least_s: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds per call of every job in each of `rounds`; each job runs once before, uncounted.

    Args:
        jobs: Name to job, in the order of a round.
        rounds: How many.
        clock: Seconds; tests use another one.
        wait: Called before the clock is read, such as `torch.cuda.synchronize`.
        at_least_s: A shorter job is repeated within a round, and the mean counts; an uncounted
            second run says how often.
    """

    def seconds(job: Callable[[], Any], calls: int) -> float:
        wait()
        begun = clock()
        for _ in range(calls):
            job()
        wait()
        return (clock() - begun) / calls

    first = {}
    for name, job in jobs.items():  # compilers, caches and first allocations
        first[name] = seconds(job, 1)
        if first[name] < PATIENCE * at_least_s:
            first[name] = seconds(job, 1)
    calls = {name: _calls(at_least_s, first[name]) for name in jobs}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job, calls[name]))
    return times


def _calls(at_least_s: float, one_s: float) -> int:
    return min(MOST_CALLS, max(1, math.ceil(at_least_s / max(one_s, 1e-9))))
