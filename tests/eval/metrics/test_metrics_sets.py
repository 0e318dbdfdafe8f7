"""Distances between sets against closed forms, loops and SciPy; features on several grids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import linalg

from eval.metrics import sets
from medil.errors import InputError


def test_frechet_of_one_feature_is_its_closed_form(rng):
    a, b = rng.normal(size=(40, 1)), 3 * rng.normal(size=(25, 1)) + 2
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert sets.frechet(a, b) == pytest.approx(expected)


def test_frechet_equals_the_formula_with_scipys_matrix_root(rng):
    mixing = rng.normal(size=(4, 4))
    a, b = rng.normal(size=(60, 4)) @ mixing + 1, rng.normal(size=(50, 4))
    first, second = np.cov(a.T), np.cov(b.T)
    root = np.trace(linalg.sqrtm(first @ second).real)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second) - 2 * root
    assert sets.frechet(a, b) == pytest.approx(expected)


def test_frechet_equals_the_sum_of_roots_of_torch_s_eigenvalues(rng):
    import torch

    a, b = rng.normal(size=(30, 5)), 0.5 * rng.normal(size=(30, 5))
    product = torch.from_numpy(np.cov(a.T) @ np.cov(b.T))
    root = torch.linalg.eigvals(product).sqrt().real.sum().item()
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected = apart + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * root
    assert sets.frechet(a, b) == pytest.approx(expected)


def test_frechet_of_small_sets_with_many_features(rng):
    a = rng.normal(size=(4, 30))
    assert sets.frechet(a, a) == pytest.approx(0.0, abs=1e-10)
    assert sets.frechet(a, a + 2.0) == pytest.approx(30 * 4.0)
    # Scaled about its mean by s, a set has (1 - s)^2 of its variance as distance.
    scaled = a.mean(0) + 3 * (a - a.mean(0))
    assert sets.frechet(a, scaled) == pytest.approx(4 * a.var(0, ddof=1).sum())


def test_mmd_equals_a_loop_over_pairs(rng):
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 0.5
    both = np.concatenate([a, b])
    width = np.median([np.linalg.norm(p - q) for p, q in itertools.combinations(both, 2)])

    def k(p, q):
        return np.exp(-np.sum((p - q) ** 2) / (2 * width**2))

    def within(t):
        return np.mean([k(p, q) for p, q in itertools.permutations(t, 2)])

    expected = within(a) + within(b) - 2 * np.mean([k(p, q) for p in a for q in b])
    assert sets.mmd(a, b) == pytest.approx(expected)


def test_mmd_has_no_bias_and_grows_with_the_distance(rng):
    same = [sets.mmd(rng.normal(size=(12, 4)), rng.normal(size=(9, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    found = [sets.mmd(a, b + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found) and found[-1] > 0.3


def test_mmd_of_two_far_clusters_is_its_closed_form():
    # Four points in two places: the median distance is d, so the kernel between is e^-1/2.
    a, b = np.zeros((2, 1)), np.full((2, 1), 7.0)
    assert sets.mmd(a, b) == pytest.approx(2 - 2 * np.exp(-0.5))


def test_prdc_on_a_line():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # balls of radius 1, 1, 1 and 8
    made = np.array([[0.5], [1.2], [30.0], [33.0]])  # balls of radius 0.7, 0.7, 3 and 3
    found = sets.prdc(real, made, k=1)
    # Real balls (open) around 0.5: those of 0 and 1; around 1.2: those of 1 and 2; the ball of
    # 10 reaches down to 2. Made balls hold 0, 1 but not 2 or 10.
    assert found == {"precision": 0.5, "recall": 0.5, "density": 1.0, "coverage": 0.75}


def test_prdc_equals_loops(rng):
    real, made, k = rng.normal(size=(17, 3)), rng.normal(size=(13, 3)) * 0.8, 3

    def reach(t):
        return [sorted(np.linalg.norm(t - p, axis=1))[k] for p in t]

    def hits(centres, radii, p):
        return [np.linalg.norm(c - p) < r for c, r in zip(centres, radii, strict=True)]

    of_real, of_made = reach(real), reach(made)
    expected = {
        "precision": np.mean([any(hits(real, of_real, p)) for p in made]),
        "recall": np.mean([any(hits(made, of_made, p)) for p in real]),
        "density": np.sum([hits(real, of_real, p) for p in made]) / (k * len(made)),
        "coverage": np.mean(
            [any(np.linalg.norm(made - c, axis=1) < r) for c, r in zip(real, of_real, strict=True)]
        ),
    }
    assert sets.prdc(real, made, k) == pytest.approx(expected)


def test_prdc_tells_apart_two_failures(rng):
    real = rng.normal(size=(80, 4))
    far = sets.prdc(real, rng.normal(size=(80, 4)) + 50)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    narrow = sets.prdc(real, 0.05 * rng.normal(size=(80, 4)))  # plausible, but all alike
    assert narrow["precision"] == 1 and narrow["density"] > 1
    assert narrow["recall"] < 0.1 and narrow["coverage"] < 0.8


def test_standardised_sets_have_the_real_ones_unit(rng):
    real, made = rng.normal(size=(9, 3)) * [1, 20, 0] + 5, rng.normal(size=(7, 3))
    a, b = sets.standardised(real, made)
    np.testing.assert_allclose(a.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(a.std(0, ddof=1), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(b[:, 2], made[:, 2] - 5)


def head(spacing_mm, phase_mm=0.0, squeeze=1.0, fold_mm=3.0, white=0.66):
    """A smooth brain from a formula, on a grid: values, mask, spacing."""
    step = np.array(np.broadcast_to(spacing_mm, 3), dtype=float)
    reach = np.array([48.0, 58.0, 46.0])
    axes = [np.arange(-r, r, s) + phase_mm for r, s in zip(reach, step, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 40) ** 2 + (y / (50 * squeeze)) ** 2 + (z / 38) ** 2)
    folds = fold_mm / 40 * np.cos(x / 3) * np.cos(y / 3.3) * np.cos(z / 2.8)
    edge = [0.5 - 0.5 * np.tanh((radius + folds - r) * 40 / 1.2) for r in (white, 0.85)]
    values = 300 * (0.2 + 0.42 * edge[1] + 0.28 * edge[0])
    return np.where(radius < 1, values, 0.0), radius < 1, tuple(step)


def test_features_belong_to_the_brain_and_not_to_the_grid():
    base = sets.features(*head(1.0))
    others = [
        sets.features(*head(1.0, squeeze=0.85)),
        sets.features(*head(1.0, fold_mm=1.0)),
        sets.features(*head(1.0, white=0.55)),
    ]
    regrid = [
        sets.features(*head(spacing, phase))
        for spacing, phase in ((1.0, 0.4), (1.5, 0.0), ((1.0, 1.0, 2.0), 0.3))
    ]
    nearest = min(np.linalg.norm(base - f) for f in others)
    assert max(np.linalg.norm(base - f) for f in regrid) < nearest / 2


def test_each_feature_has_a_name_and_closed_forms_hold():
    volume, mask, spacing_mm = head(1.0)
    values = dict(zip(sets.FEATURES, sets.features(volume, mask, spacing_mm), strict=True))
    assert values["share of CSF"] + values["share of grey"] + values["share of white"] == (
        pytest.approx(1)
    )
    ellipsoid_cm3 = 4 / 3 * np.pi * 40 * 50 * 38 / 1000
    assert values["log volume (cm3)"] == pytest.approx(np.log(ellipsoid_cm3), abs=5e-3)
    for n, axis_mm in ((1, 50), (2, 40), (3, 38)):  # variance of a solid ellipsoid: axis^2 / 5
        expected = np.log(axis_mm / np.sqrt(5))
        assert values[f"log axis {n} of the shape (mm)"] == pytest.approx(expected, abs=5e-3)
    again = sets.features(7 * volume, mask, spacing_mm)  # intensities are relative
    np.testing.assert_allclose(again, list(values.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wavelength_mm", sets.WAVELENGTHS_MM)
def test_a_wave_s_power_and_slope_are_known(wavelength_mm):
    spacing_mm = (1.0, 1.5, 2.0)
    x = np.arange(0, 96, 1.0)[:, None, None] * np.ones((1, 64, 48))
    wave = 1 + 0.1 * np.sin(2 * np.pi * x / wavelength_mm)
    found = sets.features(wave, np.ones(wave.shape, dtype=bool), spacing_mm)
    values = dict(zip(sets.FEATURES, found, strict=True))
    for other in sets.WAVELENGTHS_MM:  # all the power at one wavelength
        expected = 0.0 if other == wavelength_mm else np.log(1e-6)
        assert values[f"log power around {other} mm"] == pytest.approx(expected, abs=0.1)
    if wavelength_mm >= 24:  # shorter ones are blurred by the Gaussian of 2 mm
        # Amplitude 0.1 / 1.1 of the peak, mean |cos| = 2 / pi.
        blur = np.exp(-2 * (np.pi * sets.GRADIENT_SIGMA_MM / wavelength_mm) ** 2)
        expected = 0.1 / 1.1 * 2 * np.pi / wavelength_mm * 2 / np.pi * blur
        assert values["gradient, mean (peak/mm)"] == pytest.approx(expected, rel=0.08)


def test_a_set_of_copies_has_no_diversity_and_noise_adds_some(rng):
    volume, mask, _ = head(2.0)
    assert sets.ms_ssim_diversity([volume, volume, volume], mask) == pytest.approx(1.0)
    little, much = (
        [volume + s * rng.normal(size=volume.shape) for _ in range(3)] for s in (5.0, 40.0)
    )
    found = [sets.ms_ssim_diversity(volumes, mask) for volumes in (little, much)]
    assert 1 > found[0] > found[1]


def test_diversity_is_the_mean_over_pairs(rng):
    from eval.metrics.structure import ms_ssim

    volume, mask, _ = head(2.0)
    volumes = [volume + 20 * rng.normal(size=volume.shape) for _ in range(3)]
    peak = np.mean([np.percentile(v[mask], 99.5) for v in volumes])
    pairs = [ms_ssim(p, q, mask, peak) for p, q in itertools.combinations(volumes, 2)]
    assert sets.ms_ssim_diversity(volumes, mask) == pytest.approx(np.mean(pairs))
    assert min(pairs) <= sets.ms_ssim_diversity(volumes, mask, most_pairs=1) <= max(pairs)


@pytest.mark.parametrize(
    "call",
    [
        lambda t: sets.frechet(t, t[:, :2]),
        lambda t: sets.frechet(t[:1], t),
        lambda t: sets.mmd(t[0], t[0]),
        lambda t: sets.prdc(t, t, k=4),
        lambda t: sets.prdc(t, t, k=0),
        lambda t: sets.standardised(t[:1], t),
        lambda t: sets.ms_ssim_diversity([np.ones((4, 4, 4))]),
        lambda t: sets.features(np.zeros((4, 4, 4)), np.ones((4, 4, 4), dtype=bool), (1, 1, 1)),
        lambda t: sets.features(np.ones((4, 4, 4)), np.zeros((4, 4, 4), dtype=bool), (1, 1, 1)),
    ],
)
def test_what_is_not_two_sets_is_refused(call):
    with pytest.raises(InputError):
        call(np.arange(12.0).reshape(4, 3))
