"""False gyri: blocks know their truth, scores count what is false, words follow the numbers."""

import argparse

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from eval import rows, rows_file
from eval.false_gyri import (
    EXPERIMENT,
    arms,
    blocks,
    measure,
    page,
    pictures,
    report,
    score,
    tries,
    verdict,
)
from eval.false_gyri.arms import GUARDS, INTERPOLATION, MAPS, MEDIL, RIVALS
from eval.false_gyri.blocks import ASKED, BRAIN, CONDITIONS, HEAD, NOISE, Block, Source
from eval.false_gyri.score import COUNTS, MEASURED, OF_RENDERINGS, PREDICTED
from eval.false_gyri.tries import CONTROL, TRIES, Run
from medil.grid import centres_mm
from medil.model.guards import BAND_SHARE, ERRORS_PER_SPREAD
from medil.model.rivals import build
from medil.model.weights import save_weights
from medil.regrid import cell_average

GUARD = "mirrors_band_50"


@pytest.fixture
def block() -> Block:
    """A cube of 24 mm with smooth structure from 0.1 to 0.9; the same bits in every test."""
    rng = np.random.default_rng(5)
    rough = ndimage.gaussian_filter(rng.normal(size=(96,) * 3), 6.0, mode="wrap")
    content = 0.1 + 0.8 * (rough - rough.min()) / np.ptp(rough)
    return blocks.of_content("made_00_from_map_17", content, rng)


def test_truths_and_scans_of_a_block_show_one_object(block):
    fine, coarse = block.truths["0.5"], block.truths["2"]
    mean = cell_average(fine.data.numpy(), fine.grid, coarse.grid)
    assert np.allclose(mean, coarse.data, atol=1e-6)
    apart = (block.scans["1"].data - block.truths["1"].data).numpy()
    assert apart.std() == pytest.approx(NOISE, rel=0.05)
    assert block.scans["1x1x3"].grid.spacing_mm == pytest.approx((1, 1, 3))
    assert block.inside("0.8").sum() == 20**3  # 16 mm are left of 24


def test_a_bar_across_a_gap_is_a_bridge_of_both_surfaces_and_found_where_it_is(block):
    true = block.truths["0.5"].data.double().numpy()
    walls = np.full_like(true, 0.9)
    walls[20:28, 12:] = 0.05  # a trench with one open end
    shown = walls.copy()
    shown[:, 30:32, 23:25] = 0.9
    made = Block(
        "toy", {"0.5": block.truths["0.5"].with_data(torch.from_numpy(walls))}, {}, (0.3, 0.7)
    )
    found = score.rendering(made, "0.5", shown)
    assert {name: found[name] for name in COUNTS if found[name]} == {
        "brain_bridges": 1.0,
        "white_bridges": 1.0,
    }
    counts, where = score.false_topology(made, "0.5", shown, "white")
    assert counts.total == 1
    assert where.sum() == 8 * 2 * 2


def test_a_map_that_is_the_error_has_the_factor_one_and_bins_on_the_diagonal(block):
    true = block.truths["0.8"].data.double().numpy()
    shown = block.truths["0.8"].data.double().numpy() + 0.1 * np.sin(np.arange(true.size)).reshape(
        true.shape
    )
    found = score.uncertainty(block, "0.8", shown, np.abs(shown - true))
    assert found["factor"] == pytest.approx(1)
    assert found["correlation"] == pytest.approx(1)
    assert [found[name] for name in PREDICTED] == pytest.approx([found[name] for name in MEASURED])


def test_few_false_voxels_have_no_area_under_the_curve():
    assert np.isnan(score.auc(np.ones(3), np.zeros(9)))
    assert score.auc(np.ones(30), np.zeros(9)) == 1


def test_a_task_gives_the_rows_that_it_promised(block, spline_model, monkeypatch):
    for module in (measure, arms):
        monkeypatch.setattr(module, "loaded", lambda release: spline_model)
    source = Source(block.name, "a" * 64, lambda: block)
    monkeypatch.setattr(measure, "sources", lambda *counts: [source])
    options = argparse.Namespace(profile="quick", release="tiny")
    [task] = measure.tasks(options, rows.Provenance.now("quick"))
    made = task.measure()
    assert {row.identity for row in made} == task.wanted
    values = {(r.condition, r.arm, r.metric): r.value for r in made}
    same = [values["1 -> 0.8", arm, "psnr"] for arm in (MEDIL, "medil_splines", "mirrors")]
    assert same == pytest.approx([same[0]] * 3, abs=0.05)  # no network, nothing to disagree on
    assert values["1 -> 0.8", "band_100", "psnr"] < same[0]


# Tries


def test_every_seed_of_a_try_gives_the_rows_that_its_task_promised(block, monkeypatch, tmp_path):
    pytest.importorskip("monai", reason="MONAI (extra eval) is not installed")
    runs = [Run(name, seed, 1.0, 1) for name in ("integrated", "conv-1mm") for seed in (0, 1)]
    for run in runs:
        weights = build(run.config.model)
        save_weights(weights, run.config, run.path(tmp_path), {"seed": run.seed}, half=False)
    tried = tries.coders([*runs, Run("literal", 0, 1.0, 1)], tmp_path)  # that one left none
    source = Source(block.name, "a" * 64, lambda: block)
    monkeypatch.setattr(measure, "ASKED", ("1 -> 0.8",))
    made = measure.measure_tries(source, tried, rows.Provenance.now("quick"))
    promised = measure.of_tries(source, tried)
    assert {r.identity for r in made} == rows.identities((a, OF_RENDERINGS) for *_, a in promised)
    rows_file.append_rows(tmp_path / "false_gyri.jsonl", made)
    frame = EXPERIMENT.recorded(tmp_path)
    assert frame.groupby(["arm", "metric"])["seed"].nunique().eq(2).all()


def test_a_run_is_named_by_all_it_depends_on_and_all_keep_as_many_numbers():
    runs = [Run(name, 0, 1.0, 2) for name in TRIES]
    others = [Run(CONTROL, 1, 1.0, 2), Run(CONTROL, 0, 2.0, 2), Run(CONTROL, 0, 1.0, 3)]
    assert len({run.digest for run in runs + others}) == len(runs) + len(others)
    assert (
        len({(r.config.model.latent_channels, r.config.model.latent_spacing_mm) for r in runs}) == 1
    )
    assert not measure.PROFILES["quick"].runs()
    assert [r.seed for r in measure.PROFILES["gpu"].runs()] == [0] * 3 + [1] * 3


def test_tries_stand_beside_the_control_and_seeds_are_averaged():
    frame = with_tries(recorded())
    made = report.tries_table(frame).set_index(["Trained alike", "mm"])
    paper = made.loc[(TRIES["literal"], "0.8")]
    assert paper["of the control (%)"] == "150 [150, 150]" and paper["per cm³"] == "30.0"
    assert made.loc[(TRIES[CONTROL], "0.5"), "of the control (%)"] == ""
    assert set(made["n"]) == {"8 × 2"}
    line = verdict.verdict(frame).splitlines()[0]
    assert "literal LTE shows 150 [150, 150] % and a Conv AE shows 50 [50, 50] % of" in line
    assert "trained" not in verdict.verdict(recorded())


def with_tries(frame: pd.DataFrame) -> pd.DataFrame:
    """With two seeds of the tries, of which the second invents twice what the first does."""
    plain = frame[frame["arm"] == MEDIL]
    counted = plain["metric"].isin(COUNTS)
    made = [
        plain.assign(arm=arm, seed=seed, value=plain["value"].mask(
            counted, plain["value"] * share * (seed + 1) * 4 / 9))
        for arm, share in (("literal", 1.5), (CONTROL, 1.0), ("conv-1mm", 0.5))
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.concat([frame, *made], ignore_index=True)


def test_guards_and_maps_are_asked_on_finer_voxels_and_brains_for_maps_alone():
    head, brain = (Source(f"{kind}x", "a", lambda: None) for kind in (HEAD, BRAIN))
    assert measure.asked(head, "1 -> 1") == list(RIVALS)
    assert set(measure.asked(head, "1 -> 0.5")) == {*RIVALS, *GUARDS, *MAPS}
    assert measure.asked(brain, "2 -> 1") == list(MAPS)


# Words and tables


def recorded(left: float = 0.4, gain_db: float = 0.1) -> pd.DataFrame:
    """Rows of eight heads: MedIL invents 30 per cm3, interpolation 40, every guard but one 30."""
    lines = []

    def add(subject: str, condition: str, arm: str, values: dict[str, float]) -> None:
        fixed = {"experiment": "false_gyri", "unit": "1", "n_voxels": 1}
        about = {"subject": subject, "condition": condition, "arm": arm} | fixed
        lines.extend(about | {"metric": m, "value": v} for m, v in values.items())

    for head in range(8):
        for condition in CONDITIONS:
            for arm in (*RIVALS, *GUARDS):
                total = 40.0 if arm == INTERPOLATION else 30 * left if arm == GUARD else 30.0
                psnr = 28.0 + gain_db * (arm == GUARD)
                counts = dict.fromkeys(COUNTS, total / len(COUNTS) * 2)
                add(f"{HEAD}{head:02d}_x", condition, arm, counts | {"psnr": psnr, "ribbon_cm3": 2})
            for which in MAPS:
                of_bins = {p: 0.01 * (i + 1) for i, p in enumerate(PREDICTED)}
                of_bins |= {m: 0.03 * (i + 1) for i, m in enumerate(MEASURED)}
                values = {"factor": 3.0, "correlation": 0.5, "auc": 0.8, "auc_at_surfaces": 0.7}
                add(f"{HEAD}{head:02d}_x", condition, which, values | of_bins)
    return pd.DataFrame(lines)


def test_a_guard_that_halves_what_is_invented_is_chosen_and_meets_the_bar():
    frame = recorded()
    assert report.chosen(frame) == GUARD
    found = report.effect(report.heads_of(frame, False), GUARD, ASKED[0])
    assert found is not None
    assert (found.left, found.n) == (pytest.approx(40), 4)
    words = verdict.verdict(frame).splitlines()
    assert len(words) == 3
    assert "30.0 and 30.0" in words[0] and "fewer" in words[0]
    assert "meets the bar" in words[1]
    assert "within 0 %" in words[2] and "0.70" in words[2]


def test_a_guard_that_costs_more_is_not_chosen_and_one_that_leaves_more_misses_the_bar():
    assert report.chosen(recorded(gain_db=-0.3)) != GUARD
    assert "misses the bar" in verdict.guard(recorded(left=0.7))


def test_a_ratio_is_pooled_and_its_interval_holds_it():
    share, low, high = report.ratio(np.array([1.0, 3.0]), np.array([4.0, 4.0]))
    assert share == 50
    assert low <= share <= high
    assert np.isnan(report.ratio(np.zeros(2), np.zeros(2))[0])


def test_without_rows_there_are_no_words():
    assert EXPERIMENT.recorded("nowhere") is None
    frame = recorded()
    assert verdict.verdict(frame[frame["condition"] == "1 -> 1"]) == ""


def test_tables_are_narrow_and_hold_what_was_judged():
    made = report.tables(recorded())
    assert list(made["false_gyri_invented"]) == [
        "Rendering", "2 mm", "1 mm", "0.8 mm", "0.5 mm", "0.8 mm, thick",
    ]  # fmt: skip
    assert made["false_gyri_guards_08"].loc[3, "Left (%)"] == "40 [40, 40]"
    assert made["false_gyri_maps"]["Off by (%)"].tolist() == ["0"] * len(MAPS)
    assert made["false_gyri_calibration"]["n"].tolist() == [4, 4, 4]


def test_what_the_package_uses_is_what_the_recorded_rows_choose():
    frame = EXPERIMENT.recorded()
    if frame is None:
        pytest.skip("false_gyri is not recorded")
    assert report.chosen(frame) == f"mirrors_band_{100 * BAND_SHARE:.0f}"
    assert report.factor(frame) == pytest.approx(ERRORS_PER_SPREAD, rel=0.02)


def test_pictures_show_the_bridge_that_was_found_and_every_guard(block, spline_model, monkeypatch):
    monkeypatch.setattr(arms, "loaded", lambda release: spline_model)
    walls = np.full_like(block.truths["0.8"].data.numpy(), 0.9)
    walls[12:18, 4:] = 0.05
    truths = {"0.8": block.truths["0.8"].with_data(torch.from_numpy(walls))}
    made = Block("toy", truths, block.scans, (0.3, 0.7))
    case = arms.Case(made, "1 -> 0.8", "tiny")
    case.plain = walls.copy()
    case.plain[:, 14:16, 14:16] = 0.9
    found = page.largest_bridge(made, case)
    assert (found.surface, found.where.sum()) == ("white", 6 * 2 * 2)
    assert len(pictures.planes(made, "0.8", {"MedIL": case.plain}, found).axes) == 6
    assert len(pictures.surfaces(made, "0.8", {"MedIL": case.plain}, found).axes) == 2
    drawn = pictures.trade_off(recorded()).axes
    assert len(drawn) == len(ASKED)
    assert len(drawn[0].get_legend_handles_labels()[1]) == len(GUARDS)


# What is drawn


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 24 mm, their content on voxels of 0.5 mm."""
    monkeypatch.setattr(blocks, "SIDE_MM", 24.0)
    monkeypatch.setattr(blocks, "CONTENT_MM", 0.5)


def test_a_phantom_holds_its_tissues_and_borders_lie_between_them(small_blocks):
    sources = {s.name: s for s in blocks.sources(0, 2)}
    assert list(sources) == [f"{kind}{k}" for kind in blocks.PHANTOMS for k in (0, 1)]
    assert len({s.data_sha256 for s in sources.values()}) == 4
    assert {s.conditions for s in sources.values()} == {CONDITIONS}
    made = sources["folds_0"].draw()
    fine = made.truths["0.5"].data.numpy()
    low, high = made.borders
    assert blocks.CSF < low < blocks.GREY < high < blocks.WHITE
    for share in ((fine > high).mean(), ((fine > low) & (fine < high)).mean()):
        assert 0.05 < share < 0.9  # a piece of the surface, not all of one side
    white = np.isclose(fine, blocks.WHITE)
    assert white.any() and fine.max() <= blocks.WHITE + 1e-6
    other = sources["folds_1"].draw().truths["0.5"].data.numpy()
    assert abs(other - fine).mean() > 0.01


class RampHead:
    """A head with a ramp along A in a ball of 30 mm."""

    map_sha256, index = "m" * 64, 3
    head_mm, darkest = np.array([[-30.0] * 3, [30.0] * 3]), 1.0

    def source(self):
        return "map_1"

    def draw(self):
        return self

    def render(self, grid, quadrature_mm):
        places = centres_mm(grid)
        return torch.where(places.norm(dim=-1) < 29, 100 + places[..., 1], 0.0).float()


def test_a_block_of_a_head_is_mostly_brain_on_the_scale_of_the_whole_head(
    small_blocks, monkeypatch
):
    monkeypatch.setattr(blocks.synthetic, "heads", lambda *_: [RampHead()])
    (source,) = blocks.sources(1, 0)
    assert source.name == f"{HEAD}03_from_map_1"
    truth = source.draw().truths["1"].data.numpy()
    assert (truth > 0.1).mean() > 0.6
    steps = np.diff(truth, axis=1)[(truth[:, 1:] > 0.3) & (truth[:, :-1] > 0.3)]
    rough = RampHead().render(blocks.synthetic.overview(RampHead()), 1)
    scale = blocks.robust_intensity(rough)
    per_mm = float(scale.forward(torch.tensor(101.0)) - scale.forward(torch.tensor(100.0)))
    assert np.median(steps) == pytest.approx(per_mm, rel=1e-3)
