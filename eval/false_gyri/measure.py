"""What a profile measures, and the rows of one block."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from eval import rows
from eval.arms.coders import WeightsCoder
from eval.coders.base import Renderer, loaded, timed
from eval.false_gyri.arms import ARMS, DRAWS, MAPS, RIVALS, Case, numbers_kept
from eval.false_gyri.blocks import ASKED, BRAIN, CONDITIONS, HEAD, Source, sources
from eval.false_gyri.score import OF_MAPS, OF_RENDERINGS, UNITS, rendering, uncertainty
from eval.false_gyri.tries import TRIES, Run, coders, train_all
from eval.runner import Task
from medil.model.guards import SMOOTH_MM
from medil.model.weights import weights_sha256

NAME = "false_gyri"
QUICK_OUT = Path("_build/false_gyri/quick")
DEFINITION = {"version": 1, "smooth_mm": SMOOTH_MM, "draws": DRAWS}
FINER = tuple(c for c in CONDITIONS if c not in ("1 -> 2", "1 -> 1"))  # where guards are asked


class Plan(NamedTuple):
    """How many blocks of each kind, and how long the tries train, which are scored on heads."""

    heads: int
    phantoms: int  # of each kind of phantom
    brains: int
    seeds: int = 0  # of every try
    minutes: float = 2.0  # of each run, one thread
    training: int = 4  # heads to train on, each with voxels of another size

    def runs(self) -> list[Run]:
        """Every run; all tries of one seed first, so that an interrupted night holds pairs."""
        return [
            Run(name, seed, self.minutes, self.training)
            for seed in range(self.seeds)
            for name in TRIES
        ]


PROFILES = {"quick": Plan(1, 1, 0), "gpu": Plan(8, 2, 6, 2), "paper": Plan(24, 4, 12, 3, 60.0)}


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a block, and one of the tries a head; tries are trained first."""
    plan, release = PROFILES[options.profile], options.release
    runs = plan.runs()
    train_all(runs)
    tried, drawn = coders(runs), sources(plan.heads, plan.phantoms, plan.brains)
    blocks = [
        Task(
            source.name,
            rows.identities(
                (measurement(source, arm, condition, release), metrics_of(arm))
                for condition in source.conditions
                for arm in asked(source, condition)
            ),
            partial(measure, source, release, provenance),
        )
        for source in drawn
    ]
    heads = [source for source in drawn if source.name.startswith(HEAD)] if tried else []
    return blocks + [
        Task(
            f"{source.name}, tries",
            rows.identities((about, OF_RENDERINGS) for _, _, about in of_tries(source, tried)),
            partial(measure_tries, source, tried, provenance),
        )
        for source in heads
    ]


def asked(source: Source, condition: str) -> list[str]:
    """The arms and maps of a condition: guards and maps on finer voxels alone.

    Of real brains maps alone, since the noise of their truth has a topology of its own.
    """
    if source.name.startswith(BRAIN):
        return list(MAPS)
    return [*ARMS, *MAPS] if condition in FINER else list(RIVALS)


def metrics_of(arm: str) -> tuple[str, ...]:
    """What is measured of an arm or a map."""
    return OF_MAPS if arm in MAPS else OF_RENDERINGS


def measurement(source: Source, arm: str, condition: str, release: str) -> rows.Measurement:
    """One arm or map on one block under one condition."""
    model = loaded(release)
    config = rows.digest([arm, DEFINITION, asdict(model.config)])
    digests = config, source.data_sha256, weights_sha256(model)
    return rows.Measurement(NAME, source.name, arm, condition, *digests)


def measure(source: Source, release: str, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one block."""
    block, made = source.draw(), []
    for condition in source.conditions:
        case = Case(block, condition, release)
        for arm in asked(source, condition):
            data, time_s = timed((ARMS | MAPS)[arm], case)
            if arm in MAPS:
                values = uncertainty(block, case.voxels, case.plain, data)
            else:
                values = rendering(block, case.voxels, data)
            sampling = rows.Sampling.of(case.scan.grid, case.grid, numbers_kept(case, arm))
            about = measurement(source, arm, condition, release)
            made += about.rows(values, UNITS, sampling, time_s, provenance)
    return made


# Tries


def of_tries(
    source: Source, tried: Sequence[WeightsCoder]
) -> list[tuple[str, WeightsCoder, rows.Measurement]]:
    """Every try under every condition of `ASKED`."""
    about = NAME, source.name, source.data_sha256
    return [
        (condition, coder, coder.measurement(*about, condition, DEFINITION))
        for coder, condition in itertools.product(tried, ASKED)
    ]


def measure_tries(
    source: Source, tried: Sequence[WeightsCoder], provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of one block by the tries."""
    block, made = source.draw(), []
    for condition, coder, about in of_tries(source, tried):
        scan, voxels = block.asked(condition)
        data, sampling, time_s = Renderer().render(coder, scan, block.truths[voxels].grid)
        seeded = replace(provenance, seed=coder.seed)
        made += about.rows(rendering(block, voxels, data), UNITS, sampling, time_s, seeded)
    return made
