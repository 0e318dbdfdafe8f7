"""Codes that learn nothing, on the ablation's blocks, with as many numbers as the latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from eval import rows
from eval.ablation.blocks import FINER, WHOLE, Question
from eval.ablation.score import DEFINITION, METRICS, measurement, score_rows, scores
from eval.arms.catalogue import OWN, Size, sized
from eval.coders import neighbours
from eval.coders.lapped import lapped
from eval.runner import Task
from medil.model.codecs import LINEAR_CODECS, ORACLE_CODECS, Codec
from medil.regrid import resample

CODECS: dict[str, Codec] = LINEAR_CODECS | {"lapped": lapped} | ORACLE_CODECS
CODED = (*CODECS, neighbours.NAME)
INTERPOLATION = "cubic interpolation"
BEST_LINEAR = "best linear codec"


def codec_hash(name: str, size: Size, places: int) -> str:
    """Digest of what a codec's numbers depend on."""
    fit = [neighbours.fitted_sha256()] if name == neighbours.NAME else []
    return rows.digest([name, *size, places, DEFINITION, *fit])


def codec_tasks(
    blocks: Sequence[Question], sizes: Sequence[Size], places: int, provenance: rows.Provenance
) -> list[Task]:
    """One task a codec, latent size and subject, and interpolation where detail is missing.

    A codec is left out where the latent has about as many numbers as the block has voxels,
    since it then copies, and `neighbours` at sizes that it is not fitted for.
    """
    tasks = []
    for subject in dict.fromkeys(q.subject for q in blocks):
        own = [q for q in blocks if q.subject == subject and q.condition != WHOLE]
        for size in sizes:
            numbers = partial(Question.latent_numbers, size=size)
            fit = [q for q in own if q.condition != FINER and numbers(q) < 0.8 * q.grid.n_voxels]
            for codec in CODED if size == neighbours.SIZE else CODECS:
                hashed, rebuild = codec_hash(codec, size, places), partial(_coded, codec, size)
                tasks.append(_task(fit, sized(codec, size), hashed, rebuild, numbers, provenance))
        finer = [q for q in own if q.condition == FINER]
        hashed = codec_hash(INTERPOLATION, OWN, places)
        tasks.append(_task(finer, INTERPOLATION, hashed, _interpolated, _voxels, provenance))
    return [task for task in tasks if task.wanted]


def _task(
    blocks: Sequence[Question], name: str, hashed: str, rebuild: Callable, numbers: Callable,
    provenance: rows.Provenance,
) -> Task:  # fmt: skip
    wanted = rows.identities(
        (measurement(q, name, q.condition, hashed, rows.NO_WEIGHTS), METRICS) for q in blocks
    )

    def measure() -> list[rows.Row]:
        scored = scores(blocks, rebuild)
        return score_rows(name, "", scored, numbers, hashed, rows.NO_WEIGHTS, provenance)

    return Task(name, wanted, measure)


def _voxels(question: Question) -> int:
    return question.grid.n_voxels


def _coded(codec: str, size: Size, question: Question) -> np.ndarray:
    data, grid = question.x.double().numpy(), question.grid
    if codec == neighbours.NAME:
        cells = grid.resized(question.latent_grid(size[0]).shape)  # all of them in the block
        kept = neighbours.coefficients(data, grid, cells)
        return neighbours.render(kept, cells, neighbours.fitted(), grid)
    return CODECS[codec](data, grid, question.latent_numbers(size)).reconstruction


def _interpolated(question: Question) -> np.ndarray:
    return resample(question.x.double().numpy(), question.grid, question.target)
