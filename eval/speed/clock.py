"""How things are timed: in turns, so that what slows the machine slows all of them alike.

One round runs every job once (A B C, A B C, ...). A measured quantity is an array with a value
for each round, so a ratio is taken within each round; rows hold the median over rounds with the
lowest and the highest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

MOST_CALLS = 1000  # of a short job in one round
PATIENCE = 10  # a first run so many times longer than asked for is not repeated


def synchronize() -> None:
    """Wait for the GPU, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(
    jobs: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], None] = synchronize,
    at_least_s: float = 0.0,
) -> dict[str, np.ndarray]:
    """[rounds] seconds per call of every job; each job runs once before, uncounted.

    Args:
        jobs: Name to job, in the order of a round.
        rounds: How many.
        clock: Seconds; tests use another one.
        wait: Called before the clock is read.
        at_least_s: A shorter job is repeated within a round, and the mean counts; an uncounted
            second run says how often.
    """

    def seconds(job: Callable[[], Any], calls: int = 1) -> float:
        wait()
        begun = clock()
        for _ in range(calls):
            job()
        wait()
        return (clock() - begun) / calls

    calls = {}
    for name, job in jobs.items():
        one_s = seconds(job)  # compilers, caches and first allocations
        if one_s < PATIENCE * at_least_s:
            one_s = seconds(job)
        calls[name] = min(MOST_CALLS, max(1, math.ceil(at_least_s / max(one_s, 1e-9))))
    times = {name: np.empty(rounds) for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            times[name][number] = seconds(job, calls[name])
    return times


def peak_cuda_mb(job: Callable[[], object]) -> float:
    """The most memory that tensors took on the GPU while the job ran."""
    torch.cuda.reset_peak_memory_stats()
    job()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


def device_ms(job: Callable[[], object]) -> float:
    """Milliseconds between two CUDA events around a job."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    job()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
