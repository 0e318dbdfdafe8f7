"""Injected faults: what is lost, unclear or left behind is seen, and `medil convert` is robust."""

from __future__ import annotations

import os
import signal
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from eval import rows
from eval.reliability import EXPERIMENT, child, judge, measure, report
from eval.reliability.bench import Bench
from eval.reliability.injections import DAMAGED, KINDS, REMOVED, STOPPED, changed
from eval.reliability.verbs import VERBS, Verb

pytest.importorskip("click", reason="click (extra cli) is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
AT_A_STEP, FULL = "killed at a step on the disk", "full disk"


@pytest.fixture(autouse=True)
def small_bench(monkeypatch):
    """A bench with scans alone, and nothing known from earlier tests."""
    monkeypatch.setattr(measure, "bench", lru_cache(Bench.made))
    for known in (measure.earlier, measure.reference):
        known.cache_clear()


def toy(monkeypatch, write) -> Verb:
    """A command that calls `write` with the path of its output."""
    made = Verb("toy", "a.txt", lambda bench: [str(bench.place / "a.txt")],
                earlier=lambda bench: (bench.place / "a.txt").write_text("earlier"),
                call=lambda arguments: write(Path(arguments[0])))  # fmt: skip
    monkeypatch.setattr(measure, "VERBS", (made,))
    return made


def careless(path):
    with path.open("w") as file:
        file.write("half")
        file.flush()
        path.with_name(".note").touch()
        file.write(" and half")
    path.with_name(".note").unlink()


def careful(path):
    part = path.with_name(f".part-{os.getpid()}")
    try:
        part.write_text("all of it")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        print(f"medil: {error.strerror}.", file=sys.stderr)
        return 2


def forgetful(path):
    mark = path.with_name(".mark")
    text = "less of it" if mark.exists() else "all of it"
    mark.touch()
    part = path.with_name(".part")
    part.write_text(text)
    os.replace(part, path)
    mark.unlink()


def test_a_file_that_is_half_written_under_its_name_is_lost(monkeypatch):
    outcome = measure.trial(toy(monkeypatch, careless), AT_A_STEP, 1, 3)
    assert outcome.fault == "broken a.txt" and outcome.is_lost and outcome.struck
    assert outcome.values["recovered"] == 0 and outcome.values["lost"] == 1


def test_a_temporary_file_that_stays_is_left_over(monkeypatch):
    outcome = measure.trial(toy(monkeypatch, careful), AT_A_STEP, 1, 2)
    (left,) = outcome.leftovers
    assert left.startswith("place/.part-") and not outcome.fault and outcome.struck
    assert outcome.values["leftovers"] == outcome.values["recovered"] == 1


def test_a_sentence_is_clear_and_a_traceback_is_not(monkeypatch):
    clear = measure.trial(toy(monkeypatch, careful), FULL, 0, 8)
    assert clear.struck and not clear.fault
    measure.reference.cache_clear()
    unclear = measure.trial(toy(monkeypatch, lambda path: careful(path) and 1), FULL, 0, 8)
    assert unclear.fault == "ends with 1: medil: File too large." and not unclear.is_lost
    assert unclear.values["unclear"] == 1


def test_another_result_of_the_next_call_is_lost(monkeypatch):
    with pytest.raises(measure.InputError, match="another result where an earlier output is"):
        measure.trial(toy(monkeypatch, lambda path: None), FULL, 1, 2)
    measure.reference.cache_clear()
    outcome = measure.trial(toy(monkeypatch, forgetful), AT_A_STEP, 2, 5)
    assert outcome.is_lost and outcome.fault == "the next call gives another a.txt"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != DAMAGED])
def test_convert_recovers(kind):
    verb = next(verb for verb in VERBS if verb.name == "convert")
    outcome = measure.trial(verb, kind, 1, 3)
    assert (outcome.fault, outcome.leftovers) == ("", ())


def test_a_killed_command_leaves_the_suites_progress_bar_free(tmp_path):
    shared = tqdm.get_lock().mp_lock

    def dies_while_it_writes_its_bar() -> int:
        with tqdm.get_lock():
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert child.start(dies_while_it_writes_its_bar, tmp_path).wait().code == -signal.SIGKILL
    assert shared.acquire(timeout=1)
    shared.release()


def test_files_that_can_tell_are_whole_or_not(tmp_path):
    for name, text, is_whole in [
        ("a.json", '{"a": 1}', True), ("a.json", '{"a": ', False), ("a.txt", "half", False),
        ("a.jsonl", '{"a": 1}\n{"b', True), ("a.jsonl", '{"a\n{"b": 1}\n', False),
        ("a.csv", "a,b\n", False), ("a.safetensors", "x", False), ("a.jsonl.gz", "x", False),
    ]:  # fmt: skip
        (tmp_path / name).write_text(text)
        assert judge.is_whole(tmp_path / name) == is_whole, (name, text)


def test_damage_changes_bytes(rng):
    content = rng.bytes(999)
    damaged = [changed(content, np.random.default_rng(k)) for k in range(20)]
    assert all(one != content and len(one) <= 999 for one in damaged)
    assert {len(one) == 999 for one in damaged} == {True, False}


def test_every_command_is_disturbed_at_least_fifty_times():
    for verb in VERBS:
        kinds = {kind: n for kind, (_, n) in KINDS.items() if kind != DAMAGED or verb.reads}
        assert sum(kinds.values()) >= 50 and {STOPPED, REMOVED} < set(kinds)


def test_rows_give_tables_and_a_verdict():
    provenance = rows.Provenance.now("quick")
    verb = VERBS[0]
    outcomes = [measure.Outcome(True), measure.Outcome(True, "broken a", True, ("b",))]
    found = [
        row
        for number, outcome in enumerate(outcomes)
        for row in measure.about(verb, FULL, number, provenance).rows(
            outcome.values, measure.UNITS, measure.SAMPLING, 0.1, provenance
        )
    ]
    frame = EXPERIMENT.prepare(pd.DataFrame([row.to_record() for row in found]))
    first, all_of = report.table(frame, "verb", "command").to_dict("records")
    assert first | {"command": "all"} == all_of
    counted = ("injections", "struck", "recovered", "unclear", "lost", "leftovers")
    assert [first[name] for name in counted] == [2, 2, 1, 0, 1, 1]
    assert report.verdict(frame).splitlines() == [
        "Of 2 injections into 1 command, 2 struck; 1 lost something, 0 ended without a sentence, "
        "and 1 file stayed behind.",
        "Not as it should be: encode: full disk 1.",
    ]
