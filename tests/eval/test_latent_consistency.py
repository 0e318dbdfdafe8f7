"""One head on many grids: scans against closed forms, latents where they should be in mm."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import rows, rows_file, runner
from eval.coders.base import loaded
from eval.latent_consistency import EXPERIMENT, latents, measure, report, tasks
from eval.latent_consistency import conditions as names
from eval.latent_consistency import heads as scans
from eval.latent_consistency.page import line_apart
from eval.subjects import COHORT_SEED, Scan
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.synth.anatomy import label_anatomy
from medil.synth.subject import draw_subject
from medil.volume import Volume
from tests.images import inner, write_nifti

PROVENANCE = rows.Provenance.now("quick")
OPTIONS = argparse.Namespace(profile="quick", release="tiny")


@pytest.fixture
def block() -> Grid:
    """40 mm in voxels of 1 mm, off-centre."""
    return Grid.from_spacing((40, 40, 40), 1.0, origin_mm=(-7.0, 11.0, 30.0))


def ball(seed: int, grid: Grid) -> np.ndarray:
    """A smooth texture in a ball about the grid's middle: [D, H, W], 0 ... 1."""
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    texture = ndimage.gaussian_filter(noise, 1.5 / np.asarray(grid.spacing_mm))
    radius_mm = np.linalg.norm(centres_mm(grid).numpy() - grid.centre_mm, axis=-1)
    return (0.5 + 0.15 * texture / texture.std()).clip(0, 1) / (1 + np.exp(radius_mm - 18))


def ball_content(seed: int, spacing_mm: float) -> scans.Content:
    """That ball as the content of a block of 32 mm."""
    block = Grid.from_spacing((32, 32, 32), 1.0, origin_mm=(-7.0, 11.0, 30.0))
    grid = scans.around(block, spacing_mm)
    return scans.Content(ball(seed, grid), grid, block)


PEOPLE = [  # one that a 1 mm scan knows fully, one with voxels of 0.5 mm
    scans.Head("real", "r" * 64, 1.0, lambda: ball_content(1, 1.0)),
    scans.Head("made", "m" * 64, 0.5, lambda: ball_content(2, 0.5)),
]


# Contents and their scans


@pytest.mark.parametrize(
    ("band", "wavelength_mm", "left"),
    [(names.SAME, 12, 1), (names.SAME, 9, 1), (names.SAME, 6, 0.01), (names.SAME, 4, 0),
     (names.SMOOTHER, 18, 1), (names.SMOOTHER, 9, 0.01), (names.SMOOTHER, 6, 0)],
)  # fmt: skip
def test_short_waves_are_taken_out_and_long_ones_kept(band, wavelength_mm, left):
    grid = Grid.from_spacing((36, 5, 5), 1.0)
    wave = np.cos(2 * np.pi * (np.arange(36) + 0.5) / wavelength_mm)  # a mode of the cosines
    data = np.broadcast_to(wave[:, None, None], grid.shape)
    kept = scans.band_limited(scans.Content(data, grid, grid), band).data
    np.testing.assert_allclose(kept, left * data, atol=1e-6)


@pytest.mark.parametrize(("spacing_mm", "wave"), [(1.0, 1.0), (0.7, 1.0), (2.0, 0.6)])
@pytest.mark.parametrize("angle_deg", [0.0, 12.0])
def test_a_smooth_scan_is_the_mean_of_the_wave_over_each_voxel(block, spacing_mm, wave, angle_deg):
    frequency = wave * np.array([0.10, -0.06, 0.09])  # cycles/mm: 6.8 mm, 11 mm
    fine = block.resized([80] * 3)
    wave = np.cos(2 * np.pi * (centres_mm(fine).numpy() @ frequency))
    grid = block.crop((8, 8, 8), (20, 21, 22)).with_spacing(spacing_mm)
    grid = grid.shifted((0.37, 0.5, 0.21)).rotated(scans.TILT_AXIS, angle_deg)
    along = grid.directions.T @ frequency * np.asarray(grid.spacing_mm)
    truth = np.prod(np.sinc(along)) * np.cos(2 * np.pi * (centres_mm(grid).numpy() @ frequency))
    found = scans.scan_smooth(scans.Content(wave, fine, block), grid)
    np.testing.assert_allclose(found, truth, atol=2e-3)


def test_a_coarse_scan_is_the_mean_of_blocks(rng, block):
    content = scans.Content(rng.random((40, 40, 40)), block, block)
    found = scans.scan_whole(content, block.with_spacing(2.0))
    blocks = content.data.reshape(20, 2, 20, 2, 20, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(found, blocks)


@pytest.mark.parametrize("spacing_mm", [1.0, 0.5])
def test_a_content_reaches_beyond_every_scan_of_the_block(block, spacing_mm):
    grid = scans.around(block, spacing_mm)
    farthest = [names.header_shift(block, s * max(names.HEADER_MM)) for s in (-1, 1)]
    places = [*names.FINE.values(), *names.PLACES.values(), scans.turned]
    for other in [place(block) for place in places] + [block.shifted(s) for s in farthest]:
        corners = grid.ras_to_index(other.corners_mm)
        assert corners.min() > 0 and (corners < np.asarray(grid.shape) - 1).all()
    start = grid.ras_to_index(block.corners_mm).min(0) + 0.5  # faces fall on faces
    np.testing.assert_allclose(start, np.rint(start), atol=1e-9)


def test_a_real_content_keeps_voxels_in_place_and_is_air_beyond(monkeypatch, grid):
    monkeypatch.setattr(scans, "BLOCK_VOXELS", 6)
    grid = Grid.from_spacing((24, 16, 30), 1.0, origin_mm=(-11.0, 7.5, 20.0))
    ramp = 1 + centres_mm(grid) @ torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[3:9, 2:15, 9:20] = True
    content = scans.real_content(Scan(Volume(ramp, grid), mask))
    middle_mm = grid.index_to_ras((5.5, 8, 14))
    np.testing.assert_allclose(content.block.centre_mm, middle_mm, atol=1.0)
    index = grid.ras_to_index(centres_mm(content.grid).numpy())
    np.testing.assert_allclose(index, np.rint(index), atol=1e-9)
    within = ((index > -0.5) & (index < np.asarray(grid.shape) - 0.5)).all(-1)
    assert 0 < within.sum() < within.size and not content.data[~within].any()
    positions = ramp.numpy()[tuple(np.rint(index[within]).astype(int).T)]
    slope, start = np.polyfit(positions, content.data[within], 1)
    np.testing.assert_allclose(content.data[within], start + slope * positions, atol=1e-6)


def test_a_made_content_is_one_scaled_head_about_the_block_s_middle(monkeypatch, tmp_path):
    monkeypatch.setattr(scans, "BLOCK_VOXELS", 20)
    middle_mm = np.array([4.0, -6.0, 11.0])
    index = np.indices((40, 44, 38)).transpose(1, 2, 3, 0)
    radius_mm = np.linalg.norm(index - (np.array(index.shape[:3]) - 1) / 2, axis=-1)
    labels = np.select([radius_mm < 12, radius_mm < 15, radius_mm < 17], [2, 3, 24], 0)
    affine = np.eye(4)
    affine[:3, 3] = middle_mm - (np.array(labels.shape) - 1) / 2
    path = write_nifti(tmp_path / "labels.nii.gz", labels.astype(np.int16), affine)
    subject = draw_subject(label_anatomy(path), COHORT_SEED, 0)
    content = scans.made_content(subject)
    assert content.grid.spacing_mm == (0.5, 0.5, 0.5) and content.block.shape == (20, 20, 20)
    np.testing.assert_allclose(content.block.centre_mm, content.grid.centre_mm)
    np.testing.assert_allclose(content.block.centre_mm, middle_mm, atol=4.0)  # heads are posed
    radius_mm = np.linalg.norm(centres_mm(content.grid).numpy() - middle_mm, axis=-1)
    assert not content.data[radius_mm > 24].any()  # air is exactly black
    assert content.data[radius_mm < 4].min() > 0.3 and 0.9 < content.data.max() < 1.5
    np.testing.assert_array_equal(scans.made_content(subject).data, content.data)


def test_heads_are_held_out(mirror):
    people = scans.heads("gpu")
    assert people[0].name == "cross_sectional_patient07_T1_MNI"
    assert {h.name.rsplit("_", 1)[-1] for h in people[7:]} == {"17", "18", "19", "20"}
    assert len({h.data_sha256 for h in people}) == len(people) == 19
    assert [h.name for h in scans.heads("quick")] == [h.name for h in (people[0], *people[7:11])]


def test_heads_are_made_from_tissue_maps_where_no_data_is_at_hand(monkeypatch):
    monkeypatch.setattr("medil.data.manifest.available", lambda entry: False)
    assert [h.name[-17:] for h in scans.heads("quick")] == ["_from_tissue_maps"] * 4
    with pytest.raises(InputError, match="quick, gpu or paper"):
        scans.heads("fast")


# Latents


def test_latent_cells_cover_the_block_at_a_phase_of_their_own(block):
    for voxels in (block, scans.turned(block)):
        cells = latents.latent_grid(voxels, 4.0)
        corners = cells.ras_to_index(voxels.corners_mm)
        assert corners.min() >= -0.5 and (corners <= np.asarray(cells.shape) - 0.5).all()
        phase = voxels.ras_to_index(cells.index_to_ras((0, 0, 0))) * 2  # whole on faces, centres
        assert (np.abs(phase - np.rint(phase)) > 0.1).all()


def test_cells_count_that_lie_well_inside_both_scans(block):
    cells, oblique = latents.latent_grid(block, 4.0), scans.turned(block)
    both = latents.counted(cells, (block, oblique))
    expected = inner(cells, 12.0, block) & inner(cells, 12.0, oblique)
    assert torch.equal(both, expected) and both.sum() >= 27
    assert (latents.counted(cells, (block,)) & ~both).any()


def test_a_latent_brought_to_other_cells_shows_the_same_ramp_in_mm(spline_model, block):
    def ramp(grid: Grid) -> torch.Tensor:
        away_mm = centres_mm(grid) - torch.from_numpy(block.centre_mm)
        return (0.4 + away_mm @ torch.tensor([0.01, -0.02, 0.005], dtype=torch.float64)).float()

    oblique = scans.turned(block)
    own, common = latents.latent_grid(oblique, 4.0), latents.latent_grid(block, 4.0)
    with torch.inference_mode():
        z = spline_model.splines.project(ramp(oblique)[None, None], oblique, own)[0]
        moved = latents.transport(spline_model, z, own, common, block)
        seen = spline_model.splines.render(moved[None], common, block)[0, 0]
    inside = inner(block, 8.0, block) & inner(block, 8.0, oblique)
    torch.testing.assert_close(seen[inside], ramp(block)[inside], atol=2e-3, rtol=0)


def test_a_header_carries_latent_cells_along(block):
    cells, header = latents.latent_grid(block, 4.0), scans.turned(block, 5.0).shifted((1, 2, -3))
    carried = latents.turned_with(cells, block, header)
    np.testing.assert_allclose(
        header.ras_to_index(carried.corners_mm), block.ras_to_index(cells.corners_mm), atol=1e-9
    )


def test_differences_of_latents_have_closed_forms(rng):
    # Two channels with means 5 and -2; spread 1 about them.
    reference = torch.tensor([[6.0, 4.0], [-1.0, -3.0]])
    found = latents.differences(reference, reference + 0.5)
    assert found["latent_rms"] == pytest.approx(0.5)
    assert found["latent_l2"] == pytest.approx(1.0 / 2.0)  # ||0.5 * 1|| over ||1, -1, 1, -1||
    assert found["latent_cosine"] == pytest.approx(2 / np.sqrt(5))
    same = latents.differences(reference, reference)
    assert same == pytest.approx({"latent_rms": 0, "latent_l2": 0, "latent_cosine": 1})
    a, b = (torch.from_numpy(rng.normal(size=(8, 4000))) for _ in range(2))
    apart = latents.differences(a, b)
    assert apart["latent_rms"] == pytest.approx(np.sqrt(2), rel=0.02)
    assert apart["latent_l2"] == pytest.approx(np.sqrt(2), rel=0.02)
    assert abs(apart["latent_cosine"]) < 0.02
    mirrored = latents.differences(reference, -reference + 2 * reference.mean(1, True))
    assert mirrored["latent_cosine"] == pytest.approx(-1)


def test_a_header_off_by_one_latent_cell_moves_the_latent_by_one_cell(spline_model, block):
    bench = measure.Bench(spline_model, latents.coders(spline_model)[1], block)
    data = ball(3, block)
    right, _ = bench.encode(data, block)
    wrong, _ = bench.encode(data, block.shifted((4.0, 0, 0)))
    inside = slice(4, -5)
    there, here = wrong[:, 5:-4, inside, inside], right[:, inside, inside, inside]
    # Not exactly: the ridge follows the mean over nodes, and fewer of them see voxels.
    assert (there - here).norm() < 0.01 * here.norm() < 0.1 * (there - there.roll(1, 1)).norm()


# Tasks and rows


@pytest.fixture(scope="module")
def released(spline_model):
    """The command measures the closed form on two small heads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "loaded", lambda name: spline_model)
        patch.setattr(tasks, "heads", lambda profile: PEOPLE)
        yield


@pytest.fixture(scope="module")
def measured(released) -> dict[str, list[rows.Row]]:
    """What each task gives, the last one first."""
    asked = tasks.tasks(OPTIONS, PROVENANCE)
    return {task.name: task.measure() for task in reversed(asked)}


@pytest.fixture(scope="module")
def recorded_rows(measured, tmp_path_factory):
    """The file that holds them."""
    path = tmp_path_factory.mktemp("recorded") / "latent_consistency.jsonl"
    for found in measured.values():
        rows_file.append_rows(path, found)
    return path


def test_tasks_say_beforehand_which_rows_they_give(released, measured):
    asked = tasks.tasks(OPTIONS, PROVENANCE)
    assert [task.name for task in asked] == ["all heads", "real", "made"]
    for task in asked:
        assert {row.identity for row in measured[task.name]} == task.wanted
        assert len(task.wanted) == len(measured[task.name])
    assert not asked[1].wanted & asked[2].wanted and not asked[0].wanted & asked[1].wanted


def test_what_was_killed_half_way_ends_with_the_same_rows(released, measured, tmp_path):
    asked = tasks.tasks(OPTIONS, PROVENANCE)
    path = tmp_path / "rows.jsonl"
    for name in ("real", "made"):
        rows_file.append_rows(path, measured[name])
    added = runner.run(asked, path, workers=0)  # what is left: the distance between heads
    assert added == len(measured["all heads"])
    again = rows_file.read_rows(path).set_index(list(rows.WHAT))["value"]
    for row in measured["all heads"]:
        assert again[tuple(getattr(row, name) for name in rows.WHAT)] == row.value


def test_a_second_run_computes_nothing_and_tells_the_verdict(
    released, recorded_rows, monkeypatch, capsys
):
    def never(*_):
        raise AssertionError("a recorded head was measured again")

    monkeypatch.setattr(tasks, "measure", never)
    monkeypatch.setattr(tasks, "references", never)
    assert EXPERIMENT.main(["--out", str(recorded_rows.parent), "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "0 new rows" in told and "n = 2 held-out heads" in told


def test_a_projection_keeps_its_latent_on_other_grids(recorded_rows):
    frame = EXPERIMENT.recorded(recorded_rows.parent)
    assert frame["value"].notna().all() and set(frame["metric"]) == set(names.UNITS)
    table = report.consistency_table(frame)
    assert set(table["Arm"]) == {"MedIL tiny", "Splines alone"}
    judged = table[table["Bar"].notna()]
    assert set(judged["Scanned"]) == {*names.FINE, names.TURNED, *report.JUDGED_RESOLUTIONS}
    same = judged[judged["Question"] == "same content, another grid"]
    assert (same["Distance"] < 0.02).all() and (same["Within"] == "yes").all()
    other = table[table["Scanned"] == names.ANOTHER]
    np.testing.assert_allclose(other["Distance"], 1.0, rtol=1e-6)
    # The real content has no voxels below 1 mm: its shifted scan would be a blurred one.
    counts = table[table["Question"] == "another resolution"].groupby("Scanned")["n"].max()
    assert counts["2 mm"] == counts["1.5 mm"] == 2 and counts["0.8 mm"] == counts["shifted"] == 1
    # A silent network changes nothing.
    wide = frame.pivot_table("value", ["subject", "condition", "metric"], "arm")
    np.testing.assert_allclose(wide["medil"], wide["medil_splines"], atol=1e-4)


def test_a_wrong_header_costs_and_a_right_one_does_not(recorded_rows):
    table = report.header_table(EXPERIMENT.recorded(recorded_rows.parent))
    table = table[table["Arm"] == "Splines alone"].set_index(["Kind", "By"])
    off, right = (table.loc[kind] for kind in ("header off", "truly scanned there"))
    assert off["Distance"].is_monotonic_increasing and off["Lost (dB)"].is_monotonic_increasing
    assert off.loc[0, ["Distance", "Lost (dB)"]].tolist() == [0, 0]
    assert off.loc[0, "Cosine"] == pytest.approx(1)
    off = off.drop(0.0)
    assert (right["Distance"] < 0.05).all() and (off["Distance"] > 0.15).all()
    assert (right["Lost (dB)"].abs() < 0.1 * off["Lost (dB)"]).all()
    turned = table.loc["header turned"]
    assert turned["Distance"].is_monotonic_increasing and (turned["Lost (dB)"] > 0).all()


def test_a_head_that_moved_unnoticed_is_as_far_off_as_its_header_would_be(recorded_rows):
    found = report.distances(EXPERIMENT.recorded(recorded_rows.parent))
    made = found[
        (found["subject"] == "made") & (found["arm"] == "medil_splines")
        & (found["content"] == names.WHOLE) & (found["channels"] == "all")
    ].set_index("scanned")["distance"]  # fmt: skip
    moved = [made[names.moved(mm)] for mm in names.HEADER_MM[1:]]
    assert moved == sorted(moved)
    for mm, distance in zip(names.HEADER_MM[1:], moved, strict=True):
        assert distance > 3 * made[names.truly(mm)]


def test_only_distances_between_heads_depend_on_who_else_is_there(
    spline_model, monkeypatch, released
):
    both = tasks.tasks(OPTIONS, PROVENANCE)
    monkeypatch.setattr(tasks, "heads", lambda profile: PEOPLE[:1])
    alone = tasks.tasks(OPTIONS, PROVENANCE)
    assert alone[1].wanted == both[1].wanted
    assert not alone[0].wanted & both[0].wanted
    hashes = [h.data_sha256 for h in PEOPLE]
    assert names.config_hash(spline_model, "medil", hashes) == names.config_hash(
        spline_model, "medil", hashes[::-1]
    )


def test_bad_input_is_one_sentence_and_exit_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tasks, "loaded", loaded)  # whoever patched it before
    assert EXPERIMENT.main(["--release", "no-such-preset", "--out", str(tmp_path)]) == 2
    assert "no-such-preset" in capsys.readouterr().err


def test_a_release_of_another_name_has_arms_of_its_own(released):
    base = argparse.Namespace(profile="quick", release="base")
    arms = {identity[2] for task in tasks.tasks(base, PROVENANCE) for identity in task.wanted}
    assert arms == {"medil_base", "medil_base_splines"}


def test_two_heads_lie_at_a_distance_of_one_and_a_latent_at_none_from_itself(rng):
    one, other = (torch.from_numpy(rng.normal(size=(2, 50))) for _ in range(2))
    assert line_apart("", (one, other), (one, other))["Distance"] == pytest.approx(1)
    itself = line_apart("itself", (one, one), (one, other))
    assert (itself["Distance"], itself["L2"]) == (0, 0)
    assert itself["Cosine"] == pytest.approx(1)
