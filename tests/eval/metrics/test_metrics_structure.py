"""MS-SSIM against MONAI's, and where MONAI refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from eval.metrics.structure import MS_SSIM_WEIGHTS, ms_ssim, n_scales, ssim


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def pair(rng, shape, noise=0.3) -> tuple[np.ndarray, np.ndarray]:
    truth = ndimage.gaussian_filter(rng.normal(size=shape), 2.0) * 10 + 4
    return truth, truth + noise * rng.normal(size=shape)


def full(volume: np.ndarray) -> np.ndarray:
    return np.ones(volume.shape, dtype=bool)


def monai_ms_ssim(truth, estimate, peak, weights=MS_SSIM_WEIGHTS) -> float:
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("monai.metrics.regression", reason="needs medil-book[rivals]")
    metric = regression.MultiScaleSSIMMetric(3, data_range=peak, weights=weights)
    a, b = (torch.from_numpy(v).float()[None, None] for v in (estimate, truth))
    return float(metric(a, b))


def test_three_scales_equal_monais_with_renormalised_weights(rng):
    truth, estimate = pair(rng, (45, 47, 44))  # odd sides: the last plane drops out of a mean
    weights = np.array(MS_SSIM_WEIGHTS[:3]) / sum(MS_SSIM_WEIGHTS[:3])
    assert n_scales(full(truth)) == 3
    expected = monai_ms_ssim(truth, estimate, 9.0, tuple(weights))
    assert 0.3 < expected < 0.99
    assert ms_ssim(truth, estimate, full(truth), 9.0) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow  # 176 voxels a side in float32 convolutions of 11^3
def test_five_scales_equal_monais_own(rng):
    truth, estimate = pair(rng, (177, 176, 180))
    assert n_scales(full(truth)) == 5
    expected = monai_ms_ssim(truth, estimate, 9.0)
    assert ms_ssim(truth, estimate, full(truth), 9.0) == pytest.approx(expected, abs=2e-5)


def test_a_scale_counts_only_when_it_holds_a_window():
    for side, scales in ((10, 0), (11, 1), (21, 1), (22, 2), (44, 3), (88, 4), (176, 5), (186, 5)):
        mask = np.zeros((side + 3, 190, 190), dtype=bool)
        mask[1 : side + 1] = True
        assert n_scales(mask) == scales


def test_constants_score_their_closed_form_at_the_coarsest_scale():
    truth, estimate = np.full((45, 46, 44), 2.0), np.full((45, 46, 44), 3.0)
    c1 = (0.01 * 4.0) ** 2
    brightness = (2 * 2 * 3 + c1) / (2**2 + 3**2 + c1)  # contrast and pattern agree: 1
    weights = MS_SSIM_WEIGHTS[:3]
    expected = brightness ** (weights[2] / sum(weights))
    assert ms_ssim(truth, estimate, full(truth), 4.0) == pytest.approx(expected)


def test_a_thin_volume_falls_back_on_ssim(rng):
    truth, estimate = pair(rng, (30, 31, 6))
    expected = ssim(truth, estimate, full(truth), 9.0)
    assert ms_ssim(truth, estimate, full(truth), 9.0) == pytest.approx(expected)


def test_empty_space_around_a_masked_object_changes_nothing(rng):
    truth, estimate = pair(rng, (48, 50, 49))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[2:46, 3:49, 1:47] = True
    near = ms_ssim(truth * mask, estimate * mask, mask, 9.0)
    wide = [np.pad(v, 40) for v in (truth * mask, estimate * mask, mask)]
    wider = [np.pad(v, ((47, 9), (33, 0), (41, 64))) for v in wide]
    assert ms_ssim(*wide, 9.0) == pytest.approx(ms_ssim(*wider, 9.0), abs=1e-12)
    assert ms_ssim(*wide, 9.0) == pytest.approx(near, abs=0.05)  # fewer windows fit at the rim


def test_it_forgives_lost_fine_detail_more_than_ssim_does(rng):
    truth, _ = pair(rng, (48, 48, 48))
    truth = truth + 0.3 * rng.normal(size=truth.shape)
    blurred = ndimage.gaussian_filter(truth, 0.8)
    mask = full(truth)
    assert ssim(truth, blurred, mask, 9.0) < ms_ssim(truth, blurred, mask, 9.0) < 1
    assert ms_ssim(truth, truth, mask, 9.0) == pytest.approx(1.0)
    assert ms_ssim(truth, 8 - truth, mask, 9.0) == 0.0  # an inverted image, as in MONAI
