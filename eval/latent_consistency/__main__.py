"""Does a head keep its latent on another grid, at another resolution, under a wrong header?

Three questions, kept apart. *Another grid*: the content is band-limited first, so that every
grid holds all of it and latents should agree. *Another resolution*: the whole content,
averaged over larger voxels; here latents must differ, and what the same grids cost a
band-limited content tells how much of that is the grid's. *A wrong header*: the same voxels,
said to lie elsewhere. Distances are fractions of those between heads.

    python -m eval.latent_consistency --profile quick
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eval import rows, runner
from eval.latent_consistency.conditions import EXPERIMENT
from eval.latent_consistency.report import verdict
from eval.latent_consistency.tasks import tasks


def record(options: argparse.Namespace) -> None:
    """Measure what is not recorded yet, and say what all rows say."""
    path = runner.rows_file(options.out, EXPERIMENT)
    provenance = rows.Provenance.now(options.profile)
    todo = tasks(options.profile, options.release, provenance)
    added = runner.run(todo, path, options.workers, options.scheduler)
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    print(verdict(rows.read_rows(path)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    return runner.command(record, runner.parser("eval.latent_consistency", __doc__), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
