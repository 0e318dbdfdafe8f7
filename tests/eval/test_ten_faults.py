"""Ten faults of 0.6.0: each is seen where it is, in a checkout of any release, and has its test."""

from __future__ import annotations

import ast
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from eval import rows
from eval.reliability import EXPERIMENT, history, releases, report, ten_faults
from eval.reliability.bench import Bench
from eval.reliability.history import at, disturbed
from eval.reliability.judge import Outcome
from eval.reliability.releases import Release
from eval.reliability.ten_faults import FAULTS, TRIALS, Trial
from medil.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
TESTS = Path(__file__).parents[1]
CARELESS = """
    path.exists() and path.read_text()[3]
    path.write_text("whole")
"""
CAREFUL = """
    part = path.with_name(".part-" + path.name)
    with part.open("w") as file:
        file.write("whole")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
"""


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.made()


def release(folder: Path, bench: Bench, body: str) -> Release:
    """A checkout whose command writes a file as `body` does."""
    (folder / "medil").mkdir()
    (folder / "medil" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    head = "import os, pathlib, sys, time\ndef main():\n    path = pathlib.Path(sys.argv[1])"
    (folder / "medil" / "cli.py").write_text(head + body)
    return Release(folder, bench)


def call(release: Release):
    return "medil", release.bench.place / "a.txt"


@pytest.mark.parametrize(("body", "is_lost", "left"), [(CARELESS, True, ()), (CAREFUL, False, ())])
def test_a_kill_in_the_middle_of_a_write(tmp_path, bench, body, is_lost, left):
    trial = disturbed(call, kind="killed", **at("write", "a.txt"))
    outcome = trial(release(tmp_path, bench, body))
    assert outcome.is_lost == is_lost and outcome.leftovers == left, outcome.fault


def test_a_power_cut_empties_what_was_not_flushed(tmp_path, bench):
    careless = CAREFUL.replace("os.fsync(file.fileno())", "pass")
    for body, size in ((CAREFUL, 5), (careless, 0)):
        (folder := tmp_path / str(size)).mkdir()
        disturbed(call, again=lambda _: ("medil", "other"), power_cut=True)(
            release(folder, bench, body)
        )
        assert (bench.place / "a.txt").stat().st_size == size


def test_a_paused_command_goes_on_and_a_hanging_one_is_ended(tmp_path, bench, monkeypatch):
    slow = release(tmp_path, bench, CAREFUL + "    time.sleep(float(sys.argv[2]))\n")
    bench.reset()
    running = slow.start(*call(slow), 0, **at("rename", "a.txt", "pause"))
    assert running.until_paused() and not (bench.place / "a.txt").exists()
    running.go_on()
    assert running.wait().code == 0 and (bench.place / "a.txt").exists()
    assert not slow.start(*call(slow), 0).until_paused()
    monkeypatch.setattr(releases, "MOST_S", 0.3)
    assert "it hangs" in slow.call(*call(slow), 60).said


def test_what_is_taken_too_slow_or_too_large_is_no_refusal(tmp_path, bench):
    ended = release(tmp_path, bench, CAREFUL).call("medil", bench.place / "a.txt")
    assert history.refused(ended, 1e6) == Outcome(True, "it is taken", True)
    assert history.refused(ended, 0.0).fault.endswith(" MB")


def test_each_fault_has_an_injection_and_each_injection_a_test_that_is_there():
    assert {trial.fault for trial in TRIALS} == set(FAULTS)
    assert len({(trial.fault, trial.name) for trial in TRIALS}) == len(TRIALS)
    for trial in TRIALS:
        file, name = trial.test.split("::")
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        assert name in {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}, name


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(InputError, match="no git checkout"):
        releases.code_of(tmp_path)


def test_rows_of_two_releases_stand_side_by_side(tmp_path, bench, monkeypatch, capsys):
    provenance = rows.Provenance.now("quick")
    monkeypatch.setattr(ten_faults, "code_of", lambda _: ("0.6.0", "abc"))
    monkeypatch.setattr(ten_faults, "release", partial(Release, bench=bench))
    bad, good = Outcome(True, "half a row", True), Outcome(True, "", False, (".part-a",))
    made = []
    for root, outcome in ((tmp_path, bad), (None, good)):
        trials = [Trial(1, name, TRIALS[0].test, lambda _, o=outcome: o) for name in "ab"]
        made += ten_faults.measure(trials, root, provenance)
    assert capsys.readouterr().err.count("1, a: half a row") == 1
    frame = EXPERIMENT.prepare(pd.DataFrame([row.to_record() for row in made]))
    first = report.history(frame).iloc[0]
    assert (first["0.6.0"], first["today"]) == ("2 lost of 2", "2 files left of 2")
    assert "a full disk leaves the rows that were there (`eval/test_rows.py`)" in first["tests"]
    assert report.verdict(frame).splitlines() == [
        "Of 2 injections of 1 fault of 0.6.0, this code survives 0.",
        "Not as it should be: 1: a; 1: b.",
        "Of 2 injections of 1 fault of 0.6.0, release 0.6.0 survives 0.",
    ]
