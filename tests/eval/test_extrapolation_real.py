"""Extrapolation with real truth: one object at two voxel sizes, training at 1 mm alone."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import rows
from eval.extrapolation.coders import TRUTH, fixed_coders
from eval.extrapolation_real import EXPERIMENT, measure, train
from eval.extrapolation_real.blocks import COARSE, CONDITIONS, NATIVE, SIDE_MM, brain_block
from eval.extrapolation_real.measure import ScanItself, answered, metrics_of, scores
from eval.subjects import Scan
from medil.data.manifest import entries
from medil.errors import InputError
from medil.grid import Grid
from medil.regrid import cell_average
from medil.training.update import draw_step
from medil.volume import Volume


@pytest.fixture(scope="module")
def scan() -> Volume:
    """A ball of smooth noise in air, on the voxels of ds002748."""
    grid = Grid.from_spacing((128, 124, 112), (0.868, 0.868, 1.0), (-60, 10, 5))
    noise = np.random.default_rng(3).normal(size=grid.shape)
    data = 500 + 800 * ndimage.gaussian_filter(noise, 0.8)
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    far_mm = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return Volume(torch.from_numpy(np.where(far_mm < 48, data.clip(1), 0)).float(), grid)


@pytest.fixture(scope="module")
def block(scan):
    return brain_block(scan, 1)


def test_both_voxel_sizes_show_one_place(block):
    native, coarse = block.volumes[NATIVE], block.volumes[COARSE]
    assert coarse.grid.shape == (SIDE_MM,) * 3 and native.grid.shape == (92, 92, 80)
    low, high = coarse.grid.bounds_mm
    assert (native.grid.bounds_mm[0] >= low - 1e-6).all()
    assert (native.grid.bounds_mm[1] <= high + 1e-6).all()
    again = cell_average(native.data.double().numpy(), native.grid, coarse.grid)
    inside = (slice(2, -2),) * 3  # cells that the native block fills
    np.testing.assert_allclose(again[inside], coarse.data.numpy()[inside], atol=1e-5)


def test_the_latent_covers_the_block_at_a_phase_of_its_own(block, scan):
    cells = block.latent_grid(4.0)
    low, high = block.volumes[COARSE].grid.bounds_mm
    assert (cells.bounds_mm[0] <= low + 1e-6).all() and (cells.bounds_mm[1] >= high - 1e-6).all()
    assert brain_block(scan, 2).phase != block.phase == brain_block(scan, 1).phase


def test_the_scan_keeps_all_of_itself_and_a_blur_smooths(block):
    data = block.volumes[NATIVE].data.double().numpy()
    own, blurred = (scores(block, NATIVE, x) for x in (data, ndimage.gaussian_filter(data, 1.0)))
    assert own["detail_kept_beyond"] == pytest.approx(1)
    assert own["detail_invented_fine"] == pytest.approx(0, abs=1e-6)
    assert blurred["detail_smoothed_fine"] > 0.5 > 0.2 > blurred["detail_invented_fine"]
    assert not block.mask(NATIVE)[:4].any() and block.mask(NATIVE).any()


def test_rows_are_those_that_a_task_announces(block, monkeypatch):
    monkeypatch.setattr(measure, "block_of", lambda entry: block)
    coders = [ScanItself(), *fixed_coders()]
    people = entries("ds002748", "test")[:1]
    (task,) = measure.brain_tasks(people, {"fixed": coders}, rows.Provenance.now("quick"))
    found = task.measure()
    assert {row.identity for row in found} == task.wanted
    values = {(r.arm, r.condition, r.metric): r.value for r in found}
    kept = [
        values[arm, "1 mm -> native", "detail_kept_fine"] for arm in ("interpolation", "dct_ball")
    ]
    assert 1.1 > kept[0] > kept[1] > 0


def test_interpolation_is_a_rival_where_voxels_are_made_and_the_scan_is_no_rival():
    interpolation = fixed_coders()[-1]
    assert answered(interpolation) == ["1 mm -> native"] and len(CONDITIONS) == 3
    assert "psnr" not in metrics_of("1 mm -> native", TRUTH)
    assert "detail_kept_beyond" not in metrics_of("1 mm -> 1 mm", "medil")


def test_training_sees_1_mm_and_train_people_alone(scan, tmp_path, monkeypatch):
    loaded = partial(Scan, scan, scan.data.numpy() > 0)
    monkeypatch.setattr(train, "real", lambda entry: type("Of", (), {"load": staticmethod(loaded)}))
    run = train.RealRun("integrated", 0, 40, 2)
    assert all(entry.split == "train" for entry in run.brains)
    scans = run.scans(tmp_path)
    assert len(list(tmp_path.glob("brain_*.safetensors"))) == 2
    assert {s.spacing_mm for s in scans} == {(1.0, 1.0, 1.0)}
    for number in range(20):
        step = draw_step(run.config, scans, number / 20, np.random.default_rng([0, number]))
        assert step.grid.spacing_mm == step.target_grid.spacing_mm == (1.0, 1.0, 1.0)


def test_runs_of_other_brains_have_other_names_and_too_many_are_refused():
    one, two = (train.RealRun("integrated", 0, 40, n).digest for n in (1, 2))
    assert one != two
    with pytest.raises(InputError, match="40 training brains, not 41"):
        train.RealRun("integrated", 0, 40, 41)


def test_the_verdict_says_what_the_rows_hold(tmp_path):
    made = []
    for number in range(6):
        for arm, kept in (("integrated", 0.8), ("trilinear", 0.7), ("bspline", 0.5)):
            row = rows.Measurement(
                "extrapolation_real", f"b{number}", arm, "1 mm -> native", "c", "d",
                "w" * (arm != "bspline"),
            )  # fmt: skip
            values = dict.fromkeys(metrics_of(row.condition, arm), 0.1)
            values |= {"detail_kept_fine": kept + 0.02 * number}
            sampling = rows.Sampling("1", "0.87 x 0.87 x 1", 8, 64)
            made += row.rows(values, measure.UNITS, sampling, 0.0, rows.Provenance.now("quick"))
    rows.append_rows(tmp_path / "extrapolation_real.jsonl", made)
    frame = EXPERIMENT.recorded(tmp_path)
    words = EXPERIMENT.verdict(frame)
    assert "integrated LTE: between 2 and 4 mm it keeps 0.85" in words
    assert "integrated LTE − B-spline, least squares: PSNR +0.00" in words
    assert "kept +0.300 [+0.300, +0.300]" in words and "6 brains × 1 seed" in words
    names = {path.name for path in EXPERIMENT.write(tmp_path, tmp_path / "tables")}
    assert {"extrapolation_real_detail.csv", "extrapolation_real_errors.csv"} <= names
