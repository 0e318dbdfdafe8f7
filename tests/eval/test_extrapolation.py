"""Extrapolation: training sees 1 mm alone, blocks show one object, scores mean what they say."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import heads as synthetic
from eval import rows, rows_file, runner
from eval.arms.catalogue import OWN
from eval.arms.train import Diverged
from eval.extrapolation import (
    EXPERIMENT,
    blocks,
    measure,
    page,
    pictures,
    report,
    score,
    train,
    verdict,
)
from eval.extrapolation.blocks import (
    AT_1_MM,
    BRAIN_MM,
    CONDITIONS,
    NATIVE,
    OF_BRAINS,
    OF_HEADS,
    Block,
    Source,
    block_grid,
    brain_block,
)
from eval.extrapolation.coders import (
    TRUTH,
    PhasedCoder,
    Truth,
    fixed_coders,
    for_block,
    release_coders,
    release_size,
)
from eval.extrapolation.measure import answered, metrics_of
from eval.subjects import Scan
from medil.config import RunConfig
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import load_model, save_weights
from medil.regrid import cell_average
from medil.synth.anatomy import label_anatomy
from medil.training.patches import prepare_scan
from medil.training.update import draw_step
from medil.volume import Volume
from tests.images import write_nifti

SIDE_MM = 28.0  # whole numbers of voxels of every size


def brain_like(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth noise from 0.4 to 1: everywhere brain, detail of every size."""
    rough = ndimage.gaussian_filter(rng.normal(size=shape), 1.0, mode="wrap")
    return 0.4 + 0.6 * (rough - rough.min()) / np.ptp(rough)


@pytest.fixture
def scans(rng):
    """Two training heads at 1 mm."""
    return [
        prepare_scan(Volume(torch.from_numpy(brain_like(rng, (30, 28, 33))).float(), grid), 0.5)
        for grid in [Grid.from_spacing((30, 28, 33), 1.0)] * 2
    ]


@pytest.fixture
def training(monkeypatch, scans):
    """Training on those heads, of which the run's name knows the recipe alone."""
    monkeypatch.setattr(train, "training_heads", lambda count, folder, workers=1: scans)


@pytest.fixture
def block() -> Block:
    """A block of known content; the same bits in every test."""
    rng = np.random.default_rng(5)
    grid = block_grid(SIDE_MM, 0.25)
    content = torch.from_numpy(brain_like(rng, grid.shape))
    return blocks._scans("toy", "a" * 64, content, grid, SIDE_MM, OF_HEADS, rng)


@pytest.fixture
def source(block, monkeypatch) -> Source:
    """That block as a source."""
    monkeypatch.setattr(measure, "load_block", lambda source, folder: block)
    return Source("toy", block.data_sha256, tuple(CONDITIONS), lambda: block)


@pytest.fixture
def coder(spline_model, tmp_path) -> PhasedCoder:
    """A model whose network is silent: least-squares splines at the block's phase."""
    config = RunConfig("test", spline_model.config)
    path = save_weights(spline_model, config, tmp_path / "w.safetensors", {}, half=False)
    return PhasedCoder(path, "toy_model")


@pytest.mark.parametrize("arm", train.TITLES)
def test_no_step_of_any_arm_shows_another_voxel_size(arm, scans):
    run = train.Run(arm, 0, 1000, 2)
    for number in range(40):
        rng = np.random.default_rng([0, number])
        step = draw_step(run.config, scans, number / 40, rng)
        assert step.grid.spacing_mm == step.target_grid.spacing_mm == (1.0, 1.0, 1.0)
        assert step.x.shape == step.target.shape


def test_latent_cells_lie_at_a_new_phase_each_step(scans):
    run = train.Run("integrated", 0, 1000, 2)
    offsets = []
    for number in range(30):
        step = draw_step(run.config, scans, 0.5, np.random.default_rng([1, number]))
        offsets.append(step.grid.bounds_mm[0] - step.latent_grid.bounds_mm[0])
    phases = np.array(offsets) % 4
    assert len(np.unique(phases.round(6), axis=0)) == 30
    assert phases.min() < 1 and phases.max() > 3


def test_training_hands_1_mm_to_the_optimiser_and_is_not_repeated(training, tmp_path, monkeypatch):
    seen = []
    real = train.train_arm.__globals__["update"]

    def spy(model, optimiser, step, *rest):
        seen.append((step.grid.spacing_mm, step.target_grid.spacing_mm))
        return real(model, optimiser, step, *rest)

    monkeypatch.setitem(train.train_arm.__globals__, "update", spy)
    run = train.Run("integrated", 0, 2, 2)
    path = train.train_run(run, tmp_path)
    assert len(seen) == 3  # one unmeasured, two that count
    assert set(seen) == {((1.0,) * 3, (1.0,) * 3)}
    facts = load_model(path).facts
    assert facts["training_mm"] == [[1.0, 1.0, 1.0]]
    assert (facts["step"], facts["seed"], facts["run"]) == (2, 0, run.digest)
    train.train_all([run], tmp_path)
    assert len(seen) == 3


def test_the_same_run_gives_the_same_weights_and_another_seed_others(training, tmp_path):
    (tmp_path / "again").mkdir()
    runs = [train.Run("integrated", seed, 2, 2) for seed in (0, 1)]
    first, other = (load_model(train.train_run(run, tmp_path)).weights_id for run in runs)
    again = load_model(train.train_run(runs[0], tmp_path / "again")).weights_id
    assert first == again != other


def test_a_run_is_named_after_all_that_it_depends_on():
    run = train.Run("integrated", 0, 100, 3)
    changes = (
        {"arm": "trilinear"},
        {"seed": 1},
        {"steps": 101},
        {"count": 4},
        {"material": train.BRAINS},
    )
    others = [replace(run, **change) for change in changes]
    assert len({r.path() for r in [run, *others]}) == 6
    assert run.config.train.coarser_share == run.config.train.global_share == 0


def test_a_run_that_diverges_leaves_a_note_and_is_not_repeated(training, tmp_path, monkeypatch):
    def diverge(*rest, **options):
        raise Diverged(7)

    monkeypatch.setattr(train, "train_arm", diverge)
    run = train.Run("integrated", 0, 2, 2)
    path = train.train_run(run, tmp_path)
    assert not path.exists()
    assert path.with_suffix(".diverged").read_text() == "step 7\n"
    assert run.done(tmp_path)


@pytest.mark.parametrize("wrong", [{"arm": "fourier"}, {"steps": 0}, {"count": 0}, {"seed": -1}])
def test_a_run_that_cannot_be_is_refused(wrong):
    with pytest.raises(InputError):
        replace(train.Run("integrated", 0, 2, 2), **wrong)


@pytest.fixture
def toy_anatomy(tmp_path, monkeypatch):
    """Grey and white ellipsoids in place of every label map."""
    radius = np.linalg.norm(
        (np.indices((50, 54, 48)).T - [25, 27, 24]).T
        / np.array([1, 1.1, 0.9])[:, None, None, None],
        axis=0,
    )
    labels = np.zeros(radius.shape, np.uint8)
    for label, radius_mm in ((24, 21.5), (3, 20.0), (2, 15.0)):
        labels[radius < radius_mm] = label
    anatomy = label_anatomy(write_nifti(tmp_path / "toy.nii.gz", labels, np.eye(4)))
    monkeypatch.setattr(synthetic, "anatomy_of", lambda entry: anatomy)
    monkeypatch.setattr(synthetic, "label_maps", lambda split: [None])


def test_training_heads_are_scanned_at_1_mm_once(toy_anatomy, tmp_path):
    first = train.training_heads(2, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("head_*")}
    again = train.training_heads(2, tmp_path)
    assert [scan.spacing_mm for scan in first] == [(1.0, 1.0, 1.0)] * 2
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert all(torch.equal(a.data, b.data) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].data[:30, :30, :30], first[1].data[:30, :30, :30])


def test_every_scan_of_a_block_is_the_mean_of_one_object(block):
    fine = block.truth("0.5")
    averaged = cell_average(fine, block.volumes["0.5"].grid, block.volumes["1"].grid)
    np.testing.assert_allclose(block.truth("1"), averaged, atol=1e-6)
    for voxels, volume in block.volumes.items():
        assert block.truth(voxels).mean() == pytest.approx(fine.mean(), abs=1e-6)
        np.testing.assert_allclose(volume.grid.bounds_mm, [[0] * 3, [SIDE_MM] * 3], atol=1e-9)


def test_one_region_is_scored_at_every_voxel_size(block):
    inner_mm3 = (SIDE_MM - 2 * blocks.MARGIN_MM) ** 3
    for voxels, volume in block.volumes.items():
        mm, mask = float(voxels), block.mask(voxels)
        assert mask.sum() * mm**3 == pytest.approx(inner_mm3, rel=3 * mm / SIDE_MM)
        first_mm = volume.grid.index_to_ras(np.argwhere(mask).min(0))
        assert first_mm.min() > blocks.MARGIN_MM


def test_latent_cells_cover_the_block_at_its_phase(block):
    cells = replace(block, phase=(0.25, 0.5, 0.99)).latent_grid(4.0)
    np.testing.assert_allclose(cells.bounds_mm[0], [-1.0, -2.0, -3.96])
    assert (cells.bounds_mm[1] >= SIDE_MM - 1e-9).all()
    assert cells.spacing_mm == (4.0, 4.0, 4.0)


def test_a_made_head_is_drawn_once_and_comes_back_as_it_was(toy_anatomy, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "HEAD_MM", SIDE_MM)
    [source] = blocks.sources(1, 0)
    drawn = blocks.load_block(source, tmp_path)
    monkeypatch.setattr(blocks, "_head_block", None)
    kept = blocks.load_block(source, tmp_path)
    assert kept.phase == drawn.phase and set(kept.volumes) == {"1", "0.8", "0.7", "0.5"}
    for voxels, volume in drawn.volumes.items():
        assert torch.equal(kept.volumes[voxels].data, volume.data)
        assert kept.volumes[voxels].grid.is_close(volume.grid)
    data = kept.volumes["1"].data
    assert 0.2 < float(data[data > 0].median()) < 1.2


def test_voxels_that_do_not_fill_a_box_are_refused():
    with pytest.raises(InputError, match=r"0\.7 mm do not fill a box of 40"):
        block_grid(40.0, 0.7)


@pytest.mark.parametrize("condition", OF_HEADS)
def test_the_truth_itself_keeps_all_and_invents_nothing(block, condition):
    encoded, rendered = CONDITIONS[condition]
    values = score.scores(block, condition, block.truth(rendered))
    assert values["psnr"] == np.inf
    assert values["fsc_05_mm"] == pytest.approx(2 * float(rendered))
    for band in score.bands_of(condition):
        assert values[f"detail_kept_{band}"] == pytest.approx(1, abs=1e-9)
        assert values[f"detail_error_{band}"] == pytest.approx(0, abs=1e-6)
    exact = encoded == rendered or rendered == "0.5"  # else voxels of the one straddle the other's
    assert (values["input_mismatch"] < 1e-4) == exact


def test_a_blur_smooths_and_noise_invents(block, rng):
    truth = block.truth("0.8")
    blurred = score.scores(block, "0.8 -> 0.8", ndimage.gaussian_filter(truth, 1.0))
    noisy = score.scores(block, "0.8 -> 0.8", truth + rng.normal(0, 0.05, truth.shape))
    assert blurred["detail_kept_fine"] < 0.5 and blurred["detail_invented_fine"] < 0.1
    assert noisy["detail_kept_fine"] == pytest.approx(1, abs=0.1)
    assert noisy["detail_invented_fine"] > 3 * noisy["detail_smoothed_fine"]
    for values in (blurred, noisy):
        parts = values["detail_smoothed_fine"] ** 2 + values["detail_invented_fine"] ** 2
        assert values["detail_error_fine"] ** 2 == pytest.approx(parts)


def test_a_bridge_that_the_truth_lacks_is_one_handle():
    truth = np.full((30, 30, 30), 0.6)
    truth[4:26, 4:26, 4:10] = 0.9
    truth[4:10, 4:26, 4:22] = truth[20:26, 4:26, 4:22] = 0.9  # two walls on a floor
    truth[:3] = 0.16
    bridged, mask = truth.copy(), np.ones(truth.shape, bool)
    bridged[8:22, 12:15, 18:21] = 0.9  # from wall to wall
    cm3 = truth.size * 0.8**3 / 1000
    plain, false = (score.surface(truth, shown, mask, (0.8,) * 3) for shown in (truth, bridged))
    assert plain == {"handles_per_cm3": 0.0, "components_per_cm3": pytest.approx(1 / cm3)}
    assert false == plain | {"handles_per_cm3": pytest.approx(1 / cm3)}


def test_what_disagrees_with_the_scan_is_seen_in_percent(block):
    peak = score.metrics.peak_intensity(block.truth("1"), block.mask("1"))
    assert score.mismatch(block, "1 -> 0.5", block.truth("0.5") + 0.01) == pytest.approx(
        1 / peak, rel=1e-4
    )


def test_only_voxels_below_1_mm_hold_the_last_band():
    assert score.bands_of("1 -> 1") == ["middle", "fine"]
    for condition in ("0.8 -> 0.8", "1 -> 0.5", "1 -> native"):
        assert score.bands_of(condition) == list(score.BANDS)


def test_a_model_encodes_at_the_blocks_phase_and_renders_any_voxel(block, coder):
    """A ramp in mm is one at every voxel size, wherever the latent's cells begin."""
    axis_mm = (np.arange(28) + 0.5) / SIDE_MM
    ramp = torch.from_numpy(0.3 + 0.4 * axis_mm).float()[:, None, None].expand(28, 28, 28)
    volume = Volume(ramp.contiguous(), block.volumes["1"].grid)
    placed = replace(block, volumes={"1": volume}, phase=(0.3, 0.7, 0.1))
    told = for_block(coder, placed)
    kept = told.encode(volume)
    assert kept.what[1] == placed.latent_grid(4.0)
    assert kept.numbers == 8 * 8**3
    shown = told.decode(kept, block.volumes["0.5"].grid)
    wanted = 0.3 + 0.4 * (np.arange(56) + 0.5) * 0.5 / SIDE_MM
    inner = slice(12, -12)
    np.testing.assert_allclose(shown[inner, 28, 28], wanted[inner], atol=2e-3)


def test_weights_in_a_file_have_arms_and_a_size_of_their_own(coder):
    named = release_coders(str(coder.path))
    assert [one.name for one in named] == ["medil_w", "medil_w_splines"]
    assert release_size(str(coder.path)) == OWN


def test_tasks_give_the_rows_that_they_announce(source, coder, tmp_path):
    conditions = ("1 -> 1", "1 -> 0.8")
    group = {"all": [Truth(), *fixed_coders(), coder]}
    tasks = measure.block_tasks([source], group, conditions, tmp_path, rows.Provenance.now("quick"))
    [task] = tasks
    found = task.measure()
    assert {row.identity for row in found} == task.wanted
    path = tmp_path / "extrapolation.jsonl"
    assert runner.run(tasks, path, workers=0) == len(task.wanted)
    assert runner.run(tasks, path, workers=0) == 0


def test_interpolation_answers_only_where_voxels_have_to_be_made():
    interpolation = fixed_coders()[-1]
    everywhere = Source("toy", "a" * 64, tuple(CONDITIONS), lambda: None)
    finer = ["1 -> 0.8", "1 -> 0.7", "1 -> 0.5", "1 -> native"]
    assert answered(interpolation, everywhere, list(CONDITIONS)) == finer
    assert "psnr" not in metrics_of("1 -> 1", TRUTH)


def test_profiles_train_each_arm_with_every_seed_first_seeds_first():
    for material in train.MATERIALS:
        runs = measure.PROFILES["gpu"].runs([material])
        assert [run.seed for run in runs] == sorted(run.seed for run in runs)
        arms = {(run.arm, run.seed, run.material) for run in runs}
        assert arms == {(arm, seed, material) for arm in train.TITLES for seed in range(3)}


def test_train_only_scores_nothing(training, tmp_path, monkeypatch):
    plan = measure.Plan(("integrated",), 1, 2, 2, 2, 1, 0)
    monkeypatch.setitem(measure.PROFILES, "quick", plan)
    arguments = [
        "--train-only",
        "--trained-on",
        "heads",
        "--data",
        str(tmp_path),
        "--workers",
        "0",
        "--out",
        str(tmp_path),
    ]
    assert EXPERIMENT.main(arguments) == 0
    assert [run.done(tmp_path) for run in plan.runs()] == [True, False]
    assert not list(tmp_path.glob("*.jsonl"))


def test_fewer_seeds_may_be_trained_than_the_profile_has(training, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(measure.PROFILES, "quick", measure.Plan(("integrated",), 3, 2, 2, 2, 1, 0))
    arguments = ["--train-only", "--trained-on", "heads", "--data", str(tmp_path)]
    arguments += ["--workers", "0", "--out", str(tmp_path), "--seeds"]
    assert EXPERIMENT.main([*arguments, "1"]) == 0
    runs = measure.PROFILES["quick"].runs(["heads"])
    assert [run.done(tmp_path) for run in runs] == [True, False, False]
    assert EXPERIMENT.main([*arguments, "0"]) == 2
    assert "--seeds must be at least 1" in capsys.readouterr().err


def recorded_rows(gain: float = 0.5, n_heads: int = 8, n_seeds: int = 3) -> list[rows.Row]:
    """Rows in which the integrated arm keeps `gain` more fine detail and 2 false handles."""
    rng, found = np.random.default_rng(1), []
    about = partial(
        rows.Row, experiment="extrapolation", unit="1", spacing_in_mm="0.8", spacing_out_mm="0.8",
        numbers_kept=8, n_voxels=64, config_hash="c", time_s=0.0, recorded_at=rows.now_utc(),
    )  # fmt: skip
    arms = {"integrated": (0.3 + gain, 30.0), "trilinear": (0.3, 29.0), "bspline": (0.2, 28.0)}
    arms[TRUTH] = (0.0, 0.0)
    for head in range(n_heads):
        subject = rng.normal(0, 0.02)
        for arm, (kept, psnr) in arms.items():
            for seed in range(n_seeds if arm in train.TITLES else 1):
                provenance = rows.Provenance("c", False, seed, "cpu", 1, {}, "gpu")
                noise = rng.normal(0, 0.002)
                values = dict.fromkeys(metrics_of("0.8 -> 0.8", arm), 0.1)
                values |= {"handles_per_cm3": 2.0 * (arm == "integrated") + 1.0 + abs(subject)}
                if arm != TRUTH:
                    values |= {
                        "detail_smoothed_fine": 0.6,
                        "detail_kept_fine": kept + subject + noise,
                        "psnr": psnr + noise,
                    }
                found += [
                    about(
                        subject=f"made_{head:02d}", arm=arm, condition="0.8 -> 0.8", metric=metric,
                        value=value, data_sha256=f"d{head}", provenance=provenance,
                        weights_sha256=f"{arm}{seed}" if arm in train.TITLES else "",
                    )
                    for metric, value in values.items()
                ]  # fmt: skip
    return found


def test_the_verdict_says_what_the_rows_hold(tmp_path):
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", recorded_rows())
    frame = EXPERIMENT.recorded(tmp_path)
    found = report.scores_of(frame).gap(
        ("integrated", "0.8 -> 0.8", "detail_kept_fine"),
        ("trilinear", "0.8 -> 0.8", "detail_kept_fine"),
    )
    assert found.low < 0.5 < found.high and found.high - found.low < 0.02
    assert (found.n_subjects, found.n_seeds) == (8, 3)
    words = verdict.verdict(frame)
    assert "integrated LTE − trilinear (MedIL-Interp): PSNR +1.00" in words
    assert "it keeps most of the amplitude" in words
    assert "it keeps less than half of the amplitude" in words
    assert "+2.000 [+2.000, +2.000] handles per cm³" in words
    assert "8 heads × 3 seeds" in words and "Beware" not in words
    leads, kept, _ = verdict.answer(frame)
    assert "smooths more than it invents in waves of 2 to 4 mm" in leads and "+0.50" in leads
    assert "about as much (+0.000 [+0.000, +0.000], no difference shown) below 2 mm" in kept


def test_a_release_with_another_latent_meets_codecs_of_its_own_size(tmp_path):
    coders = {coder.name: coder for coder in fixed_coders([OWN, (3.0, 8), OWN])}
    assert list(coders) == [
        "dct_ball", "bspline", "bspline_neighbours", "dct_ball (3 mm, 8)", "bspline (3 mm, 8)",
        "interpolation",
    ]  # fmt: skip
    grid = block_grid(28.0, 1.0)
    kept = coders["bspline (3 mm, 8)"].encode(Volume(torch.rand(grid.shape), grid))
    made = recorded_rows()
    of_splines = [row for row in made if row.arm == "bspline"]
    made += [replace(row, arm="bspline (3 mm, 8)", numbers_kept=20) for row in of_splines]
    made += [replace(row, arm="medil", numbers_kept=22) for row in of_splines]
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", made)
    frame = EXPERIMENT.recorded(tmp_path)
    assert kept.numbers >= 8 * 10**3
    for arm, codec in (("medil", "bspline (3 mm, 8)"), ("integrated", "bspline")):
        assert report.codec_beside(frame, (arm, "0.8 -> 0.8"), "bspline") == codec


def test_few_heads_and_one_seed_are_named(tmp_path):
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", recorded_rows(0.0, 3, 1))
    words = verdict.verdict(EXPERIMENT.recorded(tmp_path))
    assert "3 heads cannot reach p < 0.05" in words and "one seed" in words


def test_tables_come_from_rows_alone(tmp_path):
    assert EXPERIMENT.write(tmp_path, tmp_path / "none") == []
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", recorded_rows())
    files = EXPERIMENT.write(tmp_path, tmp_path / "tables")
    names = [path.stem.removeprefix("extrapolation_") for path in files]
    assert sorted(names) == [
        *("answer", "detail", "errors", "pairs", "provenance", "surface", "verdict")
    ]
    surface = (tmp_path / "tables" / "extrapolation_surface.csv").read_text()
    assert "+2.000 [+2.000, +2.000]" in surface


def test_rows_of_an_older_recipe_do_not_count(tmp_path):
    path = tmp_path / "extrapolation.jsonl"
    old = [replace(row, config_hash="old", value=9.0) for row in recorded_rows(0.0, 2, 1)]
    rows_file.append_rows(path, old)
    rows_file.append_rows(path, [replace(r, recorded_at=rows.now_utc()) for r in recorded_rows()])
    frame = EXPERIMENT.recorded(tmp_path)
    assert set(frame["config_hash"]) == {"c"}
    assert frame["subject"].nunique() == 8


# Real brains


@pytest.fixture(scope="module")
def scan() -> Volume:
    """A ball of smooth noise in air, on the voxels of ds002748."""
    grid = Grid.from_spacing((128, 124, 112), (0.868, 0.868, 1.0), (-60, 10, 5))
    noise = np.random.default_rng(3).normal(size=grid.shape)
    data = 500 + 800 * ndimage.gaussian_filter(noise, 0.8)
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    far_mm = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return Volume(torch.from_numpy(np.where(far_mm < 48, data.clip(1), 0)).float(), grid)


def block_of(scan: Volume, seed: int) -> Block:
    return brain_block("real_toy", "b" * 64, scan, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def brain(scan) -> Block:
    return block_of(scan, 1)


def test_both_voxel_sizes_of_a_brain_show_one_place_of_the_scan(brain, scan):
    native, coarse = brain.volumes[NATIVE], brain.volumes[AT_1_MM]
    assert coarse.grid.shape == (BRAIN_MM,) * 3 and native.grid.shape == (92, 92, 80)
    assert native.grid.bounds_mm.min() >= 0 and native.grid.bounds_mm.max() <= BRAIN_MM
    again = cell_average(brain.truth(NATIVE), native.grid, coarse.grid)
    inside = (slice(2, -2),) * 3  # cells that the native block fills
    np.testing.assert_allclose(again[inside], brain.truth(AT_1_MM)[inside], atol=1e-5)
    voxels = np.unique(scan.data.numpy()[scan.data.numpy() > 0])
    ratio = voxels.max() / voxels.min()
    own = brain.truth(NATIVE)[brain.truth(NATIVE) > 0.01]
    assert own.max() / own.min() <= ratio * 1.001  # voxels as scanned, none interpolated


def test_the_latent_covers_a_brain_at_a_phase_of_its_own(brain, scan):
    low, high = brain.latent_grid(4.0).bounds_mm
    assert (low <= 1e-6).all() and (high >= BRAIN_MM - 1e-6).all()
    assert block_of(scan, 2).phase != brain.phase == block_of(scan, 1).phase


def test_the_scan_keeps_all_of_itself_and_a_blur_smooths(brain):
    data = brain.truth(NATIVE)
    own, blurred = (
        score.scores(brain, "native -> native", x) for x in (data, ndimage.gaussian_filter(data, 1))
    )
    assert own["detail_kept_beyond"] == pytest.approx(1)
    assert own["detail_invented_fine"] == pytest.approx(0, abs=1e-6)
    assert own["input_mismatch"] == pytest.approx(0, abs=1e-6)
    assert blurred["detail_smoothed_fine"] > 0.5 > 0.2 > blurred["detail_invented_fine"]
    assert not brain.mask(NATIVE)[:4].any() and brain.mask(NATIVE).any()


def test_rows_of_a_brain_are_those_that_its_task_announces(brain, monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "load_block", lambda source, folder: brain)
    source = Source("real_toy", "b" * 64, OF_BRAINS, lambda: brain)
    groups = {"fixed": [Truth(), *fixed_coders()]}
    asked = ("1 -> native", "1 -> 0.8")
    (task,) = measure.block_tasks([source], groups, asked, tmp_path, rows.Provenance.now("quick"))
    found = task.measure()
    assert {row.identity for row in found} == task.wanted
    assert {row.condition for row in found} == {"1 -> native"}
    kept = {row.arm: row.value for row in found if row.metric == "detail_kept_fine"}
    assert 1.1 > kept["interpolation"] > kept["dct_ball"] > 0


def test_arms_that_were_trained_on_brains_answer_about_brains_alone(coder, source):
    coder.name = train.Run("integrated", 0, 40, 2, train.BRAINS).name
    assert coder.name == report.FIRST_OF_BRAINS
    brains = replace(source, name="real_toy", conditions=OF_BRAINS)
    assert answered(coder, source, list(CONDITIONS)) == []
    assert set(answered(coder, brains, list(CONDITIONS))) == set(OF_BRAINS)


def test_training_on_brains_sees_1_mm_and_train_people_alone(scan, tmp_path, monkeypatch):
    people = []

    def loaded(entry):
        people.append(entry)
        return type("Of", (), {"load": staticmethod(lambda: Scan(scan, scan.data.numpy() > 0))})

    monkeypatch.setattr(train, "real", loaded)
    run = train.Run("integrated", 0, 40, 2, train.BRAINS)
    scans = run.scans(tmp_path)
    assert len(people) == 2 and {entry.split for entry in people} == {"train"}
    assert {s.spacing_mm for s in scans} == {(1.0, 1.0, 1.0)}
    for number in range(20):
        step = draw_step(run.config, scans, number / 20, np.random.default_rng([0, number]))
        assert step.grid.spacing_mm == step.target_grid.spacing_mm == (1.0, 1.0, 1.0)
    assert len(run.scans(tmp_path)) == len(people)  # made once


def test_runs_of_other_brains_have_other_names_and_too_many_are_refused():
    one, two = (train.Run("integrated", 0, 40, n, train.BRAINS).digest for n in (1, 2))
    assert one != two
    with pytest.raises(InputError, match="40 training brains, not 41"):
        train.Run("integrated", 0, 40, 41, train.BRAINS)


def test_the_verdict_on_brains_says_what_the_rows_hold(tmp_path):
    made = []
    arms = {"integrated @brains": 0.8, "trilinear @brains": 0.7, "integrated": 0.6, "bspline": 0.5}
    for number in range(6):
        for arm, kept in arms.items():
            hashes = "c", "d", "w" * (arm != "bspline")
            about = rows.Measurement("extrapolation", f"real_{number}", arm, "1 -> native", *hashes)
            values = dict.fromkeys(metrics_of(about.condition, arm), 0.1)
            values |= {"detail_kept_fine": kept + 0.02 * number}
            sampling = rows.Sampling("1", "0.87 x 0.87 x 1", 8, 64)
            made += about.rows(values, score.UNITS, sampling, 0.0, rows.Provenance.now("quick"))
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", made)
    frame = EXPERIMENT.recorded(tmp_path)
    words = verdict.real(frame)
    assert "it keeps most of the amplitude, 0.85" in words
    assert "trained on brains − B-spline, least squares: PSNR +0.00" in words
    assert "kept between 2 and 4 mm +0.300 [+0.300, +0.300]" in words
    assert "trained on brains − integrated LTE: PSNR" in words and "6 brains × 1 seed" in words
    assert words in verdict.verdict(frame)
    assert report.real_detail(frame)["Arm"].tolist()[-1] == "B-spline, least squares"


def test_the_split_is_drawn_of_few_arms_in_large_type():
    pytest.importorskip("matplotlib").use("Agg")
    figure = pictures.split_bars(EXPERIMENT.recorded(), ("1 -> 0.8",), ("fine", "beyond"))
    above, below = figure.axes
    names = [label.get_text() for label in above.get_yticklabels()]
    assert len(names) == len(pictures.SHOWN) and len(above.patches) == 3 * len(names)
    assert above.get_title() == "1 → 0.8 mm, waves of 2 to 4 mm"
    assert below.get_title() == "1 → 0.8 mm, waves below 2 mm"


# What the page computes


def test_a_page_renders_scores_and_compares_with_what_is_recorded(block, source, tmp_path):
    coders = [c for c in fixed_coders() if c.name in ("dct_ball", "interpolation")]
    rendered = page.render(block, coders, "1 -> 0.8")
    assert {data.shape for data in rendered.values()} == {block.volumes["0.8"].grid.shape}
    live = page.scored(block, "1 -> 0.8", {**rendered, "truth": block.truth("0.8")})
    assert list(live.columns) == list(page.SHOWN)
    assert live.loc["truth", "detail_kept_fine"] == pytest.approx(1)
    assert live.loc["truth", "fsc_05_mm"] == pytest.approx(2 * 0.8)
    assert live.loc["interpolation", "psnr"] > 20

    alone = page.beside_recorded(live, source, "1 -> 0.8", coders, tmp_path)
    about = [
        coder.measurement("extrapolation", source.name, sha256, "1 -> 0.8", {})
        for coder, sha256 in zip(coders, (source.data_sha256, "b" * 64), strict=True)
    ]
    sampling = rows.Sampling("1", "0.8", 8, 64)
    made = [
        row
        for one in about
        for row in one.rows({"psnr": 12.5}, {"psnr": "dB"}, sampling, 0.0, rows.Provenance.now("q"))
    ]
    rows_file.append_rows(tmp_path / "extrapolation.jsonl", made)
    beside = page.beside_recorded(live, source, "1 -> 0.8", coders, tmp_path)
    column = report.heading("psnr")
    assert beside[column][0] == f"{alone[column][0]} / 12.500"
    assert beside[column][1] == alone[column][1]  # of another block
    rest = [c for c in beside if c != column]
    assert beside[rest].equals(alone[rest])


def test_the_share_of_a_band_is_that_of_a_wave_in_it():
    grid = block_grid(32.0, 1.0)
    place = np.arange(32) + 0.5
    for period_mm, band in ((8 / 1.5, "middle"), (8 / 3, "fine")):
        wave = 0.6 + 0.2 * np.cos(2 * np.pi * place / period_mm)
        data = torch.from_numpy(np.broadcast_to(wave[:, None, None], grid.shape).copy()).float()
        shares = page.band_shares(Block("w", "", {"1": Volume(data, grid)}, 32.0, (0, 0, 0)), "1")
        assert max(shares, key=shares.get) == band and shares[band] > 0.5
        assert sum(shares.values()) <= 1


def test_a_page_trains_what_is_not_there_and_leaves_out_what_diverged(monkeypatch, tmp_path):
    asked = []

    def train_all(runs, folder):
        asked.extend(runs)
        print("progress", file=sys.stderr)
        runs[0].path(folder).write_bytes(b"")

    monkeypatch.setattr(page, "train_all", train_all)
    left = page.trained_now(("integrated", "trilinear"), 5, tmp_path)
    assert [run.arm for run in asked] == ["integrated", "trilinear"]
    assert left == asked[:1] and (left[0].steps, left[0].count) == (5, 1)


def test_a_page_trains_without_a_progress_bar(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(page, "train_all", lambda *_: print("50 %", file=sys.stderr))
    assert page.trained_now(("integrated",), 5, tmp_path) == []
    assert capsys.readouterr().err == ""


# Pictures


def test_shell_correlation_is_one_for_the_truth_and_falls_for_noise(block, rng):
    pytest.importorskip("matplotlib").use("Agg")
    truth = block.truth("0.8")
    noisy = truth + rng.normal(0, 0.04, truth.shape)
    native = block.truth("1")
    figure = pictures.fsc_curves(
        block, {"1 -> 1": {"same": native}, "1 -> 0.8": {"same": truth, "noisy": noisy}}
    )
    left, right = figure.axes
    assert left.get_title(loc="left") == "1 → 1 mm" and left.get_xlim() == (0, 0.5)
    curves = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(curves["same"], 1, atol=1e-9)
    assert curves["noisy"][-1] < 0.9 < curves["noisy"][1], curves["noisy"]
    styles = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in right.lines}
    assert styles["same"] == (left.lines[0].get_color(), "-") and styles["noisy"][1] == "--"


def test_false_and_lost_white_matter_are_marked_where_they_are(monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    grid = block_grid(20.0, 1.0)
    truth = np.full(grid.shape, 0.3)
    truth[4:12, 4:14, 4:16] = 0.9
    wrong = truth.copy()
    wrong[14:17, 8, 9] = 0.9  # false: 3 voxels of plane 9
    wrong[4, 4, 9] = 0.3  # lost: one
    block = Block("w", "", {"1": Volume(torch.from_numpy(truth).float(), grid)}, 20.0, (0, 0, 0))
    monkeypatch.setattr(Block, "mask", lambda self, voxels: np.ones(grid.shape, bool))
    monkeypatch.setattr(pictures, "thresholds", lambda data, mask: (0.2, 0.6))
    monkeypatch.setattr(pictures, "white_surface", lambda data, mask, mm, border: data > border)
    figure = pictures.white_matter(block, "1", {"wrong": wrong})
    same, other = figure.axes
    assert same.get_title() == "truth\n1 pieces, 0 handles"
    assert other.get_title() == "wrong\n2 pieces, 0 handles"
    marked = [
        [int((i.get_array()[..., 3] > 0).sum()) for i in ax.images[1:]] for ax in (same, other)
    ]
    assert marked == [[0, 0], [3, 1]]
    false = other.images[1].get_array()[..., 3].T > 0  # [i, j]
    assert np.argwhere(false).tolist() == [[14, 8], [15, 8], [16, 8]]
