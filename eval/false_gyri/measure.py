"""What a profile measures, and the rows of one block."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from eval import rows
from eval.coders.base import loaded, timed
from eval.false_gyri.arms import ARMS, DRAWS, MAPS, RIVALS, Case, numbers_kept
from eval.false_gyri.blocks import BRAIN, CONDITIONS, Source, sources
from eval.false_gyri.score import OF_MAPS, OF_RENDERINGS, UNITS, rendering, uncertainty
from eval.runner import Task
from medil.model.guards import SMOOTH_MM
from medil.model.weights import weights_sha256

NAME = "false_gyri"
QUICK_OUT = Path("_build/false_gyri/quick")
DEFINITION = {"version": 1, "smooth_mm": SMOOTH_MM, "draws": DRAWS}
FINER = tuple(c for c in CONDITIONS if c not in ("1 -> 2", "1 -> 1"))  # where guards are asked


class Plan(NamedTuple):
    """How many blocks of each kind."""

    heads: int
    phantoms: int  # of each kind of phantom
    brains: int


PROFILES = {"quick": Plan(1, 1, 0), "gpu": Plan(8, 2, 6), "paper": Plan(24, 4, 12)}


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a block."""
    release = options.release
    return [
        Task(
            source.name,
            rows.identities(
                (measurement(source, arm, condition, release), metrics_of(arm))
                for condition in source.conditions
                for arm in asked(source, condition)
            ),
            partial(measure, source, release, provenance),
        )
        for source in sources(*PROFILES[options.profile])
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
