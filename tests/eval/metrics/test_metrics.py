"""The metrics against closed forms and against other people's code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics as skimage_metrics

from eval import metrics
from medil.errors import InputError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def pair(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = ndimage.gaussian_filter(rng.normal(size=(24, 25, 26)), 1.5) * 10 + 5
    estimate = truth + 0.1 * rng.normal(size=truth.shape)
    return truth, estimate, np.ones(truth.shape, dtype=bool)


def test_psnr_of_a_constant_offset_is_its_closed_form():
    truth = np.ones((5, 6, 7))
    mask = np.ones(truth.shape, dtype=bool)
    assert metrics.psnr(truth, truth + 0.01, mask, peak=1.0) == pytest.approx(40.0)
    assert metrics.psnr(truth, truth + 0.01, mask, peak=10.0) == pytest.approx(60.0)
    assert metrics.psnr(truth, truth, mask, peak=1.0) == np.inf


def test_psnr_and_nrmse_equal_skimage_on_a_full_mask(pair):
    truth, estimate, mask = pair
    expected = skimage_metrics.peak_signal_noise_ratio(truth, estimate, data_range=7.5)
    assert metrics.psnr(truth, estimate, mask, 7.5) == pytest.approx(expected)
    expected = skimage_metrics.normalized_root_mse(truth, estimate)
    assert metrics.nrmse(truth, estimate, mask) == pytest.approx(expected)


def test_nothing_outside_the_mask_counts_for_pointwise_metrics(pair):
    truth, estimate, mask = pair
    mask = mask.copy()
    mask[:8] = False
    spoiled = np.where(mask, estimate, 1e6)
    assert metrics.psnr(truth, spoiled, mask, 1.0) == metrics.psnr(truth, estimate, mask, 1.0)
    assert metrics.nrmse(truth, spoiled, mask) == metrics.nrmse(truth, estimate, mask)


def test_peak_is_the_percentile_inside_the_mask_only():
    truth = np.arange(2001.0).reshape(1, 1, -1)
    mask = truth <= 1000
    assert metrics.peak_intensity(truth, mask) == pytest.approx(995.0)


def test_ssim_equals_the_map_of_skimage_averaged_in_the_mask(pair):
    truth, estimate, mask = pair
    mask = np.zeros_like(mask)
    mask[9:14, 8:12, 10:15] = True
    _, local = skimage_metrics.structural_similarity(
        truth,
        estimate,
        data_range=6.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert metrics.ssim(truth, estimate, mask, 6.0) == pytest.approx(local[mask].mean(), abs=1e-12)


def test_ssim_is_one_for_the_truth_and_falls_with_noise(pair, rng):
    truth, _, mask = pair
    noise = rng.normal(size=truth.shape)
    scores = [metrics.ssim(truth, truth + s * noise, mask, 6.0) for s in (0.0, 0.2, 0.5, 2.0)]
    assert scores[0] == pytest.approx(1.0)
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.7


def test_ssim_of_constants_is_its_closed_form_even_on_thin_volumes():
    truth, estimate = np.full((20, 15, 4), 2.0), np.full((20, 15, 4), 3.0)
    mask = np.ones(truth.shape, dtype=bool)
    c1 = (0.01 * 4.0) ** 2
    expected = (2 * 2.0 * 3.0 + c1) / (2.0**2 + 3.0**2 + c1)
    assert metrics.ssim(truth, estimate, mask, 4.0) == pytest.approx(expected)


def test_hfen_of_a_scaled_truth_is_the_scale_error(pair):
    truth, _, mask = pair
    assert metrics.hfen(truth, 1.3 * truth, mask, (1, 1, 1)) == pytest.approx(0.3)
    assert metrics.hfen(truth, truth + 7.0, mask, (1, 1, 1)) == pytest.approx(0.0, abs=1e-9)


def test_hfen_equals_scipys_laplacian_of_gaussian_at_one_mm(pair):
    truth, estimate, mask = pair
    filtered = [ndimage.gaussian_laplace(v, 1.5, truncate=6.0)[mask] for v in (truth, estimate)]
    expected = np.linalg.norm(filtered[1] - filtered[0]) / np.linalg.norm(filtered[0])
    assert metrics.hfen(truth, estimate, mask, (1, 1, 1)) == pytest.approx(expected, rel=1e-6)


def test_hfen_measures_in_mm_so_two_grids_of_one_field_agree():
    def field(spacing_mm: float, wavelength_mm: float) -> np.ndarray:
        x = (np.arange(round(48 / spacing_mm)) + 0.5) * spacing_mm
        return np.cos(2 * np.pi * x / wavelength_mm)[:, None, None] * np.ones((1, 12, 12))

    scores = []
    for s in (0.5, 1.0):
        truth = field(s, 12.0)
        wave = 0.1 * field(s, 6.0)
        mask = np.ones(truth.shape, dtype=bool)
        scores.append(metrics.hfen(truth, truth + wave, mask, (s, 1.0, 1.0)))
    # LoG gain goes as k^2 exp(-k^2 sigma^2 / 2): closed form of the ratio.
    k = 2 * np.pi / np.array([12.0, 6.0])
    gain = k**2 * np.exp(-((k * 1.5) ** 2) / 2)
    expected = 0.1 * gain[1] / gain[0]
    assert scores[0] == pytest.approx(expected, rel=0.02)
    assert scores[1] == pytest.approx(expected, rel=0.05)


def test_gradient_error_of_ramps_is_their_slope_error_per_mm():
    x = np.arange(10.0)[:, None, None] * np.ones((1, 8, 7))
    mask = np.ones(x.shape, dtype=bool)
    assert metrics.gradient_error(2 * x, 3 * x, mask, (0.5, 1, 1)) == pytest.approx(0.5)
    assert metrics.gradient_error(2 * x, 2 * x + 9, mask, (0.5, 1, 1)) == pytest.approx(0.0)


def test_gradient_error_weighs_axes_by_their_spacing():
    shape = (8, 8, 8)
    i, _, k = np.indices(shape).astype(float)
    mask = np.ones(shape, dtype=bool)
    truth = 3.0 * i  # slope 3 per mm on a 1 mm axis
    estimate = 9.0 * k  # slope 3 per mm on a 3 mm axis: same magnitude, other direction
    assert metrics.gradient_error(truth, estimate, mask, (1, 1, 3)) == pytest.approx(0.0)


def test_brain_mask_is_the_largest_piece_with_its_holes_filled():
    volume = np.zeros((20, 20, 20))
    volume[4:15, 4:15, 4:15] = 50.0
    volume[8:10, 8:10, 8:10] = -3.0  # resampling rings below zero in the ventricles
    volume[18, 18, 18] = 90.0
    mask = metrics.brain_mask(volume)
    assert mask.sum() == 11**3 and mask[9, 9, 9] and not mask[18, 18, 18]


def test_head_mask_finds_a_hollow_noisy_head_open_at_the_bottom(rng):
    i, j, k = np.indices((40, 40, 40)) - 19.5
    radius = np.sqrt(i**2 + j**2 + (k / 1.6) ** 2)  # reaches the lowest and highest planes
    cavity = np.hypot(i - 4, j) < 3  # a dark tube along the last axis, out of the volume
    volume = np.where((radius < 14) & ~cavity, 400.0, 0.0)
    volume = np.abs(volume + 15 * rng.normal(size=volume.shape))
    mask = metrics.head_mask(volume)
    inside, outside = radius < 13, radius > 16.5
    assert mask[inside].mean() > 0.995
    assert mask[outside].mean() < 0.01


def test_bad_input_is_one_sentence(pair):
    truth, estimate, mask = pair
    with pytest.raises(InputError, match="mask is empty"):
        metrics.nrmse(truth, estimate, ~mask)
    with pytest.raises(InputError, match="differ in shape"):
        metrics.psnr(truth, estimate[1:], mask, 1.0)
    with pytest.raises(InputError, match="peak must be above zero"):
        metrics.psnr(truth, estimate, mask, 0.0)
    with pytest.raises(InputError, match="constant volume"):
        metrics.head_mask(np.ones((4, 4, 4)))
    with pytest.raises(InputError, match="above the threshold"):
        metrics.brain_mask(np.zeros((4, 4, 4)))
