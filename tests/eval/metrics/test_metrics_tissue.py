"""Tissue classes on volumes with known labels, Dice against other people's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from eval.metrics.tissue import dice, segment, thresholds, tissue_dice
from medil.errors import InputError

MEANS = np.array([0.0, 0.2, 0.6, 0.9])


@pytest.fixture
def labels(rng) -> np.ndarray:
    """Smooth blobs of three tissues in a rim of background."""
    field = ndimage.gaussian_filter(rng.normal(size=(30, 28, 26)), 2.5)
    inner = 1 + np.digitize(field, np.quantile(field, (0.25, 0.6)))
    return np.pad(inner, 3)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (300.0, 20.0), (1e-4, -3.0)])
def test_known_tissues_come_back_whatever_the_unit(labels, scale, offset):
    volume = scale * MEANS[labels] + offset
    np.testing.assert_array_equal(segment(volume, labels > 0), labels)


def test_noise_costs_little_and_thresholds_are_half_way_between_means(labels, rng):
    volume = MEANS[labels] + 0.05 * rng.normal(size=labels.shape)
    found = segment(volume, labels > 0)
    assert all(dice(labels, found, k) > 0.98 for k in (1, 2, 3))
    lower, upper = thresholds(volume, labels > 0)
    means = [volume[found == k].mean() for k in (1, 2, 3)]
    assert lower == pytest.approx((means[0] + means[1]) / 2, abs=0.005)
    assert upper == pytest.approx((means[1] + means[2]) / 2, abs=0.005)


def test_thresholds_are_those_of_k_means(labels, rng):
    cluster = pytest.importorskip("sklearn.cluster")
    mask = labels > 0
    volume = MEANS[labels] + 0.08 * rng.normal(size=labels.shape)
    fitted = cluster.KMeans(3, n_init=3, random_state=0).fit(volume[mask][:, None])
    centres = np.sort(fitted.cluster_centers_.ravel())
    expected = (centres[1:] + centres[:-1]) / 2
    np.testing.assert_allclose(thresholds(volume, mask), expected, atol=0.01)


def test_a_few_bright_vessels_move_nothing(labels, rng):
    volume = MEANS[labels] + 0.03 * rng.normal(size=labels.shape)
    bright = volume.copy()
    bright[10, 10, 8:18] = 50.0
    np.testing.assert_allclose(
        thresholds(bright, labels > 0), thresholds(volume, labels > 0), atol=0.01
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0, 5, 5, 5], [1, 1, 1, 1]),
        ([5.0, 5, 8, 8], [1, 1, 2, 2]),
        ([5.0, 6, 8, 8], [1, 2, 3, 3]),
        ([-2.0, -2, -2, -2], [1, 1, 1, 1]),
    ],
)
def test_fewer_than_three_intensities_fill_labels_from_the_darkest(values, expected):
    volume = np.array(values).reshape(1, 2, 2)
    found = segment(volume, np.ones((1, 2, 2), dtype=bool))
    assert found.ravel().tolist() == expected


def test_one_voxel_and_what_lies_outside_a_mask():
    volume, mask = np.arange(8.0).reshape(2, 2, 2), np.zeros((2, 2, 2), dtype=bool)
    mask[1, 0, 1] = True
    assert segment(volume, mask).sum() == segment(volume, mask)[1, 0, 1] == 1


def test_dice_is_f1_of_sklearn_and_dice_of_monai(labels, rng):
    other = np.where(rng.random(labels.shape) < 0.2, rng.integers(0, 4, labels.shape), labels)
    ours = [dice(labels, other, k) for k in (1, 2, 3)]
    f1 = pytest.importorskip("sklearn.metrics").f1_score
    theirs = f1(labels.ravel(), other.ravel(), labels=[1, 2, 3], average=None)
    np.testing.assert_allclose(ours, theirs)
    monai = pytest.importorskip("monai.metrics")
    import torch

    one_hot = [
        torch.from_numpy(np.stack([v == k for k in range(4)]))[None] for v in (labels, other)
    ]
    np.testing.assert_allclose(ours, monai.compute_dice(*one_hot, include_background=False)[0])


def test_dice_of_two_shifted_cubes_is_its_closed_form():
    a, b = np.zeros((12, 4, 4), dtype=int), np.zeros((12, 4, 4), dtype=int)
    a[1:9], b[4:12] = 2, 2
    assert dice(a, b, 2) == pytest.approx(5 / 8)
    assert dice(a, b, 3) == 1.0 and dice(a, np.zeros_like(a), 2) == 0.0


def test_tissue_dice_sees_a_moved_border_a_lost_contrast_and_no_sign_of_change(labels):
    volume, mask = MEANS[labels], labels > 0
    assert tissue_dice(volume, volume, mask) == {f"dice_{t}": 1.0 for t in ("csf", "grey", "white")}
    near, far = (np.roll(volume, step, axis=0) for step in (1, 3))
    shifts = [tissue_dice(volume, moved, mask) for moved in (near, far)]
    assert all(1 > shifts[0][name] > shifts[1][name] for name in shifts[0])
    faded = tissue_dice(volume, 0.7 * volume, mask)
    assert faded["dice_white"] == 0.0  # white matter of 0.63 is grey by the truth's thresholds
    assert tissue_dice(2 * volume, 2 * near, mask) == pytest.approx(shifts[0])


def test_tissue_dice_of_shifted_slabs_is_its_closed_form():
    truth = np.repeat([0.2, 0.6, 0.9], 8)[:, None, None] * np.ones((24, 5, 5))
    estimate = np.repeat([0.2, 0.6, 0.9], [10, 8, 6])[:, None, None] * np.ones((24, 5, 5))
    found = tissue_dice(truth, estimate, np.ones(truth.shape, dtype=bool))
    expected = {"dice_csf": 16 / 18, "dice_grey": 12 / 16, "dice_white": 12 / 14}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: segment(np.ones((2, 2, 2)), np.zeros((2, 2, 2), dtype=bool)),
        lambda: segment(np.full((2, 2, 2), np.nan), np.ones((2, 2, 2), dtype=bool)),
        lambda: dice(np.ones((2, 2, 2)), np.ones((2, 2, 3)), 1),
    ],
)
def test_what_cannot_be_classed_is_refused(call):
    with pytest.raises(InputError):
        call()
