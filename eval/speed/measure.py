"""The parts of the experiment on speed: which there are on a device, and which rows count."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch

from eval import rows
from eval.runner import Task
from eval.speed import gpu, patches, rendering, tiles, training, whole
from eval.speed.sizes import SIZES, Sizes
from eval.speed.timing import NAME, Timing
from medil.errors import InputError

ONE_RUN = pd.Timedelta("30min")  # a part's rows are recorded together, at its end
Part = Callable[[], list[Timing]]


def options(parser: argparse.ArgumentParser) -> None:
    """The device, and parts that can run alone."""
    parser.add_argument("--quick", action="store_const", const="quick", dest="profile",
                        help="the same as --profile quick")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    names = "rendering, training, tiles, store, whole, growth; on a GPU brain"
    parser.add_argument("--parts", nargs="+", default=(), metavar="PART", help=f"some of {names}")


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


def parts(sizes: Sizes, release: str, device: str) -> dict[str, Part]:
    """What can be measured on a device, in the order of a run."""
    of_operators: dict[str, Part] = {
        "rendering": partial(rendering.measure, sizes, device),
        "training": partial(training.measure, sizes, device),
    }
    if device == "cuda":
        return {**of_operators, "brain": partial(gpu.measure, sizes, release)}
    return {
        **of_operators,
        "tiles": partial(tiles.measure, sizes, release),
        "store": partial(patches.measure, sizes),
        "whole": partial(whole.compare, sizes, release),
        "growth": partial(whole.grow, sizes, release),
    }


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a part; each run measures all of them again.

    Raises:
        InputError: No GPU, no such part, or other processes beside, which would be timed too.
    """
    if options.workers or options.scheduler:
        raise InputError("timings need the machine to themselves; leave --workers out.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no GPU here; leave --device cuda out.")
    known = parts(SIZES[options.profile], options.release, options.device)
    if unknown := set(options.parts) - set(known):
        raise InputError(f"there is no part {min(unknown)}; choose from {', '.join(known)}.")
    return [
        Task(name, None, partial(rows_of, known[name], provenance))
        for name in options.parts or known
    ]


def rows_of(part: Part, provenance: rows.Provenance) -> list[rows.Row]:
    """Measure a part; its rows."""
    return [row for timing in part() for row in timing.to_rows(provenance)]
