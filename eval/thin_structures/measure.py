"""What a profile trains and scores, and the rows of one chest or one real scan by some coders."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval import rows
from eval.coders.base import Coder, Renderer
from eval.runner import Task
from eval.thin_structures import scans, tubes
from eval.thin_structures.chests import FOLDER, SCANS, TEST_SEEDS, WINDOW_HU, Chest, Part, scan_all
from eval.thin_structures.coders import (
    SCAN,
    fixed_coders,
    release_coder,
    released,
    try_coder,
)
from eval.thin_structures.train import TRIES, Run, train_all
from medil.data.schema import Entry
from medil.errors import InputError
from medil.io.windows import ct_window
from medil.volume import Intensity

NAME = "thin_structures"
KEY = (*rows.WHAT, "seed")
QUICK_OUT = Path("_build/thin_structures/quick")
EDGES_MM = (0.35, 0.45, 0.55, 0.7, 0.9, 1.2, 1.6, 2.2, 3.2, 5.0, 8.5)  # of the bins of radii
ALL = "all radii"
OF_BIN = {
    "recall": "1", "contrast": "1", "radius_error_mm": "mm", "radius_bias_mm": "mm",
    "airways": "1", "false_alarms": "1",
}  # fmt: skip
HALF = "half_recall_mm"
UNITS = {**OF_BIN, HALF: "mm", **scans.METRICS}
DEFINITION = [tubes.DEFINITION, EDGES_MM]
WINDOWS = {"training": WINDOW_HU, "lung": ct_window("lung")}  # in which models encode real CT


@dataclass(frozen=True)
class Plan:
    """Sizes of training and scoring in one profile."""

    chests: int
    scans: tuple[str, ...]
    tries: tuple[str, ...] = ()
    seeds: int = 1
    minutes: float = 6.0  # of each run, one thread
    training: int = 32  # scans to train on

    def __post_init__(self) -> None:
        if min(self.chests, self.seeds) < 1:
            raise InputError("chests and seeds must be at least 1.")

    def runs(self) -> list[Run]:
        """Every run; all tries of one seed first, so that an interrupted night holds pairs."""
        return [
            Run(name, seed, self.minutes, self.training)
            for seed in range(self.seeds)
            for name in self.tries
        ]


PROFILES = {
    "quick": Plan(1, ("thin slices",)),
    "gpu": Plan(8, tuple(SCANS), tuple(TRIES)),
    "paper": Plan(20, tuple(SCANS), tuple(TRIES), 3, 60.0),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--tries", nargs="*", help="tries to train and score (the profile's)")
    parser.add_argument("--minutes", type=float, help="of each run, one thread (the profile's)")
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 (the profile's)")
    parser.add_argument("--chests", type=int, help="how many chests to score (the profile's)")
    parser.add_argument("--train-only", action="store_true", help="train, score nothing")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of chests and weights")


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a volume and group of coders; tries are trained and chests scanned first."""
    names = ("tries", "minutes", "seeds", "chests")
    asked = {n: v for n in names if (v := getattr(options, n)) is not None}
    plan, folder = replace(PROFILES[options.profile], **asked), options.data
    runs = plan.runs()
    train_all(runs, folder)
    if options.train_only:
        return []
    chests = [Chest(seed, scan) for seed in TEST_SEEDS[: plan.chests] for scan in plan.scans]
    scan_all(chests, folder, options.workers or 1)
    groups = coders(runs, folder)
    of_chests = [
        Task(f"{chest.name}, {name}", wanted(chest, group),
             partial(measure, chest, group, folder, provenance))
        for chest in chests for name, group in groups.items()
    ]  # fmt: skip
    real = [
        Task(f"{entry.subject}, {name}", ct_wanted(entry, group),
             partial(ct_measure, entry, group, provenance))
        for entry in scans.scans() for name, group in ct_coders().items()
    ]  # fmt: skip
    return of_chests + real


def coders(runs: Sequence[Run], folder: Path = FOLDER) -> dict[str, list[Coder]]:
    """Coders that share a task, by a name for the progress bar."""
    made: dict[str, list[Coder]] = {"fixed": fixed_coders()}
    made |= {name: [release_coder(name)] for name in released()}
    trained = (run for run in runs if run.path(folder).exists())
    return made | {f"{run.name}, seed {run.seed}": [try_coder(run, folder)] for run in trained}


# Chests


def condition(scan: str, radii: str) -> str:
    """The condition in the rows: how it was scanned, and which airways."""
    return f"{scan} | {radii}"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What `condition` or `ct_condition` joined."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["scan", "radii"], axis="columns")


def bins() -> list[str]:
    """The bins of radii, such as ``0.35-0.45``, from the smallest, in mm."""
    pairs = itertools.pairwise(EDGES_MM)
    return [f"{low:g}-{high:g}" for low, high in pairs]


def bin_of(radius_mm: float) -> str:
    """The bin that holds a radius; the first and the last have no end."""
    place = int(np.searchsorted(EDGES_MM, radius_mm, side="right")) - 1
    return bins()[min(max(place, 0), len(EDGES_MM) - 2)]


def measurement(chest: Chest, coder: Coder, radii: str) -> rows.Measurement:
    """One coder on the airways of one bin of a chest."""
    what = condition(chest.scan, radii)
    return coder.measurement(NAME, chest.name, chest.data_sha256, what, DEFINITION)


def wanted(chest: Chest, group: Sequence[Coder]) -> frozenset[rows.Identity]:
    """Rows that every chest gives: which bins are filled is known when it was scanned."""
    return rows.identities((measurement(chest, coder, ALL), [HALF]) for coder in group)


def measure(
    chest: Chest, group: Sequence[Coder], folder: Path, provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of one chest by some coders."""
    parts, made = chest.parts(folder), []
    for coder in group:
        seeded = replace(provenance, seed=getattr(coder, "seed", 0))
        renderer = Renderer()
        rendered = [renderer.render(coder, part.volume, part.volume.grid) for part in parts]
        numbers = sum(sampling.numbers_kept for _, sampling, _ in rendered)
        grid, time_s = parts[0].volume.grid, sum(seconds for *_, seconds in rendered)
        spacing = rows.spacing_text(grid)
        voxels = sum(part.volume.grid.n_voxels for part in parts)
        sampling = rows.Sampling(spacing, spacing, numbers, voxels)
        for radii, values in scores(parts, [data for data, *_ in rendered]).items():
            about = measurement(chest, coder, radii)
            made += about.rows(values, UNITS, sampling, time_s, seeded)
    return made


def scores(parts: Sequence[Part], shown: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """What volumes [D, H, W] show of a chest's parts: bin of radii (or `ALL`) to its metrics."""
    seen = pd.DataFrame([
        {"radii": bin_of(tube.radius_mm), "true_mm": tube.radius_mm, "is_sham": is_sham}
        | vars(look) | {"found": look.is_found, "contrast": look.contrast}
        for part, data in zip(parts, shown, strict=True)
        for is_sham, some in ((False, part.airways), (True, part.shams))
        for tube in some
        for look in [tubes.look(data, part.volume.grid, tube)]
    ])  # fmt: skip
    airways = seen[~seen["is_sham"]]
    made = {radii: _of_bin(seen[seen["radii"] == radii]) for radii in bins()}
    half = tubes.half_recall_mm(airways["true_mm"].tolist(), airways["found"].tolist())
    return {radii: values for radii, values in made.items() if values} | {ALL: {HALF: half}}


def _of_bin(seen: pd.DataFrame) -> dict[str, float]:
    airways, sham = seen[~seen["is_sham"]], seen[seen["is_sham"]]
    values = {"false_alarms": float(sham["found"].mean())} if len(sham) else {}
    if airways.empty:
        return values
    errors_mm = (airways["radius_mm"] - airways["true_mm"])[airways["found"]]
    return values | {
        "recall": float(airways["found"].mean()),
        "contrast": float(airways["contrast"].mean()),
        "radius_error_mm": float(errors_mm.abs().mean()),
        "radius_bias_mm": float(errors_mm.mean()),
        "airways": float(len(airways)),
    }


# Real CT


def ct_coders() -> dict[str, list[Coder]]:
    """Coders of real scans; a release is asked in its training window and in the lung window."""
    codecs: list[Coder] = [coder for coder in fixed_coders() if coder.name != SCAN]
    releases: dict[str, list[Coder]] = {
        f"{name}, {window}": [release_coder(name, WINDOWS[window])]
        for name in released()
        for window in WINDOWS
    }
    return {"codecs": codecs, **releases}


def ct_condition(shown: str, coder: Coder) -> str:
    """The condition in the rows: the window that is shown, and that in which was encoded."""
    named = {window: name for name, window in WINDOWS.items()}
    scale = getattr(coder, "scale", Intensity(*WINDOW_HU))
    return condition(f"{shown} window", named[scale.low, scale.high])


def ct_measurement(entry: Entry, coder: Coder, shown: str) -> rows.Measurement:
    """One coder on one real scan, seen in one window."""
    name, sha256 = f"ct_{entry.subject}", scans.data_sha256(entry)
    return coder.measurement(NAME, name, sha256, ct_condition(shown, coder), scans.DEFINITION)


def ct_wanted(entry: Entry, group: Sequence[Coder]) -> frozenset[rows.Identity]:
    """The identities of a real scan's rows."""
    return rows.identities(
        (ct_measurement(entry, coder, shown), scans.METRICS)
        for coder in group
        for shown in scans.SHOWN
    )


def ct_measure(entry: Entry, group: Sequence[Coder], provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one real scan by some coders."""
    volume, made = scans.load_scan(entry), []
    truth = volume.data.double().numpy()
    mask = scans.body(truth)
    for coder in group:
        data, sampling, time_s = Renderer().render(coder, volume, volume.grid)
        for shown in scans.SHOWN:
            values: Mapping[str, float] = scans.window_errors(truth, data, mask, shown)
            about = ct_measurement(entry, coder, shown)
            made += about.rows(values, UNITS, sampling, time_s, provenance)
    return made
