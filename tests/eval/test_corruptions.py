"""Damage of stated strength: each kind against its closed form."""

from __future__ import annotations

import numpy as np
import pytest

from eval.faults import corruptions
from medil.errors import InputError


@pytest.fixture
def ball() -> tuple[np.ndarray, np.ndarray]:
    """A ball of 1 in air, and its mask: 48 x 44 x 40 voxels."""
    axes = np.ogrid[:48, :44, :40]
    middle = (23.5, 21.5, 19.5)
    mask = sum((a - m) ** 2 for a, m in zip(axes, middle, strict=True)) < 15**2
    return mask.astype(float), mask


def test_noise_has_the_ratio_asked_for_in_tissue_and_rayleigh_noise_in_air(ball, rng):
    data, mask = ball
    noisy = corruptions.with_noise(3 * data, mask, 20, rng)
    sigma = 3 / 20
    assert noisy[mask].std() == pytest.approx(sigma, rel=0.03)
    assert noisy[mask].mean() == pytest.approx(3 * (1 + 0.5 / 20**2), abs=0.01)
    assert noisy[~mask].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)


def test_noise_is_distributed_as_that_of_monai(ball, rng):
    transforms = pytest.importorskip("monai.transforms")
    data, mask = ball
    theirs = transforms.RandRicianNoise(prob=1, std=0.2, sample_std=False)
    theirs.set_random_state(3)
    other = np.asarray(theirs(data[None].copy()))[0]
    ours = corruptions.with_noise(data, mask, 5, rng)
    shares = np.linspace(0.05, 0.95, 10)
    for where in (mask, ~mask):
        np.testing.assert_allclose(
            np.quantile(ours[where], shares), np.quantile(other[where], shares), atol=0.01
        )


@pytest.mark.parametrize("percent", [20, 80])
def test_the_bias_field_spans_just_what_it_should_and_is_smooth(ball, rng, percent):
    _, mask = ball
    field = corruptions.bias_field(mask, percent, rng)
    assert field[mask].min() == pytest.approx(1 - percent / 200)
    assert field[mask].max() == pytest.approx(1 + percent / 200)
    assert field.min() >= 1 - percent / 200 - 1e-12
    assert field.max() <= 1 + percent / 200 + 1e-12
    # Two half waves over 40 voxels climb by at most half their span times 2 pi / 40 a voxel.
    steepest = max(np.abs(np.diff(field, axis=a)).max() for a in range(3))
    assert steepest < 2 * percent / 100 * np.pi / 40


def test_no_bias_is_a_gain_of_one(ball, rng):
    np.testing.assert_array_equal(corruptions.bias_field(ball[1], 0, rng), 1.0)


def test_ghosts_are_k_space_lines_weighed_by_a_cosine(rng):
    data = rng.random((6, 16, 5))
    ghosted = corruptions.with_ghosts(data, 10)
    lines = np.arange(16)[:, None]
    weight = 1 + 0.2 * np.cos(2 * np.pi * lines * 4 / 16)
    np.testing.assert_allclose(np.fft.fft(ghosted, axis=1), weight * np.fft.fft(data, axis=1))


def test_ghosts_that_meet_nothing_hold_their_share_of_the_energy():
    data = np.zeros((4, 40, 4))
    data[:, 18:22] = 2.0
    ghosts = corruptions.with_ghosts(data, 5) - data
    assert (ghosts**2).sum() == pytest.approx(2 * 0.05**2 * (data**2).sum())
    np.testing.assert_array_equal(np.flatnonzero(ghosts[0, :, 0]), [8, 9, 10, 11, 28, 29, 30, 31])


def test_a_moved_point_lies_where_the_move_puts_it_in_mm():
    spacing_mm, shape = np.array([1.0, 1.5, 2.0]), (9, 60, 50)
    middle = (np.array(shape) - 1) / 2
    place_mm = (np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - middle) * (
        spacing_mm
    )
    start_mm = np.array([0.0, 20.0, 6.0])
    blob = np.exp(-(((place_mm - start_mm) / 4) ** 2).sum(-1))
    seen = corruptions.moved(blob, tuple(spacing_mm), shift_mm=3.0, turn_deg=10.0)
    found_mm = (place_mm * seen[..., None]).sum((0, 1, 2)) / seen.sum()
    angle = np.deg2rad(10)
    ahead_mm = 20 * np.cos(angle) - 6 * np.sin(angle)
    up_mm = 20 * np.sin(angle) + 6 * np.cos(angle) + 3
    np.testing.assert_allclose(found_mm, [0.0, ahead_mm, up_mm], atol=0.02)


def test_motion_after_no_line_or_before_all_of_them_is_none_or_a_whole_move(ball):
    data, _ = ball
    whole = corruptions.moved(data, (1, 1, 1), 2, 5)
    for share, expected in ((0.0, data), (1.0, np.abs(whole))):
        seen = corruptions.with_motion(data, (1, 1, 1), 2, 5, share)
        np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_only_lines_taken_after_the_move_see_it(rng):
    profile = np.zeros(24)
    profile[9:15] = rng.random(6)
    wave = 2 * np.pi * 7 * np.arange(20) / 20  # line 7 is late, line -7 early
    data = np.ones((3, 1, 1)) * (1 + 0.2 * np.cos(wave))[:, None] * profile
    seen = corruptions.with_motion(data, (1.0, 1.0, 2.0), shift_mm=4.0, turn_deg=0.0, share=0.3)
    early = profile * (1 + 0.1 * np.exp(-1j * wave))[:, None]
    late = np.roll(profile, 2) * 0.1 * np.exp(1j * wave)[:, None]
    np.testing.assert_allclose(seen, np.broadcast_to(np.abs(early + late), seen.shape), atol=1e-9)


def test_a_hot_voxel_is_one_voxel_of_a_copy(ball):
    data, _ = ball
    hot = corruptions.with_hot_voxel(data, (3, 4, 5), 100.0)
    assert hot[3, 4, 5] == 100.0
    assert np.count_nonzero(hot != data) == 1


def test_whole_numbers_are_off_by_half_a_step_at_most(rng):
    data = rng.random((5, 6, 7))
    stored = corruptions.as_int16(data, 1000, -1024)
    assert np.array_equal(stored, np.round(stored))
    assert np.abs((stored + 1024) / 1000 - data).max() <= 0.5 / 1000 + 1e-12


def test_strengths_without_meaning_are_refused(ball, rng):
    data, mask = ball
    with pytest.raises(InputError, match="ratio is above zero, not -1"):
        corruptions.with_noise(data, mask, -1, rng)
    with pytest.raises(InputError, match="below 200 %, not 200 %"):
        corruptions.bias_field(mask, 200, rng)
    with pytest.raises(InputError, match="from 0 %, not -5 %"):
        corruptions.with_ghosts(data, -5)
    with pytest.raises(InputError, match=r"not 1\.5"):
        corruptions.with_motion(data, (1, 1, 1), 1, 1, 1.5)
    with pytest.raises(InputError, match="do not fit into int16"):
        corruptions.as_int16(data, 1e5, 0)
