"""The experiment: cases in mm, equal sizes, nothing computed twice, nothing lost."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from eval import metrics, report, rows, rows_file, runner
from eval.coders.base import CodecCoder, Interpolation, all_coders, release_coders
from eval.reconstruction import EXPERIMENT
from eval.reconstruction import measure as reconstruction
from eval.subjects import CONDITIONS, INTERPOLATED, Scan, Subject, subjects, whole_blocks
from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.model.codecs import CODECS
from medil.model.weights import save_weights
from medil.volume import Volume

BLOCKS = ("native -> native", "native -> 2 mm", "native -> 1 x 1 x 3 mm", "2 mm -> 1 mm")


@pytest.fixture
def scan(rng) -> Scan:
    """A ball of smooth texture at 1 mm, uneven shape, off-centre."""
    grid = Grid.from_spacing((25, 22, 23), 1.0, origin_mm=(-9, 5, 30))
    texture = ndimage.gaussian_filter(rng.normal(size=grid.shape), 1.2)
    ball = np.linalg.norm(centres_mm(grid).numpy() - grid.centre_mm, axis=-1) < 9
    data = np.where(ball, 600 + 300 * texture / texture.std(), 0).clip(min=0)
    return Scan(Volume(torch.from_numpy(data).float(), grid), ball)


@pytest.fixture
def subject(scan) -> Subject:
    return Subject("ball", "d" * 64, BLOCKS, lambda: scan)


@pytest.fixture
def weights(tmp_path, spline_model) -> str:
    path = save_weights(spline_model, preset("test"), tmp_path / "m.safetensors", {}, half=False)
    return str(path)


@pytest.fixture
def provenance() -> rows.Provenance:
    return rows.Provenance.now("quick")


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 1, 3), (3, 2, 1)])
def test_whole_blocks_are_blocks_of_voxels_in_place(grid, factors):
    coarse = whole_blocks(grid, factors)
    np.testing.assert_allclose(coarse.spacing_mm, np.multiply(grid.spacing_mm, factors))
    faces = grid.ras_to_index(coarse.corners_mm) + 0.5  # in voxels, from the first face
    np.testing.assert_allclose(faces, np.rint(faces), atol=1e-9)
    assert faces.min() >= -1e-9 and (faces.max(0) <= np.asarray(grid.shape) + 1e-9).all()


@pytest.mark.parametrize("condition", BLOCKS)
def test_a_ramp_in_mm_is_the_same_ramp_as_the_truth_of_every_case(grid, condition):
    if condition == "native -> 2 mm":  # blocks of 1 mm voxels
        grid = Grid.from_spacing(grid.shape, 1.0, (4.0, -7.0, 30.0))
    ramp = lambda g: centres_mm(g) @ torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)  # noqa: E731
    scan = Scan(Volume(ramp(grid), grid), np.ones(grid.shape, dtype=bool))
    case = CONDITIONS[condition](scan)
    np.testing.assert_allclose(case.truth, ramp(case.seen_on).numpy(), atol=1e-9)
    np.testing.assert_allclose(case.volume.data, ramp(case.volume.grid), atol=1e-4)
    assert case.mask.all()


def test_a_brain_of_finer_voxels_is_asked_for_2_mm_and_encoded_at_1_mm():
    """Voxels of 0.75 mm: three of them are averaged to 2.25 mm, of which 2 mm cells take parts."""
    grid = Grid.from_spacing((16, 16, 12), (0.75, 0.75, 1.0), origin_mm=(-9, 5, 30))
    data = torch.arange(grid.n_voxels, dtype=torch.float64).reshape(grid.shape)
    scan = Scan(Volume(data, grid), np.ones(grid.shape, dtype=bool))
    coarser = CONDITIONS["native -> 2 mm"](scan)
    assert coarser.target.spacing_mm == (2.0, 2.0, 2.0) and coarser.volume is scan.volume
    assert coarser.target.shares_extent(grid, tolerance_mm=1e-9)
    weights = np.array([0.75, 0.75, 0.5]) / 2  # of the first voxels in the first cell
    first = np.einsum("i,j,ijk->", weights, weights, data[:3, :3, :2].numpy()) / 2
    assert coarser.truth[0, 0, 0] == pytest.approx(first)
    finer = CONDITIONS["1 mm -> native"](scan)
    assert finer.volume.grid.spacing_mm == (1.0, 1.0, 1.0) and finer.seen_on == grid
    assert finer.volume.data.mean().item() == pytest.approx(data.mean().item())
    np.testing.assert_array_equal(finer.truth, data.numpy())


def test_thin_slices_cut_the_thick_axis_and_are_seen_where_they_were_measured(grid):
    data = torch.rand(grid.shape, dtype=torch.float64)
    scan = Scan(Volume(data, grid), np.ones(grid.shape, dtype=bool))
    case = CONDITIONS["native -> thin slices -> native"](scan)
    assert case.target.spacing_mm == pytest.approx((1.0, 1.5, 1.0))
    assert case.target.shares_extent(grid, tolerance_mm=1e-9)
    assert case.seen_on == grid
    np.testing.assert_array_equal(case.truth, data.numpy())
    thick = np.repeat(data.numpy(), 3, axis=2)  # averaging what never changed gives it back
    assert reconstruction.score(case, thick)["nrmse"] == pytest.approx(0.0, abs=1e-12)


def test_made_truth_comes_from_the_head_and_not_from_the_scan(scan):
    ideal = Scan(scan.volume, scan.mask, lambda g: np.full(g.shape, 7.0))
    case = CONDITIONS["native -> 1 mm"](ideal)
    assert (case.truth == 7).all() and case.target.shares_extent(scan.volume.grid)
    with pytest.raises(InputError, match="only synthetic heads"):
        CONDITIONS["native -> 1 mm"](scan)


def test_a_silent_network_and_its_splines_score_alike(weights, subject, provenance):
    arms = release_coders(weights)
    todo = [p for p in reconstruction.pairs(subject, arms) if p[0].condition == "native -> native"]
    found = reconstruction.measure(subject, todo, provenance)
    network, splines = ({r.metric: r.value for r in found if r.arm == c.name} for c in arms)
    assert network == pytest.approx(splines, rel=1e-4, nan_ok=True)
    assert 5 < network["psnr"] < 60


def test_tasks_name_the_rows_they_give_and_a_second_run_computes_nothing(
    tmp_path, weights, subject, provenance
):
    path, arms = tmp_path / "reconstruction.jsonl", all_coders(weights)
    todo = reconstruction.subject_tasks([subject], arms, set(), provenance)
    added = runner.run(todo, path, workers=0)
    n_pairs = len(BLOCKS) * (3 + len(CODECS)) + len(set(BLOCKS) & set(INTERPOLATED)) + 1
    assert added == len(metrics.scored()) * n_pairs
    recorded = rows_file.recorded_identities(path)
    assert todo[0].wanted == recorded
    assert reconstruction.subject_tasks([subject], arms, recorded, provenance) == []
    frame = rows_file.read_rows(path)
    scored = frame[frame["metric"].isin(["psnr", "ssim", "hfen"]) & (frame["arm"] != "scan")]
    assert scored["value"].notna().all()


def test_new_weights_are_measured_again_but_codecs_are_not(
    tmp_path, weights, spline_model, subject, provenance
):
    arms = [*release_coders(weights), CodecCoder("dct_ball", 4.0, 8)]
    recorded = set(reconstruction.identities(reconstruction.pairs(subject, arms)))
    other = copy.deepcopy(spline_model)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    path = save_weights(other, preset("test"), tmp_path / "other.safetensors", {}, half=False)
    again = [*release_coders(str(path)), CodecCoder("dct_ball", 4.0, 8)]
    (task,) = reconstruction.subject_tasks([subject], again, recorded, provenance)
    assert {identity[2] for identity in task.wanted} == {"medil_other", "medil_other_splines"}


def test_a_model_at_another_pitch_lands_in_the_tables(tmp_path, subject, monkeypatch, capsys):
    config = preset("test")
    config = replace(config, model=replace(config.model, latent_spacing_mm=3.0))
    path = tmp_path / "mine" / "weights.safetensors"
    path.parent.mkdir()
    save_weights(MedIL(config.model).eval(), config, path, {"step": 7}, half=False)
    monkeypatch.setattr(reconstruction, "subjects", lambda profile: [subject])
    arguments = ["--release", str(path), "--out", str(tmp_path / "rows"), "--workers", "0"]
    assert EXPERIMENT.main(arguments) == 0
    tables = tmp_path / "rows" / "tables"
    assert report.main(["--rows", str(tmp_path / "rows"), "--out", str(tables)]) == 0
    assert "MedIL mine reaches" in capsys.readouterr().out
    table = pd.read_csv(tables / "reconstruction.csv").set_index("Code")
    density = config.model.latent_channels * 9 * 8 * 8 / (25 * 22 * 23)  # cells of 3 mm
    assert table.loc["MedIL mine", "Numbers per voxel"] == pytest.approx(density, abs=1e-3)
    assert table.loc["MedIL mine", "Kind"] == "learned"
    assert table.loc["DCT, lowest ball", "Numbers per voxel"] == pytest.approx(density, abs=1e-3)
    assert table["Above best linear (dB)"].notna().all()
    values = pd.read_csv(tables / "release.csv").set_index("Quantity")["Value"]
    assert values["latent spacing"] == "3" and values["training step"] == "7"
    lines = pd.read_csv(tables / "renderings.csv")
    assert len(lines) == len(BLOCKS) and lines["MedIL mine (dB)"].notna().all()


def test_a_crash_loses_only_the_subject_it_hit(tmp_path, subject, provenance):
    def crash() -> Scan:
        raise KeyboardInterrupt

    path = tmp_path / "reconstruction.jsonl"
    people = [subject, replace(subject, name="hit", load=crash)]
    todo = reconstruction.subject_tasks(people, [CodecCoder("cubic", 4.0, 8)], set(), provenance)
    with pytest.raises(KeyboardInterrupt):
        runner.run(todo, path, workers=0)
    assert set(rows_file.read_rows(path)["subject"]) == {"ball"}


def test_each_volume_is_encoded_once_for_all_its_targets(subject, provenance):
    seen = []

    class Counting(Interpolation):
        conditions, encoding = None, "one and the same"

        def __init__(self, name):
            self.name = name

        def encode(self, volume):
            seen.append(volume.grid)
            return super().encode(volume)

    todo = reconstruction.pairs(subject, [Counting("one"), Counting("two")])
    found = reconstruction.measure(subject, todo, provenance)
    assert len(seen) == 2  # the native scan, and the one at 2 mm
    perfect = [r for r in found if r.metric == "nrmse" and r.condition != "2 mm -> 1 mm"]
    assert len(perfect) == 6 and all(r.value == pytest.approx(0, abs=1e-6) for r in perfect)


def test_spacing_reads_as_people_write_it():
    assert rows.spacing_text(Grid.from_spacing((2, 2, 2), 1.0)) == "1"
    thick = Grid.from_spacing((2, 2, 2), (0.71875, 0.71875, 2.9999955))
    assert rows.spacing_text(thick) == "0.72 x 0.72 x 3"


def test_subjects_are_held_out_and_named_without_loading(mirror):
    people = subjects("gpu")
    names = [s.name for s in people]
    assert names[0] == "cross_sectional_patient07_T1_MNI"
    assert not any("patient04" in n or "patient12" in n for n in names)  # trained on
    assert sum("made" in n for n in names) == 4 and sum(s.kind == "brain" for s in people) == 7
    assert len({s.data_sha256 for s in people}) == len(people)
    quick = [s.name for s in subjects("quick")]
    assert quick == [names[0], names[1], "sub-15_T1w", "made_00_from_map_17"]
    assert set(quick) < set(names)


def test_the_template_stands_in_when_no_data_is_at_hand(monkeypatch, tmp_path):
    pytest.importorskip("nilearn")
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    (only,) = subjects("quick")
    assert only.name == "mni152_template"
    loaded = only.load()
    assert loaded.volume.grid.spacing_mm == pytest.approx((1, 1, 1))
    assert 1.0e6 < loaded.mask.sum() < 2.2e6  # mm^3: a brain


def test_bad_input_is_one_sentence_and_exit_2(tmp_path, capsys):
    with pytest.raises(InputError, match="quick, gpu or paper"):
        subjects("huge")
    assert EXPERIMENT.main(["--release", "no-such-preset", "--out", str(tmp_path)]) == 2
    assert "no-such-preset" in capsys.readouterr().err
    assert EXPERIMENT.main(["--arms", "jpeg", "--out", str(tmp_path)]) == 2
    assert "there is no arm jpeg" in capsys.readouterr().err
