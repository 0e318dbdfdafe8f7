"""The tasks of the experiment, how measurements become rows, and which rows count."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from eval import rows
from eval.generation import parts
from eval.generation.autoencoders import FOLDER, RELEASE, autoencoder
from eval.generation.flows import flow
from eval.generation.parts import Piece
from eval.generation.sizes import Sizes, sizes
from eval.generation.volumes import grid
from eval.runner import Task
from medil.diffusion.latents import SEEDS, VERSION, label_maps
from medil.errors import InputError

NAME = "generation"
PARTS = {"sets": parts.of_sets, "control": parts.of_control, "blur": parts.of_blur}


@dataclass(frozen=True)
class About:
    """Facts that all rows of a run share.

    Args:
        profile: Size of the run.
        folder: Of weights, heads and sets.
        data_sha256: Of the recipe of the held-out heads.
        weights: Arm to the digest of its autoencoder and flow; others have none.
        numbers_kept: Of a latent.
        provenance: Of this run.
    """

    profile: str
    folder: Path
    data_sha256: str
    weights: Mapping[str, str]
    numbers_kept: int
    provenance: rows.Provenance


def options(parser: argparse.ArgumentParser) -> None:
    """Arms and parts, which this experiment can run alone."""
    parser.add_argument("--arms", nargs="+", default=(), help="some arms (all of the profile)")
    parser.add_argument(
        "--parts", nargs="+", default=tuple(PARTS), help=f"of {', '.join(PARTS)} (all)"
    )


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Columns `what`, `how` and `matched_to` of each condition.

    ``ventricles, guidance 2``: what and how; ``at the sharpness of integrated``: matched_to.
    Factors that a condition lacks are empty.
    """
    split = conditions.str.partition(", ")
    matched = conditions.where(conditions.str.startswith(parts.MATCHED), "")
    return pd.DataFrame(
        {"what": split[0], "how": split[2], "matched_to": matched.str[len(parts.MATCHED) :]}
    )


def largest_profile(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest rows, of the largest sets where profiles were mixed."""
    frame = frame[frame["experiment"] == NAME]
    profile = "gpu" if (frame["profile"] == "gpu").any() else frame["profile"].iloc[-1]
    return rows.latest(frame[frame["profile"] == profile])


def tasks(
    options: argparse.Namespace, provenance: rows.Provenance, folder: Path = FOLDER
) -> list[Task]:
    """The experiment's tasks; autoencoders and samplers that are missing are trained first.

    Raises:
        InputError: No such profile, release, arm or part; no label maps; no released flow.
    """
    profile, size = options.profile, sizes(options.profile)
    arms = tuple(options.arms) or size.arms
    _check(options.release, arms, size, options.parts)
    maps = [path.name for path in label_maps("test")]
    label_maps("train")
    about = About(
        profile,
        folder,
        rows.digest([maps, SEEDS, VERSION, size.held_out]),
        {arm: _weights(arm, profile, folder) for arm in arms},
        flow(RELEASE, profile).mean.numel(),
        provenance,
    )
    return [
        _task(about, *share)
        for part in options.parts
        for share in PARTS[part](profile, size, arms, folder)
    ]


def _check(release: str, arms: Sequence[str], size: Sizes, chosen: Sequence[str]) -> None:
    if release != "tiny":
        raise InputError(f"flows are compared on the released weights tiny, not {release!r}.")
    for name, known in [(a, size.arms) for a in arms] + [(p, PARTS) for p in chosen]:
        if name not in known:
            raise InputError(f"there is no {name!r} here; choose from {', '.join(known)}.")


def _weights(arm: str, profile: str, folder: Path) -> str:
    """One digest of the weights of an arm's autoencoder and flow."""
    pair = autoencoder(arm, profile, folder).weights_id, flow(arm, profile, folder).weights_id
    return rows.digest(pair)


def _config(about: About, piece: Piece) -> str:
    size = sizes(about.profile)
    counts = [size.held_out, size.training, size.samples, size.steps, size.values, size.repeats]
    return rows.digest([VERSION, parts.VERSION, counts, piece.condition])


def _task(
    about: About,
    name: str,
    pieces: Sequence[Piece],
    measure: Callable[[], Sequence[Mapping[str, float]]],
) -> Task:
    wanted = frozenset(
        (NAME, p.subject, p.arm, p.condition, metric, _config(about, p), about.data_sha256,
         about.weights.get(p.arm, rows.NO_WEIGHTS))
        for p in pieces for metric in p.units
    )  # fmt: skip
    return Task(name, wanted, partial(rows_of, about, tuple(pieces), measure))


def rows_of(
    about: About, pieces: Sequence[Piece], measure: Callable[[], Sequence[Mapping[str, float]]]
) -> list[rows.Row]:
    """Measure, and give a row for each metric of each piece."""
    began = time.perf_counter()
    results = measure()
    took_s = (time.perf_counter() - began) / len(pieces)
    text, n_voxels = rows.spacing_text(grid()), grid().n_voxels
    made = []
    for piece, values in zip(pieces, results, strict=True):
        made += rows.of_values(
            values, piece.units, experiment=NAME, subject=piece.subject, arm=piece.arm,
            condition=piece.condition, spacing_in_mm=text, spacing_out_mm=text,
            numbers_kept=about.numbers_kept, n_voxels=n_voxels,
            config_hash=_config(about, piece), data_sha256=about.data_sha256,
            weights_sha256=about.weights.get(piece.arm, rows.NO_WEIGHTS), time_s=took_s,
            provenance=about.provenance,
        )  # fmt: skip
    return made
