"""Read every case in a process of its own, and judge what became of it.

A reader that hangs, crashes or takes too much memory ends its own process and not the run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from eval import rows
from eval.readers import dicom, mgh, nifti, nrrd
from eval.readers.case import Case, Read, Refused, fault
from eval.runner import Task
from medil.cli import run
from medil.errors import InputError, printable
from medil.system.memory import resident_bytes
from medil.volume import load

NAME, ARM = "readers", "medil"
VERSION = 1
MOST_S, MOST_MB = 5.0, 500.0  # for one small file
MOST_LETTERS = 500  # of a refusal without the file's name
CODE = re.compile(  # words of Python, and an exception whose text is a value alone
    r"Traceback|Error:|<class|NoneType|object at 0x|literal for|to unpack|convert string"
    r"|\((-?\d+|'[^']*'|\w+(Error|Iteration))\)\.$"
)
UNITS = {"is_right": "1", "is_refused": "1", "peak_mb": "MB", "took_s": "s"}
SAMPLING = rows.Sampling("any", "any", 0, 1)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        fault: What is wrong with it; empty if nothing.
        is_refused: Whether the file was refused, or else read.
        peak_mb: Memory that it took.
        took_s: Time that it took.
    """

    fault: str
    is_refused: bool = False
    peak_mb: float = 0.0
    took_s: float = 0.0


def cases() -> Iterator[Case]:
    """The cases of all formats."""
    for module in (nifti, mgh, nrrd, dicom):
        yield from module.cases()


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a case; readers change, so that every run measures all of them."""
    return [Task(case.name, None, partial(measure, case, provenance)) for case in cases()]


def condition(case: Case) -> str:
    """The condition in the rows, such as ``MGH | sizes | refused``."""
    return f"{case.format} | {case.kind} | {'read' if isinstance(case.right, Read) else 'refused'}"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Format, kind of fault, and what is right."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["format", "kind", "right"], axis="columns")


def measure(case: Case, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one case; what is wrong with it goes to stderr."""
    outcome = guarded(partial(outcome_of, case))
    if outcome.fault:
        print(f"{case.format}, {case.kind}, {case.name}: {outcome.fault}", file=sys.stderr)
    about = rows.Measurement(
        NAME, f"{case.format}: {case.name}", ARM, condition(case),
        rows.digest([VERSION, MOST_S, MOST_MB]), case.sha256, rows.NO_WEIGHTS,
    )  # fmt: skip
    values = {
        "is_right": not outcome.fault, "is_refused": outcome.is_refused,
        "peak_mb": outcome.peak_mb, "took_s": outcome.took_s,
    }  # fmt: skip
    return about.rows(values, UNITS, SAMPLING, outcome.took_s, provenance)


def outcome_of(case: Case) -> Outcome:
    """Read a case in this process, by the package and, where it refuses, by the command too."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = case.write(Path(folder))
        started = time.perf_counter()
        try:
            volume = load(path, case.volume_index)
        except InputError as error:
            took_s = time.perf_counter() - started
            return Outcome(refusal_fault(case, path, str(error)), True, took_s=took_s)
        took_s = time.perf_counter() - started
        if isinstance(case.right, Refused):
            return Outcome(f"it is read, and should be refused ({case.right.words})")
        return Outcome(fault(volume, case.right), took_s=took_s)


def refusal_fault(case: Case, path: Path, text: str) -> str:
    """What is wrong with a refusal: the wrong one, no sentence, or another one by the command."""
    if isinstance(case.right, Read):
        return f"it is refused, and should be read: {text}"
    if case.right.words not in text:
        return f"it does not say {case.right.words!r}: {text}"
    if not_a_sentence := sentence_fault(text.removeprefix(f"{path}: ")):
        return f"{not_a_sentence}: {text!r}"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["info", str(path)])
    if code != 2 or out.getvalue() or err.getvalue().count("\n") != 1:
        return f"the command ends with {code} and {err.getvalue()!r}"
    return ""


def sentence_fault(text: str) -> str:
    """Why a text is not one clear sentence on one line; empty if it is."""
    if text != printable(text):
        return "it holds control characters"
    if not text.endswith(".") or len(text) > MOST_LETTERS:
        return "it is no sentence"
    if CODE.search(text):
        return "it quotes code"
    return ""


def guarded(
    read: Callable[[], Outcome], most_s: float = MOST_S, most_mb: float = MOST_MB
) -> Outcome:
    """The outcome of `read` in a process of its own, within limits of time and memory."""
    fork = multiprocessing.get_context("fork")  # what is imported here is not imported again
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=_send, args=(there, read))
    child.start()
    there.close()
    try:
        outcome = here.recv() if here.poll(most_s) else Outcome(f"it takes over {most_s:g} s")
    except EOFError:
        child.join()
        outcome = Outcome(f"its process ends with {child.exitcode}")
    child.kill()
    child.join()
    if not outcome.fault and outcome.peak_mb > most_mb:
        return Outcome("it takes too much memory", outcome.is_refused, outcome.peak_mb)
    return outcome


def _send(pipe, read: Callable[[], Outcome]) -> None:
    """Send the outcome of `read` and its peak memory; anything that it raises is a fault."""
    before = resident_bytes()
    try:
        outcome = read()
    except Exception as error:
        outcome = Outcome(f"it raises {type(error).__name__}: {error}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    pipe.send(Outcome(outcome.fault, outcome.is_refused, max(0, peak) / 1e6, outcome.took_s))
