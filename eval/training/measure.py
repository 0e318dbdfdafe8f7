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
from medil.errors import InputError
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, weights_sha256

NAME = "training"
MOST_POINTS = 120
UNITS = {"loss": "1", "psnr": "dB", "gain": "dB", "voxels_per_s": "1/s", "elapsed": "min"}
SMOOTHED = {"loss": "loss", "psnr": "psnr_db", "gain": "gain_db"}  # metric -> field of the log
COUNTED = ("step", "elapsed_s", "voxels")
DEFINITION = {"version": 1, "most_points": MOST_POINTS}


@dataclass(frozen=True)
class Point:
    """A stretch of the run, named by its last step.

    Args:
        step: Steps behind at its end.
        elapsed_s: Training time at its end.
        values: By metric: means over the logged steps of the stretch (of dB for PSNR and
            gain), the rate within it, and the time at its end in minutes.
    """

    step: int
    elapsed_s: float
    values: dict[str, float]


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


def record(
    folder: Path, name: str, out: Path, weights: Path | None = None, profile: str = "quick"
) -> int:
    """Append a run's curve to the recorded rows unless it is there; the number of new rows.

    Raises:
        InputError: No log, no weights, or nowhere to write.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} does not exist; make that folder first.")
    model = load_model(weights or folder / "weights.safetensors")
    found = training_rows(model, folder / "log.jsonl", name, rows.Provenance.now(profile))
    out.mkdir(exist_ok=True)
    path = out / f"{NAME}.jsonl"
    recorded = rows.recorded_identities(path)
    fresh = [r for r in found if tuple(getattr(r, f) for f in rows.IDENTITY) not in recorded]
    return rows.append_rows(path, fresh)


def curve(frame: pd.DataFrame, weights_sha256: str) -> pd.DataFrame:
    """The curve of one set of weights (hash or its first digits): step and one column per metric.

    Raises:
        InputError: No curve of these weights was recorded.
    """
    mine = frame["weights_sha256"].str.startswith(weights_sha256) & (weights_sha256 != "")
    chosen = rows.latest(frame[(frame["experiment"] == NAME) & mine])
    if chosen.empty:
        raise InputError(
            f"there is no training curve of the weights {weights_sha256[:12]!r}; "
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


def run(options: argparse.Namespace) -> None:
    """Record the curve of a run."""
    out = options.out or rows.RESULTS
    added = record(options.folder, options.name, out, options.weights, options.profile)
    print(f"{added} new rows in {NAME}.jsonl")
