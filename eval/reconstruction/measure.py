"""Encode held-out volumes, render them on several grids, and score every arm on each."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from eval import metrics, rows
from eval.coders.base import Coder, Kept, all_coders, loaded
from eval.reconstruction.release import release_rows
from eval.rows import spacing_text
from eval.runner import Task
from eval.subjects import CONDITIONS, Case, Scan, Subject, subjects
from medil.errors import InputError
from medil.regrid import cell_average
from medil.volume import Volume

NAME = "reconstruction"
DEFINITION = {  # of the numbers; another definition is another configuration
    "version": 2,
    "metrics": metrics.DEFINITION,
}
Pair = tuple[str, Coder]  # condition and arm


def score(case: Case, data: np.ndarray) -> dict[str, float]:
    """Every metric of a rendering on the case's target, taken where its truth lies.

    A metric that has no value here, such as edge width where there is no edge, is NaN.
    """
    if not case.seen_on.is_close(case.target):
        data = cell_average(data, case.target, case.seen_on)
    found = metrics.all_metrics(case.truth, data, case.mask, case.seen_on.spacing_mm)
    return {name: found.get(name, math.nan) for name in metrics.scored()}


def identities(experiment: str, subject: Subject, pair: Pair) -> frozenset[tuple[str, ...]]:
    """Of the rows that one arm gives for one subject under one condition."""
    condition, coder = pair
    hashes = (coder.config_hash(DEFINITION), subject.data_sha256, coder.weights_sha256)
    what = (experiment, subject.name, coder.name, condition)
    return frozenset((*what, metric, *hashes) for metric in metrics.scored())


def pairs(subject: Subject, coders: Sequence[Coder]) -> list[Pair]:
    """The (condition, arm) pairs of a subject."""
    return [
        (condition, coder)
        for condition in subject.conditions
        for coder in coders
        if coder.conditions is None or condition in coder.conditions
    ]


def measure(
    subject: Subject,
    todo: Sequence[Pair],
    provenance: rows.Provenance,
    experiment: str = NAME,
    cases: Mapping[str, Callable[[Scan], Case]] = CONDITIONS,
) -> list[rows.Row]:
    """Rows of one subject for (condition, arm) pairs; each volume is encoded once an arm."""
    scan, found = subject.load(), []
    kept_of: dict[tuple[str, int], tuple[Volume, Kept, float]] = {}
    for condition in dict.fromkeys(c for c, _ in todo):
        case = cases[condition](scan)
        for coder in (a for c, a in todo if c == condition):
            key = (coder.encoding, id(case.volume))  # held below, so that its id stays its own
            if key not in kept_of:
                kept, time_s = timed(coder.encode, case.volume)
                kept_of[key] = (case.volume, kept, time_s)
            _, kept, encode_s = kept_of[key]
            data, decode_s = timed(coder.decode, kept, case.target)
            found += rows.of_values(
                score(case, data),
                metrics.UNITS,
                experiment=experiment,
                subject=subject.name,
                arm=coder.name,
                condition=condition,
                spacing_in_mm=spacing_text(case.volume.grid),
                spacing_out_mm=spacing_text(case.target),
                numbers_kept=int(kept.numbers),
                n_voxels=case.volume.grid.n_voxels,
                config_hash=coder.config_hash(DEFINITION),
                data_sha256=subject.data_sha256,
                weights_sha256=coder.weights_sha256,
                time_s=encode_s + decode_s,
                provenance=provenance,
            )
    return found


def timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The result of a function, and the seconds it took."""
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--arms``: some arms alone."""
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some arms, as in the rows (all)")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a subject, and one that records what the release is."""
    coders = chosen(all_coders(options.release), options.arms)
    about = release_rows(loaded(options.release), options.release, provenance)
    release = Task("release", frozenset(row.identity for row in about), partial(list, about))
    recorded = rows.recorded_identities(options.path)
    return [release, *subject_tasks(subjects(options.profile), coders, recorded, provenance)]


def subject_tasks(
    people: Sequence[Subject],
    coders: Sequence[Coder],
    recorded: set[tuple[str, ...]],
    provenance: rows.Provenance,
    experiment: str = NAME,
    cases: Mapping[str, Callable[[Scan], Case]] = CONDITIONS,
) -> list[Task]:
    """One task per subject, of the (condition, arm) pairs that are not recorded yet.

    Subjects that are recorded completely have no task. `recorded` holds identities of rows.
    """
    found = []
    for subject in people:
        wanted = {pair: identities(experiment, subject, pair) for pair in pairs(subject, coders)}
        todo = [pair for pair, those in wanted.items() if not those <= recorded]
        if todo:
            whole = frozenset().union(*(wanted[pair] for pair in todo))
            work = partial(measure, subject, todo, provenance, experiment, cases)
            found.append(Task(subject.name, whole, work))
    return found


def chosen(coders: Sequence[Coder], names: Sequence[str] | None) -> Sequence[Coder]:
    """The coders of these names; all of them when None.

    Raises:
        InputError: A name that none has.
    """
    known = [coder.name for coder in coders]
    if unknown := set(names or ()) - set(known):
        raise InputError(f"there is no arm {min(unknown)}; choose from {', '.join(known)}.")
    return [coder for coder in coders if names is None or coder.name in names]
