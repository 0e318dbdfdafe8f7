"""A second opinion on sets: distances in features of LPIPS's trunk, which has seen photographs.

The features of `eval.metrics.sets` are ours; these are not. Where the trunk's weights are not on
this computer, the part is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import numpy as np

from eval.generation.arms import autoencoders
from eval.generation.parts import ANOTHER, HELD_OUT, REBUILT, SAMPLED, set_name
from eval.generation.pieces import Found, Piece, Share
from eval.generation.rulers import brain_mask
from eval.generation.sets import Volumes
from eval.generation.sizes import Sizes
from eval.generation.volumes import held_out, rebuilt, sampled
from eval.metrics.errors import peak_intensity
from eval.metrics.perceptual import network_or_none, trunk_features
from eval.metrics.sets import frechet, mmd, prdc

OPINION = ", LPIPS trunk"  # after a set's condition
UNITS = dict.fromkeys(("frechet", "mmd", "precision", "recall", "coverage"), "1")


def of_opinion(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """Each set against held-out heads once more."""
    if network_or_none() is None:
        return
    n = size.held_out
    piece = Piece(set_name(n), HELD_OUT, ANOTHER + OPINION, UNITS)
    yield "held-out heads, LPIPS trunk", [piece], partial(_another, n)
    for arm in autoencoders(arms):
        piece = Piece(set_name(n), arm, REBUILT + OPINION, UNITS)
        yield f"{arm}, rebuilt, LPIPS trunk", [piece], partial(_rebuilt, arm, profile, n)
    for arm in arms:
        for seed in range(size.seeds):
            piece = Piece(set_name(size.samples, seed), arm, SAMPLED + OPINION, UNITS)
            work = partial(_sampled, arm, profile, size, seed)
            yield f"{arm}, seed {seed}, LPIPS trunk", [piece], work


def _another(n: int) -> Found:
    return [compared(_reference(n), described(held_out(n, n).volumes))]


def _rebuilt(arm: str, profile: str, n: int) -> Found:
    return [compared(_reference(n), described(rebuilt(arm, profile, n).volumes))]


def _sampled(arm: str, profile: str, size: Sizes, seed: int) -> Found:
    volumes = sampled(arm, profile, seed, size.samples).volumes
    return [compared(_reference(size.held_out), described(volumes))]


@lru_cache(1)
def _reference(n: int) -> np.ndarray:
    return described(held_out(n).volumes)


def described(volumes: Volumes) -> np.ndarray:
    """[N, 1152]: the features of each volume of a set, over its own peak."""
    rows = []
    for volume in volumes:
        mask = brain_mask(volume)
        rows.append(trunk_features(volume, mask, peak_intensity(volume, mask)))
    return np.array(rows)


def compared(reference: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Distances of one table of features from another: the numbers of `UNITS`."""
    near = prdc(reference, own)
    found = {"frechet": frechet(reference, own), "mmd": mmd(reference, own), **near}
    return {name: found[name] for name in UNITS}
