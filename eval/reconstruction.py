"""Encode held-out volumes, render them on several grids, and score every arm on each.

The arms are the release, what its splines render without the network, and every codec of
`medil.baselines` with as many numbers as the latent. Run again, it computes only what is
not yet recorded. The numbers a header holds (grid, intensity scale) count for no arm.

    python -m eval.reconstruction --profile quick
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval import metrics, rows
from eval.release import release_rows
from eval.subjects import CONDITIONS, INTERPOLATED, Case, Subject, subjects
from medil.autoencoder import MedIL
from medil.baselines import CODECS, cell_average, cubic_resample
from medil.checkpoint import load_release
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume

EXPERIMENT = "reconstruction"
DEFINITION = {  # what the numbers mean; another meaning is another configuration
    "version": 1,
    "peak_percentile": metrics.PEAK_PERCENTILE,
    "ssim_sigma_vox": metrics.SSIM_SIGMA_VOX,
    "hfen_sigma_mm": metrics.HFEN_SIGMA_MM,
}


@dataclass(frozen=True)
class Kept:
    """What an arm keeps of a volume: a latent or rebuilt voxels, and how many numbers."""

    what: Any
    numbers: int


@dataclass(frozen=True)
class Arm:
    """One way to keep a volume, and to render what was kept on a grid.

    Args:
        name: As in the rows.
        keep: Volume to what is kept of it; arms that share this function share its work.
        render: What was kept, and a target grid, to [D, H, W] float64.
        config_hash: Of everything that was chosen.
        weights_sha256: Of the weights, if it has any.
        conditions: Where it is a rival.
    """

    name: str
    keep: Callable[[Volume], Kept]
    render: Callable[[Kept, Grid], np.ndarray]
    config_hash: str
    weights_sha256: str = rows.NO_WEIGHTS
    conditions: tuple[str, ...] = tuple(CONDITIONS)


def render_samples(data: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """A volume on a parallel grid with nothing learned: cubic splines, averaged over cells.

    Where target cells are larger than voxels, the splines are sampled several times in each
    cell and averaged, so coarser targets are anti-aliased and finer ones are interpolated.

    Args:
        data: [D, H, W] on `grid`.
        grid: Where the data lies.
        target: A parallel grid.

    Returns:
        [D', H', W'] float64 on `target`.
    """
    ratio = np.asarray(target.spacing_mm) / np.asarray(grid.spacing_mm)
    parts = np.maximum(1, np.rint(ratio)).astype(int)
    inner = target.resized(np.asarray(target.shape) * parts)
    if _same_voxels(grid, inner):
        return cell_average(data, grid, target)
    return cell_average(cubic_resample(data, grid, inner), inner, target)


def _same_voxels(grid: Grid, other: Grid) -> bool:
    """Whether every voxel of `other` that lies in `grid` is one of its voxels."""
    corners = grid.ras_to_index(other.index_to_ras([(0, 0, 0), np.asarray(other.shape) - 1]))
    span = np.asarray(other.shape) - 1
    whole = np.abs(corners - np.rint(corners)).max() < 1e-6
    return whole and bool(np.abs(corners[1] - corners[0] - span).max() < 1e-6)


def model_arms(model: MedIL) -> list[Arm]:
    """The release, and its splines without the network (where it has them)."""
    weights = rows.weights_digest(model)

    def keep(volume: Volume) -> Kept:
        latent = model.encode(volume)
        return Kept(latent, latent.n_numbers)

    def render(kept: Kept, target: Grid, linear_only: bool) -> np.ndarray:
        return _numbers(model.decode(kept.what, target, linear_only=linear_only))

    kinds = {"medil": False} | ({"medil_splines": True} if model.config.closed_form else {})
    return [
        Arm(name, keep, partial(render, linear_only=linear), _config_hash(name, model), weights)
        for name, linear in kinds.items()
    ]


def codec_arms(spacing_mm: float, channels: int) -> list[Arm]:
    """Every codec with as many numbers as a latent of this pitch and width."""

    def keep(volume: Volume, name: str) -> Kept:
        n_numbers = latent_numbers(volume.grid, spacing_mm, channels)
        coded = CODECS[name](_numbers(volume), volume.grid, n_numbers)
        return Kept((coded.reconstruction, volume.grid), coded.numbers_kept)

    size = {"latent_spacing_mm": spacing_mm, "latent_channels": channels}
    return [
        Arm(name, partial(keep, name=name), _render_kept, rows.digest([name, size, DEFINITION]))
        for name in CODECS
    ]


def interpolation_arm() -> Arm:
    """Cubic interpolation of every voxel: no compression, a rival where detail is missing."""

    def keep(volume: Volume) -> Kept:
        return Kept((_numbers(volume), volume.grid), volume.grid.n_voxels)

    config_hash = rows.digest(["interpolation", DEFINITION])
    return Arm("interpolation", keep, _render_kept, config_hash, conditions=INTERPOLATED)


def _render_kept(kept: Kept, target: Grid) -> np.ndarray:
    data, grid = kept.what
    return render_samples(data, grid, target)


def _numbers(volume: Volume) -> np.ndarray:
    return volume.data.double().numpy()


def all_arms(model: MedIL) -> list[Arm]:
    """Every arm that is compared with a model."""
    config = model.config
    codecs = codec_arms(config.latent_spacing_mm, config.latent_channels)
    return [*model_arms(model), *codecs, interpolation_arm()]


def latent_numbers(grid: Grid, spacing_mm: float, channels: int) -> int:
    """How many numbers a latent of this pitch and width keeps of a volume."""
    return channels * grid.covering(spacing_mm).n_voxels


def _config_hash(name: str, model: MedIL) -> str:
    return rows.digest([name, asdict(model.config), DEFINITION])


def score(case: Case, data: np.ndarray) -> dict[str, float]:
    """Every metric of a rendering on the case's target, taken where its truth lies."""
    if not case.seen_on.is_close(case.target):
        data = cell_average(data, case.target, case.seen_on)
    return metrics.all_metrics(case.truth, data, case.mask, case.seen_on.spacing_mm)


def pending(
    subject: Subject, arms: list[Arm], recorded: set[tuple[str, ...]]
) -> list[tuple[str, Arm]]:
    """The (condition, arm) pairs of a subject of which some metric is not recorded."""

    def missing(condition: str, arm: Arm) -> bool:
        what = (EXPERIMENT, subject.name, arm.name, condition)
        hashes = (arm.config_hash, subject.data_sha256, arm.weights_sha256)
        return any((*what, metric, *hashes) not in recorded for metric in metrics.UNITS)

    return [
        (condition, arm)
        for condition in subject.conditions
        for arm in arms
        if condition in arm.conditions and missing(condition, arm)
    ]


def measure(
    subject: Subject, todo: list[tuple[str, Arm]], provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of one subject for (condition, arm) pairs; each volume is encoded once an arm."""
    scan, found = subject.load(), []
    kept_of: dict[tuple[Callable, int], tuple[Volume, Kept, float]] = {}
    for condition in dict.fromkeys(c for c, _ in todo):
        case = CONDITIONS[condition](scan)
        for arm in (a for c, a in todo if c == condition):
            key = (arm.keep, id(case.volume))  # the volume is held below, so its id stays its own
            if key not in kept_of:
                kept, time_s = timed(arm.keep, case.volume)
                kept_of[key] = (case.volume, kept, time_s)
            _, kept, keep_s = kept_of[key]
            data, render_s = timed(arm.render, kept, case.target)
            values = score(case, data)
            about = (subject, arm, condition, case, kept.numbers, keep_s + render_s, provenance)
            found += [_row(metric, value, *about) for metric, value in values.items()]
    return found


def timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """What a function gives back, and the seconds it took."""
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def _row(
    metric: str,
    value: float,
    subject: Subject,
    arm: Arm,
    condition: str,
    case: Case,
    numbers_kept: int,
    time_s: float,
    provenance: rows.Provenance,
) -> rows.Row:
    return rows.Row(
        experiment=EXPERIMENT,
        subject=subject.name,
        arm=arm.name,
        condition=condition,
        metric=metric,
        value=float(value) if np.isfinite(value) else None,
        unit=metrics.UNITS[metric],
        spacing_in_mm=spacing_text(case.volume.grid),
        spacing_out_mm=spacing_text(case.target),
        numbers_kept=int(numbers_kept),
        n_voxels=case.volume.grid.n_voxels,
        config_hash=arm.config_hash,
        data_sha256=subject.data_sha256,
        weights_sha256=arm.weights_sha256,
        time_s=time_s,
        recorded_at=rows.now_utc(),
        provenance=provenance,
    )


def spacing_text(grid: Grid) -> str:
    """Voxel size such as ``1`` or ``0.72 x 0.72 x 3``, in mm."""
    texts = [f"{s:.2f}".rstrip("0").rstrip(".") for s in grid.spacing_mm]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


def run(model: MedIL, people: list[Subject], out: Path, provenance: rows.Provenance) -> int:
    """Measure what is missing, subject by subject, and record it.

    Args:
        model: The release, or any other.
        people: From `eval.subjects.subjects`.
        out: Folder of the rows file; made if its parent exists.
        provenance: Of this run.

    Returns:
        How many rows were added; 0 when everything was there.
    """
    path, arms, added = rows_file(out), all_arms(model), 0
    recorded = rows.recorded_identities(path)
    for subject in tqdm(people, unit="subject"):
        if todo := pending(subject, arms, recorded):
            added += rows.append_rows(path, measure(subject, todo, provenance))
    return added


def record_release(model: MedIL, name: str, out: Path, provenance: rows.Provenance) -> int:
    """Record what the release is, unless these weights already are; how many rows."""
    path = rows_file(out)
    recorded = rows.recorded_identities(path)
    found = release_rows(model, name, provenance)
    fresh = [r for r in found if tuple(getattr(r, f) for f in rows.IDENTITY) not in recorded]
    return rows.append_rows(path, fresh)


def rows_file(out: Path) -> Path:
    """The rows of this experiment in a folder, which is made if its parent exists."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} does not exist; make that folder first.")
    out.mkdir(exist_ok=True)
    return out / f"{EXPERIMENT}.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about bad input."""
    parser = argparse.ArgumentParser(prog="python -m eval.reconstruction", description=__doc__)
    parser.add_argument("--profile", choices=("quick", "gpu", "paper"), default="quick")
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--out", type=Path, default=rows.RESULTS, help="folder of the rows")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    try:
        if options.device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"there is no device {options.device!r} here; leave --device out.")
        model = load_release(options.release).to(options.device).eval()
        provenance = rows.Provenance.now(options.profile, device=options.device)
        added = record_release(model, options.release, options.out, provenance)
        added += run(model, subjects(options.profile), options.out, provenance)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
