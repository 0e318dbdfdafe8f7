"""The tables of the page on reliability are made with and without recorded rows."""

from eval import rows, rows_file
from eval.fuzz import measure
from eval.pages.reliability import contents, main
from medil.formats import FORMATS


def test_without_rows_it_says_how_to_record_them(tmp_path):
    made = contents(tmp_path)
    assert "Nothing is recorded yet" in made["reliability_fuzz.md"]
    assert "python -m eval.reliability" in made["reliability_faults.md"]
    assert made["formats.md"].count("\n") == len(FORMATS) + 1


def test_rows_become_tables(tmp_path):
    about = rows.Measurement("fuzz", "MGH", "medil", "atheris 3 | nibabel 5", "d", "e", "")
    values = {"executions": 7, "finds": 0, "kept": 2, "slowest_s": 0.1, "peak_mb": 3}
    sampling, now = measure.SAMPLING, rows.Provenance.now("quick")
    rows_file.append_rows(
        tmp_path / "fuzz.jsonl", about.rows(values, measure.UNITS, sampling, 1.0, now)
    )
    assert main(["--rows", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "MGH" in (tmp_path / "out" / "reliability_fuzz.md").read_text("utf-8")
    assert "7 executions" in (tmp_path / "out" / "reliability_fuzz_answer.md").read_text("utf-8")
