"""What the page of all results prints: every experiment's verdict, the explorer, the rows.

The page serves the book and a user's report alike: it shows what a folder of rows holds, and
says in a sentence what it does not.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from eval.experiment import Experiment
from eval.experiments import EXPERIMENTS
from eval.pages import explorer
from eval.rows import RESULTS, latest
from eval.rows_file import parts, read_rows
from eval.tables import folded, listed, provenance
from medil.errors import InputError
from medil.system.files import atomic_output

ROWS = "../rows"  # where a page finds the packed rows


@dataclass(frozen=True)
class Recorded:
    """What a folder holds of one experiment."""

    experiment: Experiment
    rows: pd.DataFrame  # all of them

    @cached_property
    def frame(self) -> pd.DataFrame | None:
        """The rows that count, prepared; None where they are too few for a table."""
        try:
            return self.experiment.prepare(self.rows)
        except InputError:
            return None

    @property
    def verdict(self) -> list[str]:
        """Its lines; none where no verdict is drawn."""
        if self.frame is None or self.experiment.verdict is None:
            return []
        text = self.experiment.verdict(self.frame)
        return [line for line in text.splitlines() if line.strip()]


# Collecting


def collect(folder: Path) -> list[Recorded]:
    """Every experiment that a folder of rows holds, in the order of `EXPERIMENTS`."""
    found = []
    for experiment in EXPERIMENTS:
        try:
            rows = read_rows(folder / f"{experiment.name}.jsonl")
        except InputError:
            continue
        found.append(Recorded(experiment, rows))
    return found


# Words


def overview(found: list[Recorded], own: bool) -> str:
    """The table of experiments, folded in the book, and what is missing: Markdown."""
    if not found:
        return "*Nothing is recorded here yet.*"
    table = overview_table(found)
    shown = table if own else folded("What is recorded, and all rows to take away", table)
    return f"{shown}\n\n{missing(found, own)}"


def overview_table(found: list[Recorded]) -> str:
    """One line an experiment, with links to its rows: Markdown."""
    lines = ["| Experiment | Rows | Subjects | Arms | Last recorded | Take away |"]
    lines += ["| :--- | ---: | ---: | ---: | :--- | :--- |"]
    for r in found:
        name, rows = r.experiment.name, r.rows
        lines.append(
            f"| {r.experiment.title} | {len(rows):,} | {rows['subject'].nunique()} | "
            f"{rows['arm'].nunique()} | {rows['recorded_at'].max():%Y-%m-%d} | "
            f"[all rows]({ROWS}/{name}.csv.gz) |"
        )
    return "\n".join(lines) if found else ""


def missing(found: list[Recorded], own: bool) -> str:
    """One line per experiment that is not recorded; empty for a user's own report."""
    have = [r.experiment for r in found]
    lacking = [] if own else [e for e in EXPERIMENTS if e not in have]
    return "\n".join(f"- *{e.title}* is not recorded; `{e.command}` records it." for e in lacking)


def verdicts(found: list[Recorded], own: bool) -> str:
    """What every experiment answers, with provenance, each folded behind its question: Markdown.

    A user's own report (`own`) is short, so its verdicts stand open.
    """
    return "\n\n".join(
        f"**{r.experiment.title}.** {r.experiment.question}\n\n{_said(r)}"
        if own
        else folded(_as_html(r.experiment), _said(r))
        for r in found
    )


def _as_html(experiment: Experiment) -> str:
    """Title and question for a drawer, which reads no Markdown."""
    question = re.sub(r"`(.+?)`", r"<code>\1</code>", experiment.question)
    return f"<strong>{experiment.title}.</strong> {question}"


def _said(recorded: Recorded) -> str:
    """Answers, then the rest of the verdict, then where the rows come from."""
    origin = f"*{provenance(latest(recorded.rows))}*"
    if not recorded.verdict:
        return f"It draws no verdict; the explorer shows its rows.\n\n{origin}"
    answers = recorded.experiment.answers(recorded.frame)
    rest = [line for line in recorded.verdict if line not in answers]
    marked = listed(recorded.experiment.marked_answers(recorded.frame))
    return "\n\n".join([marked, *([listed(rest)] if rest else []), origin])


def explore(found: list[Recorded]) -> str:
    """The explorer of all that is found as HTML; a sentence where nothing is."""
    told = [r for r in found if r.frame is not None]
    if not told:
        return "<p>No row is recorded here yet.</p>"
    first = explorer.still(told[0].experiment, told[0].frame)
    return explorer.fragment([r.experiment for r in told], first, f"{ROWS}/{explorer.FOLDER}")


# Rows to take away


def publish_rows(folder: Path, out: Path) -> list[Path]:
    """Write every rows file as a packed CSV table, and what the explorer reads; all files."""
    return pack_rows(folder, out) + explorer.write_scripts(folder, out / explorer.FOLDER)


def pack_rows(folder: Path, out: Path) -> list[Path]:
    """Write every rows file as a packed CSV table; the same rows give the same bytes."""
    written = []
    for experiment in EXPERIMENTS:
        path = folder / f"{experiment.name}.jsonl"
        if not parts(path):
            continue
        rows = read_rows(path)
        rows["versions"] = [json.dumps(v, sort_keys=True) for v in rows["versions"]]
        out.mkdir(parents=True, exist_ok=True)
        text = rows.to_csv(index=False).encode()
        written.append(out / f"{experiment.name}.csv.gz")
        with atomic_output(written[-1], force=True) as temporary:
            temporary.write_bytes(gzip.compress(text, mtime=0))
    return written


def folder_of(rows: str) -> tuple[Path, bool]:
    """The folder that a page's parameter names, and whether it is a user's own."""
    return (Path(rows), True) if rows else (RESULTS, False)


def next_page(own: bool) -> str:
    """Where to read on: the book has other pages, a user's report has its scans."""
    if own:
        return "**Next:** the pages of the scans, one by one, in the list beside this page."
    return (
        "**Next:** [what rendering costs](10_speed.html), in time and memory. "
        "[Score your scans](../book/evaluate.html) makes this page about scans of your own."
    )
