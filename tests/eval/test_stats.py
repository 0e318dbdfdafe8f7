"""Statistics against closed forms, SciPy and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from eval import stats
from medil.errors import InputError


@pytest.mark.parametrize("n", [2, 3, 14])
def test_one_seed_gives_scipys_bca_interval(rng, n):
    values = rng.exponential(size=n) ** 1.5  # skewed, so that both corrections matter
    theirs = reference.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=rng, batch=5_000
    ).confidence_interval
    drawn_at_random = 0.03 * (theirs.high - theirs.low)
    for table in (values[:, None], values[None, :]):  # n subjects, or one with n seeds
        ours = stats.bootstrap_interval(table, resamples=20_000)
        np.testing.assert_allclose(ours, (theirs.low, theirs.high), atol=drawn_at_random)


def test_two_crossed_factors_accelerate_like_scipys_two_samples(rng):
    # Additive tables: the mean is the sum of the means of two independent samples.
    subjects, seeds = rng.exponential(size=11) ** 1.5, rng.exponential(size=7)
    theirs = reference.bootstrap(
        (subjects, seeds), lambda a, b, axis: a.mean(axis) + b.mean(axis),
        n_resamples=20_000, method="BCa", rng=rng, batch=5_000,
    ).confidence_interval  # fmt: skip
    ours = stats.bootstrap_interval(subjects[:, None] + seeds, resamples=20_000)
    drawn_at_random = 0.03 * (theirs.high - theirs.low)
    np.testing.assert_allclose(ours, (theirs.low, theirs.high), atol=drawn_at_random)


def test_a_long_tail_above_moves_the_interval_up_and_signs_mirror():
    tail = np.append(np.zeros(15), [1.0, 4.0])[:, None]
    low, high = stats.bootstrap_interval(tail, resamples=20_000)
    drawn = np.random.default_rng(1).choice(tail[:, 0], (20_000, 17)).mean(axis=1)
    plain = np.quantile(drawn, [0.025, 0.975])
    assert low >= plain[0] and high > plain[1] + 0.05
    mirrored = stats.bootstrap_interval(-tail, resamples=20_000)
    assert mirrored == pytest.approx((-high, -low), abs=0.05)


def test_units_and_offsets_pass_through_the_interval(rng):
    table = rng.exponential(size=(9, 3))
    low, high = stats.bootstrap_interval(table, seed=2)
    assert stats.bootstrap_interval(1e3 * table - 5, seed=2) == pytest.approx(
        (1e3 * low - 5, 1e3 * high - 5)
    )


def test_interval_of_crossed_data_covers_the_truth_about_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(3), 0, 200
    for trial in range(trials):
        table = 0.7 + rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.4, (1, 8))
        table = table + rng.normal(0, 0.3, (12, 8))
        low, high = stats.bootstrap_interval(table, seed=trial, resamples=400)
        hits += low <= 0.7 <= high
    assert 0.87 <= hits / trials <= 0.99


def test_seeds_that_disagree_widen_the_interval():
    subjects = np.linspace(0.9, 1.1, 9)[:, None]
    agree = stats.bootstrap_interval(subjects + np.zeros((1, 3)))
    differ = stats.bootstrap_interval(subjects + np.array([[-1.0, 0.0, 1.0]]))
    assert differ[1] - differ[0] > 5 * (agree[1] - agree[0])


def test_the_same_seed_gives_the_same_interval_and_constants_have_no_width():
    table = np.arange(12.0).reshape(4, 3)
    assert stats.bootstrap_interval(table, seed=4) == stats.bootstrap_interval(table, seed=4)
    for constant in (np.full((5, 2), 0.1), np.zeros((3, 3)), np.full((1, 1), -7.0)):
        expected = (constant[0, 0], constant[0, 0])
        assert stats.bootstrap_interval(constant) == pytest.approx(expected)


def test_wilcoxon_of_gains_alone_is_two_over_two_to_the_n():
    assert stats.wilcoxon_p(np.arange(1, 10)) == pytest.approx(2 / 2**9)
    assert stats.wilcoxon_p(np.zeros(6)) == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], 1.0),
        ([-1, -2, -3], -1.0),
        ([1, -2, 3], 2 / 6),  # ranks 1 and 3 above, 2 below
        ([0, 0, 5], 1.0),  # zeros have no side
        ([0, 0], 0.0),
    ],
)
def test_rank_biserial_counts_ranks_on_either_side(values, expected):
    assert stats.rank_biserial(np.array(values)) == pytest.approx(expected)


def test_cohens_dz_is_t_over_the_root_of_n(rng):
    values = rng.normal(0.5, 1, size=11)
    t = reference.ttest_1samp(values, 0).statistic
    assert stats.cohens_dz(values) == pytest.approx(t / np.sqrt(11))
    assert np.isnan(stats.cohens_dz(np.array([2.0]))) and np.isnan(stats.cohens_dz(np.ones(3)))


def test_holm_on_a_worked_example():
    # 0.01 x 4, 0.015 x 3, 0.02 x 2 (held at 0.045), 0.3: as R's p.adjust gives it.
    np.testing.assert_allclose(stats.holm([0.02, 0.3, 0.01, 0.015]), [0.045, 0.3, 0.04, 0.045])
    np.testing.assert_allclose(stats.holm([0.6, 0.7]), [1.0, 1.0])
    assert stats.holm([]).size == 0


def test_compare_says_how_many_subjects_and_seeds_and_keeps_the_sign():
    table = -np.linspace(0.5, 1.5, 8)[:, None] * np.array([[0.9, 1.1]])
    found = stats.compare(table)
    assert found.mean == pytest.approx(-1.0) and found.low < -1 < found.high < 0
    assert (found.n_subjects, found.n_seeds) == (8, 2)
    assert found.rank_biserial == -1 and found.cohens_dz < 0
    assert found.p == pytest.approx(2 / 2**8)


def test_a_table_with_a_hole_is_refused():
    with pytest.raises(InputError, match="all finite"):
        stats.compare(np.array([[1.0, np.nan]]))
