"""`medil.io.intensity`: scaling that inverts exactly and shrugs off outliers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.volume import Intensity, replace_nonfinite, robust_intensity


@pytest.fixture
def head(rng) -> torch.Tensor:
    """Two thirds black air, one third tissue around 600."""
    data = rng.normal(600, 100, size=(12, 15, 18)).clip(1)
    data[:8] = 0
    return torch.from_numpy(data).float()


def test_low_becomes_0_and_high_becomes_1():
    line = Intensity(-50.0, 150.0)
    assert line.forward(torch.tensor([-50, 50, 150])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    "line", [Intensity(0, 1083), Intensity(-1000, 3000), Intensity(-1e-3, 7e5)]
)
def test_inverse_undoes_forward_also_far_outside(line, rng):
    x = torch.from_numpy(rng.uniform(line.low - 5e3, line.high * 9, size=500)).float()
    back = line.inverse(line.forward(x))
    ulp = np.spacing(np.float32(max(abs(line.low), abs(line.high)) * 9 + 5e3))
    np.testing.assert_allclose(back, x, rtol=2e-7, atol=2 * ulp)
    assert back.dtype == line.forward(x).dtype == torch.float32


def test_every_16_bit_integer_comes_back_exactly():
    stored = torch.arange(-32768, 32768, dtype=torch.int32)
    line = Intensity(-1001.0, 436.0)
    assert torch.equal(line.inverse(line.forward(stored)).round().int(), stored)


@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (0, np.nan), (-np.inf, 0)])
def test_a_range_without_width_is_refused(pair):
    with pytest.raises(InputError, match="low < high"):
        Intensity(*pair)


def test_magnitude_images_start_at_0_and_ignore_the_black_margin(head):
    line = robust_intensity(head)
    assert line.low == 0
    assert line.high == pytest.approx(np.percentile(head[8:], 99.5), rel=0.01)
    wider = torch.nn.functional.pad(head, (20, 20, 20, 20, 20, 20))
    assert robust_intensity(wider).high == line.high


def test_a_few_hot_voxels_hardly_move_the_range(head):
    before = robust_intensity(head).high
    head[9, 3, 4] = head[10, 5, 6] = 1e6
    assert robust_intensity(head).high == pytest.approx(before, rel=0.05)


def test_negative_values_lower_the_bottom_to_a_percentile(head):
    ct = head * 2 - 1000
    line = robust_intensity(ct)
    assert line.low == -1000
    assert line.high == pytest.approx(np.percentile(ct[8:], 99.5), rel=0.01)


def test_scaling_an_image_scales_its_range(head):
    one, two = robust_intensity(head), robust_intensity(head * 4)
    assert (two.low, two.high) == (4 * one.low, 4 * one.high)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float64])
def test_every_kind_of_number_has_a_range(dtype):
    data = torch.arange(200).reshape(4, 5, 10).to(dtype)
    line = robust_intensity(data)
    assert line.low == 0 and 195 <= line.high <= 199


def test_nan_and_inf_do_not_count(head):
    expected = robust_intensity(head[8:])
    head[:8] = torch.nan
    head[0, 0, 0] = torch.inf
    assert robust_intensity(head) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0] * 99 + [-1.0], (-1.0, 5.0)), ([0.0] * 99 + [3.0], (0.0, 3.0)), ([0, 1], (0.0, 1.0))],
)
def test_nearly_constant_images_still_have_a_range(values, expected):
    line = robust_intensity(torch.tensor(values))
    assert (line.low, line.high) == expected


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_constant_images_are_refused(value):
    with pytest.raises(InputError, match="constant"):
        robust_intensity(torch.full((3, 4, 5), value))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_without_a_finite_value_are_refused(value):
    data = torch.full((3, 4, 5), value)
    with pytest.raises(InputError, match="no finite value"):
        robust_intensity(data)
    with pytest.raises(InputError, match="no finite value"):
        replace_nonfinite(data)


def test_nan_becomes_background_and_inf_the_ends(head):
    spoilt = head.clone()
    spoilt[9, 0, 0], spoilt[9, 0, 1], spoilt[9, 0, 2] = torch.nan, torch.inf, -torch.inf
    mended, n_bad = replace_nonfinite(spoilt)
    low, high = spoilt[torch.isfinite(spoilt)].aminmax()
    assert n_bad == 3
    assert mended[9, 0, :3].tolist() == [low, high, low]
    same = torch.ones_like(head, dtype=torch.bool)
    same[9, 0, :3] = False
    assert torch.equal(mended[same], head[same])
    assert torch.isnan(spoilt[9, 0, 0])  # the input is left alone


def test_finite_data_pass_unchanged(head):
    for data in (head, head.int()):
        mended, n_bad = replace_nonfinite(data)
        assert mended is data and n_bad == 0
