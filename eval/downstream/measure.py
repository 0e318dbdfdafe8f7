"""Test every segmenter on brains that none was trained on: overlaps (Dice), network alone.

Painted heads have exact maps. Real brains have none: what is measured there is agreement, with
three classes of intensity, which know no training, and with the released segmenter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import pandas as pd

from eval import rows
from eval.downstream.training import MODEL, SIZES, TITLES, VERSION, network, source_id
from eval.metrics.tissue import dice
from eval.metrics.tissue import segment as by_intensity
from eval.runner import Task
from eval.segmentation.brains import Brain, brains
from eval.segmentation.measure import CLASS, DEFINITION, EXACT, INTENSITY, PARTS, TISSUE, labels_of
from medil.anatomy.segmenter import (
    at_one_mm,
    brain_shares,
    load_segmenter_release,
    segment,
)
from medil.errors import InputError

NAME = "downstream"
RELEASE = "released segmenter"
UNITS = {"dice": "1"}
AGAINST = {True: ((EXACT, CLASS),), False: ((INTENSITY, TISSUE), (RELEASE, CLASS))}  # is painted


def condition(against: str, kind: str, part: str, seed: int) -> str:
    """The condition in the rows, such as ``exact map | class | cortex | seed 0``."""
    return f"{against} | {kind} | {part} | seed {seed}"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What the map is compared with, whether classes or tissues are, which, and the seed."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["against", "kind", "part", "seed"], axis="columns")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a brain; segmenters that are missing are trained first.

    Raises:
        InputError: Another release than tiny, or data that is not on this computer.
    """
    if options.release != "tiny":
        raise InputError(f"samples are those of the release tiny, not {options.release!r}.")
    profile = options.profile
    for kind in TITLES:
        for seed in range(SIZES[profile].seeds):
            network(kind, profile, seed)
    found = []
    for brain in brains(profile):
        wanted = rows.identities((m, UNITS) for *_, m in measurements(brain, profile))
        found.append(Task(brain.name, wanted, partial(measure, brain, profile, provenance)))
    return found


def measurements(
    brain: Brain, profile: str
) -> Iterator[tuple[str, int, str, str, str, rows.Measurement]]:
    """All that is measured on a brain: training kind, seed, against, kind of parts, part, row."""
    size = asdict(SIZES[profile])
    for source in TITLES:
        about = rows.digest([VERSION, DEFINITION, asdict(MODEL), size, source_id(source)])
        for seed in range(SIZES[profile].seeds):
            weights = network(source, profile, seed).weights_id
            for against, kind in AGAINST[brain.is_painted]:
                for part in PARTS[kind]:
                    question = condition(against, kind, part, seed)
                    yield source, seed, against, kind, part, rows.Measurement(
                        NAME, brain.name, source, question, about, brain.data_sha256, weights
                    )  # fmt: skip


def measure(brain: Brain, profile: str, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one brain."""
    volume, exact = brain.load()
    references = {}
    if exact is not None:
        references[EXACT] = labels_of(exact)
    else:
        data, _, inside = at_one_mm(volume)
        references[INTENSITY] = {TISSUE: by_intensity(data.numpy(), inside.numpy())}
        references[RELEASE] = labels_of(segment(volume, load_segmenter_release()))
    target = volume.grid.covering(1.0)
    sampling = rows.Sampling.of(volume.grid, target, target.n_voxels)
    made, answers = [], {}
    for source, seed, against, kind, part, about in measurements(brain, profile):
        if (source, seed) not in answers:
            started = time.perf_counter()
            shares = brain_shares(volume, network(source, profile, seed))
            found = labels_of(shares.tissue_map(rounds=0))
            answers[source, seed] = found, time.perf_counter() - started
        labels, took_s = answers[source, seed]
        overlap = dice(references[against][kind], labels[kind], PARTS[kind][part])
        made += about.rows({"dice": overlap}, UNITS, sampling, took_s, provenance)
    return made
