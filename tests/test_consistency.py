"""One head on many grids: scans against closed forms, latents where they should be in mm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from eval import consistency, rows
from eval import consistency_heads as scans
from eval import consistency_latents as latents
from eval import consistency_report as report
from eval.subjects import Scan
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.volume import Volume
from tests.images import inner, write_nifti

PROVENANCE = rows.Provenance.now("quick")


@pytest.fixture
def block() -> Grid:
    """40 mm in voxels of 1 mm, off-centre."""
    return Grid.from_spacing((40, 40, 40), 1.0, origin_mm=(-7.0, 11.0, 30.0))


def ball(seed: int, grid: Grid) -> np.ndarray:
    """A smooth texture in a ball about the grid's middle: [D, H, W], 0 ... 1."""
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    texture = ndimage.gaussian_filter(noise, 1.5 / np.asarray(grid.spacing_mm))
    radius_mm = np.linalg.norm(centres_mm(grid).numpy() - grid.centre_mm, axis=-1)
    return (0.5 + 0.15 * texture / texture.std()).clip(0, 1) / (1 + np.exp(radius_mm - 22))


@pytest.fixture
def people(block) -> list[scans.Head]:
    """Two heads: one that a 1 mm scan knows fully, one with voxels of 0.5 mm."""
    coarse, fine = scans.around(block, 1.0), scans.around(block, 0.5)
    return [
        scans.Head("real", "r" * 64, lambda: scans.Content(ball(1, coarse), coarse, block)),
        scans.Head("made", "m" * 64, lambda: scans.Content(ball(2, fine), fine, block)),
    ]


# Contents and their scans


@pytest.mark.parametrize(("wavelength_mm", "left"), [(12, 1.0), (9, 1.0), (6, 0.01), (4, 0.0)])
def test_short_waves_are_taken_out_and_long_ones_kept(wavelength_mm, left):
    grid = Grid.from_spacing((36, 5, 5), 1.0)
    wave = np.cos(2 * np.pi * (np.arange(36) + 0.5) / wavelength_mm)  # a mode of the cosines
    data = np.broadcast_to(wave[:, None, None], grid.shape)
    kept = scans.band_limited(scans.Content(data, grid, grid)).data
    np.testing.assert_allclose(kept, left * data, atol=1e-6)


@pytest.mark.parametrize("spacing_mm", [1.0, 0.7])
@pytest.mark.parametrize("angle_deg", [0.0, 12.0])
def test_a_smooth_scan_is_the_mean_of_the_wave_over_each_voxel(block, spacing_mm, angle_deg):
    frequency = np.array([0.10, -0.06, 0.09])  # cycles/mm: 6.8 mm
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
    places = [*latents.OTHER_GRIDS.values(), *latents.OTHER_RESOLUTIONS.values(), scans.turned]
    for place in places:
        corners = grid.ras_to_index(place(block).corners_mm)
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
    anatomy = scans.label_anatomy(path)
    content = scans.made_content(anatomy, 0)
    assert content.grid.spacing_mm == (0.5, 0.5, 0.5) and content.block.shape == (20, 20, 20)
    np.testing.assert_allclose(content.block.centre_mm, content.grid.centre_mm)
    np.testing.assert_allclose(content.block.centre_mm, middle_mm, atol=4.0)  # heads are posed
    radius_mm = np.linalg.norm(centres_mm(content.grid).numpy() - middle_mm, axis=-1)
    assert not content.data[radius_mm > 24].any()  # air is exactly black
    assert content.data[radius_mm < 4].min() > 0.3 and 0.9 < content.data.max() < 1.5
    np.testing.assert_array_equal(scans.made_content(anatomy, 0).data, content.data)


def test_heads_are_held_out(mirror):
    people = scans.heads("gpu")
    assert people[0].name == "cross_sectional_patient07_T1_MNI"
    assert {h.name.rsplit("_", 1)[-1] for h in people[1:]} == {"17", "18", "19", "20"}
    assert len({h.data_sha256 for h in people}) == len(people) == 13


def test_heads_are_made_from_tissue_maps_where_no_data_is_at_hand(monkeypatch):
    monkeypatch.setattr(scans, "available", lambda entry: False)
    assert [h.name[-17:] for h in scans.heads("quick")] == ["_from_tissue_maps"] * 4
    with pytest.raises(InputError, match="quick or gpu"):
        scans.heads("paper")


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
        z = spline_model.project(ramp(oblique)[None, None], oblique, own)[0]
        moved = latents.transport(spline_model, z, own, common, block)
        seen = spline_model.render_linear(moved[None], common, block)[0, 0]
    inside = inner(block, 8.0, block) & inner(block, 8.0, oblique)
    torch.testing.assert_close(seen[inside], ramp(block)[inside], atol=2e-3, rtol=0)


def test_distances_are_fractions_of_those_between_heads(block):
    first, second = torch.zeros(2, 3), torch.tensor([[3.0, 0, 0], [0, 0, 4.0]])  # 5 apart
    nudge = torch.tensor([[0.0, 0, 0], [0, 0.5, 0]])
    everyone = {
        name: latents.Measured(
            block,
            {
                ("medil", "1 mm -> 2 mm"): latents.Pair(z, z + nudge, block, 0.0),
                ("medil", f"1 mm -> {report.ANOTHER}"): latents.Pair(z, z, block, 0.0),
            },
        )
        for name, z in (("a", first), ("b", second))
    }
    found = consistency.distances(everyone, slice(None))
    assert found["a", "medil", "1 mm -> 2 mm"][0] == pytest.approx(0.1)
    assert found["b", "medil", "1 mm -> 2 mm"][0] == pytest.approx(0.1)
    assert found["a", "medil", f"1 mm -> {report.ANOTHER}"] == pytest.approx((1.0, -1 / 3))
    coarse = consistency.distances(everyone, slice(0, 1))
    assert coarse["a", "medil", "1 mm -> 2 mm"] == pytest.approx((0.0, 1.0))
    assert consistency.distances({"a": everyone["a"]}, slice(None)) == {}


def test_a_projection_keeps_its_latent_on_other_grids_and_its_means_at_2_mm(
    tmp_path, spline_model, people, monkeypatch, capsys
):
    monkeypatch.setattr(consistency, "load_release", lambda name: spline_model)
    monkeypatch.setattr(consistency, "heads", lambda profile: people)
    assert consistency.main(["--out", str(tmp_path)]) == 0
    assert "n = 2 held-out heads" in capsys.readouterr().out
    frame = rows.read_rows(tmp_path / "latent_consistency.jsonl")
    assert frame["value"].notna().all() and set(frame["metric"]) == set(consistency.UNITS)
    table = report.consistency_table(frame)
    assert set(table["Arm"]) == {"MedIL", "Splines alone"}
    judged = table[table["Bar"].notna()]
    assert set(judged["Scanned"]) == {
        *latents.OTHER_GRIDS, report.TURNED, *report.JUDGED_RESOLUTIONS
    }  # fmt: skip
    same = judged[judged["Question"] == "same content, another grid"]
    assert (same["Distance"] < 0.02).all() and (same["Within"] == "yes").all()
    other = table[table["Scanned"] == report.ANOTHER]
    np.testing.assert_allclose(other["Distance"], 1.0, rtol=1e-6)
    # The real content has no voxels below 1 mm: its shifted scan would be a blurred one.
    coarser = set(table[table["Question"] == "another resolution"]["Scanned"])
    assert {"1.5 mm", "2 mm"} < coarser and not {"0.8 mm", "shifted"} & coarser
    # A silent network changes nothing.
    wide = frame.pivot_table("value", ["subject", "condition", "metric"], "arm")
    np.testing.assert_allclose(wide["medil"], wide["medil_splines"], atol=1e-4)

    def never() -> scans.Content:
        raise AssertionError("a recorded head was loaded again")

    again = [replace(head, load=never) for head in people]
    assert consistency.run(spline_model, again, tmp_path, PROVENANCE) == 0


def test_another_cohort_is_another_configuration(spline_model, people):
    both = consistency.config_hash(spline_model, people, "medil")
    assert both == consistency.config_hash(spline_model, people[::-1], "medil")
    assert both != consistency.config_hash(spline_model, people[:1], "medil")


def test_bad_input_is_one_sentence_and_exit_2(tmp_path, capsys):
    assert consistency.main(["--release", "no-such-preset", "--out", str(tmp_path)]) == 2
    assert "no-such-preset" in capsys.readouterr().err
    with pytest.raises(InputError, match="make that folder first"):
        consistency.rows_file(tmp_path / "no" / "results")


# Tables


DISTANCES = {  # made-up numbers of this test, for 3 heads
    f"{report.SAME} -> shifted | all": (0.01, 0.02, 0.03),
    f"{report.SAME} -> {report.TURNED} | all": (0.06, 0.07, 0.08),
    f"{report.SAME} -> {report.TRANSPORTED} | all": (0.04, 0.04, 0.04),
    f"{report.WHOLE} -> 2 mm | all": (0.4, 0.4, 0.4),
    f"{report.WHOLE} -> 2 mm | coarse": (0.1, 0.1, 0.1),
}


def recorded(weights: str = "w" * 64, day: int = 1, **values) -> list[rows.Row]:
    """Rows of three heads, with other distances where told."""
    base = rows.Row(
        experiment=report.EXPERIMENT, subject="", arm="medil", condition="", metric="",
        value=0.0, unit="1", spacing_in_mm="1", spacing_out_mm="4", numbers_kept=8, n_voxels=64,
        config_hash="c", data_sha256="d", weights_sha256=weights, time_s=1.0,
        recorded_at=f"2026-01-{day:02d}T00:00:00.000000+00:00", provenance=PROVENANCE,
    )  # fmt: skip
    found = []
    for k, name in enumerate("xyz"):
        row = replace(base, subject=name)
        for condition, distances in (DISTANCES | values).items():
            row = replace(row, condition=condition)
            found.append(replace(row, metric="latent_distance", value=distances[k]))
            found.append(replace(row, metric="latent_cosine", value=0.9))
        for condition, db in ((report.OWN, 30.0 + k), (report.COARSE_OF_2_MM, 29.5 + k)):
            found.append(replace(row, condition=condition, metric="psnr", unit="dB", value=db))
    return found


def frame_of(found: list[rows.Row], path) -> pd.DataFrame:
    rows.append_rows(path, found)
    return rows.read_rows(path)


def test_the_verdict_says_what_is_met_and_what_is_missed(tmp_path):
    frame = frame_of(recorded(), tmp_path / "rows.jsonl")
    lines = report.verdict(frame).splitlines()
    assert "n = 3" in lines[0]
    assert "shifted 0.020 [0.01" in lines[1] and "missed by turned 12 degrees" in lines[1]
    assert "coarse channel: 2 mm 0.100 [0.100, 0.100]: the bar of 0.15 is met" in lines[2]
    assert f"{report.TRANSPORTED}: 0.040" in lines[3]
    assert "costs 0.50 dB [0.50, 0.50]" in lines[4] and "missed" in lines[4]


def test_details_of_another_resolution_are_reported_without_a_bar(tmp_path):
    table = report.consistency_table(frame_of(recorded(), tmp_path / "rows.jsonl"))
    line = table[(table["Scanned"] == "2 mm") & (table["Channels"] == "all")].iloc[0]
    assert line["Distance"] == pytest.approx(0.4) and np.isnan(line["Bar"]) and line["Within"] == ""


def test_a_newer_release_takes_the_older_one_s_place(tmp_path):
    worse = {f"{report.WHOLE} -> 2 mm | coarse": (0.2, 0.3, 0.4)}
    frame = frame_of(recorded() + recorded("v" * 64, 2, **worse), tmp_path / "rows.jsonl")
    assert "missed by 2 mm" in report.verdict(frame)
    assert set(report.consistency_table(frame)["n"]) == {3}


def test_tables_are_written_from_rows_alone(tmp_path):
    assert report.tables(tmp_path, tmp_path / "tables") == []
    rows.append_rows(tmp_path / "latent_consistency.jsonl", recorded())
    written = report.tables(tmp_path, tmp_path / "tables")
    assert all(path.is_file() for path in written) and len(written) == 3
    lost = pd.read_csv(tmp_path / "tables/latent_consistency_db.csv")
    assert lost["Lost (dB)"].tolist() == [0.5] and lost["Own latent (dB)"].tolist() == [31.0]
    with pytest.raises(InputError, match="no rows on latent consistency"):
        report.newest(rows.read_rows(tmp_path).head(0))
