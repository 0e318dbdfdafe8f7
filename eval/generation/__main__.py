"""How good are sampled heads, do they obey, and what does blur do to diversity?

Sets of samples are compared with heads drawn on label maps that no training saw, beside three
rulers: another such set, the training heads, and held-out heads through the autoencoder alone.
Everything is seen at 2 mm. What was asked of a sample is measured on its image, by a ruler that
is judged first. Flows that are missing are trained.

    python -m eval.generation --profile quick
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eval import rows, runner
from eval.generation.sizes import EXPERIMENT
from eval.generation.tasks import PARTS, tasks
from eval.generation.verdict import verdict


def record(options: argparse.Namespace) -> None:
    """Measure what is not recorded yet, and say what all rows say."""
    path = runner.rows_file(options.out, EXPERIMENT)
    provenance = rows.Provenance.now(options.profile)
    todo = tasks(options.profile, options.release, provenance, options.arms, options.parts)
    added = runner.run(todo, path, options.workers, options.scheduler)
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    print(verdict(rows.read_rows(path)))


def options() -> argparse.ArgumentParser:
    """The command line's options."""
    made = runner.parser("eval.generation", __doc__)
    made.add_argument("--arms", nargs="+", default=(), help="some arms (all of the profile)")
    made.add_argument("--parts", nargs="+", default=PARTS, help=f"of {', '.join(PARTS)} (all)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    return runner.command(record, options(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
