"""What a profile trains and scores, and the rows of one block by some coders."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eval import rows
from eval.arms.catalogue import size_of
from eval.coders.base import Coder, Renderer
from eval.extrapolation.blocks import BRAIN, CONDITIONS, Source, draw_all, load_block, sources
from eval.extrapolation.coders import (
    TRUTH,
    Truth,
    arm_coder,
    fixed_coders,
    for_block,
    release_coders,
    release_size,
)
from eval.extrapolation.score import (
    DEFINITION,
    ERRORS,
    MISMATCH,
    PARTS,
    SURFACE,
    UNITS,
    bands_of,
    scores,
)
from eval.extrapolation.train import (
    BRAIN_TITLES,
    BRAINS,
    FOLDER,
    HEADS,
    MATERIALS,
    TITLES,
    Run,
    brains_are_here,
    train_all,
)
from eval.runner import Task
from medil.errors import InputError

NAME = "extrapolation"
KEY = (*rows.WHAT, "seed")
QUICK_OUT = Path("_build/extrapolation/quick")


@dataclass(frozen=True)
class Plan:
    """Sizes of training and scoring in one profile."""

    arms: tuple[str, ...]
    seeds: int
    steps: int
    heads: int  # to train on
    brains: int  # to train on, in runs of their own
    subjects: int  # synthetic heads to score
    phantoms: int  # to score
    people: int = 0  # real brains to score, at most
    conditions: tuple[str, ...] = tuple(CONDITIONS)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, not {self.seeds}.")

    def runs(self, materials: Sequence[str] = MATERIALS) -> list[Run]:
        """Every run; all arms of one seed first, so that an interrupted night holds pairs."""
        counts = {HEADS: self.heads, BRAINS: self.brains}
        return [
            Run(arm, seed, self.steps, counts[material], material)
            for material in materials
            for seed in range(self.seeds)
            for arm in self.arms
        ]


OF_QUICK = ("1 -> 1", "0.8 -> 0.8", "1 -> 0.8", "1 -> native")
PROFILES = {
    #             arms, seeds, steps; heads, brains to train on; heads, phantoms, brains to score
    "quick": Plan(("integrated", "trilinear"), 1, 100, 3, 2, 3, 1, 2, OF_QUICK),
    "gpu": Plan(tuple(TITLES), 3, 600, 16, 16, 6, 2, 20),
    "paper": Plan(tuple(TITLES), 5, 10_000, 16, 40, 20, 4, 20),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 (the profile's)")
    parser.add_argument("--train-only", action="store_true", help="train, score nothing")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of heads and weights")
    what = "what arms are trained on and scored with (both; brains where they are on this computer)"
    parser.add_argument("--trained-on", nargs="+", choices=MATERIALS, help=what)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a block and group of coders; arms are trained and blocks drawn first."""
    plan, folder = PROFILES[options.profile], options.data
    if options.seeds is not None:
        plan = replace(plan, seeds=options.seeds)
    materials = options.trained_on or [m for m in MATERIALS if m == HEADS or brains_are_here()]
    runs = plan.runs(materials)
    processes = (os.cpu_count() if options.workers is None else options.workers) or 1
    train_all(runs, folder, processes)
    if options.train_only:
        return []
    made = (plan.subjects, plan.phantoms) if HEADS in materials else (0, 0)
    blocks = sources(*made, plan.people)
    draw_all(blocks, folder, processes)
    groups = coders(runs, options.release, folder)
    return block_tasks(blocks, groups, plan.conditions, folder, provenance)


def coders(runs: Sequence[Run], release: str, folder: Path) -> dict[str, Sequence[Coder]]:
    """Coders that share a task: each trained run, the release, and what learns nothing."""
    trained = {
        f"{run.name}, seed {run.seed}": [arm_coder(run, folder)]
        for run in runs
        if run.path(folder).exists()
    }
    sizes = [*(size_of(run.arm) for run in runs), release_size(release)]
    fixed: list[Coder] = [Truth(), *fixed_coders(sizes)]
    return {"fixed": fixed, release: release_coders(release), **trained}


def block_tasks(
    blocks: Sequence[Source], groups: dict[str, Sequence[Coder]], conditions: Sequence[str],
    folder: Path, provenance: rows.Provenance,
) -> list[Task]:  # fmt: skip
    """One task per block and group of coders (by a name for the progress bar), block by block.

    Each block answers those of `conditions` that it can; each row gets its coder's seed.
    """
    tasks = [
        Task(
            f"{source.name}, {name}",
            rows.identities(
                (measurement(source, coder, condition), metrics_of(condition, coder.name))
                for coder in coders
                for condition in answered(coder, source, conditions)
            ),
            partial(measure, source, tuple(coders), tuple(conditions), folder, provenance),
        )
        for source in blocks
        for name, coders in groups.items()
    ]
    return [task for task in tasks if task.wanted]


def metrics_of(condition: str, arm: str) -> tuple[str, ...]:
    """What is measured of an arm under a condition; of the truth, what is no comparison."""
    if arm == TRUTH:
        return (*SURFACE, MISMATCH)
    details = [f"detail_{part}_{band}" for part in PARTS for band in bands_of(condition)]
    return (*ERRORS, *details, *SURFACE, MISMATCH)


def answered(coder: Coder, source: Source, conditions: Sequence[str]) -> list[str]:
    """The conditions of a block in which a coder is a rival.

    Interpolation is one only where voxels have to be made, and what was trained on real brains
    only on real brains.
    """
    if coder.name in BRAIN_TITLES and not source.name.startswith(BRAIN):
        return []
    possible = [c for c in conditions if c in source.conditions]
    if coder.name != "interpolation":
        return possible
    return [c for c in possible if CONDITIONS[c][0] != CONDITIONS[c][1]]


def measurement(source: Source, coder: Coder, condition: str) -> rows.Measurement:
    """One coder on one block under one condition."""
    return coder.measurement(NAME, source.name, source.data_sha256, condition, DEFINITION)


def measure(
    source: Source, coders: Sequence[Coder], conditions: Sequence[str], folder: Path,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Rows of one block by some coders; coders of one encoding encode a scan once."""
    block, renderer, made = load_block(source, folder), Renderer(), []
    for coder in coders:
        of_block = for_block(coder, block)
        seeded = replace(provenance, seed=getattr(coder, "seed", 0))
        for condition in answered(coder, source, conditions):
            encoded, target = (block.volumes[voxels] for voxels in CONDITIONS[condition])
            estimate, sampling, time_s = renderer.render(of_block, encoded, target.grid)
            values = scores(block, condition, estimate)
            values = {name: values[name] for name in metrics_of(condition, coder.name)}
            about = measurement(source, coder, condition)
            made += about.rows(values, UNITS, sampling, time_s, seeded)
    return made
