"""Thin structures: known tubes are seen as they are, rows and sentences say what was seen."""

from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eval import rows, rows_file
from eval.arms.train import recipe
from eval.coders.base import Scan
from eval.thin_structures import EXPERIMENT, chests, measure, page, pictures, report, scans, tubes
from eval.thin_structures.chests import Chest, Part
from eval.thin_structures.coders import SCAN, try_coder
from eval.thin_structures.train import CONTROL, TRIES, Run, gradient_error, train_run
from eval.thin_structures.tubes import FOUND_HU, Tube, half_recall_mm, look
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.rivals import build
from medil.model.weights import save_weights
from medil.synth.airway import distance_to_segment
from medil.synth.chest import chest
from medil.training.patches import prepare_scan
from medil.volume import Volume

PROVENANCE = rows.Provenance.now("quick")
GRID = Grid.from_spacing((60, 56, 64), 0.5, (-15.0, -14.0, -16.0))
TUBE = Tube(np.array([-4.0, -3.0, -9.0]), np.array([3.0, 4.0, 8.0]), 2.0, 0.8)


def drawn(tube: Tube, grid: Grid = GRID) -> np.ndarray:
    """A tube in even lung tissue: air, wall, parenchyma."""
    away = distance_to_segment(centres_mm(grid), tube.start_mm, tube.end_mm).numpy()
    values = np.where(away < tube.radius_mm + tube.wall_mm, 40.0, -850.0)
    return np.where(away < tube.radius_mm, -1000.0, values)


# Tubes


def test_a_resolved_tube_has_its_depth_and_its_radius():
    seen = look(drawn(TUBE), GRID, TUBE)
    assert seen.is_found and seen.contrast == pytest.approx(1, abs=0.1)
    assert seen.radius_mm == pytest.approx(TUBE.radius_mm, abs=0.2)


def test_an_artery_beside_a_tube_does_not_move_its_profile():
    alone = drawn(TUBE)
    sideways = np.array([3.4, -3.4, 0.0])
    artery = distance_to_segment(
        centres_mm(GRID), TUBE.start_mm + sideways, TUBE.end_mm + sideways
    ).numpy()
    beside = np.where((artery < 1.8) & (alone == -850.0), 40.0, alone)
    assert not np.array_equal(alone, beside)
    radii, values = tubes.profile(alone, GRID, TUBE)
    close = radii < TUBE.radius_mm + TUBE.wall_mm
    np.testing.assert_allclose(tubes.profile(beside, GRID, TUBE)[1][close], values[close], atol=60)


@pytest.mark.parametrize("hidden", [np.full(GRID.shape, -850.0), -drawn(TUBE)])
def test_where_no_darker_axis_is_no_lumen_is_found(hidden):
    assert not look(hidden, GRID, TUBE).is_found
    assert np.isnan(look(-drawn(TUBE), GRID, TUBE).radius_mm)


def test_the_rule_is_half_of_the_step_from_tissue_to_air():
    assert FOUND_HU == 75.0


def test_half_recall_lies_where_half_is_found():
    radii = np.geomspace(0.4, 4, 200)
    assert half_recall_mm(radii, radii > 1.1) == pytest.approx(1.1, rel=0.05)
    assert half_recall_mm(radii, np.ones(200, bool)) == pytest.approx(0.4, rel=0.05)


# Chests


@pytest.fixture(scope="module")
def small_chest():
    return chest(2, generations=5)


@pytest.fixture
def part(monkeypatch, small_chest, tmp_path):
    """The parts of a chest, small and coarse, in a folder."""
    monkeypatch.setattr(chests, "grown", lambda seed: small_chest)
    monkeypatch.setattr(chests, "SIDE_MM", 60.0)
    monkeypatch.setattr(chests, "SMALL_MM", 3.5)
    monkeypatch.setattr(chests, "SHAMS", 3)
    monkeypatch.setitem(chests.SCANS, "thin slices", (1.5, 1.5, 1.5))
    return Chest(2, "thin slices"), tmp_path


def test_parts_hold_their_airways_and_are_scanned_once(part):
    which, folder = part
    first, again = which.parts(folder), which.parts(folder)
    assert len(first) == 3 and len(list(folder.iterdir())) == 1
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.volume.data, two.volume.data)
        assert one.airways
        assert all(chests.is_scored(t, one.volume.grid) for t in one.airways)
    shams, airways = first[2].shams, chests.tubes(chests.grown(2))
    assert shams
    for sham in shams:
        middle = (sham.start_mm + sham.end_mm) / 2
        points = torch.from_numpy(middle)[None]
        away = [float(distance_to_segment(points, t.start_mm, t.end_mm)) for t in airways]
        assert min(np.array(away) - [2.5 * t.radius_mm for t in airways]) > 0


def test_a_chest_gives_rows_that_its_task_promises(part):
    which, folder = part
    coders = [Scan()]
    made = measure.measure(which, coders, folder, PROVENANCE)
    assert measure.wanted(which, coders) <= {row.identity for row in made}
    recall = {row.condition: row.value for row in made if row.metric == "recall"}
    assert recall and all(0 <= value <= 1 for value in recall.values())
    assert max(recall.values()) == 1


def test_bins_cover_all_radii():
    assert measure.bin_of(0.3) == measure.bins()[0] == "0.35-0.45"
    assert measure.bin_of(0.45) == "0.45-0.55" and measure.bin_of(9.0) == "5-8.5"


def test_training_and_test_chests_share_no_seed():
    assert chests.TRAIN_SEED not in chests.TEST_SEEDS
    assert max(chests.TEST_SEEDS) < chests.TRAIN_SEED


def test_focal_training_draws_half_of_its_places_around_small_airways(tmp_path, small_chest,
                                                                      monkeypatch):  # fmt: skip
    monkeypatch.setattr(chests, "grown", lambda seed: small_chest)
    monkeypatch.setattr(chests, "SMALL_MM", 3.5)
    grid = Grid.from_spacing((80, 60, 70), 2.0, (-80.0, -50.0, -110.0))
    volume = Volume(torch.full(grid.shape, -850, dtype=torch.int16), grid)
    chests.draw_once(tmp_path / chests.training_file(0), 0, volume)
    [plain], [focal] = (chests.training_scans(1, f, tmp_path) for f in (False, True))
    small = {tuple(p) for p in focal.foreground[len(plain.foreground) :].tolist()}
    assert len(focal.foreground) >= 2 * len(plain.foreground)
    assert 0 < len(small) < len(plain.foreground)


# Tries


def test_the_gradient_loss_sees_edges_and_no_offset():
    truth = torch.zeros(1, 1, 6, 7, 8)
    truth[..., 3:, :, :] = 1.0
    assert gradient_error(truth + 0.3, truth) == gradient_error(truth, truth)
    assert gradient_error(torch.zeros_like(truth), truth) > 2 * gradient_error(truth, truth)


def test_every_try_differs_from_the_control_and_is_named_by_all_it_depends_on(tmp_path):
    runs = [Run(name, 0, 1.0, 4) for name in TRIES]
    assert len({run.path(tmp_path) for run in runs}) == len(TRIES)
    assert Run(CONTROL, 0, 2.0, 4).digest != runs[0].digest
    for name in TRIES:
        model = TRIES[name].model
        assert model.latent_channels * (4 / model.latent_spacing_mm) ** 3 == 8
    with pytest.raises(InputError, match="no try 'huge'"):
        Run("huge", 0, 1.0, 4)


def test_a_run_is_trained_once(tmp_path, monkeypatch):
    from eval.arms import timed
    from eval.thin_structures import train

    data = torch.rand(24, 24, 24)
    scan = prepare_scan(Volume(data, Grid.from_spacing((24, 24, 24), 1.0)))
    monkeypatch.setattr(train, "training_scans", lambda count, focal, folder: [scan])
    monkeypatch.setattr(timed, "LEAST_STEPS", 4)
    monkeypatch.setattr(train, "recipe", lambda: recipe(patch_mm=16.0))
    run = Run("gradient", 0, 1e-4, 1)
    path = train_run(run, tmp_path)
    written = path.stat().st_mtime_ns
    assert path.exists() and run.done(tmp_path)
    assert train_run(run, tmp_path).stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["control", "conv"])
def test_every_architecture_keeps_as_many_numbers_and_gives_hu_back(name, tmp_path):
    pytest.importorskip("monai", reason="MONAI (extra eval) is not installed")
    run = Run(name, 0, 1.0, 1)
    path = run.path(tmp_path)
    save_weights(build(run.config.model), run.config, path, {}, half=False)
    grid = Grid.from_spacing((24, 20, 16), (1.0, 1.0, 1.5))
    data = 40.0 + 300.0 * torch.sin(torch.linspace(0, 3, 24))[:, None, None].expand(grid.shape)
    coder = try_coder(run, tmp_path)
    kept = coder.encode(Volume(data.to(torch.int16), grid))
    assert kept.numbers == 6 * 5 * 6 * TRIES[name].model.latent_channels
    error_hu = np.abs(coder.decode(kept, grid) - data.numpy())
    assert error_hu.mean() < 0.1 * float(data.max() - data.min())


# Real CT


def test_a_body_is_filled_slice_by_slice():
    data = np.full((20, 20, 4), -1000.0)
    data[2:18, 2:18] = 40.0
    data[6:14, 6:14] = -850.0
    mask = scans.body(data)
    assert mask[10, 10].all() and not mask[0].any()
    with pytest.raises(InputError, match="denser than air"):
        scans.body(np.full((8, 8, 8), -1000.0))


def test_errors_are_those_that_a_window_shows():
    truth = np.array([-1000.0, -800.0, 40.0, 500.0]).reshape(4, 1, 1)
    estimate = truth + np.array([50.0, 30.0, -20.0, 100.0]).reshape(4, 1, 1)
    mask = np.ones(truth.shape, bool)
    lung = scans.window_errors(truth, estimate, mask, "lung")
    assert lung["mae_hu"] == pytest.approx(25.0)  # bone is white in both
    soft = scans.window_errors(truth, estimate, mask, "mediastinum")
    assert soft["mae_hu"] == pytest.approx(5.0)
    assert soft["psnr"] == pytest.approx(20 * np.log10(350 / 10))


def test_the_part_of_a_real_scan_lies_between_lung_and_middle(monkeypatch):
    grid = Grid.from_spacing((60, 40, 5), (4.0, 4.0, 5.0))
    data = torch.full(grid.shape, -1000, dtype=torch.int16)
    data[4:56, 4:36] = 40
    data[8:26, 8:32] = data[34:52, 8:32] = -850
    monkeypatch.setattr(page.scans, "load_scan", lambda entry: Volume(data, grid))
    part = page.part_of_lungs(None)
    assert part.data.shape == (27, 27, 5)  # 110 mm in plane, all slices
    middle_mm = grid.centre_mm[0]
    assert middle_mm < part.grid.centre_mm[0] < middle_mm + 60


def test_what_is_compared_now_stands_beside_its_row(part, tmp_path):
    which, folder = part
    rows_file.append_rows(tmp_path / "thin_structures.jsonl", [
        r for r in measure.measure(which, [Scan()], folder, PROVENANCE)
    ])  # fmt: skip
    frame = EXPERIMENT.recorded(tmp_path)
    line = page.now_and_then(which, which.parts(folder), [Scan()], frame).iloc[0]
    assert line["now (mm)"] == line["recorded (mm)"]


# Tables and sentences


def row(subject, arm, condition, metric, value, seed=0) -> rows.Row:
    about = rows.Measurement("thin_structures", subject, arm, condition, f"c{arm}", "d", f"w{arm}")
    sampling = rows.Sampling("0.6", "0.6", 8, 300)
    return about.rows({metric: value}, measure.UNITS, sampling, 1.0,
                      replace(PROVENANCE, seed=seed))[0]  # fmt: skip


@pytest.fixture
def frame(tmp_path) -> pd.DataFrame:
    made = []
    half = {SCAN: 0.6, "medil": 1.4, "dct_ball": 1.2, CONTROL: 1.3, "focal": 1.0, "finer": 1.4}
    for k in range(6):
        for arm, value in half.items():
            about = f"chest_{k:02d}", arm
            made.append(row(*about, "thin slices | all radii", "half_recall_mm", value + 0.01 * k))
            for n, name in enumerate(measure.bins()):
                where = f"thin slices | {name}"
                made.append(row(*about, where, "recall", min(1, n / 5)))
                made.append(row(*about, where, "airways", 10.0 - n))
    for arm in ("medil", "dct_ball"):
        for shown in scans.SHOWN:
            for metric, value in {"mae_hu": 20.0 if arm == "medil" else 25.0, "psnr": 30.0}.items():
                made.append(row("ct_lung1", arm, f"{shown} window | training", metric, value))
    rows_file.append_rows(tmp_path / "thin_structures.jsonl", made)
    return EXPERIMENT.recorded(tmp_path)


def test_the_verdict_has_three_sentences_of_numbers(frame):
    lines = EXPERIMENT.verdict(frame).splitlines()
    assert len(lines) == 3
    assert "0.62 [0.61, 0.64] mm in the scan itself" in lines[0] and "6 chests" in lines[0]
    assert "lowers that radius most, by -23 % [-23 %, -23 %], which reaches" in lines[1]
    assert "20.0 HU in the lung window (cosines 25.0)" in lines[2] and "1 scan" in lines[2]


def test_tables_name_every_arm_that_is_recorded(frame):
    made = report.tables(frame)
    half = made["thin_structures_half"]
    assert list(half["n"]) == ["6 × 1"] * 6
    tries = made["thin_structures_tries"].set_index("Change")["against control"]
    assert tries["control"] == "" and tries["patches around small airways"].startswith("-23 %")
    airways = made["thin_structures_counts"]["thin slices: airways"]
    assert airways.iloc[0] == "60 in 6"


def test_curves_have_bands_and_the_limits(frame):
    found = report.curve(frame, SCAN, "thin slices", "recall")
    assert len(found.radius_mm) == len(measure.bins())
    assert (found.band[0] <= found.means).all() and (found.means <= found.band[1]).all()
    assert report.limits_mm("thin slices") == {"voxels, in plane": 0.3, "latent": 1.0}
    figure = pictures.recall_curves(frame, [SCAN, "medil"], ["thin slices"])
    assert len(figure.axes[0].collections) == 2  # a band each


def test_an_airway_is_straightened_along_its_axis(small_chest):
    grid = Grid.from_spacing((60, 60, 60), 2.0, (-60.0, -60.0, -90.0))
    path = pictures.course(small_chest, grid)
    assert path[0]["radius_mm"] > path[-1]["radius_mm"]
    points, radii = pictures.straightened(path)
    middle = pictures.true_reader(small_chest)(points[:, points.shape[1] // 2])
    assert len(radii) == len(points) and np.mean(middle == -1000.0) > 0.95
    figure = pictures.along_airways(path, {"truth": pictures.true_reader(small_chest)})
    assert figure.axes[0].get_ylabel().startswith("radius")


def test_scores_tell_airways_from_shams():
    sham = Tube(np.array([6.0, -9.0, -5.0]), np.array([6.0, -9.0, 5.0]), 1.0, 0.3)
    part = Part(Volume(torch.from_numpy(drawn(TUBE)), GRID), (TUBE,), (sham,))
    found = measure.scores([part], [drawn(TUBE)])
    assert found[measure.bin_of(2.0)]["recall"] == 1.0
    assert found[measure.bin_of(1.0)] == {"false_alarms": 0.0}


def test_too_few_chests_are_refused(tmp_path):
    options = Namespace(profile="quick", tries=None, minutes=None, seeds=None, chests=0)
    options.data, options.train_only, options.workers = tmp_path, False, 0
    with pytest.raises(InputError, match="at least 1"):
        measure.tasks(options, PROVENANCE)


def asked(**more) -> Namespace:
    """Options of a quick run."""
    told = {"profile": "quick", "tries": None, "minutes": None, "seeds": None, "chests": None}
    return Namespace(**{**told, "train_only": False, "workers": 0, **more})


def test_a_profile_trains_first_and_scores_chests_and_real_scans_by_every_coder(
    tmp_path, monkeypatch
):
    done = []
    grid = Grid.from_spacing((20, 22, 16), 2.0)
    data = torch.full(grid.shape, -1000.0)
    data[3:17, 3:19, 2:14] = 40.0  # a body with a lung in it
    data[6:12, 6:12, 2:14] = -800.0
    entry = SimpleNamespace(subject="one", sha256="e" * 64)
    codecs = measure.fixed_coders()
    monkeypatch.setattr(measure, "train_all", lambda runs, folder: done.append(runs))
    monkeypatch.setattr(measure, "scan_all", lambda chests, folder, workers: done.append(chests))
    monkeypatch.setattr(measure, "released", lambda: [])
    monkeypatch.setattr(measure.scans, "scans", lambda: [entry])
    monkeypatch.setattr(measure.scans, "load_scan", lambda entry: Volume(data, grid))

    assert measure.tasks(asked(data=tmp_path, train_only=True, tries=list(TRIES)[:2]), None) == []
    (runs,) = done
    assert [run.name for run in runs] == list(TRIES)[:2]

    found = measure.tasks(asked(data=tmp_path, chests=2), PROVENANCE)
    chosen = [(c.seed, c.scan) for c in done[2]]
    assert chosen == [(seed, "thin slices") for seed in chests.TEST_SEEDS[:2]]
    *of_chests, real = found
    assert len(of_chests) == 2 and real.name == "one, codecs"
    made = real.measure()
    assert {row.identity for row in made} == real.wanted
    assert {row.arm for row in made} == {coder.name for coder in codecs} - {SCAN}
    assert {row.condition.split(" window")[0] for row in made} == set(scans.SHOWN)
    assert all(np.isfinite(row.value) for row in made)
