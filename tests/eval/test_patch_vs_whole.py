"""Patches against the whole, where the answer is known, and the sentences made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from eval import rows
from eval.coders.base import CodecCoder, ReleaseCoder
from eval.patch_vs_whole import EXPERIMENT, measure, report
from eval.robustness import heads
from eval.subjects import Scan, Subject, cut_box
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume

CASES = ((16, 0, False), (16, 8, False), (32, 0, False))


@pytest.fixture(scope="module")
def head() -> Scan:
    """A smooth texture in an ellipsoid: 40 x 72 x 40 mm at 1 mm."""
    axes = np.ogrid[:40, :72, :40]
    inside = sum(((a - m) / r) ** 2 for a, m, r in zip(axes, (20, 36, 20), (19, 35, 19))) < 1
    wave = np.sin(axes[0] / 2) * np.cos(axes[1] / 3) * np.sin(axes[2] / 2)
    data = np.where(inside, 0.6 + 0.3 * wave, 0.0)
    grid = Grid.from_spacing(data.shape, 1.0, (5.0, -9.0, 2.0))
    return Scan(Volume(torch.from_numpy(data).float(), grid), inside)


@pytest.fixture(scope="module")
def small(head, spline_model):
    """The experiment at toy size: splines alone, one head."""
    subject = Subject("toy", "a" * 64, (), lambda: head)
    sizes = {"BLOCK_MM": 32.0, "BAR_MM": 64, "THICK_MM": 16, "FIRST_MM": 24}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**sizes, "REACH_HALOS_MM": (0, 8, 24, 40), "CASES": CASES}.items():
            patch.setattr(measure, name, value)
        patch.setattr("eval.coders.base.loaded", lambda release: spline_model)
        patch.setattr(measure, "loaded", lambda release: spline_model)
        patch.setattr(measure, "heads", lambda profile: [subject])
        yield subject


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "rows"
    assert EXPERIMENT.main(["--out", str(folder), "--workers", "0"]) == 0
    return folder


@pytest.fixture
def frame(folder) -> pd.DataFrame:
    return EXPERIMENT.recorded(folder)


def test_one_patch_is_the_whole_and_a_halo_brings_more_nearer_to_it(spline_model, head):
    block = cut_box(head, heads.block_of(head, (32.0,) * 3))
    scores = {k: v[0] for k, v in measure.score_block(spline_model, block, CASES).items()}
    without, with_halo, one = (scores[measure.condition(case)] for case in CASES)
    assert one["difference"] == one["drift"] == one["psnr_gain"] == 0
    assert np.isnan(one["seam"])  # no face
    assert without["difference"] > 10 * with_halo["difference"] > 0
    assert without["seam"] - 1 > 10 * abs(with_halo["seam"] - 1)
    assert without["drift"] <= without["difference"]


def test_psnr_is_that_of_patches_less_that_of_the_whole(spline_model, head):
    from eval import metrics
    from eval.patch_vs_whole import patches

    block = cut_box(head, heads.block_of(head, (32.0,) * 3))
    x = measure.scaled(block)
    grid = block.volume.grid
    truth = x.double().numpy()
    peak = metrics.peak_intensity(truth, block.mask)
    apart = patches.rebuilt_by_patches(spline_model, x, grid, 16.0).double().numpy()
    whole = patches.rebuilt_whole(spline_model, x, grid).double().numpy()
    expected = metrics.psnr(truth, apart, block.mask, peak) - metrics.psnr(
        truth, whole, block.mask, peak
    )
    found = measure.score_block(spline_model, block, CASES[:1])
    assert found[measure.condition(CASES[0])][0]["psnr_gain"] == pytest.approx(expected)


def test_the_bar_lies_along_the_second_axis_through_the_middle(small, head):
    bar = cut_box(head, measure.bar_of(head))
    np.testing.assert_allclose(bar.volume.grid.extent_mm, (16, 64, 16))
    middle = head.volume.grid.index_to_ras(np.argwhere(head.mask).mean(0))
    np.testing.assert_allclose(bar.volume.grid.centre_mm, middle, atol=0.6)


def test_what_lies_beyond_the_splines_reach_changes_nothing(small, spline_model, head):
    bar = cut_box(head, measure.bar_of(head))
    reach = [v[0]["largest_black"] for v in measure.score_reach(spline_model, bar).values()]
    assert reach[0] > 10 * reach[1] > 100 * reach[2]
    assert reach[-1] == 0  # all of the bar


def test_what_is_recorded_is_what_was_promised_and_only_once(small, folder, frame, capsys):
    arms = [ReleaseCoder("tiny"), ReleaseCoder("tiny", splines_alone=True)]
    found = set(frame[list(rows.IDENTITY)].itertuples(index=False, name=None))
    assert found == set(measure.wanted(small, arms, CASES))
    assert len(found) == len(frame)
    assert EXPERIMENT.main(["--out", str(folder), "--workers", "0"]) == 0
    assert "0 new rows" in capsys.readouterr().out


def test_other_coders_have_no_cells_to_share():
    with pytest.raises(InputError, match="bspline has none"):
        measure.model_of(CodecCoder("bspline", 4.0, 8))


def test_conditions_are_read_back_as_they_were_asked(frame):
    found = frame
    patches = found[found["side_mm"] > 0]
    asked = set(patches[["side_mm", "halo_mm", "own_scale"]].itertuples(index=False, name=None))
    assert asked == set(CASES)
    assert set(found[found["side_mm"] == 0]["halo_mm"]) == set(measure.REACH_HALOS_MM)


def synthetic(frame: pd.DataFrame, metric: str, value: float) -> pd.DataFrame:
    return frame.assign(value=frame["value"].where(frame["metric"] != metric, value))


def test_verdict_says_what_the_numbers_allow(frame):
    told = report.verdict(synthetic(frame, "largest_black", 1e-5))
    assert "Blocks of n = 1 held-out heads" in told
    assert "From 0 mm on it is rounding (at most 0.0001 %)" in told
    told = report.verdict(synthetic(frame, "largest_black", 0.5))
    assert "No halo below 40 mm, the whole bar, reduces it to rounding" in told
    told = report.verdict(synthetic(frame, "seam", 1.2))
    assert "within 2 % of the whole block's with none of the halos" in told


def test_the_table_says_that_one_patch_is_the_whole(frame):
    table = report.patches_table(frame)
    assert set(table["Code"]) == set(report.ARMS.values())
    one = table[table["Patch side (mm)"] == 32].iloc[0]
    assert one["Difference (% of peak)"] == "0 [0, 0]" and one["n"] == 1
