"""Pages show what is recorded, whatever it says, and name what is not."""

from itertools import product

import pytest

from eval import rows, rows_file
from eval.ablation import page as pages
from eval.ablation.codecs import codec_hash
from eval.ablation.report import BEST_LINEAR, BUDGETS, RUN
from eval.arms.catalogue import OWN
from eval.cited import plain

SUBJECTS, SEEDS = [f"made_{k}" for k in range(6)], (0, 1, 2)
GRIDS = ("1 mm", "1.5 mm")


def row(experiment, subject, arm, condition, metric, value, seed=0, weights=True):
    provenance = rows.Provenance("c" * 40, False, seed, "cpu", 1, {"python": "3"}, "gpu")
    hashed = arm if weights else codec_hash(arm, OWN, 2)
    weights_sha256 = f"{arm}{seed}" if weights else ""
    about = rows.Measurement(experiment, subject, arm, condition, hashed, "d" * 64, weights_sha256)
    sampling = rows.Sampling("1", "1", 8, 64)
    return about.rows({metric: value}, {metric: "1"}, sampling, 1.0, provenance)[0]


def recorded(folder, arms):
    """Rows in which arm a leads the others by `arms[a]` dB, less in a second seed."""
    found = []
    for (arm, above), seed in product(arms.items(), SEEDS):
        found.append(row(RUN, "heads", arm, "600 steps", "cpu_s_to_steps", 100 + seed, seed))
        for k, (subject, budget, grid) in enumerate(product(SUBJECTS, BUDGETS, GRIDS)):
            value = 30 + above * (1 + 0.01 * k + 0.05 * seed)
            condition = f"{grid}, {budget}"
            for metric in ("psnr", "ssim", "hfen"):
                found.append(row("ablation", subject, arm, condition, metric, value, seed))
    for subject in SUBJECTS:
        found.append(row("ablation", subject, "dct_ball", "1 mm", "psnr", 29, weights=False))
    rows_file.append_rows(folder / "ablation.jsonl", found)
    return pages.recorded_ablation(folder)


def question(second, spacing="1 mm"):
    return ("integrated", second, spacing)


@pytest.mark.parametrize("lead_db, words", [(1.0, "above zero (2 of 2)"), (-1.0, "below zero")])
def test_the_verdict_has_the_sign_of_the_rows(tmp_path, lead_db, words):
    found = recorded(tmp_path, {"integrated": lead_db, "trilinear": 0.0})
    table = pages.headlines(found.pairs).set_index("First − second (dB)")
    line = table.loc["LTE − trilinear at 1 mm"]
    assert line["Verdict"].startswith(words)
    assert line["with shortcut, equal steps"].startswith(f"{lead_db * 1.1:+.1f}"[:4])
    assert line["without shortcut, equal steps"] == ""
    assert line["n"] == "6 × 3"
    sentences = pages.verdict_lines(found.pairs)
    assert len(sentences) == len(GRIDS)
    assert "LTE − trilinear" in sentences[0] and f"{'+' if lead_db > 0 else '-'}1." in sentences[0]


def test_questions_that_no_row_answers_are_said_to_be_open(tmp_path):
    found = recorded(tmp_path, {"integrated": 1.0})
    verdicts = pages.headlines(found.pairs).set_index("First − second (dB)")["Verdict"]
    assert "LTE − trilinear at 1 mm" not in verdicts
    assert "LTE − trilinear at 1 mm; " in pages.open_questions(found.pairs)
    assert verdicts["LTE − best linear codec at 1 mm"] == "above zero (2 of 2)"


def test_an_interval_that_holds_zero_is_undecided(tmp_path):
    found = recorded(tmp_path, {"integrated": 1.0, "trilinear": 1.0})
    pair = pages.lead(found.pairs, question("trilinear"), BUDGETS[0], "with")
    assert pages.conclusion([pair]) == "above zero 0, below 0, undecided 1 (of 1)"


def test_missing_arms_and_seeds_are_named(tmp_path):
    found = recorded(tmp_path, {"integrated": 1.0, "trilinear": 0.0})
    assert pages.missing_runs(found.runs, ("integrated", "trilinear"), 3) == (
        "All 2 arms have their 3 seeds."
    )
    words = pages.missing_runs(found.runs, ("integrated", "trilinear", "literal"), 4)
    assert "not recorded (1): literal LTE" in words
    assert "trilinear (3 of 4 seeds)" in words


def test_without_rows_there_is_nothing_to_show(tmp_path):
    assert pages.recorded_ablation(tmp_path) is None


def test_words_about_the_runs_come_from_the_rows(tmp_path):
    words = pages.about_runs(recorded(tmp_path, {"integrated": 1.0, "trilinear": 0.0}))
    for fact in ("600 steps", "2 arms", "3 seeds", "6 held-out subjects", "cpu", "100 to 102 s"):
        assert fact in words


def test_the_overview_has_both_budgets_and_codes_last(tmp_path):
    found = recorded(tmp_path, {"integrated": 1.0, "integrated/learned": 0.5, "trilinear": 0.0})
    table = pages.overview(found.scores)
    assert table["Arm"].tolist()[-1].startswith("DCT")
    assert table["Arm"].tolist()[2] == "LTE, all learned"
    assert table["1 mm (dB)"].str.count("/").tolist() == [1, 1, 1, 0]
    assert table["n"].tolist() == ["6 × 3"] * 3 + ["6"]


def test_the_forest_has_both_budgets_and_the_largest_lead_first(tmp_path):
    arms = {"integrated": 1.0, "trilinear": 0.0, "liif": 0.5}
    found = recorded(tmp_path, arms | {"integrated/learned": 1.0, "liif/learned": 1.0})
    chosen = pages.forest_pairs(found.pairs, "integrated", "1 mm")
    rivals = list(dict.fromkeys(chosen["rival"]))
    assert rivals.index("trilinear") < rivals.index("liif")
    assert set(chosen["budget"]) == set(BUDGETS) and set(chosen["spacing"]) == {"1 mm"}
    pytest.importorskip("matplotlib").use("Agg")
    left, right = pages.forest(chosen).axes
    names = [text.get_text() for text in left.get_yticklabels()]
    assert names[rivals.index("liif")] == "− LIIF"
    drawn = [line for line in left.lines if len(line.get_xdata()) == 1]
    assert len(drawn) == len(chosen[chosen["shortcut"] == "with the shortcut"])
    near_zero = [line for line in right.lines if line.get_marker() == "o"][-1]
    assert near_zero.get_markerfacecolor() == "w"  # LTE and LIIF are level there: undecided


def test_a_codec_far_away_does_not_stretch_the_axis_of_the_forest(tmp_path):
    arms = {"integrated/learned": -9.0, "trilinear/learned": -9.5}
    chosen = pages.forest_pairs(recorded(tmp_path, arms).pairs, "integrated", "1 mm")
    codec = chosen[chosen["rival"] == BEST_LINEAR].iloc[0]
    pytest.importorskip("matplotlib").use("Agg")
    (only,) = pages.forest(chosen).axes  # nothing is recorded with the shortcut
    assert codec["mean"] < only.get_xlim()[0] > -2
    assert f"−{abs(codec['mean']):.2f} [" in only.texts[0].get_text()


def test_stages_come_from_the_recipe_that_trained_them():
    table, origin = pages.stages()
    ways = table["Training"].str.extract(r"(stage.*)")[0]
    assert {"stage 2 only", "stages: both", "stages: both + mix"} <= set(ways)
    assert (table["Above stage 2 only (dB)"] != "").sum() >= 3 and "steps" in origin


def test_three_sentences_answer_the_title_whatever_is_recorded(tmp_path):
    found = recorded(tmp_path, {"integrated": 1.0, "trilinear": 0.0, "literal/learned": -2.0,
                                "trilinear/learned": 0.0})  # fmt: skip
    paper, release, limits = map(plain, found.answers)
    assert "nothing is recorded yet" in paper and "decoder alone" in paper
    assert "dB against trilinear at 1 mm, below zero" in paper and "-2." in paper
    assert "dB against trilinear at 1 mm, above zero" in release and "best linear" in release
    assert "600 steps" in limits and "nothing says who levelled off" in limits


def test_the_paper_s_answer_is_about_both_ends_once_they_are_recorded(tmp_path):
    arms = {"literal-skip-both/learned": 0.5, "trilinear-both/learned": 0.0}
    paper, release, _ = map(plain, recorded(tmp_path, arms).answers)
    assert "dB against trilinear at both ends at 1 mm, above zero" in paper
    assert "; after equal computing time +0." in paper
    assert "nothing is recorded yet" not in paper and "nothing is recorded yet" in release
