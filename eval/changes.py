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

from eval.rows import RESULTS, SCHEMA, WHAT, newest, read_rows
from medil.errors import InputError

KEY = [*WHAT, "profile", "seed"]
GROUP = ["experiment", "arm", "metric"]
TOLERANCE = 1e-6  # relative; a repeated run of the same code stays below
HEAD = "HEAD"


@dataclass(frozen=True)
class Changes:
    """Two records of rows side by side.

    Args:
        new: Measurements that only the later record holds, as rows.
        gone: Those that only the earlier one holds.
        changed: One line a measurement: `KEY`, unit, before, after, difference; NaN
            stands for a metric without a bound.
        n_same: Measurements with equal values.
    """

    new: pd.DataFrame
    gone: pd.DataFrame
    changed: pd.DataFrame
    n_same: int


def changes(before: pd.DataFrame, after: pd.DataFrame, tolerance: float = TOLERANCE) -> Changes:
    """What is new, gone or changed between two frames of rows; `after` is the later one.

    A value has changed if it differs by more than `tolerance` of the larger of both.
    """
    both = _newest(before).merge(
        _newest(after), on=KEY, how="outer", suffixes=("_before", "_after"), indicator=True
    )
    common = both[both["_merge"] == "both"]
    old, now = (common[f"value_{s}"].to_numpy(float) for s in ("before", "after"))
    differs = np.abs(now - old) > tolerance * np.fmax(np.abs(old), np.abs(now))
    differs |= np.isnan(old) != np.isnan(now)
    table = common[KEY].assign(
        unit=common["unit_after"], before=old, after=now, difference=now - old
    )
    changed = table[differs].reset_index(drop=True)
    return Changes(_alone(both, "after"), _alone(both, "before"), changed, int((~differs).sum()))


def _alone(both: pd.DataFrame, side: str) -> pd.DataFrame:
    """What only one side holds: `KEY`, unit and value."""
    kept = both[both["_merge"] == {"before": "left_only", "after": "right_only"}[side]]
    renamed = kept[[*KEY, f"unit_{side}", f"value_{side}"]]
    return renamed.set_axis([*KEY, "unit", "value"], axis=1).reset_index(drop=True)


def _newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each measurement: `KEY`, unit and value."""
    return newest(frame, (), tuple(KEY))[[*KEY, "unit", "value"]]


def describe(changed: Changes) -> str:
    """Lines to read: counts, then each experiment, arm and metric whose values changed.

    Differences are later minus earlier, in the metric's unit.
    """
    counts = {"new": len(changed.new), "gone": len(changed.gone), "changed": len(changed.changed)}
    lines = [
        ", ".join(f"{n:,} {kind}" for kind, n in counts.items()) + f", {changed.n_same:,} equal."
    ]
    for kind in ("new", "gone"):
        groups = getattr(changed, kind).groupby("experiment")
        for experiment, part in groups:
            counted = _counted(len(part), "measurement"), _counted(part["arm"].nunique(), "arm")
            lines.append(f"{kind}: {experiment}, {' of '.join(counted)}")
    for (experiment, arm, metric), part in changed.changed.groupby(GROUP):
        lines.append(f"changed: {experiment}, {arm}, {metric}: {_moved(part)}")
    return "\n".join(lines)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _moved(part: pd.DataFrame) -> str:
    moves = part["difference"].dropna()
    text = f"n = {len(part)}"
    if not moves.empty:
        unit = part["unit"].iloc[0]
        largest = moves.loc[moves.abs().idxmax()]
        of_one = "" if unit == "1" else f" {unit}"
        text += f", mean {moves.mean():+.3g}{of_one}, largest {largest:+.3g}{of_one}"
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
