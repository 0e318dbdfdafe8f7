"""Encode held-out volumes, render them on several grids, and score every arm on each."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np

from eval import metrics, rows, rows_file
from eval.coders.base import Coder, Renderer, all_coders, loaded, release_arm
from eval.reconstruction import precision, sizes
from eval.runner import Task
from eval.subjects import CONDITIONS, Case, Scan, Subject, subjects
from medil.errors import InputError
from medil.model.autoencoder import MedIL
from medil.model.weights import weights_sha256
from medil.regrid import cell_average

NAME, RELEASE = "reconstruction", "release"  # experiments of the rows
FACTS = ("minutes", "step")  # that training wrote into the weights
RELEASE_UNITS = {
    "parameters": "1",
    "latent_channels": "1",
    "latent_spacing": "mm",
    "training_minutes": "min",
    "training_step": "1",
}
DEFINITION = {  # of the numbers; another definition is another configuration
    "version": 2,
    "metrics": metrics.DEFINITION,
}
CASES = CONDITIONS | sizes.QUESTIONS
Pair = tuple[rows.Measurement, Coder]


def metrics_of(condition: str) -> tuple[str, ...]:
    """What is scored under a condition."""
    return sizes.METRICS if condition in sizes.QUESTIONS else metrics.scored()


def definition_of(condition: str) -> dict[str, object]:
    """What the numbers of a condition mean."""
    return sizes.DEFINITION if condition in sizes.QUESTIONS else DEFINITION


def score(case: Case, data: np.ndarray, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Metrics of a rendering on the case's target (all when None), taken where its truth lies.

    A metric that has no value here, such as edge width where there is no edge, is NaN.
    """
    wanted = metrics.scored() if wanted is None else wanted
    if not case.seen_on.is_close(case.target):
        data = cell_average(data, case.target, case.seen_on)
    values = metrics.all_metrics(case.truth, data, case.mask, case.seen_on.spacing_mm, wanted)
    return {name: values.get(name, math.nan) for name in wanted}


def pairs(subject: Subject, coders: Sequence[Coder], experiment: str = NAME) -> list[Pair]:
    """What is measured of a subject, condition by condition, and by which coder."""
    about = experiment, subject.name, subject.data_sha256
    return [
        (coder.measurement(*about, condition, definition_of(condition)), coder)
        for condition in subject.conditions
        for coder in coders
        if coder.conditions is None or condition in coder.conditions
    ]


def identities(todo: Sequence[Pair]) -> frozenset[rows.Identity]:
    """Of the rows that pairs give."""
    return rows.identities((about, metrics_of(about.condition)) for about, _ in todo)


def measure(
    subject: Subject,
    todo: Sequence[Pair],
    provenance: rows.Provenance,
    cases: Mapping[str, Callable[[Scan], Case]] = CASES,
) -> list[rows.Row]:
    """Rows of one subject; each volume is encoded once an arm."""
    scan, made, renderer = subject.load(), [], Renderer()
    for condition, group in groupby(todo, lambda pair: pair[0].condition):
        case = cases[condition](scan)
        for measurement, coder in group:
            data, sampling, time_s = renderer.render(coder, case.volume, case.target)
            scores = score(case, data, metrics_of(condition))
            made += measurement.rows(scores, metrics.UNITS, sampling, time_s, provenance)
    return made


def release_rows(model: MedIL, name: str, provenance: rows.Provenance) -> list[rows.Row]:
    """One row per quantity: parameters, latent pitch and channels, and training facts."""
    config = model.config
    n_parameters = sum(p.numel() for p in model.parameters())
    values = {
        "parameters": n_parameters,
        "latent_channels": config.latent_channels,
        "latent_spacing": config.latent_spacing_mm,
    }
    facts = getattr(model, "facts", {})
    values |= {f"training_{fact}": facts[fact] for fact in FACTS if fact in facts}
    digests = rows.digest(facts.get("config_hash", "")), "none", weights_sha256(model)
    measurement = rows.Measurement(RELEASE, name, release_arm(name), "as released", *digests)
    cell = rows.Sampling.of_cell(config.latent_spacing_mm, config.latent_channels)
    return measurement.rows(values, RELEASE_UNITS, cell, 0.0, provenance)


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--arms``: some arms alone; ``--precision``: nothing but what bfloat16 costs."""
    parser.add_argument("--precision", action="store_true",
                        help="measure what bfloat16 costs, and nothing else")  # fmt: skip
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some arms, as in the rows (all)")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """Tasks of every subject, and one that records what the release is."""
    people, recorded = subjects(options.profile), rows_file.recorded_identities(options.path)
    in_half = precision.tasks(people, options.release, recorded, provenance)
    if options.precision:
        return in_half
    coders = chosen(all_coders(options.release), options.arms)
    about = release_rows(loaded(options.release), options.release, provenance)
    release = Task.of_rows("release", about)
    if options.profile != "quick":
        people = [sizes.asked(subject) for subject in people]
    scored = subject_tasks(people, coders, recorded, provenance)
    return [release, *scored, *([] if options.arms else in_half)]


def subject_tasks(
    people: Sequence[Subject],
    coders: Sequence[Coder],
    recorded: set[rows.Identity],
    provenance: rows.Provenance,
    experiment: str = NAME,
    cases: Mapping[str, Callable[[Scan], Case]] = CASES,
) -> list[Task]:
    """One task per subject, of what is not recorded yet; none for one recorded completely."""
    tasks = []
    for subject in people:
        every = pairs(subject, coders, experiment)
        todo = [pair for pair in every if not identities([pair]) <= recorded]
        if todo:
            work = partial(measure, subject, todo, provenance, cases)
            tasks.append(Task(subject.name, identities(todo), work))
    return tasks


def chosen(coders: Sequence[Coder], names: Sequence[str] | None) -> Sequence[Coder]:
    """The coders of these names; all of them when None.

    Raises:
        InputError: A name that none has.
    """
    known = [coder.name for coder in coders]
    if unknown := set(names or ()) - set(known):
        raise InputError(f"there is no arm {min(unknown)}; choose from {', '.join(known)}.")
    return [coder for coder in coders if names is None or coder.name in names]
