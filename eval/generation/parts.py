"""Three of the four parts: sets against held-out heads, control, and what blur does to diversity.

The fourth, scans of maps, is `eval.generation.scans`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
import torch

from eval.generation import scans, sets
from eval.generation.arms import (
    ALIKE,
    ANATOMY,
    ARMS,
    CODECS,
    IMAGE,
    autoencoder,
    autoencoders,
    flow_seed,
)
from eval.generation.pieces import Found, Piece, Share
from eval.generation.rulers import measure_attributes
from eval.generation.samplers import render, sampler, training_cost
from eval.generation.sets import Volumes
from eval.generation.sizes import Sizes
from eval.generation.volumes import (
    Heads,
    averaged,
    grid,
    held_out,
    of_one_map,
    rebuilt,
    sampled,
    spread_values,
    training,
)
from eval.metrics.sets import ms_ssim_diversity
from eval.subjects import held_out_brains, name_of
from medil.anatomy.segmenter import segment
from medil.data.manifest import fetch
from medil.data.schema import Entry
from medil.diffusion.latents import latent_box
from medil.diffusion.scans import box_around, brain_middle_mm, known_of
from medil.io.intensity import robust_intensity
from medil.regrid import cell_average
from medil.synth.attributes import ATTRIBUTES
from medil.synth.box import box_grid
from medil.volume import Volume, load

VERSION = 1  # raise it when a measurement changes
HELD_OUT, TRAINING, RULER = "held-out", "training", "ruler"
RULERS = {HELD_OUT: "held-out heads", TRAINING: "training heads", RULER: "the ruler itself"}
SAMPLED, REBUILT, ANOTHER = "sampled, 2 mm", "rebuilt, 2 mm", "another set, 2 mm"
COPIES, RENDERINGS = "copies, 2 mm", "one latent at 1 mm and 2 mm"
ONE_MAP = "sampled of one map, 2 mm"
BLURS_MM = (0.0, 0.5, 1.0, 1.5, 2.0)
PLAIN, MATCHED = "sharpness as it is", "at the sharpness of "
N_COPIES = 4
N_OF_ONE_MAP = 6
CONTROL_SEED = 90
REAL = "real brains"  # whose volumes are the segmenter's, not the truth
MEASURED = tuple(name for name in ATTRIBUTES if name != "spacing")
UNITS_RENDERINGS = {"renderings_rms": "1", "samples_rms": "1", "renderings_ratio": "1"}
UNITS_ONE_MAP = {"ms_ssim": "1"}
UNITS_TRAINING = {"training_steps": "1", "training_min": "min"}
UNITS_BLURRED = {"blur_mm": "mm", **sets.UNITS}


def set_name(n: int, seed: int | None = None) -> str:
    """A set's name in rows."""
    return f"set of {n}" + ("" if seed is None else f", seed {seed}")


# Sets


def of_sets(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """Sets against held-out heads, copies, samples of one map, two renderings of one latent."""
    n, scored = size.held_out, {**sets.UNITS, **sets.COPIES}
    own = {**scored, **UNITS_TRAINING}
    yield (
        "held-out heads",
        [
            Piece(set_name(n), HELD_OUT, ANOTHER, scored),
            Piece(set_name(n), TRAINING, ANOTHER, sets.UNITS),
            Piece(set_name(N_COPIES), TRAINING, COPIES, sets.COPIES),
        ],
        partial(_rulers, profile, size),
    )
    for arm in autoencoders(arms):
        again = Piece(set_name(n), arm, REBUILT, sets.UNITS)
        yield f"{arm}, rebuilt", [again], partial(_rebuilt, arm, profile, n)
    for seed in range(size.seeds):
        for arm in arms:
            piece = Piece(set_name(size.samples, seed), arm, SAMPLED, own)
            work = partial(_sampled, arm, profile, size, seed)
            yield f"{arm}, seed {seed}", [piece], work
    for arm in arms:
        if ARMS[arm].has_map:
            piece = Piece(set_name(N_OF_ONE_MAP, 0), arm, ONE_MAP, UNITS_ONE_MAP)
            yield f"{arm}, one map", [piece], partial(_of_one_map, arm, profile, n)
        if ARMS[arm].released:
            pair = Piece(set_name(2, 0), arm, RENDERINGS, UNITS_RENDERINGS)
            yield f"{arm}, renderings", [pair], partial(_renderings, arm, profile, size)


def _scored(volumes: Volumes, n: int) -> dict[str, float]:
    reference, mask = _reference(n)
    return sets.compare(reference, sets.describe(volumes), volumes, mask)


@lru_cache(1)
def _reference(n: int) -> tuple[sets.Description, np.ndarray]:
    """The first n held-out heads in numbers, and the mask of all MS-SSIM."""
    volumes = held_out(n).volumes
    return sets.describe(volumes), sets.common_mask(volumes)


def _rulers(profile: str, size: Sizes) -> Found:
    n, learned = size.held_out, training(size.training).volumes
    others = held_out(n, n).volumes
    copies = rebuilt(ANATOMY, profile, N_COPIES, "train").volumes
    return [
        _scored(others, n) | sets.memorisation(others, learned),
        _scored(learned[:n], n),
        sets.memorisation(copies, learned),
    ]


def _rebuilt(arm: str, profile: str, n: int) -> Found:
    return [_scored(rebuilt(arm, profile, n).volumes, n)]


def _sampled(arm: str, profile: str, size: Sizes, seed: int) -> Found:
    volumes = sampled(arm, profile, seed, size.samples).volumes
    near = sets.memorisation(volumes, training(size.training).volumes)
    cost = training_cost(sampler(arm, profile, flow_seed(arm, seed)))
    return [_scored(volumes, size.held_out) | near | cost]


def _of_one_map(arm: str, profile: str, n: int) -> Found:
    volumes, (_, mask) = of_one_map(arm, profile, N_OF_ONE_MAP).volumes, _reference(n)
    return [{"ms_ssim": ms_ssim_diversity(list(volumes), mask, sets.MOST_PAIRS)}]


def _renderings(arm: str, profile: str, size: Sizes) -> Found:
    heads = sampled(arm, profile, 0, size.samples)
    model = autoencoder(arm, profile)
    where = latent_box(model.config.latent_spacing_mm)
    assert heads.latents is not None
    fine = [
        averaged(render(model, torch.from_numpy(z), where, box_grid(1.0)), grid().shape)
        for z in heads.latents[:2]
    ]
    if ARMS[arm].has_map:  # its scans are stripped
        fine = [np.where(own == 0, 0, z) for own, z in zip(heads.volumes, fine, strict=False)]
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


def of_control(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """Requested against measured values; first the ruler, on heads whose truth is known."""
    for name, first in (("held-out", 0), ("another set", size.held_out)):
        pieces = [
            Piece(f"head {first + k:03d}", RULER, f"{attribute}, {name}", _pair(attribute))
            for k in range(size.held_out) for attribute in MEASURED
        ]  # fmt: skip
        yield f"ruler, {name}", pieces, partial(_ruler, size.held_out, first)
    for entry in held_out_brains():
        pieces = [
            Piece(name_of(entry), RULER, f"{attribute}, {REAL}", _pair(attribute))
            for attribute in MEASURED
        ]
        yield f"ruler, {name_of(entry)}", pieces, partial(_real_ruler, entry)
    if ANATOMY in arms:
        yield from scans.of_asked(size, _pair("ventricles"))
    if IMAGE not in arms:
        return
    middle = size.weights[len(size.weights) // 2]
    wanted = [("ventricles", weight) for weight in size.weights]
    wanted += [(attribute, middle) for attribute in size.others]
    for attribute, weight in wanted:
        name = f"{attribute}, guidance {weight:g}"
        pieces = [
            Piece(f"sample {k:03d}", IMAGE, name, _pair(attribute))
            for k in range(size.values * size.repeats)
        ]
        yield name, pieces, partial(_controlled, profile, size, attribute, weight)


def _pair(attribute: str) -> dict[str, str]:
    return dict.fromkeys(("asked", "measured"), ATTRIBUTES[attribute].unit)


def _ruler(n: int, first: int) -> Found:
    return _measured(held_out(n, first), MEASURED)


def _real_ruler(entry: Entry) -> Found:
    """The ruler on a real brain, beside what is counted in its segmentation."""
    volume = load(fetch(entry))
    box = box_around(volume.grid, brain_middle_mm(volume))
    at_1_mm = cell_average(volume.data.double().numpy(), volume.grid, box)
    scan = Volume(torch.from_numpy(at_1_mm).float(), box)
    known = known_of(volume, segment(scan), at_1_mm)
    scaled = robust_intensity(scan.data).forward(scan.data)
    seen = measure_attributes(averaged(scaled.numpy(), grid().shape))
    return [{"asked": known[name], "measured": seen[name]} for name in MEASURED]


def _controlled(profile: str, size: Sizes, attribute: str, weight: float) -> Found:
    values = spread_values(profile, attribute)
    requests = [{attribute: v} for v in values] * size.repeats
    heads = sampled(IMAGE, profile, CONTROL_SEED, len(requests), weight, requests)
    return _measured(heads, [attribute])


def _measured(heads: Heads, attributes: Sequence[str]) -> Found:
    measured = [measure_attributes(volume) for volume in heads.volumes]
    return [
        {"asked": known[a], "measured": seen[a]}
        for known, seen in zip(heads.known, measured, strict=True) for a in attributes
    ]  # fmt: skip


# Diversity against sharpness


def of_blur(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """A held-out set after known blurs, and pairs of sets brought to one sharpness."""
    pieces = [
        Piece(set_name(size.held_out), HELD_OUT, blur_name(s), UNITS_BLURRED) for s in BLURS_MM
    ]
    yield "blurred", pieces, partial(_blurred, size.held_out)
    for sharp, soft in pairs(arms):
        piece = Piece(set_name(size.samples, 0), sharp, MATCHED + soft, UNITS_BLURRED)
        work = partial(_matched, sharp, soft, profile, size)
        yield f"{sharp} and {soft}", [piece], work


def pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """(sharp, soft) sets: held-out heads are blurred to match arms; arms to match each other.

    The latter are those of autoencoders trained alike.
    """
    found = [(HELD_OUT, arm) for arm in arms if arm not in ALIKE]
    return found + [(a, b) for a in arms for b in arms if a != b and {a, b} <= set(CODECS)]


def blur_name(sigma_mm: float) -> str:
    """The condition of a held-out set after a Gaussian."""
    return f"blurred by {sigma_mm:g} mm" if sigma_mm else PLAIN


def _blurred(n: int) -> Found:
    others = held_out(n, n).volumes
    return [_scored_blurred(others, sigma_mm, n) for sigma_mm in BLURS_MM]


def _matched(sharp: str, soft: str, profile: str, size: Sizes) -> Found:
    n = size.held_out
    ours = held_out(n, n) if sharp == HELD_OUT else sampled(sharp, profile, 0, size.samples)
    theirs = sets.describe(sampled(soft, profile, 0, size.samples).volumes)
    sigma_mm = sets.blur_to_match(ours.volumes, float(theirs.power[:, sets.SHARP_BAND].mean()))
    return [_scored_blurred(ours.volumes, sigma_mm, n)]


def _scored_blurred(volumes: np.ndarray, sigma_mm: float, n: int) -> dict[str, float]:
    return {"blur_mm": sigma_mm, **_scored(sets.blurred(volumes, sigma_mm), n)}
