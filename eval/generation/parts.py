"""The three parts: sets against held-out heads, control, and what blur does to diversity.

Each part yields units of work: a name, its pieces, and the function that measures them. A piece
is one set or one sample, and gives a row per metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from eval.generation import copies as memory
from eval.generation import sets
from eval.generation.autoencoders import RELEASE, RELEASED, autoencoder
from eval.generation.flows import flow, render
from eval.generation.rulers import measure_attributes
from eval.generation.sets import Volumes
from eval.generation.sizes import Sizes
from eval.generation.volumes import (
    Heads,
    averaged,
    copies,
    grid,
    held_out,
    rebuilt,
    sampled,
    spread_values,
    training,
)
from medil.diffusion.latents import box_grid
from medil.synth.attributes import ATTRIBUTES

VERSION = 1  # raise it when a measurement changes
HELD_OUT, TRAINING, RULER = "held-out", "training", "ruler"
RULERS = {HELD_OUT: "held-out heads", TRAINING: "training heads", RULER: "the ruler itself"}
SAMPLED, REBUILT, ANOTHER = "sampled, 2 mm", "rebuilt, 2 mm", "another set, 2 mm"
COPIES, RENDERINGS = "copies, 2 mm", "one latent at 1 mm and 2 mm"
BLURS_MM = (0.0, 0.5, 1.0, 1.5, 2.0)
PLAIN, MATCHED = "sharpness as it is", "at the sharpness of "
N_COPIES = 4
CONTROL_SEED = 90
MEASURED = tuple(name for name in ATTRIBUTES if name != "spacing")
UNITS_RENDERINGS = {"renderings_rms": "1", "samples_rms": "1", "renderings_ratio": "1"}
UNITS_BLURRED = {"blur_mm": "mm", **sets.UNITS}
Found = list[dict[str, float]]


@dataclass(frozen=True)
class Piece:
    """One set or sample under one condition, and the units of what is measured of it."""

    subject: str
    arm: str
    condition: str
    units: Mapping[str, str]


Share = tuple[str, list[Piece], Callable[[], Found]]


def set_name(n: int, seed: int | None = None) -> str:
    """A set's name in rows."""
    return f"set of {n}" + ("" if seed is None else f", seed {seed}")


# Sets


def of_sets(profile: str, size: Sizes, arms: Sequence[str], folder: Path) -> Iterator[Share]:
    """Sets against held-out heads, copies, and two renderings of one latent."""
    n, scored = size.held_out, {**sets.UNITS, **memory.UNITS}
    yield (
        "held-out heads",
        [
            Piece(set_name(n), HELD_OUT, ANOTHER, scored),
            Piece(set_name(n), TRAINING, ANOTHER, sets.UNITS),
            Piece(set_name(N_COPIES), TRAINING, COPIES, memory.UNITS),
        ],
        partial(_rulers, profile, size, folder),
    )
    for arm in arms:
        again = Piece(set_name(n), arm, REBUILT, sets.UNITS)
        yield f"{arm}, rebuilt", [again], partial(_rebuilt, arm, profile, n, folder)
        for seed in range(size.seeds):
            piece = Piece(set_name(size.samples, seed), arm, SAMPLED, scored)
            work = partial(_sampled, arm, profile, size, seed, folder)
            yield f"{arm}, seed {seed}", [piece], work
        pair = Piece(set_name(2, 0), arm, RENDERINGS, UNITS_RENDERINGS)
        yield f"{arm}, renderings", [pair], partial(_renderings, arm, profile, size, folder)


def learned_from(arm: str, size: Sizes) -> int:
    """How many of its training heads an arm's samples are compared with."""
    return size.release_training if arm in RELEASED else size.training


def _scored(heads: Heads, n: int, folder: Path) -> dict[str, float]:
    reference, mask = _reference(n, folder)
    return sets.compare(reference, sets.describe(heads.volumes), heads.volumes, mask)


@lru_cache(1)
def _reference(n: int, folder: Path) -> tuple[sets.Description, np.ndarray]:
    """The first n held-out heads in numbers, and the mask of all MS-SSIM."""
    volumes = held_out(n, 0, folder).volumes
    return sets.describe(volumes), sets.common_mask(volumes)


def _rulers(profile: str, size: Sizes, folder: Path) -> Found:
    n, learned = size.held_out, training(size.release_training, folder)
    others = held_out(n, n, folder)
    ours = Heads(TRAINING, learned.volumes[:n], learned.known[:n])
    again = copies(profile, N_COPIES, folder)
    return [
        _scored(others, n, folder) | memory.memorisation(others.volumes, learned.volumes)[0],
        _scored(ours, n, folder),
        memory.memorisation(again.volumes, learned.volumes)[0],
    ]


def _rebuilt(arm: str, profile: str, n: int, folder: Path) -> Found:
    return [_scored(rebuilt(arm, profile, n, folder), n, folder)]


def _sampled(arm: str, profile: str, size: Sizes, seed: int, folder: Path) -> Found:
    heads = sampled(arm, profile, seed, size.samples, folder=folder)
    learned = training(learned_from(arm, size), folder).volumes
    values = _scored(heads, size.held_out, folder)
    return [values | memory.memorisation(heads.volumes, learned)[0]]


def _renderings(arm: str, profile: str, size: Sizes, folder: Path) -> Found:
    heads = sampled(arm, profile, 0, size.samples, folder=folder)
    model, where = autoencoder(arm, profile, folder), flow(arm, profile, folder).known.grid
    assert heads.latents is not None
    fine = [
        averaged(render(model, torch.from_numpy(z), where, box_grid(1.0)), grid().shape)
        for z in heads.latents[:2]
    ]
    return [renderings(heads.volumes[:2], fine)]


def renderings(coarse: Volumes, fine: Volumes) -> dict[str, float]:
    """RMS between two renderings of one latent, RMS between two samples, and their ratio.

    `fine` holds the samples of `coarse` rendered finer and averaged to the same grid.
    """
    same = np.sqrt(np.mean([np.mean((a - b) ** 2) for a, b in zip(coarse, fine, strict=True)]))
    apart = np.sqrt(np.mean((coarse[0] - coarse[1]) ** 2))
    ratio = apart / same if same > 0 else np.inf
    return {"renderings_rms": float(same), "samples_rms": float(apart), "renderings_ratio": ratio}


# Control


def of_control(profile: str, size: Sizes, arms: Sequence[str], folder: Path) -> Iterator[Share]:
    """Requested against measured values; first the ruler, on heads whose truth is known."""
    for name, first in (("held-out", 0), ("another set", size.held_out)):
        pieces = [
            Piece(f"head {first + k:03d}", RULER, control_name(attribute, name), _pair(attribute))
            for k in range(size.held_out) for attribute in MEASURED
        ]  # fmt: skip
        yield f"ruler, {name}", pieces, partial(_ruler, size.held_out, first, folder)
    if RELEASE not in arms:
        return
    middle = size.weights[len(size.weights) // 2]
    wanted = [("ventricles", weight) for weight in size.weights]
    wanted += [(attribute, middle) for attribute in size.others]
    for attribute, weight in wanted:
        where = control_name(attribute, f"guidance {weight:g}")
        pieces = [
            Piece(f"sample {k:03d}", RELEASE, where, _pair(attribute))
            for k in range(size.values * size.repeats)
        ]
        work = partial(_controlled, profile, size, attribute, weight, folder)
        yield f"{attribute}, guidance {weight:g}", pieces, work


def control_name(attribute: str, how: str) -> str:
    """The condition of control rows."""
    return f"{attribute}, {how}"


def _pair(attribute: str) -> dict[str, str]:
    unit = ATTRIBUTES[attribute].unit
    return {"asked": unit, "measured": unit}


def _ruler(n: int, first: int, folder: Path) -> Found:
    heads = held_out(n, first, folder)
    found = [measure_attributes(v) for v in heads.volumes]
    return [
        {"asked": known[a], "measured": seen[a]}
        for known, seen in zip(heads.known, found, strict=True) for a in MEASURED
    ]  # fmt: skip


def _controlled(profile: str, size: Sizes, attribute: str, weight: float, folder: Path) -> Found:
    values = spread_values(profile, attribute, folder)
    requests = [{attribute: v} for v in values] * size.repeats
    heads = sampled(RELEASE, profile, CONTROL_SEED, len(requests), weight, requests, folder=folder)
    seen = [measure_attributes(v)[attribute] for v in heads.volumes]
    return [
        {"asked": request[attribute], "measured": value}
        for request, value in zip(requests, seen, strict=True)
    ]


# Diversity against sharpness


def of_blur(profile: str, size: Sizes, arms: Sequence[str], folder: Path) -> Iterator[Share]:
    """A held-out set after known blurs, and pairs of sets brought to one sharpness."""
    pieces = [
        Piece(set_name(size.held_out), HELD_OUT, blur_name(s), UNITS_BLURRED) for s in BLURS_MM
    ]
    yield "blurred", pieces, partial(_blurred, size.held_out, folder)
    for sharp, soft in pairs(arms):
        piece = Piece(set_name(size.samples, 0), sharp, MATCHED + soft, UNITS_BLURRED)
        work = partial(_matched, sharp, soft, profile, size, folder)
        yield f"{sharp} and {soft}", [piece], work


def pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """(sharp, soft) sets: held-out heads are blurred to match each arm, arms to match others."""
    found = [(HELD_OUT, arm) for arm in arms]
    return found + [(a, b) for a in arms for b in arms if a != b and not {a, b} & set(RELEASED)]


def blur_name(sigma_mm: float) -> str:
    """The condition of a held-out set after a Gaussian."""
    return f"blurred by {sigma_mm:g} mm" if sigma_mm else PLAIN


def _blurred(n: int, folder: Path) -> Found:
    others = held_out(n, n, folder)
    return [{"blur_mm": s, **_scored(_softer(others, s), n, folder)} for s in BLURS_MM]


def _softer(heads: Heads, sigma_mm: float) -> Heads:
    return Heads(heads.name, sets.blurred(heads.volumes, sigma_mm), heads.known)


def _matched(sharp: str, soft: str, profile: str, size: Sizes, folder: Path) -> Found:
    ours = (
        held_out(size.held_out, size.held_out, folder)
        if sharp == HELD_OUT
        else sampled(sharp, profile, 0, size.samples, folder=folder)
    )
    theirs = sampled(soft, profile, 0, size.samples, folder=folder)
    aim = float(sets.describe(theirs.volumes).power[:, sets.SHARP_BAND].mean())
    sigma_mm = sets.blur_to_match(ours.volumes, aim)
    return [{"blur_mm": sigma_mm, **_scored(_softer(ours, sigma_mm), size.held_out, folder)}]
