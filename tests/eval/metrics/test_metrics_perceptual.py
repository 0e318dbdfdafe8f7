"""LPIPS with a network put in its place: which slices it sees, how they are scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from eval.metrics import perceptual
from eval.metrics.perceptual import lpips_25d
from medil.data.perceptual import alexnet_lpips
from medil.errors import InputError


def mean_square(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return ((first - second) ** 2).mean(dim=(1, 2, 3), keepdim=True)


class Recorder:
    """A network that remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, first, second):
        self.seen += [first, second]
        return mean_square(first, second)


def everywhere(shape) -> np.ndarray:
    return np.ones(shape, dtype=bool)


def test_a_constant_difference_gives_its_closed_form():
    truth = np.full((70, 66, 64), 2.0)
    # 2 of 8 is -0.5 and 4 of 8 is 0 on the network's scale: squared difference 1/4.
    found = lpips_25d(truth, truth + 2, everywhere(truth.shape), 8.0, mean_square)
    assert found == pytest.approx(0.25)
    assert lpips_25d(truth, truth, everywhere(truth.shape), 8.0, mean_square) == 0.0


def test_eight_slices_along_each_axis_are_the_middles_of_equal_parts():
    network, shape = Recorder(), (80, 72, 64)
    i, j, k = np.indices(shape)
    truth = (i * 10000 + j * 100 + k).astype(float)
    peak = 1e6
    lpips_25d(truth, truth, everywhere(shape), peak, network)
    assert [tuple(s.shape) for s in network.seen[::2]] == [
        (8, 3, 72, 64), (8, 3, 80, 64), (8, 3, 80, 72),
    ]  # fmt: skip
    shown = (network.seen[0][:, 0, 0, 0].double() + 1) / 2 * peak  # of slices along D
    np.testing.assert_allclose(shown / 10000, np.arange(5, 80, 10), atol=0.1)
    assert torch.equal(network.seen[0][:, 0], network.seen[0][:, 2])  # grey as colour


def test_only_the_mask_is_shown_and_bright_voxels_are_clipped():
    network = Recorder()
    truth = np.full((90, 90, 90), 5.0)
    mask = np.zeros(truth.shape, dtype=bool)
    mask[4:74, 6:76, 9:79] = True
    mask[4:20, 6:20, 9:20] = False  # a corner of the box
    spoiled = np.where(mask, truth, 1e9)
    assert lpips_25d(truth, spoiled, mask, 2.0, network) == 0.0
    assert network.seen[0].shape[2:] == (70, 70)
    assert network.seen[0].max() == 1.0 and network.seen[0].min() == -1.0


def test_short_sides_are_filled_up_with_black():
    network = Recorder()
    truth = np.full((5, 70, 30), 1.0)
    lpips_25d(truth, truth, everywhere(truth.shape), 1.0, network)
    assert [tuple(s.shape) for s in network.seen[::2]] == [
        (5, 3, 70, 64), (8, 3, 64, 64), (8, 3, 64, 70),
    ]  # fmt: skip
    assert (network.seen[0][..., 30:] == -1).all() and (network.seen[0][..., :30] == 1).all()


def test_slices_count_alike_however_many_an_axis_has():
    truth = np.zeros((3, 70, 70))
    estimate = truth.copy()
    estimate[1] = 1.0  # one of three slices along D, a third of every other slice
    found = lpips_25d(truth, estimate, everywhere(truth.shape), 1.0, mean_square)
    across = 4 * (70 / 64) / (70 / 64) * 1 / 64  # one line of 64 in padded slices
    assert found == pytest.approx((1 * 4.0 + 16 * across) / 19)


def test_without_the_trained_trunk_there_is_no_number(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    for cached in (alexnet_lpips, perceptual.network_or_none):
        cached.cache_clear()
    try:
        truth = np.ones((8, 8, 8))
        with pytest.warns(UserWarning, match="LPIPS is left out: .*MEDIL_DATA_MIRROR"):
            assert lpips_25d(truth, truth, everywhere(truth.shape), 1.0) is None
    finally:
        perceptual.network_or_none.cache_clear()


def test_a_peak_of_zero_is_refused():
    truth = np.ones((8, 8, 8))
    with pytest.raises(InputError, match="above zero"):
        lpips_25d(truth, truth, everywhere(truth.shape), 0.0, mean_square)


# Features of the trunk


class Channels:
    """A stand-in for LPIPS: its only layer holds the image itself, and a constant."""

    def scaling_layer(self, images: torch.Tensor) -> torch.Tensor:
        return (images + 1) / 2

    def net(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cat([images[:, :1], torch.ones_like(images[:, :1])], dim=1)]


def test_features_are_mean_unit_vectors_of_each_layer(monkeypatch):
    monkeypatch.setattr(perceptual, "network_or_none", Channels)
    volume = np.full((64, 64, 64), 3.0)
    found = perceptual.trunk_features(volume, everywhere(volume.shape), 4.0)
    assert found == pytest.approx(np.array([0.6, 0.8]))  # 0.75 and 1, over their length
    monkeypatch.setattr(perceptual, "network_or_none", lambda: None)
    assert perceptual.trunk_features(volume, volume > 0, 4.0) is None
    with pytest.raises(InputError, match="peak"):
        perceptual.trunk_features(volume, volume > 0, 0.0)


def test_the_trained_trunk_tells_a_blurred_volume_from_a_scaled_one():
    try:
        alexnet_lpips()
    except InputError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    volume = gaussian_filter(rng.random((70, 70, 70)), 1.0)
    mask = everywhere(volume.shape)
    own = perceptual.trunk_features(volume, mask, 1.0)
    soft = perceptual.trunk_features(gaussian_filter(volume, 2.0), mask, 1.0)
    brighter = perceptual.trunk_features(2 * volume, mask, 2.0)
    assert own.shape == (1152,)
    assert np.abs(brighter - own).max() < 1e-6 < np.linalg.norm(soft - own)
