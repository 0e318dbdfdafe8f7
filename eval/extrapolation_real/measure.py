"""What a profile trains and scores, and the rows of one brain by some coders."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from eval import metrics, rows
from eval.arms.catalogue import size_of
from eval.coders.base import Coder, Kept, Renderer
from eval.extrapolation.coders import (
    TRUTH,
    Truth,
    arm_coder,
    fixed_coders,
    for_block,
    release_coders,
    release_size,
)
from eval.extrapolation.score import BANDS, ERRORS, PARTS, SURFACE, UNITS
from eval.extrapolation.train import TITLES, train_all
from eval.extrapolation_real.blocks import CONDITIONS, NATIVE, Brain, block_of, block_sha256
from eval.extrapolation_real.train import DATA, RealRun
from eval.metrics.spectra import detail_split, effective_resolution_mm, fsc
from eval.metrics.tissue import thresholds
from eval.metrics.topology import per_cm3, topology, white_surface
from eval.runner import Task
from eval.subjects import name_of
from medil.data.manifest import Entry, local_entries
from medil.grid import Grid

NAME = "extrapolation_real"
KEY = (*rows.WHAT, "seed")
FOLDER = Path("_build/extrapolation_real")
QUICK_OUT = FOLDER / "quick"
VERSION = 2  # part of every hash: raise it when scoring itself changes
DEFINITION = [VERSION, BANDS]


@dataclass(frozen=True)
class Plan:
    """Sizes of training and scoring in one profile."""

    arms: tuple[str, ...]
    seeds: int
    steps: int
    brains: int  # to train on
    subjects: int  # to score

    def runs(self) -> list[RealRun]:
        """Every run; all arms of one seed first, so that an interrupted night holds pairs."""
        seeds = range(self.seeds)
        return [RealRun(arm, seed, self.steps, self.brains) for seed in seeds for arm in self.arms]


PROFILES = {
    #             arms, seeds, steps, training brains, scored brains
    "quick": Plan(("integrated", "trilinear"), 1, 100, 2, 2),
    "gpu": Plan(tuple(TITLES), 3, 600, 16, 6),
    "paper": Plan(tuple(TITLES), 5, 10_000, 40, 6),
}


class ScanItself(Truth):
    """The scan as an arm: its own white surface."""

    block: Brain  # type: ignore[assignment]

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The block on one of its own grids; [D, H, W] float64."""
        return self.block.scan_on(grid)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--train-only", action="store_true", help="train, score nothing")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of brains and weights")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a brain and group of coders; arms are trained first."""
    plan, folder = PROFILES[options.profile], options.data
    train_all(
        plan.runs(), folder, (os.cpu_count() if options.workers is None else options.workers) or 1
    )
    if options.train_only:
        return []
    people = local_entries(DATA, "test")[: plan.subjects]
    return brain_tasks(people, coders(plan, options.release, folder), provenance)


def coders(plan: Plan, release: str, folder: Path) -> dict[str, Sequence[Coder]]:
    """Coders that share a task: each trained run, the release, and what learns nothing."""
    runs = [run for run in plan.runs() if run.path(folder).exists()]
    trained = {f"{run.arm}, seed {run.seed}": [arm_coder(run, folder)] for run in runs}
    sizes = [*map(size_of, plan.arms), release_size(release)]
    fixed: list[Coder] = [ScanItself(), *fixed_coders(sizes)]
    return {"fixed": fixed, release: release_coders(release), **trained}


def brain_tasks(
    people: Sequence[Entry], groups: dict[str, Sequence[Coder]], provenance: rows.Provenance
) -> list[Task]:
    """One task per brain and group of coders, brain by brain."""
    return [
        Task(
            f"{name_of(entry)}, {name}",
            rows.identities(
                (about(entry, coder, condition), metrics_of(condition, coder.name))
                for coder in coders
                for condition in answered(coder)
            ),
            partial(measure, entry, tuple(coders), provenance),
        )
        for entry in people
        for name, coders in groups.items()
    ]


def answered(coder: Coder) -> list[str]:
    """The conditions in which a coder is a rival; interpolation only where voxels are made."""
    made = [c for c, (encoded, asked) in CONDITIONS.items() if encoded != asked]
    return made if coder.name == "interpolation" else list(CONDITIONS)


def metrics_of(condition: str, arm: str) -> tuple[str, ...]:
    """What is measured of an arm under a condition; of the scan itself, what is no comparison."""
    bands = [b for b in BANDS if b != "beyond" or CONDITIONS[condition][1] == NATIVE]
    details = [f"detail_{part}_{band}" for part in PARTS for band in bands]
    return SURFACE if arm == TRUTH else (*ERRORS, *details, *SURFACE)


def about(entry: Entry, coder: Coder, condition: str) -> rows.Measurement:
    """One coder on one brain under one condition."""
    return coder.measurement(NAME, name_of(entry), block_sha256(entry), condition, DEFINITION)


def measure(entry: Entry, coders: Sequence[Coder], provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one brain by some coders; coders of one encoding encode a scan once."""
    block, renderer, made = block_of(entry), Renderer(), []
    for coder in coders:
        of_block = for_block(coder, block)  # type: ignore[arg-type]
        seeded = replace(provenance, seed=getattr(coder, "seed", 0))
        for condition in answered(coder):
            encoded, asked = CONDITIONS[condition]
            target = block.volumes[asked].grid
            estimate, sampling, time_s = renderer.render(of_block, block.volumes[encoded], target)
            found = scores(block, asked, estimate)
            values = {name: found[name] for name in metrics_of(condition, coder.name)}
            told = about(entry, coder, condition)
            made += told.rows(values, UNITS, sampling, time_s, seeded)
    return made


def scores(block: Brain, asked: str, estimate: np.ndarray) -> dict[str, float]:
    """Every metric of one rendering, [D, H, W] on the grid that was asked for.

    The band beyond 1 mm voxels ends where the scan's smallest voxels do; the scan's own noise is
    part of it, so nothing can keep all of it.
    """
    volume, mask = block.volumes[asked], block.mask(asked)
    truth, mm = volume.data.double().numpy(), volume.grid.spacing_mm
    peak = metrics.peak_intensity(truth, mask)
    white = white_surface(estimate, mask, mm, thresholds(truth, mask)[1])
    values = per_cm3(topology(white), float(mask.sum()) * math.prod(mm) / 1000)
    values |= {
        "psnr": metrics.psnr(truth, estimate, mask, peak),
        "ssim": metrics.ssim(truth, estimate, mask, peak),
        "hfen": metrics.hfen(truth, estimate, mask, mm),
        "fsc_05_mm": effective_resolution_mm(fsc(truth, estimate, mask, mm), 0.5),
    }
    limit_per_mm = 0.5 / min(mm)
    for band, (low, high) in BANDS.items():
        if low < limit_per_mm - 1e-9:
            split = detail_split(truth, estimate, mask, mm, (low, min(high, limit_per_mm)))
            values |= {f"detail_{part}_{band}": getattr(split, part) for part in PARTS}
    return values
