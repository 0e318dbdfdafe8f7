"""What the page of all results prints and draws: every experiment's verdict, tables and rows.

The page serves the book and a user's report alike: it shows what a folder of rows holds, and
says in a sentence what it does not.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import StringIO
from pathlib import Path

import pandas as pd

from eval.coders.base import title_of
from eval.experiment import Experiment
from eval.experiments import EXPERIMENTS
from eval.metrics import METRICS
from eval.pairs import counted
from eval.pictures.filterable import filterable
from eval.rows import RESULTS, latest, parts, read_rows
from eval.tables import folded, listed, provenance
from medil.errors import InputError
from medil.model.weights import short_digest
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

    @cached_property
    def texts(self) -> dict[str, str]:
        """Tables and sentences by file name."""
        return {} if self.frame is None else self.experiment.contents(self.frame)

    @property
    def verdict(self) -> list[str]:
        """Its lines; none where no verdict is drawn."""
        text = self.texts.get(f"{self.experiment.name}_verdict.txt", "")
        return [line for line in text.splitlines() if line.strip()]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Title to table, numbers as numbers; an overview where the experiment has no table."""
        named = {}
        for file, text in self.texts.items():
            if file.endswith(".csv"):  # ``ablation_pairs.csv`` of the ablation holds its ``pairs``
                title = Path(file).stem.removeprefix(self.experiment.name).replace("_", " ").strip()
                named[title or "main table"] = pd.read_csv(StringIO(text))
        return named or {"overview": overview(self.rows)}


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


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """Newest rows in short: mean, lowest and highest of each metric and arm, with n."""
    groups = latest(rows).groupby(["arm", "metric", "unit"], sort=True)["value"]
    table = groups.agg(["mean", "min", "max", "count"]).reset_index()
    table.columns = ["Arm", "Metric", "Unit", "Mean", "Lowest", "Highest", "n rows"]
    return table.round(4)


# Words


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


def verdicts(found: list[Recorded]) -> str:
    """Every answer open, its whole verdict folded, with provenance: Markdown."""
    blocks = []
    for r in found:
        blocks.append(f"**{r.experiment.title}.** {r.experiment.question}")
        if r.verdict:
            answers = r.experiment.answers(r.frame)
            blocks.append(listed(answers))
            if rest := [line for line in r.verdict if line not in answers]:
                blocks.append(folded(counted(len(rest), "more line"), listed(rest)))
        else:
            blocks.append("This experiment draws no verdict; its table is below.")
        blocks.append(f"*{origin(latest(r.rows))}*")
    return "\n\n".join(blocks)


def origin(rows: pd.DataFrame, most: int = 3) -> str:
    """Provenance of rows; many weights are counted rather than listed."""
    text = provenance(rows)
    weights = sorted(
        set(rows.loc[rows["weights_sha256"] != "", "weights_sha256"].map(short_digest))
    )
    return text.replace(", ".join(weights), f"of {len(weights)} runs") if weights[most:] else text


def metric_table(found: list[Recorded]) -> pd.DataFrame:
    """The catalogue's entries of all metrics that were recorded here."""
    names = {name for r in found for name in r.rows["metric"].unique()}
    return pd.DataFrame(
        {
            "Metric": m.title,
            "Unit": "" if m.unit == "1" else m.unit,
            "Better": m.direction,
            "What it sees": m.says,
            "Source": m.source,
        }
        for m in METRICS.values()
        if m.name in names
    )


# Tables that can be filtered


HEADERS = {
    "p": "Wilcoxon p",
    "cohens_dz": "Cohen's dz",
    "n_subjects": "Subjects",
    "n_seeds": "Seeds",
    "low": "Low (95 %)",
    "high": "High (95 %)",
}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table for people: words as headers, titles of arms and metrics, four digits, no NaN."""
    shown = table.rename(columns=lambda name: HEADERS.get(name, _capital(name.replace("_", " "))))
    for name in shown:
        values = shown[name]
        if pd.api.types.is_float_dtype(values):
            shown[name] = [float(f"{v:.4g}") if pd.notna(v) else "" for v in values]
        elif not pd.api.types.is_numeric_dtype(values):
            shown[name] = (
                values.astype(object).fillna("").map(_title if name in ("Arm", "Metric") else str)
            )
    return shown


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _title(name: object) -> str:
    """An arm's or a metric's title; other names stay."""
    text = str(name)
    return METRICS[text].title if text in METRICS else title_of(text)


def show_tables(found: list[Recorded]) -> None:
    """Every table of every experiment under its name, in a cell's output."""
    from IPython.display import HTML, display

    for r in found:
        name = r.experiment.name
        display(HTML(f"<h3>{escape(r.experiment.title)}</h3>"))
        for title, table in r.tables.items():
            caption = f"{r.experiment.title}: {title}; {len(r.rows):,} rows in {name}.csv.gz."
            display(filterable(readable(table), caption, f"{name}-{title.replace(' ', '-')}"))


# Rows to take away


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
        "[Your scans, your model](../book/evaluate.html) makes this page about scans of your own."
    )
