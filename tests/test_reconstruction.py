"""The experiment: cases in mm, equal sizes, nothing computed twice, nothing lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import metrics, reconstruction, rows
from eval.subjects import CONDITIONS, INTERPOLATED, Scan, Subject, subjects, whole_blocks
from medil.baselines import CODECS
from medil.errors import InputError
from medil.grid import Grid, centres_mm
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
    ramp = lambda g: centres_mm(g) @ torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)  # noqa: E731
    scan = Scan(Volume(ramp(grid), grid), np.ones(grid.shape, dtype=bool))
    case = CONDITIONS[condition](scan)
    np.testing.assert_allclose(case.truth, ramp(case.seen_on).numpy(), atol=1e-9)
    np.testing.assert_allclose(case.volume.data, ramp(case.volume.grid), atol=1e-4)
    assert case.mask.all()


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
    with pytest.raises(InputError, match="only made subjects"):
        CONDITIONS["native -> 1 mm"](scan)


def test_samples_are_averaged_on_coarser_grids_and_interpolated_on_finer_ones(grid, rng):
    data = rng.normal(size=grid.shape)
    coarse = whole_blocks(grid, (2, 2, 3))
    blocks = data[:6].reshape(3, 2, 4, 2, 3, 3)[..., :3].mean(axis=(1, 3, 5))
    start = np.rint(grid.ras_to_index(coarse.corners_mm).min(0) + 0.5).astype(int)
    assert start.tolist() == [0, 0, 0]
    np.testing.assert_allclose(reconstruction.render_samples(data, grid, coarse), blocks)
    np.testing.assert_allclose(reconstruction.render_samples(data, grid, grid), data)
    crop = grid.crop((2, 1, 3), (4, 5, 4))
    inside = data[2:6, 1:6, 3:7]
    np.testing.assert_allclose(reconstruction.render_samples(data, grid, crop), inside)
    ramp = lambda g: centres_mm(g).numpy() @ (1.0, 0.2, 0.3)  # noqa: E731
    wide = Grid.from_spacing((60, 60, 60), 1.0)
    fine = wide.crop((24, 24, 24), (8, 8, 8)).with_spacing(0.4)
    rendered = reconstruction.render_samples(ramp(wide), wide, fine)
    np.testing.assert_allclose(rendered, ramp(fine), atol=1e-6)


def test_every_codec_keeps_at_least_as_many_numbers_as_the_latent(spline_model, scan):
    arms = {a.name: a for a in reconstruction.all_arms(spline_model)}
    assert set(arms) == {"medil", "medil_splines", *CODECS, "interpolation"}
    kept = {name: arm.keep(scan.volume).numbers for name, arm in arms.items()}
    assert kept["medil"] == 8 * 7 * 6 * 6  # ceil of 25, 22, 23 mm over 4 mm, 8 channels
    assert kept["interpolation"] == scan.volume.grid.n_voxels
    for name in CODECS:
        assert kept["medil"] <= kept[name] <= 1.1 * kept["medil"]
    assert kept["dct_ball"] == kept["dct_cube"] == kept["medil"]


def test_a_silent_network_and_its_splines_score_alike(spline_model, subject, provenance):
    arms = reconstruction.model_arms(spline_model)
    todo = [("native -> native", arm) for arm in arms]
    found = reconstruction.measure(subject, todo, provenance)
    network, splines = ({r.metric: r.value for r in found if r.arm == a.name} for a in arms)
    assert network == pytest.approx(splines, rel=1e-5)
    assert 5 < network["psnr"] < 60


def test_recorded_rows_are_complete_and_a_second_run_computes_nothing(
    tmp_path, spline_model, subject, provenance
):
    first = reconstruction.run(spline_model, [subject], tmp_path, provenance)
    frame = rows.read_rows(tmp_path / "reconstruction.jsonl")
    n_arms = 2 + len(CODECS)
    expected = len(metrics.UNITS) * (len(BLOCKS) * n_arms + len(INTERPOLATED[:1]))
    assert first == len(frame) == expected
    assert set(frame["unit"]) == {"dB", "1"} and frame["value"].notna().all()

    def never() -> Scan:
        raise AssertionError("a recorded subject was loaded again")

    again = replace(subject, load=never)
    assert reconstruction.run(spline_model, [again], tmp_path, provenance) == 0


def test_new_weights_are_measured_again_but_codecs_are_not(
    tmp_path, spline_model, subject, provenance
):
    import copy

    reconstruction.run(spline_model, [subject], tmp_path, provenance)
    other = copy.deepcopy(spline_model)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    before = len(rows.read_rows(tmp_path))
    reconstruction.run(other, [subject], tmp_path, provenance)
    added = rows.read_rows(tmp_path).iloc[before:]
    assert set(added["arm"]) == {"medil", "medil_splines"}
    assert added["weights_sha256"].nunique() == 1


def test_a_crash_loses_only_the_subject_it_hit(tmp_path, spline_model, subject, provenance):
    def crash() -> Scan:
        raise KeyboardInterrupt

    hit = replace(subject, name="hit", load=crash)
    with pytest.raises(KeyboardInterrupt):
        reconstruction.run(spline_model, [subject, hit], tmp_path, provenance)
    assert set(rows.read_rows(tmp_path)["subject"]) == {"ball"}


def test_each_volume_is_encoded_once_for_all_its_targets(subject, provenance):
    seen = []

    def keep(volume: Volume) -> reconstruction.Kept:
        seen.append(volume.grid)
        return reconstruction.Kept((volume.data.double().numpy(), volume.grid), 1)

    render = reconstruction.interpolation_arm().render
    arms = [reconstruction.Arm(n, keep, render, "c" * 64) for n in ("one", "two")]
    todo = [(c, arm) for c in BLOCKS for arm in arms]
    found = reconstruction.measure(subject, todo, provenance)
    assert len(seen) == 2  # the native scan, and the one at 2 mm
    perfect = [r for r in found if r.metric == "nrmse" and r.condition != "2 mm -> 1 mm"]
    assert len(perfect) == 6 and all(r.value == pytest.approx(0, abs=1e-6) for r in perfect)


def test_spacing_reads_as_people_write_it():
    assert reconstruction.spacing_text(Grid.from_spacing((2, 2, 2), 1.0)) == "1"
    thick = Grid.from_spacing((2, 2, 2), (0.71875, 0.71875, 2.9999955))
    assert reconstruction.spacing_text(thick) == "0.72 x 0.72 x 3"


def test_subjects_are_held_out_and_named_without_loading(mirror):
    people = subjects("gpu")
    names = [s.name for s in people]
    assert names[0] == "cross_sectional_patient07_T1_MNI"
    assert not any("patient04" in n or "patient12" in n for n in names)  # trained on
    assert sum("made" in n for n in names) == 4
    assert len({s.data_sha256 for s in people}) == len(people)
    assert set(s.name for s in subjects("quick")) < set(names)


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
    assert reconstruction.main(["--release", "no-such-preset", "--out", str(tmp_path)]) == 2
    assert "no-such-preset" in capsys.readouterr().err
    with pytest.raises(InputError, match="make that folder first"):
        reconstruction.rows_file(tmp_path / "no" / "results")
