"""The curve over voxel sizes: what is averaged and asked, and what its rows allow to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from eval import metrics, rows, rows_file
from eval.coders.base import CodecCoder
from eval.pages import gains as pages
from eval.pages.results import Recorded
from eval.pictures import voxel_sizes
from eval.reconstruction import EXPERIMENT, curve, measure, report, sizes
from eval.subjects import Scan, Subject
from medil.grid import Grid, centres_mm
from medil.model.base import LatentAutoencoder
from medil.regrid import cell_average
from medil.volume import Volume
from tests.recorded_rows import recorded

FINE = Grid.from_spacing((60, 52, 40), (0.87, 0.87, 1.0), origin_mm=(-9, 5, 30))
CUBE, THICK = (1.5, 1.5, 1.5), (1.0, 1.0, 4.0)


def ball(radius_mm: float, grid: Grid = FINE) -> Scan:
    """Random numbers in a ball, with air around it."""
    inside = np.linalg.norm(centres_mm(grid).numpy() - grid.centre_mm, axis=-1) < radius_mm
    data = np.random.default_rng(1).random(grid.shape) + 1
    return Scan(Volume(torch.from_numpy(data * inside).float(), grid), inside)


# What is asked


@pytest.mark.parametrize("spacing_mm", [CUBE, THICK, (4.0, 1.0, 1.0)])
def test_a_brain_is_averaged_over_exact_cells_and_asked_for_them(spacing_mm):
    scan = ball(12.0)
    case = sizes.averaged_to(scan, spacing_mm)
    assert case.target == case.seen_on == case.volume.grid
    assert case.target.spacing_mm == pytest.approx(spacing_mm)
    whole = scan.volume.data.double().numpy()
    np.testing.assert_allclose(case.truth, cell_average(whole, FINE, case.target), atol=1e-6)
    volume_mm3 = case.mask.sum() * np.prod(spacing_mm)
    assert volume_mm3 == pytest.approx(scan.mask.sum() * 0.87**2, rel=0.1)  # the whole ball


def test_cells_begin_at_a_phase_of_each_brain_s_own():
    starts = [
        FINE.ras_to_index(sizes.averaged_to(ball(radius), CUBE).target.corners_mm[0]) + 0.5
        for radius in np.arange(9.0, 13.0, 0.5)
    ]
    phases = np.array(starts) % 1  # in voxels
    assert np.ptp(phases, axis=0).min() > 0.3
    assert len(np.unique(phases.round(6), axis=0)) == len(phases)


def test_a_cell_of_whole_voxels_cuts_none_and_need_not_begin_at_the_first():
    grid = Grid.from_spacing((30, 31, 32), 1.0)
    starts = []
    for seed in range(12):
        cells = sizes.whole_cells(grid, (2.0, 3.0, 1.5), np.random.default_rng(seed))
        start, end = (grid.ras_to_index(corner) + 0.5 for corner in cells.corners_mm[[0, -1]])
        assert start.min() >= -1e-9 and (end <= np.array(grid.shape) + 1e-9).all()
        np.testing.assert_allclose(start[:2], np.rint(start[:2]), atol=1e-9)
        starts.append(start)
    assert {tuple(np.rint(s[:2])) for s in starts} > {(0, 0)} and np.std(starts, axis=0)[2] > 0.2


def test_the_latent_cells_of_an_average_begin_at_its_first_corner(spline_model):
    """As those of every scan: `LatentAutoencoder.latent_grid`."""
    assert isinstance(spline_model, LatentAutoencoder)
    cells = sizes.averaged_to(ball(12.0), CUBE).volume.grid
    latent = spline_model.latent_grid(cells)
    np.testing.assert_allclose(latent.corners_mm[0], cells.corners_mm[0], atol=1e-9)


def test_these_questions_are_for_brains_and_score_psnr_alone():
    brain = Subject("a", "d" * 64, ("native -> native",), lambda: ball(9.0), "brain")
    asked = sizes.asked(brain)
    assert asked.conditions == ("native -> native", *sizes.QUESTIONS)
    for other in (replace(brain, kind="head"), replace(brain, kind="")):
        assert sizes.asked(other) is other
    todo = measure.pairs(asked, [CodecCoder("cubic", 4.0, 8)])
    chosen = [p for p in todo if p[0].condition in (sizes.OWN, sizes.condition(THICK))]
    found = measure.measure(asked, chosen, rows.Provenance.now("quick"))
    assert [(r.condition, r.metric) for r in found] == [
        (sizes.OWN, "psnr"), ("1 x 1 x 4 mm -> 1 x 1 x 4 mm", "psnr"),
    ]  # fmt: skip
    assert {r.identity for r in found} == measure.identities(chosen)
    assert all(r.value > 5 for r in found)
    hashes = {p[0].config_hash for p in todo}
    assert len(hashes) == 2  # the others keep theirs


def test_every_size_is_asked_along_s_and_four_along_the_others():
    assert len(sizes.QUESTIONS) == 1 + len(sizes.CUBES_MM) + len(sizes.SLICES_MM) + 2
    assert sizes.KINDS["1 x 1 x 6 mm -> 1 x 1 x 6 mm"] == ("slices along S", (1.0, 1.0, 6.0))
    assert sizes.KINDS["4 x 1 x 1 mm -> 4 x 1 x 1 mm"] == ("slices along R", (4.0, 1.0, 1.0))
    assert "1.25 mm -> 1.25 mm" in sizes.KINDS


def test_wanted_metrics_alone_are_computed(rng):
    truth = rng.random((9, 9, 9))
    case = truth, truth + 0.1, np.ones(truth.shape, bool), (1.0, 1.0, 1.0)
    assert set(metrics.all_metrics(*case, ("psnr",))) == {"psnr"}
    assert metrics.all_metrics(*case, ("psnr",))["psnr"] == metrics.all_metrics(*case)["psnr"]


# What is said

GAINS = {  # made-up numbers of this test: condition -> gains of three brains, numbers per voxel
    sizes.OWN: ((1.4, 1.5, 1.6), 0.125),
    "1.25 mm -> 1.25 mm": ((1.0, 1.1, 1.2), 0.244),
    "1.5 mm -> 1.5 mm": ((-0.4, 0.1, 0.5), 0.422),
    "1.75 mm -> 1.75 mm": ((-1.4, -1.1, -1.5), 0.67),
    "2 mm -> 2 mm": ((-200.0, -200.0, -200.0), 1.0),
    "1 x 1 x 4 mm -> 1 x 1 x 4 mm": ((-1.0, -1.1, -1.2), 0.5),
}


def written(gains=GAINS) -> list[rows.Row]:
    """Rows of three brains; the model's gain over the ball is 1.75 dB and what is added."""
    found = []
    for condition, (values, per_voxel) in gains.items():
        for brain, gain_db in zip(("a", "b", "c"), values, strict=True):
            kept = {"n_voxels": 8000, "numbers_kept": round(8000 * per_voxel)}
            made = recorded(brain, condition, gain_db - 1.75)
            found += [replace(r, **kept) for r in made if r.metric == "psnr"]
    return found


@pytest.fixture
def frame(tmp_path) -> pd.DataFrame:
    """Prepared rows of the curve and of a brain on its own grid."""
    rows_file.append_rows(tmp_path / "reconstruction.jsonl", [*recorded(), *written()])
    return EXPERIMENT.recorded(tmp_path)


def test_a_point_has_the_paired_gain_over_the_best_linear_code(frame):
    points = curve.points(report.wide(frame)).set_index("text")
    assert list(points["said"]) == ["wins", "wins", "undecided", "loses", "no compression", "loses"]
    own = points.loc["its own"]
    assert own["gain"].mean == pytest.approx(1.5) and own["gain"].n_subjects == own["n"] == 3
    assert own["per_voxel"] == 0.125 and own["size_mm"] == own["volume_mm3"] == 1.0
    thick = points.loc["1 × 1 × 4 mm"]
    assert (thick["kind"], thick["size_mm"], thick["volume_mm3"]) == ("slices along S", 4.0, 4.0)
    assert points.loc["2 mm", "gain"] is None


def test_the_verdict_says_from_where_to_where_it_wins_and_loses(frame):
    told = report.verdict(frame)
    wins, undecided, loses, nothing = told.split("On cubes it ")[1].split(". On ")[0].split("; ")
    assert wins.startswith("wins from the scan's own voxels (+1.50 [+1.40, +1.60] dB, 0.12 numbers")
    assert wins.endswith("per voxel) to 1.25 mm (+1.10 [+1.00, +1.20] dB, 0.24 numbers per voxel)")
    assert undecided.startswith("is undecided at 1.5 mm (+0.07 [-0.40, ")
    assert loses.startswith("loses at 1.75 mm (-1.33 [-1.")
    assert nothing == "compresses nothing at 2 mm (1.00 numbers per voxel)"
    slices = "On slices along S it loses at 4 mm (-1.10 [-1.20, -1.00] dB, 0.50 numbers per voxel)."
    assert told.endswith(slices)
    assert "n = 3 real brains" in told and "not recorded" not in told and "held-out" not in told


def test_without_the_curve_the_verdict_says_what_is_recorded(tmp_path):
    rows_file.append_rows(tmp_path / "reconstruction.jsonl", [*recorded(), *recorded("head")])
    told = report.verdict(EXPERIMENT.recorded(tmp_path))
    assert "Over n = 2 held-out volumes" in told and curve.NOT_RECORDED in told


def test_the_curve_has_a_table_of_its_own_and_stays_out_of_the_others(frame):
    made = report.tables(frame)
    table = made["reconstruction_sizes"]
    assert list(table["It"]) == [*["wins", "wins", "undecided", "loses"], "no compression", "loses"]
    line = table.set_index("Size (mm)").loc["1.25 mm"]
    assert line["Above it (dB)"].startswith("+1.10 [+1.00") and line["n"] == 3
    assert line["Numbers per voxel"] == "0.244" and line["Best linear code (dB)"] == "28.25"
    assert table.set_index("Size (mm)").loc["2 mm", "Best linear code (dB)"] == "a copy"
    for name in ("reconstruction_grids", "renderings"):
        assert set(made[name]["Scan"]) == {"patient07 T1 MNI"}


def test_the_picture_of_gains_leaves_the_curve_to_its_own(frame, tmp_path):
    found = [Recorded(EXPERIMENT, rows_file.read_rows(tmp_path))]
    gains = pages.gains_by_scan(found)
    assert list(gains) == ["native -> native"]
    assert pages.gains_told(gains) == "- *native → native*: +1.75 dB (n = 1)."
    many = pd.DataFrame({"2 mm -> 1 mm": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert "mean +3.00 dB [95 % interval +1.80 to +4.20] over n = 5" in pages.gains_told(many)


def test_the_figure_has_intervals_a_zero_line_and_the_numbers_above(frame):
    figure = voxel_sizes.gains(curve.points(report.wide(frame)))
    cubes, slices = figure.axes[:2]
    (drawn,) = cubes.containers
    x, y = (np.array(values, float) for values in drawn.lines[0].get_data())
    np.testing.assert_allclose(x, [1, 1.25, 1.5, 1.75])  # not 2 mm
    np.testing.assert_allclose(y, [1.5, 1.1, 0.2 / 3, -4 / 3])
    above = [text.get_text() for text in cubes.child_axes[0].get_xticklabels()]
    assert above == ["0.12", "0.24", "0.42", "0.67", "1"]
    assert len(slices.containers) == 1
