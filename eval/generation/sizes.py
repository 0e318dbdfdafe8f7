"""Sizes of the experiment in each profile."""

from __future__ import annotations

from dataclasses import dataclass

from eval.generation.arms import ANATOMY, ARMS, IMAGE
from medil.errors import InputError


@dataclass(frozen=True)
class Sizes:
    """Sizes of one profile."""

    arms: tuple[str, ...]  # of `eval.generation.arms.ARMS`
    held_out: int  # heads in each of the two held-out sets
    training: int  # synthetic heads on which flows are trained, and which no sample must copy
    samples: int  # a set; equal to `held_out`, since distances between sets depend on n
    seeds: int  # sets of samples for each arm
    steps: int  # along the flow
    values: int  # requested of an attribute, between its 5th and 95th percentile
    repeats: int  # samples for each of them
    weights: tuple[float, ...]  # of guidance
    others: tuple[str, ...]  # attributes beside the ventricles, requested at the middle weight
    anatomy_steps: int  # of training a flow that is given maps
    image_steps: int  # of training a flow without: the same minutes, 8 of one CPU thread in "gpu"
    scans: int  # of drawn maps that a segmenter reads


SIZES = {
    "quick": Sizes(
        (ANATOMY, IMAGE), 10, 16, 10, 1, 10, 4, 1, (1.0,), (), 0, 0, 1
    ),
    "gpu": Sizes(
        tuple(ARMS), 16, 64, 16, 3, 20, 5, 3, (1.0, 3.0), ("brain",), 560, 315, 8
    ),
    "paper": Sizes(
        tuple(ARMS), 100, 960, 100, 5, 50, 9, 10, (1.0, 1.5, 2.0, 3.0, 4.0),
        ("brain", "contrast"), 20000, 11250, 50,
    ),
}  # fmt: skip


def sizes(profile: str) -> Sizes:
    """The sizes of a profile.

    Raises:
        InputError: No such profile.
    """
    if profile not in SIZES:
        raise InputError(f"there is no profile {profile!r}; choose from {', '.join(SIZES)}.")
    return SIZES[profile]
