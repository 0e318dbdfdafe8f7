"""From rows of the ablation to words: primary first, recipes kept apart, curves, honest signs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from eval import report as all_tables
from eval import rows, rows_file
from eval.ablation import EXPERIMENT
from eval.ablation import curve as ablation_curve
from eval.ablation import measure as ablation
from eval.ablation import report as ablation_report
from eval.ablation import score as ablation_score
from eval.ablation import verdict as ablation_verdict
from eval.ablation.codecs import codec_hash, codec_tasks
from eval.arms.catalogue import OWN
from medil.config import TEST
from tests.eval.test_ablation import question


def fabricated(
    lead_db=1.0, seeds=3, steps=100, at="2026-01-01T00:00:00.000000+00:00", codec_db=29.0,
    arms=("integrated", "trilinear", "literal"), subjects=6, places=2,
):  # fmt: skip
    """Rows in which the default LTE leads trilinear by so much, with a spread over subjects."""
    plan = ablation.Plan(("integrated",), steps, seeds, 4, 2, places)
    provenance = rows.Provenance.now("quick")
    above_db = {"integrated": lead_db, "literal": -0.5}
    pace = {"integrated": 300.0, "trilinear": 200.0}
    found = []
    for seed in range(seeds):
        own = replace(provenance, seed=seed)
        for arm in arms:
            hashed = f"{arm}{steps}{subjects}{places}"
            for k in range(subjects):
                value = 30 + k + 0.05 * seed + above_db.get(arm, 0.0) * (1 + 0.02 * k)
                scored = {("", ""): (scores_at(value), question(f"made_{k}"), 1.0)}
                for budget in ablation.BUDGETS:
                    found += ablation_score.score_rows(
                        arm, budget, scored, lambda q: 8, hashed, "w" * 64, own
                    )
            values = {
                "voxels_per_s": (pace.get(arm, 100.0), "1/s"), "parameters": (7e5, "1"),
                "cpu_s_per_step": (0.1, "s"), "training_loss": (0.02, "1"),
                "steps_at_equal_compute": (90.0, "1"),
            }  # fmt: skip
            run = ablation.Run(arm, seed, plan, "cpu", hashed, "", "4 heads")
            found += ablation.run_rows(run, values, question(), "w" * 64, 1.0, own)
    for codec, minus_db in (("dct_ball", 0.0), ("cubic", 2.0), ("dct_best", -5.0)):
        for k in range(subjects):
            scored = {("", ""): (scores_at(codec_db + k - minus_db), question(f"made_{k}"), 1.0)}
            hashed = codec_hash(codec, OWN, places)
            found += ablation_score.score_rows(
                codec, "", scored, lambda q: 8, hashed, "", provenance
            )
    return [replace(r, recorded_at=at) for r in found]


def scores_at(psnr_db):
    return {"psnr": psnr_db, "ssim": 0.9, "hfen": 0.1}


def words_of(path):
    return EXPERIMENT.verdict(EXPERIMENT.recorded(path.parent))


@pytest.fixture
def recorded(tmp_path):
    def make(name="rows", **choices):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "ablation.jsonl"
        rows_file.append_rows(path, fabricated(**choices))
        return path

    return make


def test_the_verdict_says_by_how_much_with_how_many_subjects_and_seeds(recorded):
    words = words_of(recorded())
    assert "LTE − trilinear at 1 mm: +1.05 dB [+1." in words
    assert "6 subjects × 3 seeds (equal steps, with the shortcut; exploratory)" in words
    assert "Holm p" not in words  # the rows are older than the primary comparisons
    assert "literal LTE − trilinear at 1 mm: -0.5" in words
    assert "LTE − best linear codec at 1 mm: +2.10 dB" in words  # the ball, never the oracle
    assert "(equal compute, with the shortcut" in words


def test_the_verdict_is_negative_when_the_rows_are(recorded, tmp_path):
    path = recorded(lead_db=-2.0, codec_db=35.0)
    assert all_tables.main(["--rows", str(path.parent), "--out", str(tmp_path)]) == 0
    words = (tmp_path / "ablation_verdict.txt").read_text()
    assert "LTE − trilinear at 1 mm: -2.10 dB [-2." in words
    assert "LTE − best linear codec at 1 mm: -7.05 dB" in words


def test_tables_state_n_and_speed_against_the_literal_lte(recorded, tmp_path):
    EXPERIMENT.write(recorded().parent, tmp_path)
    arms = pd.read_csv(tmp_path / "ablation.csv").set_index("Arm")
    assert arms.loc["trilinear", "Subjects"] == 6 and arms.loc["trilinear", "Seeds"] == 3
    assert arms.loc["trilinear", "LTE above it (dB)"].startswith("+1.05 [")
    speed = pd.read_csv(tmp_path / "ablation_speed.csv").set_index("Arm")
    assert speed.loc["LTE", "Times literal LTE"] == 3.0
    pairs = pd.read_csv(tmp_path / "ablation_pairs.csv")
    assert {"Wilcoxon p", "Holm p", "Rank biserial", "Cohen's dz", "Subjects", "Seeds"} <= set(
        pairs
    )
    assert set(pairs["Role"]) == {"exploratory"} and pairs["Holm p"].isna().all()


LATER = "2026-02-01T00:00:00.000000+00:00"
NAMED = "2026-11-30T00:00:00.000000+00:00"  # after the primary comparisons were


def test_primary_comparisons_come_first_and_holm_runs_over_them_alone(recorded, tmp_path):
    path = recorded(at=NAMED, subjects=12)
    lines = words_of(path).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("Primary comparisons"))
    own = [line for line in lines[start + 1 :] if ": " in line][:4]
    assert own[0].endswith("not recorded since then") and start < 5
    assert own[2].startswith("LTE − trilinear at 1 mm: +") and "primary, Holm p = 0.002" in own[2]
    assert own[3].startswith("LTE − best linear codec at 1 mm") and "primary" in own[3]
    EXPERIMENT.write(path.parent, tmp_path)
    pairs = pd.read_csv(tmp_path / "ablation_pairs.csv")
    holm_p = pairs[pairs["Role"] == "primary"]["Holm p"]
    assert len(holm_p) == 2 and pairs["Holm p"].notna().sum() == 2
    assert (holm_p > pairs.loc[holm_p.index, "Wilcoxon p"]).all()
    own_table = pd.read_csv(tmp_path / "ablation_primary.csv")
    assert list(own_table["Subjects"]) == [12, 12] and list(own_table["Real people"]) == [0, 0]


def test_the_recipe_that_answers_primary_comparisons_is_the_one_compared(recorded):
    path = recorded(arms=("integrated", "trilinear", "literal", "liif"), subjects=9)
    two = {"steps": 200, "seeds": 2, "arms": ("integrated", "trilinear"), "at": NAMED}
    rows_file.append_rows(path, fabricated(lead_db=0.4, **two))
    words = words_of(path)
    assert words.startswith("Training: 200 steps") and "not compared: 100 steps" in words
    assert "6 subjects × 2 seeds" in words and "9 subjects" not in words.partition("Primary")[2]


def test_a_curve_says_who_levelled_off_and_what_the_others_gained(recorded):
    plan, about = ablation.Plan(("integrated",), 8, 3, 4, 2), rows.Provenance.now("quick")
    path = recorded()
    for arm, gain_db in (("integrated", 0.05), ("trilinear", 0.4)):
        made = []
        for steps in (4, 8):
            for k in range(6):
                value = scores_at(30 + k + gain_db * (steps == 8))
                scored = {("", ""): (value, question(f"made_{k}"), 1.0)}
                made += ablation_score.score_rows(
                    arm, f"after {steps} steps", scored, lambda q: 8, f"{arm}10062", "w" * 64, about
                )
        rows_file.append_rows(path, [replace(r, experiment=ablation.CURVE) for r in made])
    frame = EXPERIMENT.recorded(path.parent)
    sentence = ablation_curve.levels_off(ablation_curve.curve_of(frame))
    assert "gained by LTE. Still rising: trilinear (+0.40 dB)." in sentence
    assert sentence in EXPERIMENT.verdict(frame) and plan.steps == 8
    table = ablation_curve.curve_table(ablation_curve.curve_of(frame)).set_index("Arm")
    assert table.loc["LTE", "Levelled off"] == "yes"
    assert table.loc["trilinear", "Last doubling (dB)"].startswith("+0.40")
    assert len(ablation_report.pairs_table(ablation_report.scores_of(frame)))


def test_a_trial_of_another_recipe_hides_nothing_and_is_named(recorded):
    path = recorded()
    before = words_of(path)
    trial = {"steps": 5, "seeds": 1, "arms": ("integrated", "liif"), "places": 1, "at": LATER}
    rows_file.append_rows(path, fabricated(lead_db=9.0, codec_db=50.0, **trial))
    training, also, *rest = words_of(path).splitlines()
    assert [training, *rest] == before.splitlines()
    assert also.endswith(
        "not compared: 5 steps, 4 heads, 1 blocks a subject, cpu, 6 subjects "
        "(with the shortcut): LTE; LIIF."
    )


def test_fewer_subjects_are_another_recipe(recorded):
    path = recorded()
    before = words_of(path)
    rows_file.append_rows(
        path, fabricated(9.0, seeds=1, subjects=1, arms=("integrated",), at=LATER)
    )
    training, also, *rest = words_of(path).splitlines()
    assert [training, *rest] == before.splitlines() and "cpu, 1 subject (" in also


def test_of_recipes_with_as_many_runs_the_newest_is_compared(recorded):
    path = recorded(lead_db=3.0)
    rows_file.append_rows(path, fabricated(steps=200, at=LATER))
    words = words_of(path)
    assert words.startswith("Training: 200 steps") and "+1.05 dB" in words and "+3." not in words
    assert "not compared: 100 steps" in words


def test_a_new_arm_of_the_main_recipe_joins_its_tables_by_its_own_name(recorded, tmp_path):
    path = recorded()
    rows_file.append_rows(path, fabricated(seeds=1, arms=("nearest",), at=LATER))
    EXPERIMENT.write(path.parent, tmp_path)
    arms = pd.read_csv(tmp_path / "ablation.csv").set_index("Arm")
    assert arms.loc["nearest", "LTE above it (dB)"].startswith("+1.05 [")
    assert arms.loc["nearest", "Seeds"] == 1 and arms.loc["trilinear", "Seeds"] == 3
    assert "LTE − nearest at 1 mm" in (tmp_path / "ablation_verdict.txt").read_text()


def test_the_linear_decoder_with_neighbours_is_a_linear_codec_of_the_size_that_it_fits(recorded):
    wanted = [question("made_0")], [(3.0, 8), OWN], 2, rows.Provenance.now("quick")
    [task] = [task for task in codec_tasks(*wanted) if task.name.startswith("bspline_neighbours")]
    measured = task.measure()
    assert {r.identity for r in measured} == task.wanted and task.name in ablation_report.LINEAR
    alone = next(task for task in codec_tasks(*wanted) if task.name == "bspline").measure()
    assert {r.numbers_kept for r in measured} == {r.numbers_kept for r in alone}
    psnr = [next(r.value for r in found if r.metric == "psnr") for found in (measured, alone)]
    assert psnr[0] == pytest.approx(psnr[1], abs=3)  # the same splines, and a little more
    path = recorded(codec_db=-50.0)
    rows_file.append_rows(path, measured)
    scores = ablation_report.scores_of(EXPERIMENT.recorded(path.parent))
    best = ablation_report.psnr_of(scores).table(
        ablation_report.BEST_LINEAR, "1 mm", scores["budget"].max()
    )
    assert best.loc["made_0"].max() == pytest.approx(psnr[0])


def test_an_arm_with_another_latent_meets_codecs_of_its_own_size(monkeypatch, recorded):
    wide = replace(TEST, latent_spacing_mm=3.0)
    monkeypatch.setitem(ablation.ARMS, "integrated-3mm", wide)
    path = recorded(arms=("integrated", "integrated-3mm"))
    [task] = [
        task
        for task in codec_tasks([question("made_0")], [(3.0, 8)], 2, rows.Provenance.now("quick"))
        if task.name.startswith("dct_ball")
    ]
    measured = task.measure()
    assert task.name == "dct_ball (3 mm, 8)" and {r.identity for r in measured} == task.wanted
    assert {r.numbers_kept for r in measured} == {8 * 7**3}
    rows_file.append_rows(path, measured)
    pairs = ablation_report.pairs_table(ablation_report.scores_of(EXPERIMENT.recorded(path.parent)))
    rivals = pairs[pairs["family"].str.startswith("codecs")].groupby("first")["second"].unique()
    assert list(rivals["integrated"]) == ["best linear codec"]
    assert list(rivals["integrated-3mm"]) == ["best linear codec (3 mm, 8)"]


def test_seeds_that_one_arm_lacks_leave_pairs_of_those_both_have(recorded):
    scores = ablation_report.scores_of(EXPERIMENT.recorded(recorded().parent))
    lacks = scores[~((scores["arm"] == "trilinear") & (scores["seed"] == 2))]
    psnr = ablation_report.psnr_of(lacks)
    pairs = [
        ablation_report.lead(psnr, "integrated", second, "1 mm", "equal steps")
        for second in ("trilinear", "dct_ball")
    ]
    assert [(pair.n_subjects, pair.n_seeds) for pair in pairs] == [(6, 2), (6, 3)]
    assert ablation_report.lead(psnr, "integrated", "trilinear", "2 mm", "equal steps") is None


def test_a_quick_run_agrees_only_if_its_signs_do(recorded):
    def frame(name, **choices):
        return EXPERIMENT.recorded(recorded(name, **choices).parent)

    truth = frame("a")
    assert "yes" in ablation_verdict.agreement(frame("b", lead_db=0.2, seeds=1), truth)
    assert ": no (" in ablation_verdict.agreement(frame("c", lead_db=-0.2), truth)


def test_missing_rows_are_one_sentence_and_exit_2(tmp_path, capsys):
    assert all_tables.main(["--rows", str(tmp_path), "--out", str(tmp_path / "t")]) == 2
    error = capsys.readouterr().err
    assert "nothing is recorded" in error and error.count("\n") == 1
