"""The tasks of the experiment, how measurements become rows, and which rows count."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd

from eval import rows
from eval.coders.base import timed
from eval.generation import novelty, opinion, parts, scans
from eval.generation.arms import ANATOMY, autoencoder, flow_seed
from eval.generation.pieces import Piece
from eval.generation.samplers import sampler
from eval.generation.sizes import Sizes, sizes
from eval.generation.volumes import grid
from eval.runner import Task, parts_option
from medil.data.samples import label_map_paths
from medil.diffusion.latents import SEEDS, VERSION, latent_box
from medil.errors import InputError

NAME = "generation"
PARTS = {
    "sets": parts.of_sets, "scans": scans.of_scans, "control": parts.of_control,
    "blur": parts.of_blur, "opinion": opinion.of_opinion, "novelty": novelty.of_novelty,
}  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    """Arms and parts, which this experiment can run alone."""
    parser.add_argument("--arms", nargs="+", default=(), help="some arms (all of the profile)")
    parts_option(parser, PARTS)


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


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """The experiment's tasks; autoencoders and samplers that are missing are trained first.

    Raises:
        InputError: No such profile, release, arm or part; no label maps; no released flow.
    """
    profile, size = options.profile, sizes(options.profile)
    arms = tuple(options.arms) or size.arms
    _check(options.release, arms, size)
    maps = [path.name for path in label_map_paths("test")]
    label_map_paths("train")
    data_sha256 = rows.digest([maps, SEEDS, VERSION, size.held_out])
    weights = {arm: rows.digest(weights_ids(arm, profile, size.seeds)) for arm in arms}
    counts = [size.held_out, size.training, size.samples, size.steps, size.values, size.repeats]

    def measurement(piece: Piece) -> rows.Measurement:
        config_hash = rows.digest([VERSION, parts.VERSION, counts, piece.condition])
        digests = config_hash, data_sha256, weights.get(piece.arm, rows.NO_WEIGHTS)
        return rows.Measurement(NAME, piece.subject, piece.arm, piece.condition, *digests)

    cells = latent_box(autoencoder(ANATOMY, profile).config.latent_spacing_mm)
    numbers = autoencoder(ANATOMY, profile).config.latent_channels * cells.n_voxels
    sampling = rows.Sampling.of(grid(), grid(), numbers)
    made = []
    for part in options.parts:
        for name, pieces, measure in PARTS[part](profile, size, arms):
            wanted = [(measurement(piece), piece.units) for piece in pieces]
            work = partial(rows_of, wanted, measure, sampling, provenance)
            made.append(Task(name, rows.identities(wanted), work))
    return made


def weights_ids(arm: str, profile: str, sets: int) -> tuple[str, ...]:
    """Digests of an arm's autoencoder and of all its flows, which are trained if missing."""
    seeds = dict.fromkeys(flow_seed(arm, k) for k in range(sets))
    flows = (sampler(arm, profile, seed).weights_id for seed in seeds)
    return autoencoder(arm, profile).weights_id, *flows


def _check(release: str, arms: Sequence[str], size: Sizes) -> None:
    if release != "tiny":
        raise InputError(f"flows are compared on the released weights tiny, not {release!r}.")
    if unknown := [arm for arm in arms if arm not in size.arms]:
        raise InputError(f"there is no {unknown[0]!r} here; choose from {', '.join(size.arms)}.")


def rows_of(
    pieces: Sequence[tuple[rows.Measurement, Mapping[str, str]]],
    measure: Callable[[], Sequence[Mapping[str, float]]],
    sampling: rows.Sampling,
    provenance: rows.Provenance,
) -> list[rows.Row]:
    """Measure, and give a row for each metric of each piece, whose units are given."""
    results, took_s = timed(measure)
    return [
        row
        for (piece, units), values in zip(pieces, results, strict=True)
        for row in piece.rows(values, units, sampling, took_s / len(pieces), provenance)
    ]
