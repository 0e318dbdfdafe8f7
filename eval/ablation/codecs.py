"""Codes that learn nothing, on the ablation's blocks, with as many numbers as the latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval import rows
from eval.ablation.blocks import FINER, WHOLE, Question
from eval.ablation.score import DEFINITION, EXPERIMENT, METRICS, scores, snapshot_rows
from eval.coders.lapped import lapped
from medil.model.codecs import LINEAR_CODECS, ORACLE_CODECS, Codec
from medil.regrid import resample

CODECS: dict[str, Codec] = LINEAR_CODECS | {"lapped": lapped} | ORACLE_CODECS
LATENT_MM, LATENT_CHANNELS = 4.0, 8  # what the codecs' size is taken from
INTERPOLATION = "cubic interpolation"


def record_codecs(
    found: Sequence[Question], places: int, path: Path, provenance: rows.Provenance
) -> int:
    """Score every codec, and interpolation where detail is missing, on blocks not yet recorded.

    A codec is left out where the latent has about as many numbers as the block has voxels,
    since it then copies.
    """
    recorded, added = rows.recorded_identities(path), 0

    def numbers(q: Question) -> int:
        return LATENT_CHANNELS * q.latent_grid(LATENT_MM).n_voxels

    def interpolate(q: Question) -> np.ndarray:
        return resample(q.x.double().numpy(), q.grid, q.target)

    jobs: dict[str, tuple[Callable, list[Question], Callable]] = {
        name: (
            lambda q, codec=codec: codec(q.x.double().numpy(), q.grid, numbers(q)).reconstruction,
            [q for q in found if q.condition not in (FINER, WHOLE)
             and numbers(q) < 0.8 * q.grid.n_voxels],
            numbers,
        )
        for name, codec in CODECS.items()
    }  # fmt: skip
    finer = [q for q in found if q.condition == FINER]
    jobs[INTERPOLATION] = (interpolate, finer, lambda q: q.grid.n_voxels)
    for name, (rebuild, blocks, numbers_of) in tqdm(jobs.items(), desc="codecs", unit="codec"):
        hashed = rows.digest([name, LATENT_MM, LATENT_CHANNELS, places, DEFINITION])
        fresh = [
            q for q in blocks
            if (EXPERIMENT, q.subject, name, q.condition, METRICS[-1], hashed, q.data_sha256, "")
            not in recorded
        ]  # fmt: skip
        made = snapshot_rows(name, "", scores(fresh, rebuild), numbers_of, hashed, "", provenance)
        added += rows.append_rows(path, made)
    return added
