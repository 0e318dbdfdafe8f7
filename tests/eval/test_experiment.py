"""The frame of every experiment: which rows count, what is written, what the command says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
import pytest

from eval import experiment as frame_module
from eval import rows, rows_file, runner
from eval.experiment import Experiment
from eval.experiments import EXPERIMENTS
from medil.errors import InputError

each_experiment = pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda e: e.name)
PROVENANCE = rows.Provenance.now("quick")


def row(value: float, condition: str = "low | 3", weights: str = "w", arm: str = "medil"):
    about = rows.Measurement("toy", "someone", arm, condition, "c", "d", weights)
    sampling = rows.Sampling("1", "1", 8, 64)
    return about.rows({"psnr": value}, {"psnr": "dB"}, sampling, 0.0, PROVENANCE)[0]


def task(options, provenance) -> list[runner.Task]:
    made = row(3.0)
    return [runner.Task("someone", frozenset({made.identity}), partial(list, [made]))]


def factors(conditions: pd.Series) -> pd.DataFrame:
    split = conditions.str.split(" | ", expand=True, regex=False)
    return pd.DataFrame({"level": split[0], "size": split[1].astype(int)})


@pytest.fixture
def toy(monkeypatch) -> Experiment:
    monkeypatch.setitem(frame_module.sys.modules, "eval.toy", frame_module)
    return Experiment(
        "toy", "Toys", "What is a toy?", task,
        tables=lambda f: {"toy": f[["level", "size", "value"]], "toy_none": f.iloc[:0]},
        verdict=lambda f: f"mean {f['value'].mean():.1f} dB, n = {len(f)}",
        factors=factors, workers=0,
    )  # fmt: skip


def test_a_condition_is_parsed_once_into_named_columns(toy, tmp_path):
    rows_file.append_rows(tmp_path / "toy.jsonl", [row(1.0), row(2.0, "high | 5")])
    found = toy.recorded(tmp_path)
    assert found[["level", "size"]].to_numpy().tolist() == [["low", 3], ["high", 5]]


def test_newer_weights_of_an_arm_replace_all_of_its_older_rows(toy, tmp_path):
    old = [row(1.0), row(2.0, "high | 5"), row(9.0, arm="dct")]
    rows_file.append_rows(tmp_path / "toy.jsonl", old)
    rows_file.append_rows(tmp_path / "toy.jsonl", [row(4.0, weights="newer")])
    found = toy.recorded(tmp_path).set_index("arm")["value"]
    assert found.to_dict() == {"dct": 9.0, "medil": 4.0}


def test_tables_and_verdict_are_written_and_empty_tables_are_not(toy, tmp_path):
    rows_file.append_rows(tmp_path / "toy.jsonl", [row(1.0)])
    written = toy.write(tmp_path, tmp_path / "out")
    assert [path.name for path in written] == [
        "toy.csv", "toy_verdict.txt", "toy_answer.md", "toy_provenance.txt",
    ]  # fmt: skip
    assert written[1].read_text() == "mean 1.0 dB, n = 1\n"
    assert written[2].read_text() == "- mean 1.0 dB, n = 1\n"
    assert "1 rows" in written[3].read_text()
    assert toy.write(tmp_path / "nowhere", tmp_path / "other") == []
    assert not (tmp_path / "other").exists()


def test_the_command_measures_what_is_missing_and_prints_the_verdict(toy, tmp_path, capsys):
    assert toy.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 new rows in toy.jsonl\nmean 3.0 dB, n = 1\n"
    assert toy.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 new rows")


def test_a_file_in_place_of_the_folder_is_one_sentence(toy, tmp_path, capsys):
    (tmp_path / "a").write_text("")
    assert toy.main(["--out", str(tmp_path / "a")]) == 2
    assert "a is a file; name a folder." in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("x: can't allocate memory: 9")])
def test_memory_that_runs_out_is_one_sentence(toy, tmp_path, capsys, error):
    def hungry(options, provenance):
        raise error

    assert replace(toy, tasks=hungry).main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("the memory ran out; ")
    with pytest.raises(RuntimeError, match="another"):
        error = RuntimeError("another")
        replace(toy, tasks=hungry).main(["--out", str(tmp_path)])


def test_weights_in_a_file_are_not_recorded_beside_the_releases(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert toy.main(["--release", "mine.safetensors"]) == 0
    assert (tmp_path / "_build/rows/toy.jsonl").is_file()


def test_rows_of_others_alone_say_what_to_run(toy, tmp_path):
    rows_file.append_rows(tmp_path / "toy.jsonl", [row(1.0)])
    frame = rows_file.read_rows(tmp_path / "toy.jsonl")
    with pytest.raises(InputError, match=r"python -m eval\.toy"):
        toy.prepare(frame.assign(experiment="other"))


def test_a_timing_is_recorded_again_on_every_run(toy, tmp_path):
    again = runner.Task("someone", None, partial(list, [row(3.0)]))
    for n in (1, 2):
        assert runner.run([again], tmp_path / "toy.jsonl", workers=0) == 1
        assert len(rows_file.read_rows(tmp_path / "toy.jsonl")) == n


def test_pages_show_tables_and_sentences_or_say_what_to_run(toy, tmp_path):
    rows_file.append_rows(tmp_path / "toy.jsonl", [row(1.0)])
    found = toy.recorded(tmp_path)
    assert toy.shown(found, lambda f: f[["level"]]) == "| level |\n| :--- |\n| low |"
    assert toy.sentences(found, "mean") == toy.sentences(found) == "- mean 1.0 dB, n = 1"
    assert "Recorded" in toy.origin(found)
    nothing = (
        toy.shown(None, pd.DataFrame), toy.sentences(None), toy.sentences(found, "absent"),
        toy.origin(None),
    )  # fmt: skip
    assert set(nothing) == {"*Nothing is recorded yet. Record it with* `python -m eval.toy`."}


@each_experiment
def test_its_command_explains_itself(one, capsys):
    with pytest.raises(SystemExit) as ended:
        one.main(["--help"])
    assert ended.value.code == 0
    assert f"python -m eval.{one.name}" in capsys.readouterr().out


@each_experiment
def test_its_recorded_rows_give_tables_whose_names_begin_with_its_own(one):
    frame = one.recorded()
    if frame is None:
        pytest.skip(f"{one.name} is not recorded")
    assert one.contents(frame)


def test_names_differ():
    names = [one.name for one in EXPERIMENTS]
    assert len(set(names)) == len(names)
