"""Rebuild held-out blocks by patches and at once, and record how far the two lie apart.

    python -m eval.patch_vs_whole --profile quick

A run goes on where the last one stopped, and ends with what all recorded rows say.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.patch_vs_whole.measure import EXPERIMENT, tasks
from eval.patch_vs_whole.report import verdict
from eval.runner import experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    return experiment(EXPERIMENT, __doc__, tasks, verdict, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
