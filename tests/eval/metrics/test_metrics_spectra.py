"""Fourier shell correlation and detail split against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtr

from eval.metrics.spectra import (
    Shells,
    detail_split,
    effective_resolution_mm,
    fsc,
    soft_mask,
)
from medil.errors import InputError

SHAPE = (64, 60, 54)  # sides that are transformed as they are


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def ellipsoid(shape, spacing_mm=(1, 1, 1), share=0.94) -> np.ndarray:
    axes = [np.linspace(-1, 1, n) for n in shape]
    return sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)) < share**2


def blurred(volume: np.ndarray, sigma_mm: float, spacing_mm=(1, 1, 1)) -> np.ndarray:
    """Gaussian blur, exact in the Fourier domain (periodic)."""
    sigma_vox = [sigma_mm / s for s in spacing_mm]
    return np.fft.ifftn(ndimage.fourier_gaussian(np.fft.fftn(volume), sigma_vox)).real


def gain(frequency_per_mm: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-2 * np.pi**2 * sigma_mm**2 * frequency_per_mm**2)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1.0, 1.2, 2.5)])
def test_fsc_of_a_blurred_and_noisy_copy_is_its_closed_form(rng, spacing_mm):
    truth, noise = rng.normal(size=(2, *SHAPE))  # white: power S = 1 in every shell
    sigma_mm, noise_sd = 0.7, 0.3
    estimate = blurred(truth, sigma_mm, spacing_mm) + noise_sd * noise
    shells = fsc(truth, estimate, ellipsoid(SHAPE), spacing_mm)
    g = gain(shells.frequency_per_mm, sigma_mm)
    expected = 1 / np.sqrt(1 + noise_sd**2 / g**2)
    scatter = 4 / np.sqrt(0.3 * shells.n_modes) + 0.01  # a masked mode is not a whole mode
    assert np.all(np.abs(shells.correlation - expected) < scatter)
    many = shells.n_modes > 800
    assert many.any()
    np.testing.assert_allclose(shells.correlation[many], expected[many], atol=0.04)


def test_resolution_of_a_blurred_and_noisy_copy_is_its_closed_form(rng):
    truth, noise = rng.normal(size=(2, *SHAPE))
    sigma_mm, noise_sd = 0.9, 0.2
    shells = fsc(truth, blurred(truth, sigma_mm) + noise_sd * noise, ellipsoid(SHAPE), (1, 1, 1))
    for threshold in (0.5, 0.143):  # where g^2 = N / (1/t^2 - 1)
        g_2 = noise_sd**2 / (1 / threshold**2 - 1)
        expected_mm = np.sqrt(4 * np.pi**2 * sigma_mm**2 / -np.log(g_2))
        found_mm = effective_resolution_mm(shells, threshold)
        assert found_mm == pytest.approx(expected_mm, rel=0.03)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1.0, 1.2, 2.5)])
def test_a_blur_alone_leaves_fsc_at_one_and_the_gain_is_its_closed_form(rng, spacing_mm):
    truth = rng.normal(size=SHAPE)
    estimate = blurred(truth, 0.6, spacing_mm)
    mask = ellipsoid(SHAPE)
    shells = fsc(truth, estimate, mask, spacing_mm)
    assert shells.correlation.min() > 0.985  # a shell is not infinitely thin, nor is the rim
    assert effective_resolution_mm(shells, 0.5) == pytest.approx(2 * max(spacing_mm))
    limit = shells.limit_per_mm
    for low in np.linspace(0.2, 0.9, 4) * limit:
        band = (low, low + 0.06 * limit)
        detail = detail_split(truth, estimate, mask, spacing_mm, band)
        expected = gain(np.mean(band), 0.6)
        assert detail.kept == pytest.approx(expected, abs=0.03)
        assert detail.smoothed == pytest.approx(1 - expected, abs=0.03)
        assert detail.invented < 0.06


def test_added_noise_is_invented_and_nothing_is_smoothed(rng):
    truth, noise = rng.normal(size=(2, *SHAPE))
    detail = detail_split(truth, truth + 0.5 * noise, ellipsoid(SHAPE), (1, 1, 1), (0.1, 0.4))
    assert detail.invented == pytest.approx(0.5, rel=0.03)  # sqrt(N / S)
    assert detail.smoothed < 0.03 and detail.kept == pytest.approx(1.0, abs=0.02)


def test_error_is_exactly_smoothed_and_invented_and_equals_a_direct_sum(rng):
    truth, noise = rng.normal(size=(2, *SHAPE))
    estimate = 0.8 * blurred(truth, 0.5) + 0.2 * noise
    mask, band = np.ones(SHAPE, bool), (9.5 / 64, 22.5 / 64)  # ends between two shells
    detail = detail_split(truth, estimate, mask, (1, 1, 1), band)
    assert detail.error**2 == pytest.approx(detail.smoothed**2 + detail.invented**2, rel=1e-12)
    weights = soft_mask(mask, (1, 1, 1))
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij", sparse=True)
    radius = np.sqrt(sum(f**2 for f in axes))
    inside = (radius >= band[0]) & (radius < band[1])

    def detail_of(volume: np.ndarray) -> np.ndarray:
        return np.fft.fftn(weights * (volume - np.average(volume, weights=weights)))[inside]

    expected = np.linalg.norm(detail_of(estimate) - detail_of(truth))
    expected /= np.linalg.norm(detail_of(truth))
    assert detail.error == pytest.approx(expected, rel=1e-9)


def test_scaling_an_estimate_changes_its_gain_but_not_its_correlation(rng):
    truth, noise = rng.normal(size=(2, *SHAPE))
    mask, estimate = ellipsoid(SHAPE), truth + noise
    once, scaled = (fsc(truth, e, mask, (1, 1, 1)) for e in (estimate, 3 * estimate + 7))
    np.testing.assert_allclose(once.correlation, scaled.correlation, atol=1e-10)
    detail = detail_split(truth, 1.5 * truth, mask, (1, 1, 1), (0.1, 0.3))
    assert (detail.kept, detail.smoothed) == pytest.approx((1.5, 0.5))
    assert detail.invented == pytest.approx(0.0, abs=1e-7)


def test_the_mask_does_not_correlate_by_itself_but_a_hard_one_with_an_offset_does(rng):
    shape = (60, 60, 60)
    first, second = rng.normal(size=(2, *shape)) + 5.0
    mask = ellipsoid(shape, share=1.0)
    soft = fsc(first, second, mask, (1, 1, 1))
    low = soft.frequency_per_mm < 0.1
    scatter = 1 / np.sqrt(0.3 * soft.n_modes[low])
    assert abs(np.average(soft.correlation[low], weights=soft.n_modes[low])) < 0.05
    assert np.all(np.abs(soft.correlation[low]) < 4 * scatter)
    spectra = [np.fft.fftn(mask * v) for v in (first, second)]
    axes = np.meshgrid(*(np.fft.fftfreq(60),) * 3, indexing="ij", sparse=True)
    radius = np.sqrt(sum(f**2 for f in axes))
    chosen = (radius > 0) & (radius < 0.1)
    product = (spectra[0] * spectra[1].conj()).real[chosen].sum()
    assert product / np.prod([np.linalg.norm(s[chosen]) for s in spectra]) > 0.9


def stripped_head(rng, shape, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """An uneven blob of voxels, darker near its surface, with little fine detail; zeros around."""
    places = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    radius_mm = np.sqrt(sum(a**2 for a in np.meshgrid(*places, indexing="ij", sparse=True)))
    dents, fine, coarse = (blurred(rng.normal(size=shape), mm, spacing_mm) for mm in (5, 1, 3))
    radius_mm = radius_mm + 2 * dents / dents.std()
    detail = fine / fine.std() + coarse / coarse.std() + 0.1 * rng.normal(size=shape)
    mask = radius_mm < 27
    return np.where(mask, 5 - 3 * ndtr(radius_mm - 24) + detail, 0.0), mask


def low_pass(volume: np.ndarray, spacing_mm, shortest_mm: float) -> np.ndarray:
    """The volume without waves shorter than that, exact in the Fourier domain (periodic)."""
    axes = [np.fft.fftfreq(n, mm) for n, mm in zip(volume.shape, spacing_mm, strict=True)]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return np.fft.ifftn(np.fft.fftn(volume) * (radius < 1 / shortest_mm)).real


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1.0, 0.8, 1.25)])
def test_what_holds_no_fine_detail_has_none_by_the_mask(rng, spacing_mm):
    shape = tuple(round(64 / mm) for mm in spacing_mm)
    truth, mask = stripped_head(rng, shape, spacing_mm)
    coarse = low_pass(truth, spacing_mm, 4.0)
    shells = fsc(truth, coarse, mask, spacing_mm)
    assert effective_resolution_mm(shells, 0.5) == pytest.approx(4.0, rel=0.06)
    assert effective_resolution_mm(shells, 0.143) > 2.9  # the grid's limit by a stepped rim
    beyond = shells.frequency_per_mm > 1 / 3.2
    shared = np.average(shells.correlation[beyond], weights=shells.n_modes[beyond])
    assert abs(shared) < 0.12  # above 0.24 by a rim that follows the voxels
    split = detail_split(truth, coarse, mask, spacing_mm, (1 / 3.2, shells.limit_per_mm))
    assert split.kept < 0.03 and split.invented < 0.15


def test_modes_are_counted_once_and_cover_the_spectrum(rng):
    truth = rng.normal(size=(20, 18, 16))
    shells = fsc(truth, truth, np.ones(truth.shape, bool), (1, 1, 1), beyond_coarsest=True)
    assert shells.n_modes.sum() == pytest.approx((truth.size - 1) / 2)  # less the mean
    np.testing.assert_allclose(shells.correlation, 1.0)


def test_shells_end_where_the_coarsest_axis_does_unless_asked(rng):
    truth = rng.normal(size=(30, 32, 20))
    mask = np.ones(truth.shape, bool)
    spacing_mm = (1.0, 1.0, 3.0)
    common = fsc(truth, truth, mask, spacing_mm)
    beyond = fsc(truth, truth, mask, spacing_mm, beyond_coarsest=True)
    assert common.limit_per_mm == pytest.approx(1 / 6)
    assert common.frequency_per_mm.max() <= 1 / 6 < 0.5 < beyond.frequency_per_mm.max()
    assert effective_resolution_mm(beyond) == pytest.approx(6.0)


def test_a_wave_falls_into_the_shell_of_its_wavelength_in_mm():
    shape, spacing_mm = (40, 40, 40), (2.0, 1.0, 0.5)
    x_mm = (np.arange(40) * 2.0)[:, None, None] * np.ones(shape)
    truth = np.cos(2 * np.pi * x_mm / 10)  # 0.1 per mm along the coarsest axis
    mask = np.ones(shape, bool)
    low = detail_split(truth + 1e-6, 0.5 * truth, mask, spacing_mm, (0.05, 0.15))
    assert low.kept == pytest.approx(0.5, abs=1e-3)
    noise_free = fsc(truth, truth, mask, spacing_mm)
    assert noise_free.frequency_per_mm[0] < 0.1 < noise_free.frequency_per_mm[-1]


def test_resolution_interpolates_between_shells_and_stops_at_the_grid():
    frequency, modes = np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4)
    shells = Shells(frequency, np.array([0.9, 0.7, 0.3, 0.8]), modes, 0.5)
    assert effective_resolution_mm(shells, 0.5) == pytest.approx(1 / 0.25)
    assert effective_resolution_mm(shells, 0.143) == pytest.approx(2.0)
    nothing = Shells(frequency, np.zeros(4), modes, 0.5)
    assert effective_resolution_mm(nothing, 0.5) == pytest.approx(1 / 0.05)
    with pytest.raises(InputError, match="between 0 and 1"):
        effective_resolution_mm(shells, 1.0)


def test_a_constant_estimate_correlates_with_nothing(rng):
    truth = rng.normal(size=(24, 24, 24))
    shells = fsc(truth, np.full(truth.shape, 3.0), np.ones(truth.shape, bool), (1, 1, 1))
    np.testing.assert_allclose(shells.correlation, 0.0, atol=1e-9)
    with pytest.raises(InputError, match="no detail"):
        detail_split(truth, truth, np.ones(truth.shape, bool), (1, 1, 1), (3.0, 4.0))


@pytest.mark.parametrize("spacing_mm", [(0.5, 1, 1), (1, 1, 1), (0.87, 0.87, 1), (1, 1, 6)])
def test_the_soft_mask_fades_inwards_over_mm_on_any_grid(spacing_mm):
    mask = np.ones([round(48 / mm) for mm in spacing_mm], bool)
    weights = soft_mask(mask, spacing_mm)
    for axis, mm in enumerate(spacing_mm):
        rim_mm = max(4, 2 * mm)
        other = [n // 2 for n in mask.shape]
        along = weights[tuple(slice(None) if a == axis else other[a] for a in range(3))]
        depth_mm = np.minimum(np.arange(len(along)) + 1, np.arange(len(along), 0, -1)) * mm
        core_mm = np.ceil(rim_mm / mm - 1e-9) * mm - mm / 2  # faces of the eroded mask
        expected = ndtr((depth_mm - core_mm) / (rim_mm / 3))  # a step, blurred
        np.testing.assert_allclose(along, expected, atol=0.06 if mm == 6 else 0.01)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((24, 24, 24), (1, 1, 1)),
        ((24, 24, 4), (1, 1, 6)),
        ((32, 32, 1), (1, 1, 6)),
        ((1,) * 3, (1,) * 3),
    ],
)
def test_no_soft_mask_is_empty_and_none_reaches_beyond_its_mask(shape, spacing_mm):
    mask = np.pad(np.ones(shape, bool), 5)
    weights = soft_mask(mask, spacing_mm)
    assert weights[~mask].max() == 0 and weights.min() >= 0
    assert 0.5 < weights.max() <= 1 + 1e-12
    np.testing.assert_array_equal(
        weights[mask].reshape(shape), soft_mask(mask[(slice(5, -5),) * 3], spacing_mm)
    )
    assert soft_mask(~mask & mask, spacing_mm).max() == 0


def test_the_soft_mask_holds_nothing_of_the_voxels_of_its_rim(rng):
    spacing_mm = (1, 1, 1)
    _, mask = stripped_head(rng, (64, 64, 64), spacing_mm)
    weights = soft_mask(mask, spacing_mm)
    fine = weights - low_pass(weights, spacing_mm, 3.0)
    assert np.abs(fine).max() < 0.01
