"""Lost machines, thousands of stored chest CTs, and what rows say of more machines."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from eval import rows
from eval.machines import trials
from eval.machines.hosts import hosts
from eval.preprocessing.scale import prepared as run_verb
from eval.runner import Task, parts_option
from medil.grid import Grid
from medil.synth.chest import chest
from medil.synth.ct import ct_scan

NAME, VERSION = "machines", 1
LOSSES = {  # arm, condition -> what is killed, by number
    ("training", "a rank is killed"): 1,
    ("training", "the first rank is killed"): 0,
    ("preprocess", "a worker is killed"): 1,
    ("preprocess", "the scheduler is killed"): 0,
    ("evaluate", "a worker is killed"): 1,
    ("evaluate", "the scheduler is killed"): 0,
}
HOSTS, SCANS = 3, {"preprocess": 30, "evaluate": 4}
STORED, FULL = "stored chest CTs", "a chest CT of full size"
COUNTS = {"quick": (10, 30), "gpu": (100, 300, 1000), "paper": (100, 300, 1000)}
SMALL_SHAPE, SMALL_MM = (44, 36, 36), (8.0, 8.0, 9.0)  # of the many
FULL_SHAPE, FULL_MM = (512, 512, 300), (0.7, 0.7, 1.0)
SEED, NOISE_HU = 91, 20.0
STORE_UNITS = {
    "cpu_s": "s",
    "peak_rss_mb": "MB",
    "peak_ratio": "1",
    "again_s": "s",
    "size_mb": "MB",
}
SIMULATED, BRAINS, CHESTS = "simulated", 3700, 1000
MACHINES = (1, 4, 16, 64)  # workers
SIMULATED_UNITS = {"hours": "h", "command_mb": "MB"}


def options(parser: argparse.ArgumentParser) -> None:
    """Parts, which this experiment can run alone."""
    parts_option(parser, PARTS)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """The tasks of the parts that are asked for."""
    return [task for part in options.parts for task in PARTS[part](options.profile, provenance)]


def _about(arm: str, condition: str, settings: object) -> rows.Measurement:
    return rows.Measurement(
        NAME, "simulated scans", arm, condition, rows.digest([VERSION, settings]),
        rows.digest([SEED, "recipe"]), rows.NO_WEIGHTS,
    )  # fmt: skip


# Lost machines


def of_losses(profile: str, provenance: rows.Provenance) -> Iterator[Task]:
    """One task for each process that is killed."""
    with hosts(1) as (one,):
        kind = one.kind
    for (arm, condition), victim in LOSSES.items():
        about = _about(arm, f"{condition} ({kind})", [trials.BATCH, trials.STEPS, HOSTS, SCANS])
        wanted = rows.identities([(about, _units(arm))])
        yield Task(f"{arm}: {condition}", wanted, partial(lose, about, victim, provenance))


def lose(about: rows.Measurement, victim: int, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one trial."""
    with tempfile.TemporaryDirectory() as name, hosts(HOSTS) as places:
        folder = Path(name)
        if about.arm == "training":
            raw, store = trials.write_scans(folder / "raw", 3), folder / "store"
            trials.medil("store", str(raw), "-o", str(store)).check_returncode()
            values = trials.lose_rank(folder, places, store, victim)
        elif about.arm == "preprocess":
            values = trials.lose_while_preparing(folder, places, victim, SCANS[about.arm])
        else:
            values = trials.lose_while_measuring(folder, places, victim, SCANS[about.arm])
    grid = Grid.from_spacing(trials.SHAPE, trials.SPACING_MM)
    sampling = rows.Sampling.of(grid, grid, grid.n_voxels)
    return about.rows(values, _units(about.arm), sampling, values["ended_s"], provenance)


def _units(arm: str) -> dict[str, str]:
    return trials.RANK_UNITS if arm == "training" else trials.UNITS


# Thousands of chest CTs


def of_stores(profile: str, provenance: rows.Provenance) -> Iterator[Task]:
    """All numbers of small scans, then one scan of full size."""
    counts = COUNTS[profile]
    many = {n: _about(STORED, f"{STORED} {n}", [counts, SMALL_SHAPE, SMALL_MM]) for n in counts}
    wanted = rows.identities((about, STORE_UNITS) for about in many.values())
    yield Task("many chest CTs", wanted, partial(store_many, many, provenance))
    if profile != "quick":
        about = _about(FULL, FULL, [FULL_SHAPE, FULL_MM])
        wanted = rows.identities([(about, STORE_UNITS)])
        yield Task("a whole chest CT", wanted, partial(store_full, about, provenance))


def store_many(
    many: dict[int, rows.Measurement], provenance: rows.Provenance
) -> list[rows.Row]:  # fmt: skip
    """Rows of `medil store` on ever more small chest CTs, each number in a store of its own."""
    made, least_mb = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name, "raw")
        raw.mkdir()
        scan = _chest(SMALL_SHAPE, SMALL_MM)
        for count, about in sorted(many.items()):
            _write(raw, scan, SMALL_MM, count)
            values = stored(raw, Path(name, f"store{count}"))
            least_mb = least_mb or values["peak_rss_mb"]
            values["peak_ratio"] = values["peak_rss_mb"] / least_mb
            made += _store_rows(about, values, SMALL_SHAPE, SMALL_MM, provenance)
    return made


def store_full(about: rows.Measurement, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of `medil store` on one chest CT whose voxels are each of the small one's, repeated."""
    small = _chest(SMALL_SHAPE, SMALL_MM)
    places = np.ix_(*(np.arange(n) * m // n for n, m in zip(FULL_SHAPE, SMALL_SHAPE, strict=True)))
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name, "raw")
        raw.mkdir()
        _write(raw, small[places], FULL_MM, 1)
        values = stored(raw, Path(name, "store")) | {"peak_ratio": 1.0}
    return _store_rows(about, values, FULL_SHAPE, FULL_MM, provenance)


def stored(raw: Path, out: Path) -> dict[str, float]:
    """Store a folder by the command in a process of its own, twice."""
    values = run_verb([raw], out, (), "store")
    again = run_verb([raw], out, (), "store")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return values | {"again_s": again["cpu_s"], "size_mb": size / 1e6}


def _store_rows(
    about: rows.Measurement, values: dict[str, float], shape: tuple[int, ...],
    spacing_mm: tuple[float, ...], provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    grid = Grid.from_spacing(shape, spacing_mm)
    kept = {metric: values[metric] for metric in STORE_UNITS}
    sampling = rows.Sampling.of(grid, grid, grid.n_voxels)
    return about.rows(kept, STORE_UNITS, sampling, values["verb_s"], provenance)


def _chest(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """[D, H, W] int16: a chest phantom in HU as a scanner sees it."""
    rng = np.random.default_rng(SEED)
    extent = np.array(shape) * spacing_mm
    grid = Grid.from_spacing(shape, spacing_mm, tuple(-extent / 2))
    return ct_scan(chest(SEED), grid, 0.5, NOISE_HU, rng).numpy()


def _write(folder: Path, data: np.ndarray, spacing_mm: tuple[float, ...], count: int) -> None:
    """So many scans, each with noise of its own, where they are not written yet."""
    for number in range(count):
        path = folder / f"chest-{number:04d}.nii.gz"
        if not path.exists():
            rng = np.random.default_rng([SEED, number])
            noise = rng.standard_normal(data.shape, dtype=np.float32)
            noisy = (data + NOISE_HU * noise).astype(np.int16)
            nib.save(nib.Nifti1Image(noisy, np.diag([*spacing_mm, 1.0])), path)


# More machines


def of_simulations(profile: str, provenance: rows.Provenance) -> Iterator[Task]:
    """Rows that follow from recorded ones; none where those are not recorded.

    A worker prepares one scan after another at the recorded speed of a process. What a scan costs
    beside its steps, all of it, is counted as work of the one process that hands scans out.
    """
    if (found := _prepared_rows()) is None:
        return
    head_s, beside_s, command_mb = found
    for count in MACHINES:
        hours = max(-(-BRAINS // count) * head_s, BRAINS * beside_s) / 3600
        values = {"hours": hours, "command_mb": command_mb}
        about = _about(SIMULATED, f"{BRAINS} brains prepared, {count} workers", found)
        grid = Grid.from_spacing((256, 256, 256), 1.0)
        sampling = rows.Sampling.of(grid, grid, grid.n_voxels)
        made = about.rows(values, SIMULATED_UNITS, sampling, 0.0, provenance)
        yield Task.of_rows(about.condition, made)


def _prepared_rows() -> tuple[float, float, float] | None:
    """Seconds a head; of the most simulated scans, seconds each and peak MB of the command."""
    from eval.preprocessing import EXPERIMENT
    from eval.preprocessing.report import of_many
    from eval.preprocessing.scale import PROCESSES, RATE

    frame = EXPERIMENT.recorded()
    if frame is None:
        return None
    real = frame[frame["arm"] == RATE].set_index("metric")["value"]
    many = of_many(frame)
    if real.empty or many.empty:
        return None
    last = many.iloc[-1]
    head_s = 60 * PROCESSES / float(real["scans_per_minute"])
    return head_s, float(last["cpu_s"] / many.index[-1]), float(last["peak_rss_mb"])


PARTS: dict[str, Callable[[str, rows.Provenance], Iterable[Task]]] = {
    "losses": of_losses, "stores": of_stores, "simulations": of_simulations
}  # fmt: skip
