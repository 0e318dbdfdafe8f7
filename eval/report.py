"""Write the tables that pages print, and say what changed since the last commit.

    python -m eval.report

reads ``eval/results/*.jsonl`` and writes ``_build/tables``: for every experiment its tables, its
verdict, and where its rows come from. It measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eval import changes
from eval.experiments import EXPERIMENTS
from eval.rows import RESULTS
from eval.rows_file import pack
from medil.errors import InputError

TABLES = Path("_build/tables")


def write(folder: Path, out: Path) -> list[Path]:
    """Write the tables and verdict of every recorded experiment; the files.

    Raises:
        InputError: Nothing is recorded in `folder`.
    """
    written = [path for experiment in EXPERIMENTS for path in experiment.write(folder, out)]
    if not written:
        raise InputError(f"nothing is recorded in {folder}; run: {EXPERIMENTS[0].command}")
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about missing rows."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    parser.add_argument("--out", type=Path, default=TABLES, help="folder of the tables")
    parser.add_argument("--pack", action="store_true", help="first pack the rows of the folder")
    options = parser.parse_args(arguments)
    for path in sorted(options.rows.glob("*.jsonl")) if options.pack else []:
        pack(path)
    try:
        written = write(options.rows, options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        print(path)
    for path in written:
        if path.stem.endswith("_verdict"):
            print(path.read_text(encoding="utf-8").splitlines()[0])
    print(changes.summary(options.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
