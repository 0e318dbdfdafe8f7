"""Edge width against the closed form of a blurred plane."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from eval.metrics.edges import ERF_10_TO_90, FEWEST_EDGES, edge_width_mm

NORMALS = [(1, 0, 0), (1, 1, 0), (1, -2, 3), (0, 0, 1)]


def plane(normal, sigma_mm: float, spacing_mm=(1.0, 1.0, 1.0), side_mm=44.0) -> np.ndarray:
    """A step from 10 to 110 across a plane through the middle, blurred by a Gaussian."""
    axes = [(np.arange(round(side_mm / s)) + 0.3) * s - side_mm / 2 for s in spacing_mm]
    unit = np.asarray(normal) / np.linalg.norm(normal)
    grids = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance_mm = sum(n * g for n, g in zip(unit, grids, strict=True))
    return 60 + 50 * erf(distance_mm / (sigma_mm * np.sqrt(2))) * np.ones([len(a) for a in axes])


def everywhere(volume: np.ndarray) -> np.ndarray:
    return np.ones(volume.shape, dtype=bool)


def test_the_constant_is_the_width_of_the_error_function():
    from scipy.stats import norm

    assert pytest.approx(norm.ppf(0.9) - norm.ppf(0.1)) == ERF_10_TO_90


@pytest.mark.parametrize("normal", NORMALS)
@pytest.mark.parametrize("sigma_mm", [1.0, 1.6])
def test_a_blurred_plane_is_as_wide_as_its_closed_form_in_any_direction(normal, sigma_mm):
    truth, estimate = plane(normal, 0.8), plane(normal, sigma_mm)
    found_mm = edge_width_mm(truth, estimate, everywhere(truth), (1, 1, 1))
    assert found_mm == pytest.approx(ERF_10_TO_90 * sigma_mm, rel=0.02)


@pytest.mark.parametrize("normal", NORMALS)
def test_width_is_in_mm_on_anisotropic_voxels(normal):
    spacing_mm = (0.7, 1.2, 2.0)
    truth, estimate = (plane(normal, s, spacing_mm) for s in (1.4, 2.0))
    found_mm = edge_width_mm(truth, estimate, everywhere(truth), spacing_mm)
    assert found_mm == pytest.approx(ERF_10_TO_90 * 2.0, rel=0.02)


def test_brightness_and_contrast_of_the_estimate_do_not_count():
    truth, estimate = plane((1, 2, 0), 0.8), plane((1, 2, 0), 1.3)
    mask = everywhere(truth)
    found_mm = edge_width_mm(truth, estimate, mask, (1, 1, 1))
    assert edge_width_mm(truth, 0.01 * estimate - 5, mask, (1, 1, 1)) == pytest.approx(found_mm)


def test_a_lost_or_reversed_edge_is_as_wide_as_the_profile():
    truth = plane((1, 0, 0), 1.0)
    mask = everywhere(truth)
    assert edge_width_mm(truth, np.full(truth.shape, 4.0), mask, (1, 1, 1)) == pytest.approx(12.0)
    assert edge_width_mm(truth, -truth, mask, (1, 1, 1)) == pytest.approx(12.0)


def test_a_ribbon_is_measured_to_its_top_and_not_beyond():
    side = plane((1, 0, 0), 0.8), plane((1, 0, 0), 0.8)[::-1]
    ribbon = np.minimum(side[0], np.roll(side[1], 7, axis=0))  # up, and 7 mm on down again
    mask = everywhere(ribbon)
    mask[:6], mask[-6:] = False, False  # not the edge of the roll
    found_mm = edge_width_mm(ribbon, ribbon, mask, (1, 1, 1))
    assert found_mm == pytest.approx(ERF_10_TO_90 * 0.8, rel=0.05)


def test_nothing_outside_the_mask_counts():
    truth, estimate = plane((1, 0, 0), 0.8), plane((1, 0, 0), 1.2)
    mask = everywhere(truth)
    mask[:, :, 30:] = False
    spoiled_truth, spoiled = truth.copy(), estimate.copy()
    spoiled_truth[:, :, 36:] += 900.0
    spoiled[:, :, 36:] = -900.0
    expected = edge_width_mm(truth, estimate, mask, (1, 1, 1))
    found_mm = edge_width_mm(spoiled_truth, spoiled, mask, (1, 1, 1))
    assert found_mm == pytest.approx(expected, rel=1e-3)


def test_small_ripples_do_not_end_a_rise_but_blur_still_widens_it():
    rng = np.random.default_rng(0)
    truth = plane((1, 0, 0), 0.8)
    mask = everywhere(truth)
    widths = []
    for sigma_mm in (0.8, 1.2, 1.8, 2.4):
        noisy = plane((1, 0, 0), sigma_mm) + 1.0 * rng.normal(size=truth.shape)
        widths.append(edge_width_mm(truth, noisy, mask, (1, 1, 1)))
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(ERF_10_TO_90 * 2.4, rel=0.06)


def test_a_truth_without_edges_has_no_width():
    flat = np.full((20, 20, 20), 7.0)
    assert np.isnan(edge_width_mm(flat, flat, everywhere(flat), (1, 1, 1)))
    thin = plane((1, 0, 0), 1.0)
    mask = np.zeros(thin.shape, dtype=bool)
    mask[20:24, 20:24, 20:24] = True  # nothing of it is 3 mm deep
    assert np.isnan(edge_width_mm(thin, thin, mask, (1, 1, 1)))
    assert FEWEST_EDGES > 1
