"""Drawing ahead: the same things, no more of them than asked, errors where they belong."""

import threading

import pytest

from medil.errors import InputError
from medil.training.prefetch import Prefetcher


def test_no_more_is_drawn_than_asked_ahead_and_each_once():
    drawn = []
    enough = threading.Semaphore(0)

    def draw(number, variant):
        drawn.append(number)
        enough.release()
        return number

    with Prefetcher(draw, ahead=3) as ahead:
        for number in (7, 8):
            assert ahead.take(number) == number
        for _ in range(5):
            assert enough.acquire(timeout=20)
        assert drawn == [7, 8, 9, 10, 11]
        assert ahead.take(2) == 2  # somewhere else: drawn again from there


def test_a_change_of_variant_draws_again():
    with Prefetcher(lambda number, variant: (number, variant), ahead=4) as ahead:
        asked = [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "a")]
        assert [ahead.take(*pair) for pair in asked] == asked


def test_an_error_is_raised_by_the_step_that_it_belongs_to_and_threads_end():
    def draw(number, variant):
        if number == 2:
            raise InputError("volume 2 is damaged")
        return number

    before = threading.active_count()
    ahead = Prefetcher(draw, ahead=4, threads=3)
    assert [ahead.take(0), ahead.take(1)] == [0, 1]
    with pytest.raises(InputError, match="volume 2"):
        ahead.take(2)
    assert ahead.take(3) == 3
    ahead.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        ahead.take(4)
