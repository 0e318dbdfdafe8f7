"""Thousands of scans: what `medil preprocess` costs beside its steps, and how fast real ones go.

The simulated scans are every few voxels of held-out brains, under their own headers, each with
noise of its own. They need no step but the mask that is given and no pictures, so that what is
measured is files, sidecars, the page, and the memory of the command.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import nibabel as nib
import numpy as np

from eval import rows
from eval.coders.base import timed
from eval.runner import Task
from eval.speed.child import run_job
from eval.subjects import held_out_brains, held_out_scans
from medil.data.manifest import fetch
from medil.data.schema import Entry
from medil.errors import InputError
from medil.io.listing import list_images
from medil.preprocess import pipeline
from medil.system.files import atomic_output

NAME = "preprocessing"
VERSION = 1  # raise it when other scans are simulated or another command is measured
MANY, RATE = "many scans", "real steps"
COUNTS = {"quick": (10, 30), "gpu": (370, 1200, 3700), "paper": (370, 1200, 3700)}
HEADS = {"quick": 1, "gpu": 6, "paper": 6}  # most raw heads of the real rate
PROCESSES = 2  # that prepare them
PITCH_MM = 8.0  # about, of simulated scans
NOISE = 0.01  # SD, of the largest value
SEED = 78
CHEAP = ("--strip", "given", "--no-bias", "--no-align", "--no-pictures")
UNITS = {
    MANY: {
        "scans_per_minute": "1/min", "cpu_s": "s", "peak_rss_mb": "MB", "peak_ratio": "1",
        "again_s": "s", "listing_s": "s", "entries": "1",
    },
    RATE: {"scans_per_minute": "1/min", "scans": "1", "cpu_s": "s", "peak_rss_mb": "MB"},
}  # fmt: skip


def of_many(profile: str, provenance: rows.Provenance) -> Iterator[Task]:
    """One task: all counts, because the peak memory is compared with that of the smallest."""
    if not (brains := held_out_brains()):
        raise InputError(
            "no held-out real brain is on this computer; set MEDIL_DATA_MIRROR to a folder that "
            "holds them."
        )
    measured = {n: _about(MANY, n, profile, brains) for n in COUNTS[profile]}
    wanted = rows.identities((about, UNITS[MANY]) for about in measured.values())
    yield Task("simulated scans", wanted, partial(measure_many, measured, brains, provenance))


def of_rate(profile: str, provenance: rows.Provenance) -> Iterator[Task]:
    """One task: raw heads with all steps; none where no raw head is on this computer."""
    heads = [entry for entry in held_out_scans() if entry.kind == "head"][: HEADS[profile]]
    if heads:
        about = _about(RATE, PROCESSES, profile, heads)
        wanted = rows.identities([(about, UNITS[RATE])])
        yield Task("real heads", wanted, partial(measure_rate, about, heads, provenance))


def _about(kind: str, number: int, profile: str, entries: Sequence[Entry]) -> rows.Measurement:
    settings = [VERSION, pipeline.VERSION, SEED, PITCH_MM, NOISE, COUNTS[profile], PROCESSES]
    data = rows.digest([entry.sha256 for entry in entries])
    return rows.Measurement(
        NAME, "held-out scans", kind, f"{kind} {number}", rows.digest(settings), data,
        rows.NO_WEIGHTS,
    )  # fmt: skip


def measure_many(
    measured: dict[int, rows.Measurement], brains: Sequence[Entry], provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of the simulated scans, from the fewest to the most."""
    made: list[rows.Row] = []
    least_mb = 0.0
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        raw.mkdir()
        small = simulated(brains)
        for count, about in sorted(measured.items()):
            write_scans(raw, small, count)
            found, listing_s = timed(partial(list_images, [raw]))
            out = Path(folder, f"prepared_{count}")
            values = prepared([raw], out, CHEAP)
            again = prepared([raw], out, CHEAP)
            least_mb = least_mb or values["peak_rss_mb"]
            values |= {
                "scans_per_minute": 60 * len(found.images) / values["verb_s"],
                "peak_ratio": values["peak_rss_mb"] / least_mb,
                "again_s": again["verb_s"],
                "listing_s": listing_s,
                "entries": (out / pipeline.PAGE).read_text("utf-8").count("<section>"),
            }
            made += _rows(about, MANY, values, small[0], provenance)
    return made


def measure_rate(
    about: rows.Measurement, heads: Sequence[Entry], provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of raw heads, prepared with all steps and pictures."""
    files = [fetch(entry) for entry in heads]
    with tempfile.TemporaryDirectory() as folder:
        values = prepared(files, Path(folder, "prepared"), ("--jobs", str(PROCESSES)))
    values |= {"scans": len(files), "scans_per_minute": 60 * len(files) / values["verb_s"]}
    return _rows(about, RATE, values, nib.Nifti1Image.from_filename(files[0]), provenance)


def _rows(
    about: rows.Measurement, kind: str, values: dict[str, float], image: nib.Nifti1Image,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    n_voxels = int(np.prod(image.shape))
    spacing = " x ".join(f"{mm:.2f}" for mm in image.header.get_zooms())
    kept = {metric: values[metric] for metric in UNITS[kind]}
    sampling = rows.Sampling(spacing, spacing, n_voxels, n_voxels)
    return about.rows(kept, UNITS[kind], sampling, values["verb_s"], provenance)


def prepared(
    places: Sequence[Path], out: Path, options: Sequence[str], verb: str = "preprocess"
) -> dict[str, float]:
    """Prepare scans by the command, in a process of its own: its time, CPU time and peak memory."""
    before = _cpu_s()
    arguments = [verb, *map(str, places), "-o", str(out), *options]
    values = run_job("command", 1, arguments=arguments)
    return values | {"cpu_s": _cpu_s() - before}


def _cpu_s() -> float:
    """CPU time of the processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def simulated(brains: Sequence[Entry]) -> list[nib.Nifti1Image]:
    """Every few voxels of each brain, about `PITCH_MM` apart, with its header."""
    images = [nib.Nifti1Image.from_filename(fetch(entry)) for entry in brains]
    made = []
    for image in images:
        i, j, k = (max(1, round(PITCH_MM / float(mm))) for mm in image.header.get_zooms()[:3])
        made.append(image.slicer[::i, ::j, ::k])
    return made


def write_scans(folder: Path, images: Sequence[nib.Nifti1Image], count: int) -> None:
    """Write so many scans, of each image in turn, with noise where it is not 0."""
    for number, image in zip(range(count), cycle(images), strict=False):
        path = folder / f"sub-{number:04d}_T1w.nii.gz"
        if not path.exists():
            data = np.asarray(image.dataobj, dtype=np.float32)
            noise = np.random.default_rng([SEED, number]).normal(0, NOISE, data.shape)
            noisy = np.where(data != 0, data + noise * data.max(), 0).astype(np.float32)
            header = image.header.copy()
            header.set_data_dtype(np.float32)
            with atomic_output(path) as temporary:
                nib.save(nib.Nifti1Image(noisy, image.affine, header), temporary)
