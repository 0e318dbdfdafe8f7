"""Rebuild held-out blocks by patches and at once, and record how far the two lie apart.

    python -m eval.patch_vs_whole --profile quick

A run goes on where the last one stopped, and ends with what all recorded rows say.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from eval import rows
from eval.patch_vs_whole.measure import EXPERIMENT, tasks
from eval.patch_vs_whole.report import verdict
from eval.runner import command, parser, rows_file, run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about bad input."""
    return command(_body, parser("eval.patch_vs_whole", __doc__), arguments)


def _body(options: Namespace) -> None:
    path = rows_file(options.out, EXPERIMENT)
    provenance = rows.Provenance.now(options.profile)
    todo = tasks(options.profile, options.release, provenance)
    added = run(todo, path, options.workers, options.scheduler)
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    print(verdict(rows.read_rows(path)))


if __name__ == "__main__":
    raise SystemExit(main())
