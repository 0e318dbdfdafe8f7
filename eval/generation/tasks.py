"""What is measured in which task, and how findings become rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eval import rows
from eval.generation import parts
from eval.generation.autoencoders import FOLDER, RELEASE, autoencoder
from eval.generation.flows import flow
from eval.generation.parts import Piece
from eval.generation.sizes import EXPERIMENT, Sizes, sizes
from eval.generation.volumes import grid
from eval.runner import Task
from medil.diffusion.latents import SEEDS, VERSION, label_maps
from medil.errors import InputError

PARTS = ("sets", "control", "blur")


@dataclass(frozen=True)
class About:
    """What all rows of a run share.

    Args:
        profile: How much is run.
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


def tasks(
    profile: str,
    release: str,
    provenance: rows.Provenance,
    arms: Sequence[str] = (),
    chosen: Sequence[str] = PARTS,
    folder: Path = FOLDER,
) -> list[Task]:
    """The experiment's tasks; autoencoders and flows that are missing are trained first.

    Args:
        profile: One of `eval.generation.sizes.SIZES`.
        release: Released weights, by name.
        provenance: Of this run.
        arms: Those of the profile when empty.
        chosen: Of `PARTS`.
        folder: Of weights, heads and sets.

    Returns:
        Tasks for `eval.runner.run`.

    Raises:
        InputError: No such profile, release, arm or part; no label maps; no released flow.
    """
    size = sizes(profile)
    arms = tuple(arms) or size.arms
    _check(release, arms, size, chosen)
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
    made = {"sets": parts.of_sets, "control": parts.of_control, "blur": parts.of_blur}
    return [
        _task(about, *share) for part in chosen for share in made[part](profile, size, arms, folder)
    ]


def _check(release: str, arms: Sequence[str], size: Sizes, chosen: Sequence[str]) -> None:
    if release != "tiny":
        raise InputError(f"flows are compared on the released weights tiny, not {release!r}.")
    for name, known in [(a, size.arms) for a in arms] + [(p, PARTS) for p in chosen]:
        if name not in known:
            raise InputError(f"there is no {name!r} here; choose from {', '.join(known)}.")


def _weights(arm: str, profile: str, folder: Path) -> str:
    """Of autoencoder and flow together."""
    pair = autoencoder(arm, profile, folder).weights_id, flow(arm, profile, folder).weights_id
    return rows.digest(pair)


def _config(about: About, piece: Piece) -> str:
    size = sizes(about.profile)
    counts = [size.held_out, size.training, size.samples, size.steps, size.asked, size.each]
    return rows.digest([VERSION, parts.VERSION, counts, piece.condition])


def _task(
    about: About,
    name: str,
    pieces: Sequence[Piece],
    measure: Callable[[], Sequence[Mapping[str, float]]],
) -> Task:
    wanted = frozenset(
        (EXPERIMENT, p.subject, p.arm, p.condition, metric, _config(about, p), about.data_sha256,
         about.weights.get(p.arm, rows.NO_WEIGHTS))
        for p in pieces for metric in p.units
    )  # fmt: skip
    return Task(name, wanted, partial(rows_of, about, tuple(pieces), measure))


def rows_of(
    about: About, pieces: Sequence[Piece], measure: Callable[[], Sequence[Mapping[str, float]]]
) -> list[rows.Row]:
    """Measure, and give a row for each metric of each piece."""
    began = time.perf_counter()
    found = measure()
    took_s = (time.perf_counter() - began) / len(pieces)
    text, n_voxels = rows.spacing_text(grid()), grid().n_voxels
    made = []
    for piece, values in zip(pieces, found, strict=True):
        made += rows.of_values(
            values, piece.units, experiment=EXPERIMENT, subject=piece.subject, arm=piece.arm,
            condition=piece.condition, spacing_in_mm=text, spacing_out_mm=text,
            numbers_kept=about.numbers_kept, n_voxels=n_voxels,
            config_hash=_config(about, piece), data_sha256=about.data_sha256,
            weights_sha256=about.weights.get(piece.arm, rows.NO_WEIGHTS), time_s=took_s,
            provenance=about.provenance,
        )  # fmt: skip
    return made
