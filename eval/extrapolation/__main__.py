"""Trained at 1 mm alone, asked about 0.8, 0.7 and 0.5 mm: detail kept, smoothed or invented.

    python -m eval.extrapolation --profile quick         # minutes, its own folder
    python -m eval.extrapolation --profile gpu           # the recorded comparison
    python -m eval.extrapolation --profile gpu --train-only

Arms are trained here, on heads scanned at 1 mm and nothing else, a file of weights each;
then every arm, the release and linear codecs answer the same questions about blocks whose
truth is known at every voxel size. What is there is neither trained nor scored again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval import rows, runner
from eval.coders.base import Coder
from eval.extrapolation.blocks import CONDITIONS, Source, draw_all, sources
from eval.extrapolation.coders import Truth, arm_coder, fixed_coders, release_coders
from eval.extrapolation.heads import FOLDER
from eval.extrapolation.score import EXPERIMENT, tasks
from eval.extrapolation.train import TITLES, Run, train_all

QUICK_OUT = Path("_build/extrapolation/quick")


@dataclass(frozen=True)
class Plan:
    """What a profile runs."""

    arms: tuple[str, ...]
    seeds: int
    steps: int
    heads: int  # to train on
    subjects: int  # made heads to score
    phantoms: int
    conditions: tuple[str, ...] = tuple(CONDITIONS)

    def runs(self) -> list[Run]:
        """Every run, seed by seed: what an interrupted night should hold."""
        return [
            Run(arm, seed, self.steps, self.heads)
            for seed in range(self.seeds)
            for arm in self.arms
        ]

    def sources(self) -> list[Source]:
        """The blocks to score."""
        return sources(self.subjects, self.phantoms)


PROFILES = {
    #             arms, seeds, steps, training heads, scored heads, phantoms
    "quick": Plan(
        ("integrated", "trilinear"), 1, 100, 3, 3, 1, ("1 -> 1", "0.8 -> 0.8", "1 -> 0.8")
    ),
    "gpu": Plan(tuple(TITLES), 3, 600, 16, 6, 2),
    "paper": Plan(tuple(TITLES), 5, 10_000, 16, 20, 4),
}


def groups(plan: Plan, release: str, folder: Path) -> dict[str, Sequence[Coder]]:
    """Coders that share a task: each trained run, the release, and what learns nothing."""
    trained = {
        f"{run.arm}, seed {run.seed}": [arm_coder(run, folder)]
        for run in plan.runs()
        if run.path(folder).exists()
    }
    return {"fixed": [Truth(), *fixed_coders()], release: release_coders(release)} | trained


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    parser = runner.parser("eval.extrapolation", __doc__, tuple(PROFILES))
    parser.set_defaults(out=None)
    parser.add_argument("--train-only", action="store_true", help="train, score nothing")
    parser.add_argument(
        "--data", type=Path, default=FOLDER, help="folder of heads, blocks and weights"
    )
    return runner.command(_body, parser, arguments)


def _body(options: argparse.Namespace) -> int | None:
    plan, folder = PROFILES[options.profile], options.data
    workers = os.cpu_count() if options.workers is None else options.workers
    train_all(plan.runs(), folder, workers or 1)
    if options.train_only:
        return 0
    draw_all(plan.sources(), folder, workers or 1)
    provenance = rows.Provenance.now(options.profile)
    found = tasks(
        plan.sources(), groups(plan, options.release, folder), plan.conditions, folder, provenance
    )
    out = options.out or (QUICK_OUT if options.profile == "quick" else rows.RESULTS)
    added = runner.run(found, runner.rows_file(out, EXPERIMENT), options.workers, options.scheduler)
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
