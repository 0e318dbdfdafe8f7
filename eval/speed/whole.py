"""Whole brains in processes of their own: seconds and peak memory, beside MONAI's autoencoder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.rows import spacing_text
from eval.speed import child
from eval.speed.timing import GROWTH, WHOLE, Plan, Timing
from eval.subjects import brain_at_1_mm
from medil.grid import Grid
from medil.model.weights import load_release, weights_sha256
from medil.volume import Volume, save

NETWORK = {"channels": [32, 64, 64], "latent_channels": 8}  # 4x down, as many numbers as ours
RESIZED_MM = 0.5  # what is decoded is also wanted on these voxels
MEASURED = ("encode_s", "decode_s", "resized_s", "peak_rss_mb")
THREADS = 2  # of the growth: what a laptop has
COMMAND = "medil decode"


@dataclass(frozen=True)
class Brain:
    """A scan on disk, and the release that codes it."""

    path: Path  # uncompressed NIfTI
    name: str  # of the subject
    grid: Grid
    release: str
    weights_sha256: str  # of the release


@contextmanager
def on_disk(volume: Volume, name: str, release: str) -> Iterator[Brain]:
    """A volume as a file, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(Volume(volume.data, volume.grid), Path(folder) / "brain.nii")
        yield Brain(path, name, volume.grid, release, weights_sha256(load_release(release)))


def real_brain(release: str) -> AbstractContextManager[Brain]:
    """The real brain at 1 mm, or the template that stands in."""
    scan, description = brain_at_1_mm()
    name = "mni152_template" if "template" in description else "open_ms_t1 brain at 1 mm"
    return on_disk(scan.volume, name, release)


def compare(plan: Plan) -> list[Timing]:
    """Encoding and decoding beside MONAI."""
    with real_brain(plan.release) as brain:
        return [t for n in plan.threads_whole for t in compared(brain, plan.rounds_whole, n)]


def grow(plan: Plan) -> list[Timing]:
    """The command line's cost against the size of its output."""
    with real_brain(plan.release) as brain:
        return growth(brain, plan.spacings_mm)


def compared(brain: Brain, rounds: int, threads: int) -> list[Timing]:
    """The release and MONAI's `AutoencoderKL` in turns, each in a fresh process.

    Both read one file. Times are of encoding and decoding alone; peaks are of the whole
    process before anything is resized.
    """
    scan = {"scan": str(brain.path), "spacing_mm": RESIZED_MM}
    idle_mb = child.run_job("idle", threads)["peak_rss_mb"]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(child.run_job("release", threads, name=brain.release, **scan))
        theirs.append(child.run_job("monai", threads, **NETWORK, **scan))
    own, peer = (
        {name: np.array([run[name] for run in runs]) for name in MEASURED}
        for runs in (ours, theirs)
    )
    ratios = {
        "ratio_to_monai": (peer["encode_s"] + peer["decode_s"])
        / (own["encode_s"] + own["decode_s"]),
        "peak_ratio_to_monai": own["peak_rss_mb"] / peer["peak_rss_mb"],
    }
    about: dict[str, Any] = dict(
        kind=WHOLE, sizes=" x ".join(map(str, brain.grid.shape)), threads=threads,
        n_voxels=brain.grid.n_voxels, subject=brain.name, spacing_in_mm=spacing_text(brain.grid),
        spacing_out_mm=spacing_text(brain.grid),
    )  # fmt: skip
    return [
        Timing("python and torch", values={"peak_rss_mb": idle_mb}, **about),
        Timing(brain.release, values={**own, **ratios}, config={"release": brain.release},
               weights_sha256=brain.weights_sha256, **about),
        Timing("monai", values=peer, config={**NETWORK, "resized": RESIZED_MM}, **about),
    ]  # fmt: skip


def growth(
    brain: Brain, spacings_mm: Sequence[float], threads: int = THREADS, memory: str = ""
) -> list[Timing]:
    """`medil decode` of one latent at several voxel sizes: seconds and peak memory of each.

    Files lie beside the brain. `memory` is a budget such as ``1GB``; none when empty.
    """
    latent, out = (str(brain.path.with_name(name)) for name in ("brain.safetensors", "out.nii"))
    options = ["--force", "--preset", brain.release, *(["--memory", memory] if memory else [])]

    def medil(*arguments: str) -> dict[str, float]:
        return child.run_job("command", threads, arguments=[*arguments, *options])

    medil("encode", str(brain.path), "-o", latent)
    timings: list[Timing] = []
    coarsest_mb = None
    for spacing_mm in spacings_mm:
        run = medil("decode", latent, "-o", out, "--spacing", *[str(spacing_mm)] * 3)
        n_voxels = brain.grid.with_spacing(spacing_mm).n_voxels
        coarsest_mb = coarsest_mb or run["peak_rss_mb"]
        values = {
            "seconds": run["process_s"],
            "peak_rss_mb": run["peak_rss_mb"],
            "peak_ratio_to_1_mm": run["peak_rss_mb"] / coarsest_mb,
            "n_voxels": float(n_voxels),
        }
        timings.append(
            Timing(COMMAND, GROWTH, f"{spacing_mm:g} mm", values, n_voxels, threads,
                   subject=brain.name, spacing_in_mm=spacing_text(brain.grid),
                   spacing_out_mm=f"{spacing_mm:g}", weights_sha256=brain.weights_sha256)
        )  # fmt: skip
    return timings
