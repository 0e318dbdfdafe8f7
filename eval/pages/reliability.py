"""The tables of the page on reliability: injected faults, fuzzed readers and file formats.

    python -m eval.pages.reliability

writes ``reliability_*.md`` and ``formats.md`` from the recorded rows and `medil.formats`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from eval import fuzz, reliability
from eval.experiment import Experiment
from eval.rows import RESULTS
from medil import formats
from medil.system.files import atomic_output, make_folder

OUT = Path("_build/tables")


def contents(folder: Path) -> dict[str, str]:
    """File name to Markdown; a word where nothing is recorded."""
    faults, fuzzed = reliability.EXPERIMENT, fuzz.EXPERIMENT
    injected, read = faults.recorded(folder), fuzzed.recorded(folder)
    return {
        "reliability_faults.md": faults.shown(injected, _by_verb),
        "reliability_history.md": faults.shown(injected, reliability.report.history),
        "reliability_fuzz.md": fuzzed.shown(read, fuzz.report.table),
        "reliability_fuzz_answer.md": "" if read is None else _told(fuzzed, read),
        "formats.md": formats.table(),
    }


def _told(experiment: Experiment, rows: pd.DataFrame) -> str:
    return f"{experiment.sentences(rows)}\n\n{experiment.origin(rows)}"


def _by_verb(rows: pd.DataFrame) -> pd.DataFrame:
    return reliability.report.table(rows, "verb", "Command")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.pages.reliability", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    options = parser.parse_args(arguments)
    out = make_folder(options.out)
    for name, text in contents(options.rows).items():
        with atomic_output(out / name, force=True) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
