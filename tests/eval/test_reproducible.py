"""The same seed gives the same rows: on one thread or two, with a cold or a warm cache."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from eval import rows, rows_file

FOUR_DIGITS = 1e-4  # sums on two threads are taken in another order


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[int, str], pd.DataFrame]:
    """Rows by number of threads and state of the cache, of a process for each number."""
    places = {threads: tmp_path_factory.mktemp(f"threads{threads}") for threads in (1, 2)}
    outs = ("cold", "warm")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.run_rows", place, str(threads), *outs],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        for threads, place in places.items()
    ]
    assert [process.wait() for process in processes] == [0, 0]
    return {
        (n, out): rows_file.read_rows(place / out) for n, place in places.items() for out in outs
    }


def numbers(frame: pd.DataFrame) -> pd.Series:
    """Values of rows by their identity."""
    return frame.set_index(list(rows.IDENTITY))["value"]


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_with_a_cold_and_a_warm_cache_are_equal_bit_by_bit(runs, threads):
    cold, warm = (numbers(runs[threads, state]) for state in ("cold", "warm"))
    assert len(cold) > 20
    pd.testing.assert_series_equal(cold, warm, check_exact=True)


def test_rows_on_one_and_two_threads_agree_to_four_digits(runs):
    one, two = (numbers(runs[threads, "cold"]) for threads in (1, 2))
    assert set(runs[2, "cold"]["threads"]) == {2}
    assert list(one.index) == list(two.index)  # and so do seed, data, weights and configuration
    np.testing.assert_allclose(two, one, rtol=FOUR_DIGITS, atol=1e-12)
