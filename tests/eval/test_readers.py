"""Damaged and odd files: every case is right here, and the guard sees what a reader does wrong."""

from __future__ import annotations

import mmap
import os
import signal
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from eval import rows
from eval.readers import EXPERIMENT, measure, report
from eval.readers.case import AFFINE, DATA, UNREADABLE, Case, Cases, Read, Refused
from eval.readers.measure import Outcome, guarded, outcome_of, sentence_fault

pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")

CASES = list(measure.cases())


@pytest.mark.parametrize("format", sorted({case.format for case in CASES}))
def test_every_damaged_or_odd_file_is_refused_in_one_sentence_or_read_right(format):
    own = [case for case in CASES if case.format == format]
    faults = {case.name: fault for case in own if (fault := outcome_of(case).fault)}
    assert faults == {}


def test_there_are_many_cases_and_none_twice():
    names = {(case.format, case.kind, case.name) for case in CASES}
    assert len(names) == len(CASES) > 150
    again = {(case.name, case.sha256) for case in measure.cases()}
    assert again == {(case.name, case.sha256) for case in CASES}
    assert {type(case.right) for case in CASES} == {Read, Refused}


def judged(content: bytes, right: Read | Refused) -> str:
    return outcome_of(Case("NIfTI-1", "x", "y", {"scan.nii": content}, right)).fault


def test_the_judge_sees_wrong_answers():
    good = next(c for c in CASES if c.name == "another number of bits").files["scan.nii"]
    assert judged(good, Read(DATA, AFFINE)) == ""
    assert "should be refused" in judged(good, Refused("x"))
    assert "other values" in judged(good, Read(DATA + 1, AFFINE))
    assert "shape" in judged(good, Read(DATA[1:], AFFINE))
    assert "another place" in judged(good, Read(DATA, AFFINE @ np.diag([-1, 1, 1, 1])))
    assert "nothing is said" in judged(good, Read(DATA, AFFINE, "a note"))
    assert "should be read" in judged(good[:300], Read(DATA, AFFINE))
    assert "does not say" in judged(good[:300], Refused("singular"))
    assert judged(good[:300], Refused(UNREADABLE)) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [("Too short.", ""), ("no end", "sentence"), ("a\nb.", "control"), ("\x1b[31m.", "control"),
     ("It has NoneType.", "code"), ("It is bad ('type').", "code"), ("It is bad (504).", "code"),
     ("It is bad (504 bytes).", ""), ("x" * 600 + ".", "sentence")],
)  # fmt: skip
def test_what_a_sentence_is(text, fault):
    assert fault in sentence_fault(text)
    assert bool(fault) == bool(sentence_fault(text))


def hungry() -> Outcome:
    fresh = np.frombuffer(mmap.mmap(-1, 64_000_000), np.uint8)  # no block that was freed before
    fresh.fill(1)
    return Outcome("")


@pytest.mark.parametrize(
    ("read", "fault"),
    [(partial(os._exit, 3), "ends with 3"),
     (partial(signal.raise_signal, signal.SIGKILL), "ends with -9"),
     (partial(int, "x"), "raises ValueError"), (hungry, "too much memory")],
)  # fmt: skip
def test_the_guard_outlives_a_reader_that_crashes_or_is_hungry(read, fault):
    assert fault in guarded(read, most_mb=50).fault


def test_the_guard_ends_a_reader_that_hangs():
    started = time.perf_counter()
    assert "takes over 0.2 s" in guarded(partial(time.sleep, 60), most_s=0.2).fault
    assert time.perf_counter() - started < 5


def test_rows_give_a_table_and_a_verdict():
    made = Cases("MGH", ".mgh")
    made.refused("truncated", "empty", b"")
    made.refused("truncated", "text", b"words", "words that nobody says")
    provenance = rows.Provenance.now("quick")
    found = [row for case in made for row in measure.measure(case, provenance)]
    frame = EXPERIMENT.prepare(pd.DataFrame([row.to_record() for row in found]))
    [line] = report.table(frame).to_dict("records")
    assert (line["Format"], line["Fault"], line["n"]) == ("MGH", "truncated", 2)
    assert (line["refused in one sentence"], line["read right"], line["wrong"]) == (1, 0, 1)
    assert report.verdict(frame).startswith(
        "Of 2 damaged and odd files, 1 are refused in one sentence, 0 are read right and 1 are "
        "neither: MGH: text."
    )
