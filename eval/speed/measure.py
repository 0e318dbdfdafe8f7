"""The parts of the experiment on speed: which there are on a device, and which rows count."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from eval import browser, rows
from eval.runner import Task
from eval.speed import busy, live, model, pages, patches, rendering, whole
from eval.speed.timing import NAME, PLANS, Plan, Timing
from medil.errors import InputError

ONE_RUN = pd.Timedelta("30min")  # a part's rows are recorded together, at its end
Part = Callable[[Plan], list[Timing]]
OF_OPERATORS: dict[str, Part] = {"rendering": rendering.measure, "training": model.training}
PARTS: dict[str, dict[str, Part]] = {  # device -> name -> part, in the order of a run
    "cpu": {
        **OF_OPERATORS,
        "tiles": model.tiles,
        "store": patches.measure,
        "whole": whole.compare,
        "growth": whole.grow,
        "busy": busy.measure,
        "live": live.measure,
    },
    "cuda": {**OF_OPERATORS, "brain": model.brain},
}


def options(parser: argparse.ArgumentParser) -> None:
    """The device, and parts that can run alone."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    names = "rendering, training, tiles, store, whole, growth, busy, live; on a GPU brain"
    text = f"some of {names}; pages runs all notebooks, the name of one this one"
    parser.add_argument("--parts", nargs="+", default=(), metavar="PART", help=text)


def factors(conditions: pd.Series) -> pd.DataFrame:
    """``kind | sizes | where``: what was timed, how large it was, and on what."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["kind", "sizes", "where"], axis="columns")


def newest_run(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the newest run of each part and device.

    A timing is true for the code and the machine of its day, so every run appends its own. What
    a part recorded more than `ONE_RUN` before its newest row is of an older run.
    """
    frame = rows.latest(frame[frame["experiment"] == NAME])
    split = factors(frame["condition"])
    last = frame["recorded_at"].groupby([split["kind"], split["where"]]).transform("max")
    return frame[frame["recorded_at"] > last - ONE_RUN].reset_index(drop=True)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a part; each run measures all of them again.

    Raises:
        InputError: No GPU, no such part, or other processes beside, which would be timed too.
    """
    if options.workers or options.scheduler:
        raise InputError("timings need the machine to themselves; leave --workers out.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no GPU here; leave --device cuda out.")
    known = dict(PARTS[options.device])
    if not browser.program() and "live" not in options.parts:
        known.pop("live", None)
    notebooks = pages.parts()
    wanted = [p for part in options.parts for p in (notebooks if part == "pages" else (part,))]
    if unknown := set(wanted) - set(known | notebooks):
        raise InputError(f"there is no part {min(unknown)}; choose from {', '.join(known)}, pages.")
    plan = replace(PLANS[options.profile], release=options.release, device=options.device)
    return [
        Task(name, None, partial(rows_of, (known | notebooks)[name], plan, provenance))
        for name in wanted or known
    ]


def rows_of(part: Part, plan: Plan, provenance: rows.Provenance) -> list[rows.Row]:
    """Measure a part; its rows name the device."""
    device = torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"
    return [r for t in part(plan) for r in replace(t, device=device).to_rows(provenance)]
