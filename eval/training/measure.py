"""A training run's log as rows: thinned, smoothed, with the hash of the weights it made."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from eval import rows
from eval.runner import Task
from medil.errors import InputError
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, short_digest, weights_sha256

NAME = "training"
MOST_POINTS = 120
UNITS = {"loss": "1", "psnr": "dB", "gain": "dB", "voxels_per_s": "1/s", "elapsed": "min"}
SMOOTHED = {"loss": "loss", "psnr": "psnr_db", "gain": "gain_db"}  # metric -> field of the log
COUNTED = ("step", "elapsed_s", "voxels")
DEFINITION = {"version": 1, "most_points": MOST_POINTS}


@dataclass(frozen=True)
class Point:
    """A stretch of the run: its end, and by metric its means, its rate and its end in minutes."""

    step: int
    elapsed_s: float  # of training
    values: dict[str, float]  # of PSNR and gain the means of dB


def read_log(path: Path) -> pd.DataFrame:
    """The complete lines of ``log.jsonl`` in the order of steps, each step once.

    Raises:
        InputError: No such file, or no line with all the fields that a curve needs.
    """
    if not path.is_file():
        raise InputError(f"there is no log at {path}; name the folder of a training run.")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(text)
        except json.JSONDecodeError:
            continue
        needed = [record.get(name) for name in (*COUNTED, *SMOOTHED.values())]
        if all(isinstance(v, int | float) and math.isfinite(v) for v in needed):
            lines.append(record)
    if not lines:
        raise InputError(f"{path} holds no line of a training log; train a model first.")
    frame = pd.DataFrame(lines).drop_duplicates("step", keep="last")
    return frame.sort_values("step", ignore_index=True)


def thinned(log: pd.DataFrame, most_points: int = MOST_POINTS) -> list[Point]:
    """At most `most_points` equal stretches of a log, each averaged, in the order of steps."""
    points, before = [], dict.fromkeys(COUNTED, 0.0)
    for part in np.array_split(np.arange(len(log)), min(most_points, len(log))):
        stretch, end = log.iloc[part], log.iloc[part[-1]]
        values = {metric: float(stretch[name].mean()) for metric, name in SMOOTHED.items()}
        took_s = end["elapsed_s"] - before["elapsed_s"]
        if took_s > 0:
            values["voxels_per_s"] = float((end["voxels"] - before["voxels"]) / took_s)
        values["elapsed"] = float(end["elapsed_s"] / 60)
        points.append(Point(int(end["step"]), float(end["elapsed_s"]), values))
        before = {name: float(end[name]) for name in COUNTED}
    return points


def training_rows(
    model: LatentAutoencoder, log: Path, name: str, provenance: rows.Provenance
) -> list[rows.Row]:
    """One row per point and metric of a run's log; commit, seed and device are those of the run."""
    config, facts = model.config, model.facts
    settings = rows.digest([facts.get("config_hash", ""), DEFINITION])
    digests = settings, "none", weights_sha256(model)
    cell = rows.Sampling.of_cell(config.latent_spacing_mm, config.latent_channels)
    of_the_run = provenance_of(facts, provenance)
    made = []
    for point in thinned(read_log(log)):
        condition = f"step {point.step:06d}"
        about = rows.Measurement(NAME, name, config.architecture, condition, *digests)
        made += about.rows(point.values, UNITS, cell, point.elapsed_s, of_the_run)
    return made


def provenance_of(facts: dict, provenance: rows.Provenance) -> rows.Provenance:
    """The provenance with the commit, seed and device that a run noted in its weights."""
    commit = facts.get("commit") or provenance.commit
    calls = facts.get("calls") or [{}]
    return replace(
        provenance,
        commit=commit.rstrip("+"),
        dirty=commit.endswith("+") if facts.get("commit") else provenance.dirty,
        seed=int(facts.get("seed", provenance.seed)),
        device=calls[-1].get("device", provenance.device),
    )


def curve(frame: pd.DataFrame, weights_sha256: str) -> pd.DataFrame:
    """The curve of one set of weights (hash or its first digits): step and one column per metric.

    Raises:
        InputError: No curve of these weights was recorded.
    """
    mine = frame["weights_sha256"].str.startswith(weights_sha256) & (weights_sha256 != "")
    chosen = rows.latest(frame[(frame["experiment"] == NAME) & mine])
    if chosen.empty:
        raise InputError(
            f"there is no training curve of the weights {short_digest(weights_sha256)!r}; "
            "record it with: python -m eval.training RUN_FOLDER"
        )
    steps = chosen["condition"].str.removeprefix("step ").astype(int)
    table = chosen.assign(step=steps).pivot(index="step", columns="metric", values="value")
    return table.sort_index().reset_index().rename_axis(columns=None)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The run's folder, the release's name, weights that lie elsewhere."""
    parser.add_argument("folder", type=Path, help="folder of the run")
    parser.add_argument("--name", default="tiny", help="of the release (tiny)")
    parser.add_argument("--weights", type=Path, help="what it made, if not in its folder")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task: a run's curve.

    Raises:
        InputError: No log, or no weights.
    """
    model = load_model(options.weights or options.folder / "weights.safetensors")
    log = options.folder / "log.jsonl"
    return [Task.of_rows(options.name, training_rows(model, log, options.name, provenance))]
