"""The results explorer: the rows that count, as a page's script reads them.

Each experiment becomes one script beside the packed rows, since a page that was opened as a file
may fetch nothing but scripts. Means and intervals are computed here, by `eval.stats`; the browser
only looks them up. Numbers are rounded to what is shown.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from eval.coders.base import title_of
from eval.experiment import Experiment
from eval.experiments import EXPERIMENTS
from eval.metrics import METRICS
from eval.stats import bootstrap_interval
from eval.tables import joined, scan_name
from medil.model.weights import short_digest
from medil.system.files import atomic_output

KEY = ["metric", "condition", "arm"]
ORIGIN = ["day", "commit", "device", "weights"]
FOLDER = "explorer"  # in the folder of the packed rows
SCRIPTS = ("store", "strip", "page")
INTERACTIVE = "../interactive/explorer"


@dataclass(frozen=True)
class Cell:
    """One arm under one condition in one metric.

    Attributes:
        values: [subjects, seeds]; NaN where a row is missing or has no finite value.
        mean: Over the subjects that have every seed; `low` and `high` are the ends of its
            95 % interval. NaN where it cannot be had: an interval needs two values.
        n: Subjects that have every seed.
    """

    metric: str
    condition: str
    arm: str
    subjects: tuple[str, ...]
    seeds: tuple[str, ...]
    values: np.ndarray
    mean: float
    low: float
    high: float
    n: int


def cells(frame: pd.DataFrame) -> Iterator[Cell]:
    """Every cell of prepared rows that holds a value.

    Subjects come in the order of recording, as in `eval.tables.means`; where the experiment has
    several seeds, in that of their names, as in `eval.pairs.Scores`: drawn means, and so the last
    digit of an interval, depend on it.
    """
    index = [*KEY, "subject", "seed"]
    frame = frame.drop_duplicates(index, keep="last")
    wide = frame.set_index(index)["value"].unstack().sort_index()
    if len(wide.columns) == 1:
        wide = wide.loc[pd.MultiIndex.from_frame(frame[index[:-1]])]
    values, subjects = wide.to_numpy(), wide.index.get_level_values("subject")
    groups: dict[tuple[str, str, str], np.ndarray] = wide.groupby(level=KEY, sort=False).indices
    for (metric, condition, arm), where in groups.items():
        table, names = values[where], subjects[where]
        table, names = table[~np.isnan(table).all(1)], names[~np.isnan(table).all(1)]
        used = ~np.isnan(table).all(0)
        if len(table):
            seeds = tuple(str(seed) for seed in wide.columns[used])
            mean, low, high, n = summary(table[:, used])
            yield Cell(
                metric, condition, arm, tuple(names), seeds, table[:, used], mean, low, high, n
            )


def summary(values: np.ndarray) -> tuple[float, float, float, int]:
    """Mean, interval and n of [subjects, seeds], as `eval.tables.means` and `eval.pairs` do."""
    whole = values[~np.isnan(values).any(1)]
    if whole.size < 2:
        return (float(whole.mean()) if whole.size else math.nan), math.nan, math.nan, len(whole)
    return float(whole.mean()), *bootstrap_interval(whole), len(whole)


def shown(value: float) -> float | None:
    """A number as it is printed: four digits, whole from 1,000 on; None for NaN.

    Example:
        >>> shown(28.24861), shown(-0.00123456), shown(12345.6)
        (28.25, -0.001235, 12346.0)
    """
    if math.isnan(value):
        return None
    return float(round(value)) if abs(value) >= 1000 else float(f"{value:.4g}")


# What a script holds


def content(experiment: Experiment, frame: pd.DataFrame) -> dict[str, Any]:
    """All that a page shows of one experiment's prepared rows."""
    made = list(cells(frame))
    metrics, arms = _metrics(frame), list(dict.fromkeys(frame["arm"]))
    conditions, subjects = (list(dict.fromkeys(frame[c])) for c in ("condition", "subject"))
    units = frame.drop_duplicates("metric").set_index("metric")["unit"]
    places = _Numbered()
    origins, of_cell = _origins(frame)
    lines = []
    for c in made:
        place = places.of(([subjects.index(name) for name in c.subjects], list(c.seeds)))
        key = [metrics.index(c.metric), conditions.index(c.condition), arms.index(c.arm)]
        numbers = [shown(v) for v in (c.mean, c.low, c.high)]
        values = [shown(v) for v in c.values.ravel()]
        lines.append([*key, place, of_cell[c.metric, c.condition, c.arm], c.n, *numbers, values])
    return {
        "name": experiment.name,
        "title": experiment.title,
        "question": experiment.question,
        "command": experiment.command,
        "metrics": [_about_metric(name, units[name]) for name in metrics],
        "conditions": conditions,
        "arms": [[arm, arm_title(experiment, arm)] for arm in arms],
        "subjects": [scan_name(name) for name in subjects],
        "places": places.items,
        "origins": origins,
        "cells": lines,
    }


class _Numbered:
    """Each item once, with its number."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[str, int] = {}

    def of(self, item: Any) -> int:
        number = self._numbers.setdefault(json.dumps(item), len(self.items))
        if number == len(self.items):
            self.items.append(item)
        return number


def _metrics(frame: pd.DataFrame) -> list[str]:
    """Those of the catalogue first, in its order."""
    recorded = list(dict.fromkeys(frame["metric"]))
    known = [name for name in METRICS if name in set(recorded)]
    return known + [name for name in recorded if name not in METRICS]


def _about_metric(name: str, unit: str) -> list[str]:
    """Name, title, unit, arrow to the better side, what it sees and whose it is."""
    known = METRICS.get(name)
    unit = "" if unit == "1" else unit
    if known is None:
        return [name, name[:1].upper() + name[1:].replace("_", " "), unit, "", ""]
    about = f"{known.title}: {known.says} Source: {known.source}."
    return [name, known.title, unit, known.direction, about]


def arm_title(experiment: Experiment, arm: str) -> str:
    """An arm for people: as the experiment calls it, else as codecs and releases are called."""
    own = experiment.arm_title(arm) if experiment.arm_title else None
    return own if own and own != arm else title_of(arm)


def _origins(frame: pd.DataFrame) -> tuple[list[list[str]], dict[tuple[str, ...], int]]:
    """Days, commits, devices and weights of a cell's rows: all that differ, and which is whose."""
    texts = pd.DataFrame(
        {
            "day": frame["recorded_at"].dt.strftime("%Y-%m-%d"),
            "commit": frame["commit"].str[:7] + frame["dirty"].map({True: "+", False: ""}),
            "device": frame["device"],
            "weights": frame["weights_sha256"].map(lambda w: short_digest(w) if w else ""),
        }
    )
    groups = pd.concat([frame[KEY], texts], axis=1).drop_duplicates().groupby(KEY)[ORIGIN]
    numbered, of_cell = _Numbered(), {}
    for key, own in groups:
        of_cell[key] = numbered.of([joined(own[name]) for name in ORIGIN])
    return numbered.items, of_cell


# Writing


def as_script(made: dict[str, Any]) -> str:
    """The text of NAME.js."""
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    packed = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")
    return f'((globalThis.Medil ??= {{}}).results ??= {{}})["{made["name"]}"] = "{packed}";\n'


def write_scripts(folder: Path, out: Path) -> list[Path]:
    """Write the script of every experiment that a folder of rows holds; the files."""
    written = []
    for experiment in EXPERIMENTS:
        if (frame := experiment.recorded(folder)) is not None:
            out.mkdir(parents=True, exist_ok=True)
            written.append(out / f"{experiment.name}.js")
            with atomic_output(written[-1], force=True) as temporary:
                temporary.write_text(as_script(content(experiment, frame)), encoding="utf-8")
    return written


# The page


def fragment(experiments: list[Experiment], still: str, rows: str) -> str:
    """The explorer as HTML.

    Args:
        experiments: Those that have a script.
        still: HTML that stays where scripts cannot run.
        rows: Address of the packed rows, seen from the page.
    """
    names = escape(json.dumps([[e.name, e.title] for e in experiments]))
    scripts = "".join(
        f'<script src="{INTERACTIVE}/{name}.js" defer></script>\n' for name in SCRIPTS
    )
    return (
        f'<link rel="stylesheet" href="{INTERACTIVE}/explorer.css">\n'
        f'<div id="explorer" class="medil-explorer" role="group" aria-label="Results explorer" '
        f'data-rows="{rows}" data-experiments="{names}">\n{still}\n</div>\n{scripts}'
    )


def link(experiment: str, metric: str, condition: str, arms: Iterable[str]) -> str:
    """The address of a selection within the page of all results.

    Example:
        >>> link("ablation", "psnr", "1 mm", ["cubic"])
        '#explorer?experiment=ablation&metric=psnr&condition=1+mm&arm=cubic'
    """
    query = [("experiment", experiment), ("metric", metric), ("condition", condition)]
    return f"#explorer?{urlencode([*query, *(('arm', arm) for arm in arms)], safe='*')}"


def still(experiment: Experiment, frame: pd.DataFrame) -> str:
    """One selection as a table: the first metric under the first condition."""
    metric, condition = _metrics(frame)[0], frame["condition"].iloc[0]
    chosen = frame[(frame["metric"] == metric) & (frame["condition"] == condition)]
    title, unit = _about_metric(metric, chosen["unit"].iloc[0])[1:3]
    heads = ("Arm", f"{title} ({unit})" if unit else title, "95 % interval", "n")
    lines = [
        (arm_title(experiment, c.arm), _text(c.mean), f"[{_text(c.low)}, {_text(c.high)}]", c.n)
        for c in cells(chosen)
    ]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return (
        "<p>Choosing needs JavaScript. This is one selection, and all rows can be downloaded "
        f"from the table of experiments above.</p>\n<table><caption>{escape(experiment.title)}, "
        f"{escape(condition)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _text(value: float) -> str:
    number = shown(value)
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:g}"
