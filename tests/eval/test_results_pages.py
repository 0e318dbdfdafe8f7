"""The page of all results: what it finds in a folder of rows, and what it says of what it lacks."""

from __future__ import annotations

import gzip
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval import rows, rows_file
from eval.evaluate import EXPERIMENT
from eval.evaluate import report as evaluate_report
from eval.experiments import EXPERIMENTS
from eval.pages import gains as results_gains
from eval.pages import results as results_pages
from eval.pictures import filterable as results_tables
from eval.tables import intervals_in, short
from medil.errors import InputError
from tests.recorded_rows import recorded as reconstruction_rows

DB = {  # made-up numbers of this test: scan -> arm -> dB
    "a": {"medil": 30.0, "dct_ball": 28.0, "cubic": 24.0, "dct_best": 40.0, "interpolation": 29.5},
    "b": {"medil": 25.0, "dct_ball": 26.0, "cubic": 27.0, "dct_best": 40.0, "interpolation": 24.0},
}


def row(subject, arm, metric, value, condition=evaluate_report.NATIVE, kept=8) -> rows.Row:
    return rows.Row(
        experiment="evaluate", subject=subject, arm=arm, condition=condition, metric=metric,
        value=value, unit="dB" if metric == "psnr" else "1", spacing_in_mm="1",
        spacing_out_mm="1", numbers_kept=kept, n_voxels=64, config_hash="c", data_sha256="d",
        weights_sha256="w" * 64 if arm == "medil" else "", time_s=1.0,
        recorded_at="2026-01-01T00:00:00.000000+00:00", provenance=rows.Provenance.now("quick"),
    )  # fmt: skip


def own_rows() -> list[rows.Row]:
    """Two scans under two questions; NRMSE reverses the order that PSNR gives."""
    conditions = (evaluate_report.NATIVE, evaluate_report.FROM_HALF)
    return [
        row(subject, arm, metric, db if metric == "psnr" else db / 100, condition)
        for condition in conditions
        for subject, arms in DB.items()
        for arm, db in arms.items()
        for metric in ("psnr", "nrmse")
        if arm != "interpolation" or condition == evaluate_report.FROM_HALF
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Rows of a user's scans and of the reconstruction."""
    rows_file.append_rows(tmp_path / "evaluate.jsonl", own_rows())
    rows_file.append_rows(tmp_path / "reconstruction.jsonl", reconstruction_rows())
    return tmp_path


def frame() -> pd.DataFrame:
    table = pd.DataFrame([r.to_record() for r in own_rows()])
    return table.assign(recorded_at=pd.Timestamp("2026-01-01", tz="UTC"))


# The verdict on a user's scans


def test_a_gain_is_over_the_best_linear_code_of_each_scan():
    gains = evaluate_report.gains(frame(), "psnr", "medil", evaluate_report.NATIVE)
    assert gains.to_dict() == {"a": 2.0, "b": -2.0}  # over the ball, then over cubic


def test_interpolation_is_a_rival_only_where_resolution_is_missing():
    gains = evaluate_report.gains(frame(), "psnr", "medil", evaluate_report.FROM_HALF)
    assert gains.to_dict() == {"a": 0.5, "b": -2.0}


def test_a_gain_is_positive_where_lower_is_better():
    gains = evaluate_report.gains(frame(), "nrmse", "medil", evaluate_report.NATIVE)
    np.testing.assert_allclose(gains.to_numpy(), [24 / 100 - 30 / 100, 26 / 100 - 25 / 100])


def test_scans_that_were_not_compressed_are_left_out_and_named():
    kept_all = [row("tiny", arm, "psnr", 300.0, kept=64) for arm in ("dct_ball", "cubic")]
    everything = [*own_rows(), *kept_all, row("tiny", "medil", "psnr", 30.0, kept=200)]
    table = pd.DataFrame([r.to_record() for r in everything])
    gains = evaluate_report.gains(table, "psnr", "medil", evaluate_report.NATIVE)
    assert set(gains.index) == {"a", "b"}
    assert "n = 1: tiny" in evaluate_report.verdict(table)


def test_the_verdict_says_what_n_allows():
    table = frame()
    two = evaluate_report.verdict(table)
    assert "0.00 dB above" in two and "-2.00 to +2.00 dB over n = 2 scans, too few" in two
    one = evaluate_report.verdict(table[table["subject"] == "a"])
    assert "2.00 dB above" in one and "n = 1 scan, so no interval" in one
    copies = [table.assign(subject=table["subject"] + str(k)) for k in range(3)]
    six = evaluate_report.verdict(pd.concat(copies))
    assert "holds zero: undecided" in six and "3 of n = 6 scans above" in six
    won = pd.concat([c[c["subject"].str.startswith("a")] for c in copies] * 2)
    won["subject"] += np.repeat(["", "'"], len(won) // 2)
    assert "+2.00 to +2.00 dB, which leaves out zero" in evaluate_report.verdict(won)


def test_tables_hold_every_scan_and_the_oracle_is_no_rival(folder, tmp_path):
    written = EXPERIMENT.write(folder, tmp_path / "out")
    assert "evaluate_verdict.txt" in [path.name for path in written]
    table = pd.read_csv(tmp_path / "out" / "evaluate.csv")
    assert len(table) == 2 * 4 + 2 * 5
    assert list(table["Scan"].unique()) == ["a", "b"]
    gains = pd.read_csv(tmp_path / "out" / "evaluate_gains.csv")
    assert set(gains["Code"]) == {"MedIL tiny"}


def test_weights_in_a_file_are_the_model_of_their_report(tmp_path):
    own = [replace(r, arm="medil_mine") if r.arm == "medil" else r for r in own_rows()]
    rows_file.append_rows(tmp_path / "evaluate.jsonl", own)
    found = results_pages.collect(tmp_path)
    assert "MedIL mine (0.125 numbers a voxel encoded) is 0.00 dB above" in found[0].verdict[0]
    gains = results_gains.gains_by_scan(found)
    assert gains[evaluate_report.NATIVE].to_dict() == {"a": 2.0, "b": -2.0}


# The page


def test_what_is_recorded_is_collected_and_the_rest_says_how(folder):
    found = results_pages.collect(folder)
    names = [r.experiment.name for r in found]
    assert names == ["reconstruction", "evaluate"]
    assert all(r.verdict for r in found)
    text = results_pages.missing(found, own=False)
    assert text.count("is not recorded") == len(results_pages.EXPERIMENTS) - 2
    assert "python -m eval.robustness" in text
    assert results_pages.missing(found, own=True) == ""


def test_an_empty_folder_is_no_error(tmp_path):
    assert results_pages.collect(tmp_path) == []
    assert results_pages.pack_rows(tmp_path, tmp_path / "rows") == []
    with pytest.raises(InputError, match="no scan is recorded"):
        results_gains.rows_of_gains([])


def test_the_packed_rows_are_all_rows_and_the_same_bytes_each_time(folder, tmp_path):
    first = results_pages.pack_rows(folder, tmp_path / "one")
    again = results_pages.pack_rows(folder, tmp_path / "two")
    assert [p.name for p in first] == ["reconstruction.csv.gz", "evaluate.csv.gz"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    table = pd.read_csv(io.BytesIO(gzip.decompress(first[1].read_bytes())))
    assert len(table) == len(own_rows())
    assert table["value"].sum() == pytest.approx(sum(r.value for r in own_rows()))


def test_links_lead_to_the_packed_rows(folder, tmp_path):
    text = results_pages.overview_table(results_pages.collect(folder))
    links = re.findall(r"\((\.\./rows/[\w.]+)\)", text)
    packed = results_pages.pack_rows(folder, tmp_path / "html" / "rows")
    pages = tmp_path / "html" / "notebooks"
    assert {(pages / link).resolve() for link in links} == {p.resolve() for p in packed}


def test_long_verdicts_are_folded_not_cut(folder):
    (found, *_) = results_pages.collect(folder)
    lines = "\n".join(f"line {k}" for k in range(20))
    long = replace(found, experiment=replace(found.experiment, verdict=lambda rows: lines))
    whole = [replace(long, experiment=replace(long.experiment, answer=None))]
    for own in (True, False):  # a user's few verdicts stand open
        text = results_pages.verdicts(whole, own)
        assert all(f"- line {k}\n" in text + "\n" for k in range(20))
        assert text.count("<details>") == text.count("</details>") == (not own)


def test_sentences_with_many_intervals_are_not_shown_first():
    wall = "a 1 [0, 2], b 2 [1, 3], c 3 [2, 4]"
    two = "a 1 [0, 2], b 2 [1, 3]. c 3 [2, 4]."
    assert short([wall, "", two, "d", "e", "f"]) == [two, "d", "e"]


@pytest.mark.slow
def test_no_answer_has_more_than_two_intervals_in_a_sentence_nor_more_than_three_lines():
    recorded = [(e, e.recorded()) for e in EXPERIMENTS]
    assert any(frame is not None for _, frame in recorded)
    for experiment, frame in recorded:
        answers = experiment.answers(frame)
        assert len(answers) <= 3, experiment.name
        sentences = [s for line in answers for s in line.split(". ")]
        assert [s for s in sentences if intervals_in(s) > 2] == [], experiment.name
        assert not re.search(r"\bnan\b|not recorded", " ".join(sentences)), experiment.name


def test_gains_of_a_users_scans_come_before_the_books(folder):
    found = results_pages.collect(folder)
    gains = results_gains.gains_by_scan(found)
    assert gains.loc["a", evaluate_report.NATIVE] == 2.0
    of_book = results_gains.gains_by_scan([r for r in found if r.experiment.name != "evaluate"])
    assert list(of_book[evaluate_report.NATIVE]) == [1.75]


def test_wins_are_counted_where_a_metric_has_a_better_side(folder):
    wins = results_gains.wins_by_metric(results_pages.collect(folder)).set_index("Metric")
    assert wins.loc["PSNR", ["Scans won", "n"]].tolist() == [1, 2]
    assert wins.loc["NRMSE", ["Scans won", "n"]].tolist() == [1, 2]


def test_the_figure_has_a_mark_for_each_scan_and_question(folder):
    pytest.importorskip("matplotlib")
    gains = results_gains.gains_by_scan(results_pages.collect(folder))
    (axes,) = results_gains.gains_figure(gains).axes
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    drawn = {line.get_label(): list(line.get_xdata()) for line in marks}
    assert drawn == {name.replace("->", "→"): list(gains[name]) for name in gains}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]


def test_a_number_is_measured_again_only_on_the_very_same_bytes(folder, tmp_path, monkeypatch):
    from eval.subjects import Scan, Subject
    from medil.grid import Grid
    from medil.model.codecs import dct_ball
    from medil.volume import Volume

    grid = Grid.from_spacing((8, 9, 10), 1.0)
    data = np.random.default_rng(0).random(grid.shape)
    rebuilt = dct_ball(data, grid, 50).reconstruction
    db = 20 * np.log10(np.percentile(data, 99.5) / np.sqrt(((data - rebuilt) ** 2).mean()))
    import torch

    scan = Scan(Volume(torch.from_numpy(data), grid), np.ones(grid.shape, bool))
    one = replace(row("x", "dct_ball", "psnr", db, kept=50), data_sha256="its bytes")
    rows_file.append_rows(tmp_path / "evaluate.jsonl", [one])
    for sha256, n in (("its bytes", 1), ("others", 0)):
        person = Subject("x", sha256, (), lambda: scan)
        monkeypatch.setattr(results_gains, "subjects", lambda profile, person=person: [person])
        (found,) = [r for r in results_pages.collect(tmp_path) if r.experiment.name == "evaluate"]
        table, told = results_gains.measure_again([found], tmp_path)
        assert len(table) == n
    assert "available" in told


# Tables that can be filtered


def test_a_filterable_table_holds_all_of_it_and_asks_no_other_host():
    pytest.importorskip("itables", reason="itables (extra book) is not installed")
    table = pd.DataFrame({"Scan": [f"scan {k}" for k in range(3000)], "n": 1})
    html = results_tables.filterable(table, "Three thousand.", "many").data
    assert "scan 2999" in html and "Three thousand." in html
    loaded = re.findall(r"(?:src|import|from)\s*[=(]?\s*['\"](https?://[^'\"]+)", html)
    assert loaded == []
    assert "https://cdn" not in results_tables.prepare_tables().data


def test_a_thousand_lines_and_the_library_stay_small():
    pytest.importorskip("itables", reason="itables (extra book) is not installed")
    numbers = np.random.default_rng(0).random((1000, 12)).round(4)
    table = pd.DataFrame(numbers, columns=[f"metric {k}" for k in range(12)])
    size = len(results_tables.filterable(table, "Numbers.", "numbers").data)
    assert size < 0.4e6
    assert size + len(results_tables.prepare_tables().data) < 1.6e6
