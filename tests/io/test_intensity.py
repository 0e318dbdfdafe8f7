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


# Offsets


def scaled_from_zero(data) -> tuple[float, float]:
    """The range that releases before 1.0 were trained with, for images without negative values."""
    values = np.sort(np.asarray(data[data > 0], np.float64))
    return 0.0, float(values[round((len(values) - 1) * 0.995)])


@pytest.mark.parametrize("factor", [1, 0.37, 4000])
def test_scans_with_a_background_keep_their_scale_to_the_last_bit(head, factor):
    noisy = head + torch.rand(head.shape, generator=torch.Generator().manual_seed(0)) * 9
    for data in (head * factor, noisy * factor, (noisy * factor).round().int()):
        line = robust_intensity(data)
        assert (line.low, line.high) == scaled_from_zero(data.numpy())


def test_real_scans_keep_their_scale_to_the_last_bit(mirror):
    from medil.volume import load

    names = ["longitudinal_patient01_study1_T1W", "cross_sectional_patient07_T1_MNI"]
    for path in [mirror / "open_ms_t1" / f"{name}.nii.gz" for name in names]:
        data = load(path).data
        line = robust_intensity(data)
        thinned = data.reshape(-1)[:: -(-data.numel() // 2_000_000)].numpy()
        assert (line.low, line.high) == scaled_from_zero(thinned)


@pytest.mark.parametrize("offset", [0.0, 20.0, 300.0, 27_300.0, -27_320.0, 60_000.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.int32])
def test_an_offset_changes_no_contrast(rng, offset, kind):
    spread = torch.from_numpy(rng.uniform(0, 20, size=(12, 13, 14)))
    line = robust_intensity((spread + offset).to(kind))
    if offset in (0.0, 20.0):  # 20 to 40 might as well be a scan without air
        assert line.low == 0
    else:
        assert line.low == pytest.approx(offset, abs=1.1)
        assert line.high - line.low == pytest.approx(20, abs=1.1)
    scaled = line.forward((spread + offset).to(kind))
    assert scaled.std() > 0.1


@pytest.mark.parametrize(
    "pair", [(1e10, 1e10 + 1), (0, 1e39), (-3e38, 3e38), (0, 1e-40), (1, 1 + 1e-6)]
)
def test_ranges_that_float32_cannot_resolve_are_refused(pair):
    with pytest.raises(InputError, match="float32"):
        Intensity(*pair)


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


def test_voxels_without_a_value_continue_the_image_around_them():
    plane = torch.arange(20.0)[:, None, None].expand(20, 9, 7).clone()
    spoilt = plane.clone()
    spoilt[:2], spoilt[10, 3, 4], spoilt[15, 0, 0] = torch.nan, torch.inf, -torch.inf
    mended, n_missing = replace_nonfinite(spoilt)
    assert n_missing == 2 * 9 * 7 + 2
    kept = torch.isfinite(spoilt)
    assert torch.equal(mended[kept], plane[kept])
    assert (mended - plane).abs().max() <= 3  # from the nearest blocks
    assert torch.isnan(spoilt[0, 0, 0])  # the input is left alone
    marked, _ = replace_nonfinite(spoilt, background=-5)
    assert (marked[~kept] == -5).all() and torch.equal(marked[kept], plane[kept])


@pytest.mark.parametrize("shape", [(1, 1, 5), (3, 1, 2), (8, 8, 8), (9, 17, 2)])
def test_a_single_value_fills_an_image(shape):
    data = torch.full(shape, torch.nan)
    data[-1, -1, -1] = 7
    mended, _ = replace_nonfinite(data)
    assert (mended == 7).all()


def test_finite_data_pass_unchanged(head):
    for data in (head, head.int()):
        mended, n_bad = replace_nonfinite(data)
        assert mended is data and n_bad == 0
