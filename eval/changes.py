"""What changed: recorded rows against those of the last commit, or of another folder.

    python -m eval.changes [--rows FOLDER] [--against FOLDER|HEAD]

A measurement is an experiment, subject, arm, condition, metric, profile and seed; the
newest row of each counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eval.pairs import counted
from eval.rows import RESULTS, SCHEMA, WHAT, newest
from eval.rows_file import read_rows
from medil.errors import InputError

KEY = [*WHAT, "profile", "seed"]
TOLERANCE = 1e-6  # relative; a repeated run of the same code stays below
HEAD = "HEAD"


@dataclass(frozen=True)
class Changes:
    """Two records of rows side by side: one line a measurement (`KEY`), and its unit."""

    new: pd.DataFrame  # only in the later record: value
    gone: pd.DataFrame  # only in the earlier one: value
    changed: pd.DataFrame  # before, after and difference; NaN for a metric without a bound
    n_same: int  # measurements with equal values


def changes(before: pd.DataFrame, after: pd.DataFrame, tolerance: float = TOLERANCE) -> Changes:
    """What is new, gone or changed between two frames of rows; `after` is the later one.

    A value has changed if it differs by more than `tolerance` of the larger of both.
    """
    old, now = (
        newest(f, (), tuple(KEY)).set_index(KEY)[["unit", "value"]] for f in (before, after)
    )
    common = now.index.intersection(old.index)
    was, value = old.loc[common, "value"].astype(float), now.loc[common, "value"].astype(float)
    differs = (value - was).abs() > tolerance * np.fmax(was.abs(), value.abs())
    differs |= was.isna() != value.isna()
    table = now.loc[common, ["unit"]].assign(before=was, after=value, difference=value - was)
    new, gone = (side[~side.index.isin(common)].reset_index() for side in (now, old))
    return Changes(new, gone, table[differs].reset_index(), int((~differs).sum()))


def describe(changed: Changes) -> str:
    """Lines to read: counts, then each experiment, arm and metric whose values changed.

    Differences are later minus earlier, in the metric's unit.
    """
    lines = [
        f"{len(changed.new):,} new, {len(changed.gone):,} gone, "
        f"{len(changed.changed):,} changed, {changed.n_same:,} equal."
    ]
    for kind, table in (("new", changed.new), ("gone", changed.gone)):
        for experiment, part in table.groupby("experiment"):
            n_arms = counted(part["arm"].nunique(), "arm")
            lines.append(f"{kind}: {experiment}, {counted(len(part), 'measurement')} of {n_arms}")
    for (experiment, arm, metric), part in changed.changed.groupby(["experiment", "arm", "metric"]):
        lines.append(f"changed: {experiment}, {arm}, {metric}: {_moved(part)}")
    return "\n".join(lines)


def _moved(part: pd.DataFrame) -> str:
    moves = part["difference"].dropna()
    text = f"n = {len(part)}"
    if not moves.empty:
        unit = f" {part['unit'].iloc[0]}".removesuffix(" 1")
        largest = moves.loc[moves.abs().idxmax()]
        text += f", mean {moves.mean():+.3g}{unit}, largest {largest:+.3g}{unit}"
    without = len(part) - len(moves)
    return text + (f", {without} with no value on one side" if without else "")


def committed(path: str | Path = RESULTS) -> pd.DataFrame | None:
    """The rows of a file or folder in the last commit; empty where it holds none.

    None where there is no git, no checkout or no commit, so that nothing can be compared.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    listed = _git(folder, "ls-tree", "--name-only", HEAD, "./")
    if listed is None:
        return None
    names = [n for n in listed.decode().splitlines() if n.endswith((".jsonl", ".jsonl.gz"))]
    if not path.is_dir():
        names = [n for n in names if n in (path.name, f"{path.name}.gz")]
    if not names:
        return pd.DataFrame(columns=list(SCHEMA))
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            Path(place, name).write_bytes(_git(folder, "show", f"{HEAD}:./{name}") or b"")
        return read_rows(place)


def is_committed(path: str | Path = RESULTS) -> bool:
    """Whether a file or folder is the same as in the last commit; False outside a checkout."""
    path = Path(path)
    folder, name = (path, ".") if path.is_dir() else (path.parent, f"{path.name}*")
    kept = _git(folder, "ls-tree", "--name-only", HEAD, "./")
    return bool(kept) and _git(folder, "status", "--porcelain", "--ignored", "--", name) == b""


def _git(folder: Path, *arguments: str) -> bytes | None:
    """The output of a git command, or None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def summary(path: str | Path = RESULTS, against: str | Path = HEAD) -> str:
    """What changed in a file or folder of rows, against other rows or the last commit (`HEAD`).

    Raises:
        InputError: Nothing is recorded at one of both.
    """
    if str(against) == HEAD and is_committed(path):
        return "Every row is that of the last commit."
    after = read_rows(path)
    before = committed(path) if str(against) == HEAD else read_rows(against)
    if before is None:
        return "No checkout with a commit here, so there are no committed rows to compare with."
    return describe(changes(before, after))


def main(arguments: list[str] | None = None) -> int:
    """Print what changed; the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m eval.changes", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    parser.add_argument("--against", default=HEAD, help="folder of earlier rows, or HEAD")
    chosen = parser.parse_args(arguments)
    try:
        print(summary(chosen.rows, chosen.against))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
