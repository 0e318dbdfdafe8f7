"""Known tilts, fields and masks of held-out real scans, and what the steps find of them.

The parts on thousands of scans are in `eval.preprocessing.scale`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from eval import rows
from eval.coders.base import timed
from eval.metrics.tissue import dice
from eval.preprocessing import scale
from eval.preprocessing.scale import NAME
from eval.runner import Task, parts_option
from eval.subjects import held_out_scans, name_of
from medil.data.manifest import fetch
from medil.data.schema import Entry
from medil.errors import InputError
from medil.grid import centres_mm
from medil.preprocess import pipeline
from medil.preprocess.alignment import alignment, rotation_deg
from medil.preprocess.bias_field import bias_field
from medil.preprocess.brain_mask import DEEPBET, GIVEN, brain_mask, volume_ml
from medil.volume import Volume, load

ARM = "medil"
TURN, FIELD, MASK = "known tilt", "known field", "known mask"
UNITS = {
    TURN: {"tilt_deg": "deg", "rotation_error_deg": "deg", "shift_error_mm": "mm"},
    FIELD: {"field_before": "1", "field_after": "1"},
    MASK: {"dice": "1", "brain_ml": "ml", "known_ml": "ml"},
}
TURNS = {"quick": 1, "gpu": 3, "paper": 10}
MOST_TURN_DEG, MOST_SHIFT_MM = 25.0, 30.0
FIELD_SIGMA = 0.25  # of the coefficients of a quadratic polynomial, of places in units of 100 mm
SEED = 77


def options(parser: argparse.ArgumentParser) -> None:
    """Parts, which this experiment can run alone."""
    parts_option(parser, PARTS)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """The tasks of the parts that are asked for.

    Raises:
        InputError: No held-out real scan is on this computer.
    """
    return [task for part in options.parts for task in PARTS[part](options.profile, provenance)]


def of_known(profile: str, provenance: rows.Provenance) -> list[Task]:
    """One task a scan.

    Raises:
        InputError: No held-out real scan is on this computer.
    """
    scans = held_out_scans()
    if not scans:
        raise InputError(
            "no held-out real scan is on this computer; set MEDIL_DATA_MIRROR to a folder that "
            "holds them."
        )
    turns = TURNS[profile]
    found = []
    for entry in scans[:1] if profile == "quick" else scans:
        wanted = rows.identities((m, UNITS[kind]) for kind, _, m in measurements(entry, turns))
        found.append(Task(name_of(entry), wanted, partial(measure, entry, turns, provenance)))
    return found


def measurements(entry: Entry, turns: int) -> Iterator[tuple[str, int, rows.Measurement]]:
    """Kind, number of the draw, and what a row of it measures."""
    kinds = [(TURN, k) for k in range(turns)] + [(FIELD, 0)]
    kinds += [(MASK, 0)] if entry.kind == "brain" else []
    settings = rows.digest([pipeline.VERSION, SEED, MOST_TURN_DEG, MOST_SHIFT_MM, FIELD_SIGMA])
    for kind, number in kinds:
        yield (
            kind,
            number,
            rows.Measurement(
                NAME,
                name_of(entry),
                ARM,
                f"{kind} {number}",
                settings,
                entry.sha256,
                rows.NO_WEIGHTS,
            ),
        )


def measure(entry: Entry, turns: int, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one scan."""
    scan = load(fetch(entry))
    mask = brain_mask(scan, GIVEN if entry.kind == "brain" else DEEPBET)
    straight = alignment(scan, mask)
    sampling = rows.Sampling.of(scan.grid, scan.grid, scan.grid.n_voxels)
    made = []
    for kind, number, about in measurements(entry, turns):
        rng = np.random.default_rng([SEED, number, int(entry.sha256[:8], 16)])
        work = {
            TURN: partial(of_turn, scan, mask, straight, rng),
            FIELD: partial(of_field, scan, mask, rng),
            MASK: partial(of_mask, scan, mask),
        }
        values, took_s = timed(work[kind])
        made += about.rows(values, UNITS[kind], sampling, took_s, provenance)
    return made


def of_turn(
    scan: Volume, mask: Tensor, straight: np.ndarray, rng: np.random.Generator
) -> Mapping[str, float]:
    """A scan turned and shifted by a known amount: what is left of it after its alignment.

    The scan's own alignment `straight` is the truth, so this is repeatability and no accuracy of
    the commissures; the shift is that of the middle of the brain.
    """
    axis, angle_deg = rng.normal(size=3), rng.uniform(5.0, MOST_TURN_DEG)
    grid = scan.grid.rotated(axis.tolist(), angle_deg)
    grid = grid.shifted(rng.uniform(-MOST_SHIFT_MM, MOST_SHIFT_MM, 3))
    found = alignment(Volume(scan.data, grid), mask)
    back = found @ grid.affine_vox2ras @ np.linalg.inv(scan.grid.affine_vox2ras)
    middle = np.append(scan.grid.index_to_ras(np.argwhere(mask.numpy()).mean(0)), 1.0)
    return {
        "tilt_deg": angle_deg,
        "rotation_error_deg": rotation_deg(back @ np.linalg.inv(straight)),
        "shift_error_mm": float(np.linalg.norm((back @ middle - straight @ middle)[:3])),
    }


def of_field(scan: Volume, mask: Tensor, rng: np.random.Generator) -> Mapping[str, float]:
    """A known smooth field is laid over a scan: its spread before and after the correction.

    In standard deviations of the logarithm inside the brain. What N4 finds in the scan as it is
    does not count, so that the scan's own field is no error.
    """
    field = known_field(scan, rng)
    own = bias_field(scan, mask)
    found = bias_field(Volume(scan.data.float() * field, scan.grid), mask)
    left = (field * own / found)[mask].log()
    return {"field_before": float(field[mask].log().std()), "field_after": float(left.std())}


def known_field(scan: Volume, rng: np.random.Generator) -> Tensor:
    """[D, H, W]: the exponential of a quadratic polynomial with random coefficients, in the box."""
    place = (centres_mm(scan.grid) - torch.from_numpy(scan.grid.centre_mm)) / 100.0
    linear, square = rng.normal(0, FIELD_SIGMA, (2, 3))
    log = place @ torch.from_numpy(linear) + (place**2) @ torch.from_numpy(square)
    return log.exp().float()


def of_mask(scan: Volume, mask: Tensor) -> Mapping[str, float]:
    """What deepbet takes for brain in a scan that was stripped by others, beside their mask."""
    found = brain_mask(scan, DEEPBET)
    overlap = dice(mask.numpy().astype(np.uint8), found.numpy().astype(np.uint8), 1)
    return {
        "dice": overlap, "brain_ml": volume_ml(found, scan), "known_ml": volume_ml(mask, scan)
    }  # fmt: skip


PARTS: dict[str, Callable[[str, rows.Provenance], Iterable[Task]]] = {
    "known": of_known, "many": scale.of_many, "rate": scale.of_rate
}  # fmt: skip
