"""Fuzz every reader, and record how many inputs it was given and what was found."""

from __future__ import annotations

import argparse
import hashlib
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from eval import rows
from eval.fuzz.corpus import read_corpus, write_corpus
from eval.fuzz.guided import Fuzzed, fuzzed
from eval.fuzz.judge import MOST_MB, MOST_S
from eval.fuzz.targets import MOST_BYTES, TARGETS, Target
from eval.runner import Task
from medil.errors import needs
from medil.system.files import make_folder

NAME, ARM = "fuzz", "medil"
VERSION = 1
QUICK = 100  # of the executions of the other profiles, one is made
PACKAGES = ("nibabel", "pynrrd", "pydicom", "safetensors")
UNITS = {"executions": "1", "finds": "1", "kept": "1", "slowest_s": "s", "peak_mb": "MB"}
SAMPLING = rows.Sampling("any", "any", 0, 1)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a reader; those of this commit that are recorded are not repeated."""
    with needs("fuzz", "fuzzing needs atheris, which there is for Linux"):
        engine = f"atheris {version('atheris')}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        task(target, options, f"{engine} | {packages}", provenance)
        for target in TARGETS
        if options.target in (None, target.name)
    ]


def task(
    target: Target, options: argparse.Namespace, condition: str, provenance: rows.Provenance
) -> Task:
    """The executions of one reader."""
    runs = target.runs // (QUICK if options.profile == "quick" else 1)
    known = read_corpus().get(target.name, [])
    digest = hashlib.sha256(b"".join(known)).hexdigest()
    settings = [VERSION, runs, MOST_S, MOST_MB, MOST_BYTES, provenance.commit, provenance.dirty]
    about = rows.Measurement(
        NAME, target.name, ARM, condition, rows.digest(settings), digest, rows.NO_WEIGHTS
    )
    wanted = rows.identities([(about, UNITS)])
    return Task(
        target.name, wanted, partial(measure, target, runs, known, about, options.keep, provenance)
    )


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What mutated, and the packages that read."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["engine", "packages"], axis="columns")


def measure(
    target: Target, runs: int, known: list[bytes], about: rows.Measurement, keep: Path | None,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Rows of one reader; finds go to stderr, and with the inputs that are kept into a folder."""
    result = fuzzed(target, runs, known)
    for fault in result.finds:
        print(f"{target.name}: {fault}", file=sys.stderr)
    if keep:
        keep_inputs(make_folder(keep), target.name, result, known)
    values = {
        "executions": result.executions, "finds": len(result.finds), "kept": len(result.corpus),
        "slowest_s": result.slowest_s, "peak_mb": result.peak_mb,
    }  # fmt: skip
    return about.rows(values, UNITS, SAMPLING, result.took_s, provenance)


def keep_inputs(folder: Path, name: str, result: Fuzzed, known: list[bytes]) -> None:
    """Write the inputs of finds as files, and a corpus of what reached something new."""
    for number, (fault, content) in enumerate(result.finds.items()):
        (folder / f"{name}-{number}.bin").write_bytes(content)
        (folder / f"{name}-{number}.txt").write_text(fault + "\n", "utf-8")
    path = folder / "corpus.tar.xz"
    write_corpus(read_corpus(path) | {name: [*known, *result.corpus]}, path)
