"""Faults against what they claim, and the words that are made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eval import metrics
from eval.faults import distortions
from eval.faults import pictures as distortion_figures
from eval.faults.distortions import FAULTS, Block, at_psnr, block_of, harm, told_apart
from eval.faults.page import matrix_words
from eval.subjects import Scan
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume


def wave(grid: Grid, wavelength_mm: float, shift_mm: float = 0.0) -> np.ndarray:
    """A standing wave along each axis in mm, moved towards +R, +A and +S alike."""
    axes = [(np.arange(n) + 0.5) * s - shift_mm / math.sqrt(3)
            for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]  # fmt: skip
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    k = 2 * np.pi / wavelength_mm
    return 100 + 20 * np.cos(k * x) * np.cos(k * y) * np.cos(k * z)


@pytest.fixture
def block() -> Block:
    grid = Grid.from_spacing((40, 32, 36), (1.0, 1.25, 1.1))
    truth = wave(grid, 8.0)
    mask = np.zeros(truth.shape, dtype=bool)
    mask[8:-8, 7:-7, 8:-8] = True
    elsewhere = np.random.default_rng(0).normal(size=truth.shape) * 10
    return Block(truth, mask, grid, 120.0, elsewhere)


@pytest.mark.parametrize("name", FAULTS)
def test_a_dial_at_zero_is_the_truth_and_a_turned_one_is_not(block, name):
    np.testing.assert_allclose(FAULTS[name].apply(block, 0.0), block.truth, atol=1e-9)
    error = [np.abs(FAULTS[name].apply(block, s * FAULTS[name].most) - block.truth).mean()
             for s in (0.05, 0.3)]  # fmt: skip
    assert 0 < error[0] < error[1]


def test_a_shift_moves_content_by_so_many_mm_on_any_voxels(block):
    moved = distortions.shift(block, 1.3)
    expected = wave(block.grid, 8.0, shift_mm=1.3)
    assert np.abs(moved - expected)[block.mask].max() < 0.2  # of waves of 20
    assert np.abs(block.truth - expected)[block.mask].max() > 10


def test_a_blur_damps_a_wave_by_its_closed_form(block):
    k = 2 * np.pi / 8.0
    damped = distortions.blur(block, 1.2)
    expected = 100 + (block.truth - 100) * np.exp(-3 * (k * 1.2) ** 2 / 2)
    assert np.abs(damped - expected)[block.mask].max() < 0.2


def test_ringing_cuts_what_is_finer_than_the_dial_and_nothing_else(block):
    kept = distortions.ringing(block, 1.0)  # voxels of 2 to 2.25 mm still hold 8 mm
    assert np.abs(kept - block.truth)[block.mask].max() < 3
    gone = distortions.ringing(block, 5.0)  # voxels of 6 mm do not
    assert np.abs(gone - 100)[block.mask].mean() < 1


def test_noise_has_the_power_of_its_dial_and_no_mean(block):
    added = distortions.noise(block, 5.0) - block.truth
    assert added.std() == pytest.approx(0.05 * block.peak, rel=0.02)
    assert abs(added.mean()) < 0.1
    np.testing.assert_array_equal(added, distortions.noise(block, 5.0) - block.truth)


def test_bias_is_a_gain_of_at_most_its_dial(block):
    gain = distortions.bias(block, 20.0) / block.truth - 1
    assert np.abs(gain).max() == pytest.approx(0.20)


@pytest.mark.parametrize("name", FAULTS)
def test_dials_are_found_that_cost_the_same_psnr(block, name):
    dial, spoiled = at_psnr(block, FAULTS[name], 27.0)
    reached = metrics.psnr(block.truth, spoiled, block.mask, block.peak)
    assert reached == pytest.approx(27.0, abs=0.02)
    np.testing.assert_array_equal(spoiled, FAULTS[name].apply(block, dial))


def test_a_psnr_out_of_reach_is_refused(block):
    with pytest.raises(InputError, match="no bias field costs"):
        at_psnr(block, FAULTS["bias"], -20.0)


def brain() -> Scan:
    """A lopsided ball with one bright spot, in a grid with more room on one side."""
    grid = Grid.from_spacing((50, 44, 42), (1.0, 1.0, 1.0), (-30.0, 0.0, 0.0))
    i, j, k = np.indices(grid.shape)
    mask = (i - 22) ** 2 + (j - 21) ** 2 + (k - 20) ** 2 < 17**2
    data = np.where(mask, 100.0, 0.0)
    data[14, 27, 20] += 50.0
    return Scan(Volume(torch.from_numpy(data).float(), grid), mask)


def test_false_folds_are_detail_turned_back_to_front_and_moved_aside_in_mm():
    scan = brain()
    centre_mm = scan.volume.grid.index_to_ras((22, 21, 20))
    block = block_of(scan, centre_mm, 38.0)
    here = np.unravel_index(np.argmax(block.truth), block.truth.shape)
    np.testing.assert_allclose(
        block.grid.index_to_ras(here), centre_mm + np.array((-8, 6, 0)), atol=1e-6
    )
    spot = np.unravel_index(np.argmax(block.elsewhere), block.truth.shape)
    moved_mm = centre_mm + np.array((-8 + distortions.ASIDE_MM, -6, 0))
    np.testing.assert_allclose(block.grid.index_to_ras(spot), moved_mm, atol=1e-6)
    # The rim of the brain is no detail: only the spot and its surroundings are.
    far = np.linalg.norm(np.indices(block.truth.shape).T - np.array(spot), axis=-1).T > 14
    assert np.abs(block.elsewhere[far]).max() < 0.05


def test_what_is_scored_keeps_away_from_the_faces_of_the_block():
    scan = brain()
    block = block_of(scan, scan.volume.grid.index_to_ras((22, 21, 20)), 38.0)
    where = np.argwhere(block.mask)
    assert where.min() >= 6 and (where.max(axis=0) < np.array(block.truth.shape) - 6).all()
    with pytest.raises(InputError, match="no brain lies"):
        block_of(scan, scan.volume.grid.index_to_ras((44, 38, 36)), 16.0)


SCORES = {
    "blur": {"psnr": 30.0, "ssim": 0.8, "edge_width_mm": 3.0, "handles_per_cm3": 0.1},
    "false_folds": {"psnr": 30.0, "ssim": 0.9, "edge_width_mm": 1.9, "handles_per_cm3": 0.8},
}
COPY = {"psnr": math.inf, "ssim": 1.0, "edge_width_mm": 2.0, "handles_per_cm3": 0.4}


def test_harm_is_relative_to_what_a_metric_minds_most_and_keeps_its_sign():
    found = harm(SCORES, COPY)
    assert set(found) == {"ssim", "edge_width_mm", "handles_per_cm3"}
    assert found["ssim"] == pytest.approx({"blur": 1.0, "false_folds": 0.5})
    assert found["edge_width_mm"] == pytest.approx({"blur": 1.0, "false_folds": -0.1})
    assert found["handles_per_cm3"] == pytest.approx({"blur": -0.75, "false_folds": 1.0})
    still = {f: {"ssim": 1.0} for f in SCORES}
    assert harm(still, {"ssim": 1.0}) == {"ssim": {"blur": 0.0, "false_folds": 0.0}}


def test_the_metrics_that_tell_two_faults_apart_come_first_and_say_which():
    table = told_apart(SCORES, COPY, ("blur", "false_folds"))
    assert list(table["metric"]) == ["handles_per_cm3", "edge_width_mm", "ssim"]
    assert list(table["minds"]) == ["more in false folds", "blur", "blur"]
    same = {"blur": {"ssim": 0.80}, "false_folds": {"ssim": 0.81}}
    assert list(told_apart(same, {"ssim": 1.0}, ("blur", "false_folds"))["minds"]) == ["neither"]


def test_figures_show_the_values_they_are_given():
    pytest.importorskip("matplotlib")
    names = ["ssim", "edge_width_mm"]
    figure = distortion_figures.curves((34, 30), [SCORES, SCORES], COPY, names)
    first = figure.axes[0]
    assert [line.get_label() for line in first.lines[:2]] == ["blur", "false folds"]
    np.testing.assert_allclose(first.lines[0].get_ydata(), [0.8, 0.8])
    assert first.get_xlim()[0] > first.get_xlim()[1]  # faults grow to the right
    figure = distortion_figures.matrix(SCORES, COPY)
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"0.8", "0.9", "3", "1.9", "2", "0.4"} <= texts
    shells = metrics.Shells(np.array([0.1, 0.2]), np.array([0.9, 0.4]), np.ones(2), 0.5)
    figure = distortion_figures.shells_beside({"a": shells}, {"a": np.array([0.8, 0.5])})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.9, 0.4])
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [0.8, 0.5])


def test_words_of_the_matrix_name_the_worst_fault_and_the_praised_one():
    copy = {"ssim": 1.0, "nrmse": 0.0, "edge_width_mm": 2.0}
    scores = {
        "blur": {"ssim": 0.5, "nrmse": 0.1, "edge_width_mm": 3.0},
        "noise": {"ssim": 0.8, "nrmse": 0.1, "edge_width_mm": 1.5},
    }
    words = matrix_words(scores, copy).splitlines()
    assert words[0].startswith("- **blur** moves most: SSIM")
    assert words[-2] == "- The same for every fault: NRMSE"
    assert words[-1].endswith(f"noise ({metrics.METRICS['edge_width_mm'].title})")
