"""The ablation: same steps for every arm, two fair snapshots, nothing run twice, honest words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import rows_file
from eval.ablation import EXPERIMENT
from eval.ablation import blocks as ablation_data
from eval.ablation import measure as ablation
from eval.ablation import score as ablation_score
from eval.ablation import scored as ablation_scored
from eval.ablation import training as ablation_training
from eval.ablation.blocks import FINER, WHOLE, Question
from eval.arms import train as ablation_train
from eval.subjects import held_out_brains
from medil.config import TEST, RunConfig
from medil.data.manifest import entries
from medil.data.samples import LABEL_MAPS
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.io.intensity import robust_intensity
from medil.model.rivals import build
from medil.model.weights import weights_sha256
from medil.regrid import cell_average
from medil.training import update as engine
from medil.training.dataset import REAL
from medil.training.patches import prepare_scan
from medil.training.stages import refinement
from medil.volume import Volume

ARMS = {
    "integrated": TEST,
    "trilinear": replace(TEST, operator="trilinear"),
    "integrated/learned": replace(TEST, closed_form=False),
    "trilinear/learned": replace(TEST, operator="trilinear", closed_form=False),
}


def texture(shape, seed=0, blur=1.2):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, blur)
    return torch.from_numpy(0.5 + 0.15 * smooth / smooth.std()).float().clamp(min=0.05)


def recipe_of_tests():
    return ablation_train.recipe(patch_mm=12.0)


def question(subject="brain", condition="1 mm", spacing_mm=1.0, side=16, seed=0):
    grid = Grid.from_spacing([round(side / spacing_mm)] * 3, spacing_mm, origin_mm=(-9, 5, 30))
    truth = texture(grid.shape, seed)
    mask = torch.ones(grid.shape, dtype=torch.bool)
    return Question(
        subject, "d" * 64, condition, truth, grid, truth, grid, mask, (0.1, 0.5, 0.8), side
    )


@pytest.fixture
def heads():
    return [
        prepare_scan(Volume(texture((30, 30, 30), k), Grid.from_spacing((30, 30, 30), s)))
        for k, s in enumerate((1.0, 1.6))
    ]


@pytest.fixture
def small(monkeypatch, heads):
    """The ablation with small arms on small blocks."""
    blocks = [question(s, seed=k) for k, s in enumerate(("brain", "made_0"))]
    blocks += [question("made_0", "1.5 mm", 1.6), question("made_0", WHOLE, side=40)]
    monkeypatch.setattr(ablation, "ARMS", ARMS)
    monkeypatch.setattr(ablation, "recipe", recipe_of_tests)
    monkeypatch.setattr(ablation, "questions", lambda count, folder, workers: blocks)
    monkeypatch.setattr(ablation.TrainingSet, "scans", lambda *arguments: heads)


def run(out, *arguments):
    return EXPERIMENT.main(["--out", str(out), "--steps", "2", "--seeds", "1", *arguments])


# Runs


def test_a_recorded_run_is_not_run_again_and_a_new_seed_is(small, tmp_path, capsys):
    path = tmp_path / "ablation.jsonl"
    assert run(tmp_path) == 0
    frame = rows_file.read_rows(path)
    runs = frame[frame["experiment"] == ablation.RUN]
    quick = {"integrated/learned", "trilinear/learned"}
    assert set(runs["arm"]) == quick and set(runs["seed"]) == {0}
    before = path.read_bytes()
    assert run(tmp_path) == 0 and path.read_bytes() == before
    assert "0 new rows" in capsys.readouterr().out
    assert run(tmp_path, "--seeds", "2", "--arms", "integrated/learned") == 0
    added = rows_file.read_rows(path).iloc[len(frame) :]
    assert set(added["seed"]) == {1} and set(added["arm"]) == {"integrated/learned"}


def test_rows_hold_both_budgets_every_metric_and_their_own_weights(small, tmp_path):
    assert run(tmp_path, "--arms", "trilinear/learned") == 0
    frame = rows_file.read_rows(tmp_path / "ablation.jsonl")
    scored = frame[(frame["experiment"] == "ablation") & (frame["weights_sha256"] != "")]
    assert set(scored["arm"]) == {"integrated/learned", "trilinear/learned"}  # and its reference
    for _, group in scored[scored["metric"] != "patch_vs_whole"].groupby(["arm", "condition"]):
        assert set(group["metric"]) == set(ablation_score.METRICS)
    assert {"1 mm, equal steps", "1 mm, equal compute"} <= set(scored["condition"])
    assert WHOLE not in set(scored["condition"])
    curve = frame[frame["experiment"] == ablation.CURVE]
    assert set(curve["condition"]) == {"1 mm, after 1 steps", "1 mm, after 2 steps"}
    last = curve[curve["condition"].str.contains("after 2")]
    assert set(last["weights_sha256"]) <= set(scored["weights_sha256"])
    own = scored[scored["arm"] == "integrated/learned"]
    assert own["weights_sha256"].nunique() == 1  # the reference sets the time: one snapshot
    assert (scored["numbers_kept"] == 8 * 5**3).sum() > 0  # 16 mm: 4 cells and one for the phase


def test_an_arm_that_diverges_is_recorded_and_the_others_go_on(small, tmp_path, monkeypatch):
    def update(model, *arguments):
        lost = model.config.operator == "trilinear"
        record = engine.update(model, *arguments)
        return {**record, "loss": math.nan} if lost else record

    monkeypatch.setattr(ablation_train, "update", update)
    assert run(tmp_path, "--arms", "trilinear", "integrated") == 0
    frame = rows_file.read_rows(tmp_path / "ablation.jsonl")
    fell = frame[frame["metric"] == "diverged_at_step"]
    assert list(fell["arm"]) == ["trilinear"] and fell["value"].item() == 0
    assert "trilinear" not in set(frame[frame["experiment"] == "ablation"]["arm"])
    words = EXPERIMENT.verdict(EXPERIMENT.recorded(tmp_path))
    assert "trilinear, seed 0: the loss was no longer finite at step 0" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arms", "quadratic"], "there is no arm 'quadratic'"),
        (["--arms", "integrated @stage9"], "there is no arm"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--subjects", "99"], "subjects to score"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(small, tmp_path, capsys, arguments, words):
    assert run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_interrupt_ends_cleanly(small, tmp_path, monkeypatch, capsys):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "train_arm", stop)
    assert run(tmp_path) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_arms_that_matter_most_come_first_and_references_before_their_arms():
    names = ablation.all_arms()
    first = "literal-skip-both/learned"
    assert names[:2] == [first, "trilinear-both/learned"] and len(set(names)) == len(names)
    assert set(ablation.ARMS) <= set(names) and "integrated/learned @both+mix" in names
    assert {f"{first} @both", f"{first} @both+groups"} <= set(names)
    plan = ablation.Plan(("literal/learned", "integrated @both"), 1, 2, 1, 1)
    ordered = ["integrated/learned", "literal/learned", "integrated", "integrated @both"]
    assert list(plan.runs()) == [(arm, seed) for seed in range(2) for arm in ordered]


def test_a_stopped_night_holds_whole_comparisons():
    runs = list(replace(ablation.PROFILES["gpu"](), seeds=3).runs())
    claim = {"literal-skip-both/learned", "trilinear-both/learned", "integrated", "trilinear"}
    head = runs[: 3 * (len(claim) + 1)]  # and the reference of learned arms
    assert {arm for arm, _ in head} == claim | {"integrated/learned"}
    assert len(set(head)) == len(head) and len(set(runs)) == len(runs)


def test_the_first_places_are_kept_of_each_subject_and_condition():
    blocks = [question(s, c, seed=k) for k in range(2) for s in "ab" for c in ("1 mm", "2 mm")]
    kept = ablation.first_places(blocks, 1)
    assert [(q.subject, q.condition) for q in kept] == [
        ("a", "1 mm"), ("a", "2 mm"), ("b", "1 mm"), ("b", "2 mm"),
    ]  # fmt: skip
    assert all(q is b for q, b in zip(kept, blocks[:4], strict=True))
    assert ablation.first_places(blocks, 2) == blocks


# Training


def test_snapshots_are_taken_at_the_step_and_at_the_time(heads, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(ablation_train, "clock", lambda device: next(ticks) / 2)  # 0.5 s a step
    config = RunConfig("ablation", TEST, ablation_train.recipe(12.0))
    longer = ablation_train.train_arm(config, heads, 0, steps=2, budget_s=2.0)
    assert (longer.by_steps.steps, longer.by_time.steps) == (2, 4)
    assert (longer.by_steps.cpu_s, longer.by_time.cpu_s) == (1.0, 2.0)
    shorter = ablation_train.train_arm(config, heads, 0, steps=3, budget_s=1.0)
    assert (shorter.by_steps.steps, shorter.by_time.steps) == (3, 2)
    own = ablation_train.train_arm(config, heads, 0, steps=2, budget_s=None)
    assert own.by_steps.steps == own.by_time.steps == 2
    digests = {weights_sha256(s.model) for s in (own.by_steps, own.by_time, shorter.by_time)}
    assert len(digests) == 1  # same seed, same two steps, whatever else was asked for


def test_every_arm_of_a_seed_sees_the_same_steps(heads, monkeypatch):
    seen = []

    def update(model, optimiser, step, settings, seed, fabric, term=None):
        seen.append((float(step.target.sum()), seed, step.latent_grid.affine_vox2ras[0, 3]))
        return {"loss": 1.0}

    monkeypatch.setattr(ablation_train, "update", update)
    for arm in ("integrated", "trilinear/learned"):
        config = RunConfig("ablation", ARMS[arm], ablation_train.recipe(12.0))
        ablation_train.train_arm(config, heads, 3, steps=4, budget_s=0.0)
    half = len(seen) // 2
    assert seen[:half] == seen[half:]


def test_a_grouped_run_holds_the_lte_still_in_stage_one_and_trains_all_in_stage_two(heads):
    skip = replace(TEST, operator="literal-skip", closed_form=False)
    config = ablation_train.staged(RunConfig("ablation", skip, recipe_of_tests()), " @both+groups")

    def weights(snapshots, steps):
        made = ablation_train.train_arm(
            config, heads, 0, steps, None, snapshots=snapshots, grouped=True
        )
        return [shot.model for shot in (*made.on_the_way, made.by_steps)]

    early, late = weights((1,), 7)  # stage one is the first 0.15: two steps
    start = weights((), 1)[0]
    group = [len(refinement(model)) for model in (early, late)]
    assert group[0] == group[1] > 0
    same = [torch.equal(a, b) for a, b in zip(refinement(early), refinement(start), strict=True)]
    moved = [
        not torch.equal(a, b) for a, b in zip(refinement(early), refinement(late), strict=True)
    ]
    assert all(same) and any(moved)
    with pytest.raises(InputError, match="literal-skip"):
        refinement(build(TEST))


@pytest.mark.parametrize(
    ("stage", "whole"), [("", 0), (" @stage1", 40), (" @both", 6), (" @both+mix", 9)]
)
def test_stages_see_whole_volumes_as_often_as_they_say(heads, monkeypatch, stage, whole):
    widest = []

    def update(model, optimiser, step, settings, seed, fabric, term=None):
        widest.append(max(step.latent_grid.spacing_mm))
        return {"loss": 1.0}

    monkeypatch.setattr(ablation_train, "update", update)
    config = ablation_train.staged(RunConfig("ablation", TEST, ablation_train.recipe(12.0)), stage)
    ablation_train.train_arm(config, heads, 0, steps=40, budget_s=None)
    assert sum(pitch > 4.001 for pitch in widest[-40:]) == pytest.approx(
        whole, abs=4 * ("mix" in stage)
    )


# Scoring


def test_patches_of_a_smooth_image_equal_the_whole_where_no_network_disturbs(spline_model):
    block = question(condition=WHOLE, side=40)
    ramp = (
        centres_mm(block.grid) @ torch.tensor([0.01, 0.005, -0.008], dtype=torch.float64)
    ).float()
    ramp = 0.5 + ramp - ramp.mean()
    block = replace(block, x=ramp, truth=ramp)
    assert ablation_score.patch_difference(spline_model, block) < 0.5
    rough = replace(block, x=texture(ramp.shape, blur=0.7), truth=ramp)
    assert ablation_score.patch_difference(spline_model, rough) >= 0


def test_scores_are_means_over_a_subjects_blocks():
    blocks = [question(seed=k) for k in range(2)]
    found = ablation_score.scores(blocks, lambda q: q.truth.double().numpy() + 0.01)
    means, _, _ = found["brain", "1 mm"]
    expected = [20 * math.log10(float(np.percentile(q.truth, 99.5)) / 0.01) for q in blocks]
    assert means["psnr"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert list(found) == [("brain", "1 mm")]


# Data


def test_the_latent_grid_holds_the_block_and_begins_at_its_phase():
    block = question()
    latent = block.latent_grid(4.0)
    assert latent.shape == (5, 5, 5)
    before_mm = block.grid.bounds_mm[0] - latent.bounds_mm[0]
    np.testing.assert_allclose(before_mm, np.array(block.phase) * 4.0, atol=1e-9)
    assert (latent.bounds_mm[1] >= block.grid.bounds_mm[1] - 1e-9).all()


def test_questions_come_back_from_a_file_as_they_were(tmp_path):
    asked = [question(), question("made_0", "1.5 mm", 1.6)]
    ablation_data.write_questions(tmp_path / "q.safetensors", asked)
    for before, after in zip(
        asked, ablation_data.read_questions(tmp_path / "q.safetensors"), strict=True
    ):
        assert torch.equal(before.x, after.x) and torch.equal(before.mask, after.mask)
        assert before.grid == after.grid and before.latent_grid(4.0) == after.latent_grid(4.0)
        assert (before.subject, before.condition, before.phase) == (
            after.subject, after.condition, after.phase,
        )  # fmt: skip


def test_a_coarse_block_is_the_mean_of_fine_voxels_in_the_same_place(rng):
    grid = Grid.from_spacing((8, 8, 8), 1.0, origin_mm=(3, 4, 5))
    scaling = robust_intensity(torch.tensor([0.0, 1.0, 2.0]))
    data = torch.rand(8, 8, 8) + 0.1
    asked = ablation_data.question_of("s", "d", FINER, data, grid, scaling, rng)
    assert asked.x.shape == (4, 4, 4) and asked.target == grid
    corner = asked.truth[:2, :2, :2].mean()
    assert float(asked.x[0, 0, 0]) == pytest.approx(float(corner), rel=1e-5)
    np.testing.assert_allclose(asked.grid.index_to_ras([0, 0, 0]), (3.5, 4.5, 5.5))


def test_blocks_are_placed_where_they_are_mostly_brain(rng):
    grid = Grid.from_spacing((40, 40, 40), 3.0)
    brain = np.zeros(grid.shape, dtype=bool)
    brain[10:30, 10:30, 10:30] = True
    middle_mm = ablation_data.inside(brain, grid, rng)
    assert (np.abs(middle_mm - 59) < 25).all()


def test_no_scored_scan_is_a_training_scan_whatever_its_name():
    trained = {file.sha256 for file in ablation_training.TrainingSet.at_hand(1).real}
    scored = {file.sha256 for file in held_out_brains()}
    everyone = {file.sha256 for name in REAL for file in entries(name, "test")}
    assert scored <= everyone and not everyone & {
        e.sha256 for n in REAL for e in entries(n, "train")
    }
    assert not trained & scored
    maps = {split: {m.sha256 for m in entries(LABEL_MAPS, split)} for split in ("train", "test")}
    assert not maps["train"] & maps["test"]


def test_without_real_scans_the_recipe_says_so(monkeypatch):
    monkeypatch.setattr(ablation_training, "available", lambda entry: False)
    alone = ablation_training.TrainingSet.at_hand(4)
    monkeypatch.setattr(ablation_training, "available", lambda entry: True)
    whole = ablation_training.TrainingSet.at_hand(4)
    assert str(alone) == "4 heads, no real scan"
    assert str(whole) == "4 heads, 40 real brains, 2 real heads (0.6 of steps)"
    assert alone.recipe != whole.recipe


def test_a_brain_is_cut_to_its_box_and_a_margin(rng):
    data = torch.zeros(40, 30, 50)
    data[15:20, 12:14, 3:10] = 1.0
    cut = ablation_training.around_brain(Volume(data, Grid.from_spacing(data.shape, (1, 2, 4))))
    assert cut.shape == (5 + 2 * 8, 2 + 2 * 4, 7 + 2 * 2) and cut.sum() == data.sum()


def test_blocks_of_finer_scans_are_averages_over_larger_cells_at_their_place():
    grid = Grid.from_spacing((70, 70, 70), (0.868, 0.868, 1.0))
    volume = Volume(texture(grid.shape), grid)
    middle_mm = grid.index_to_ras([35, 34, 33])
    blocks = {c: (x, g) for c, x, g in ablation_scored.larger_cells(volume, middle_mm, True)}
    assert set(blocks) == set(ablation_scored.OF_BRAINS)
    native, own = blocks[ablation_data.NATIVE]
    start = np.rint(grid.ras_to_index(own.index_to_ras([0, 0, 0]))).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, native.shape, strict=True))
    assert torch.equal(native, volume.data[box])
    for condition in ("1 mm", "2 mm", "1 x 1 x 3 mm"):
        data, target = blocks[condition]
        assert target.spacing_mm == pytest.approx(ablation_data.SCORED_MM[condition])
        expected = cell_average(volume.data.double().numpy(), grid, target)
        np.testing.assert_allclose(data.numpy(), expected, atol=1e-6)


def test_training_sizes_leave_the_unseen_ones_unseen():
    seen = set(ablation_training.TRAIN_MM)
    assert not seen & {0.8, 1.5, 3.0} and 1.0 in seen


# Scored subjects


def ramp_mm(grid: Grid) -> torch.Tensor:
    """A value of each place in mm, above 20 over 60 mm around the origin."""
    return (centres_mm(grid) @ torch.tensor([1.0, 0.5, -0.25], dtype=torch.float64) + 100).float()


class RampHead:
    """A head whose brain is a ball with a ramp in it, and around it air."""

    map_sha256, index, style = "m" * 64, 3, "plain"
    head_mm, darkest = np.array([[-30.0] * 3, [30.0] * 3]), 1.0

    def source(self, stand_in):
        return stand_in

    def draw(self):
        return self

    def render(self, grid, quadrature_mm):
        return torch.where(centres_mm(grid).norm(dim=-1) < 29, ramp_mm(grid), 0.0)


@pytest.fixture
def few_voxels(monkeypatch):
    """Blocks of 10 and 12 mm."""
    for module in (ablation_data, ablation_scored):
        monkeypatch.setattr(module, "SIDE_MM", 10.0)
        monkeypatch.setattr(module, "WHOLE_MM", 12.0)


def test_blocks_of_a_made_head_show_it_at_their_places_and_are_drawn_once(
    tmp_path, monkeypatch, few_voxels
):
    path, make = ablation_scored._made_task(tmp_path / "new", RampHead())
    monkeypatch.setattr(ablation_scored, "subject_tasks", lambda folder: [(path, make)] * 2)
    asked = ablation_scored.questions(1, tmp_path / "new")
    conditions = [q.condition for q in asked]
    assert conditions == [*ablation_data.CONDITIONS, WHOLE, *ablation_data.CONDITIONS]
    scaling = robust_intensity(RampHead().render(ablation_scored.synthetic.overview(RampHead()), 1))
    for q in asked:
        at = centres_mm(q.target).norm(dim=-1) < 28
        np.testing.assert_allclose(
            q.truth[at], scaling.forward(ramp_mm(q.target))[at], rtol=1e-4, err_msg=q.condition
        )
        side_mm = 12.0 if q.condition == WHOLE else 10.0
        assert side_mm - 3 < min(q.target.extent_mm) <= max(q.target.extent_mm) <= side_mm + 1e-6
    assert len({q.phase for q in asked}) == len(asked)
    monkeypatch.setattr(ablation_scored, "_made_blocks", None)
    again = ablation_scored.questions(1, tmp_path / "new")
    assert [q.phase for q in again] == [q.phase for q in asked]


def test_blocks_of_a_1_mm_scan_are_its_voxels_or_their_means(monkeypatch, few_voxels, tmp_path):
    grid = Grid.from_spacing((30, 28, 32), 1.0).rotated((1, 2, 3), 20.0)
    data = texture(grid.shape)
    subject = type("S", (), {"load": lambda self: type("L", (), {"volume": Volume(data, grid)})})
    monkeypatch.setattr(ablation_scored, "template_subject", subject)
    _, make = ablation_scored._first_task(tmp_path, None)
    asked = {q.condition: q for q in make()}
    assert set(asked) == {*ablation_scored.AVERAGED, FINER, WHOLE}
    own = asked[WHOLE]
    start = np.rint(own.grid.index_to_ras([0, 0, 0])).astype(int)  # axes along the voxels, 1 mm
    box = tuple(slice(a, a + 12) for a in start)
    expected = robust_intensity(data).forward(data[box])
    np.testing.assert_allclose(own.truth, expected, rtol=1e-5)
    for condition, factor in ablation_scored.AVERAGED.items():
        assert asked[condition].grid.spacing_mm == tuple(float(f) for f in factor)


def test_real_brains_and_made_heads_are_scored_in_turn_after_the_1_mm_brain(monkeypatch, tmp_path):
    people = [*entries(ablation_scored.BRAINS, "test")[:2], entries("open_ms_t1", "test")[0]]
    monkeypatch.setattr(ablation_scored, "held_out_brains", lambda: people)
    monkeypatch.setattr(ablation_scored.synthetic, "heads", lambda *_: [RampHead()] * 3)
    names = [path.name for path, _ in ablation_scored.subject_tasks(tmp_path)]
    assert ablation_scored.subject_count() == len(names) == 6
    real = [ablation_scored.name_of(entry) for entry in people]
    wanted = [real[2], real[0], "made_3", real[1], "made_3", "made_3"]
    assert all(name.startswith(w) for name, w in zip(names, wanted, strict=True))
