"""Whole brains in processes of their own: seconds and peak memory, beside MONAI's autoencoder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.rows import spacing_text
from eval.speed import child, clock
from eval.speed.sizes import Sizes
from eval.speed.timing import GROWTH, WHOLE, Timing
from eval.subjects import brain_at_1_mm
from medil.grid import Grid
from medil.model.weights import load_release
from medil.volume import Volume, save

CHANNELS, LATENT_CHANNELS = [32, 64, 64], 8  # MONAI's: 4x down, as many numbers as ours
RESIZED_MM = 0.5  # what is decoded is also wanted on these voxels
THREADS = 2  # of the growth: what a laptop has
COMMAND = "medil decode"


@dataclass(frozen=True)
class Brain:
    """A scan on disk.

    Args:
        path: Uncompressed NIfTI.
        name: Of the subject.
        grid: Its voxels.
        weights_sha256: Of the release that codes it.
        release: Its name.
    """

    path: Path
    name: str
    grid: Grid
    weights_sha256: str
    release: str


def written_brain(folder: Path, release: str) -> Brain:
    """The real brain at 1 mm, or the template that stands in, as a file to read."""
    scan, description = brain_at_1_mm()
    name = "mni152_template" if "template" in description else "open_ms_t1 brain at 1 mm"
    path = save(Volume(scan.volume.data, scan.volume.grid), folder / "brain.nii")
    return Brain(path, name, scan.volume.grid, load_release(release).weights_id, release)


def compare(sizes: Sizes, release: str) -> list[Timing]:
    """Encoding and decoding beside MONAI."""
    with tempfile.TemporaryDirectory() as name:
        brain = written_brain(Path(name), release)
        return [f for threads in sizes.threads_whole for f in compared(brain, sizes, threads)]


def grow(sizes: Sizes, release: str) -> list[Timing]:
    """The command line's cost against the size of its output."""
    with tempfile.TemporaryDirectory() as name:
        return growth(written_brain(Path(name), release), sizes.spacings_mm, Path(name))


def compared(brain: Brain, sizes: Sizes, threads: int) -> list[Timing]:
    """The release and MONAI's `AutoencoderKL` in turns, each in a fresh process.

    Both read one file. Times are of encoding and decoding alone; peaks are of the whole
    process, and the second ratio leaves out what Python and torch take anyway.
    """
    scan = {"scan": str(brain.path), "spacing_mm": RESIZED_MM}
    idle = child.run_job("idle", threads)["peak_rss_mb"]
    ours, theirs = [], []
    for _ in range(sizes.rounds_whole):
        ours.append(child.run_job("release", threads, name=brain.release, **scan))
        theirs.append(
            child.run_job(
                "monai", threads, channels=CHANNELS, latent_channels=LATENT_CHANNELS, **scan
            )
        )
    about: dict[str, Any] = dict(
        kind=WHOLE, sizes=" x ".join(map(str, brain.grid.shape)), threads=threads,
        n_voxels=brain.grid.n_voxels, subject=brain.name, spacing_in_mm=spacing_text(brain.grid),
        spacing_out_mm=spacing_text(brain.grid),
    )  # fmt: skip
    pairs = list(zip(theirs, ours, strict=True))
    ratios: Mapping[str, clock.Spread] = {
        "ratio_to_monai": clock.spread([_seconds(t) / _seconds(o) for t, o in pairs]),
        "peak_ratio_to_monai": clock.spread([_peak(o) / _peak(t) for t, o in pairs]),
        "peak_above_baseline_ratio_to_monai": clock.spread(
            [(_peak(o) - idle) / (_peak(t) - idle) for t, o in pairs]
        ),
    }
    config = {"channels": CHANNELS, "latent_channels": LATENT_CHANNELS, "resized": RESIZED_MM}
    return [
        Timing("python and torch", values={"peak_rss_mb": idle}, **about),
        Timing(brain.release, values={**_values(ours), **ratios}, config={"release": brain.release},
              weights_sha256=brain.weights_sha256, **about),
        Timing("monai", values=_values(theirs), config=config, **about),
    ]  # fmt: skip


def _seconds(run: Mapping[str, float]) -> float:
    return run["encode_s"] + run["decode_s"]


def _peak(run: Mapping[str, float]) -> float:
    """Of encoding and decoding on the scan's own voxels, before anything is resized."""
    return run["peak_coded_mb"]


def _values(runs: list[dict[str, float]]) -> dict[str, clock.Spread]:
    values = {
        name: clock.spread([run[name] for run in runs])
        for name in ("encode_s", "decode_s", "resized_s")
    }
    return values | {"peak_rss_mb": clock.spread([_peak(run) for run in runs])}


# Growth


def growth(
    brain: Brain, spacings_mm: Sequence[float], folder: Path, threads: int = THREADS,
    memory: str = "",
) -> list[Timing]:  # fmt: skip
    """`medil decode` of one latent at several voxel sizes: seconds and peak memory of each.

    Args:
        brain: Is encoded once.
        spacings_mm: To render at.
        folder: Of the files.
        threads: Of the processes.
        memory: Budget such as ``1GB``; none when empty.
    """
    latent = folder / "brain.safetensors"
    verb = ["--preset", brain.release, *(["--memory", memory] if memory else [])]
    child.run_job("command", threads, arguments=["encode", str(brain.path), "-o", str(latent),
                                                  *verb])  # fmt: skip
    timings: list[Timing] = []
    coarsest_mb = None
    for spacing in spacings_mm:
        out = folder / "rendered.nii"
        size = [str(spacing)] * 3
        run = child.run_job(
            "command", threads,
            arguments=["decode", str(latent), "-o", str(out), "--spacing", *size, *verb],
        )  # fmt: skip
        grid = load_grid(out)
        out.unlink()
        coarsest_mb = coarsest_mb or run["peak_rss_mb"]
        values = {
            "seconds": run["process_s"],
            "peak_rss_mb": run["peak_rss_mb"],
            "peak_ratio_to_1_mm": run["peak_rss_mb"] / coarsest_mb,
            "n_voxels": float(grid.n_voxels),
        }
        timings.append(
            Timing(COMMAND, GROWTH, f"{spacing:g} mm", values, grid.n_voxels, threads,
                  subject=brain.name, spacing_in_mm=spacing_text(brain.grid),
                  spacing_out_mm=f"{spacing:g}", weights_sha256=brain.weights_sha256)
        )  # fmt: skip
    return timings


def load_grid(path: Path) -> Grid:
    """The grid of a file, without reading its voxels."""
    import nibabel

    image: Any = nibabel.load(path)
    return Grid(image.shape[:3], image.affine)
