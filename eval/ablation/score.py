"""Scores of a model or a codec on held-out blocks, as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from eval import metrics, rows
from eval.ablation.blocks import WHOLE, Question
from eval.coders.base import timed
from medil.model.base import LatentAutoencoder
from medil.system.device import network_precision

NAME = "ablation"
METRICS = ("psnr", "ssim", "hfen")
DEFINITION = {  # what the numbers mean; another meaning is another configuration
    "version": 1,
    "peak_percentile": metrics.PEAK_PERCENTILE,
    "ssim_sigma_vox": metrics.SSIM_SIGMA_VOX,
    "hfen_sigma_mm": metrics.HFEN_SIGMA_MM,
}
PATCH_MM, STRIDE_MM, INNER_MM = 24, 16, 4  # of patches that are compared with the whole block


@torch.inference_mode()
def answer(model: LatentAutoencoder, question: Question) -> np.ndarray:
    """[D', H', W'] float64: the block encoded and rendered, in the precision of the device."""
    device = model.device
    latent_grid = question.latent_grid(model.config.latent_spacing_mm)
    x = question.x[None, None].to(device)
    with network_precision(device):
        mean, _ = model.encode_tensor(x, question.grid, latent_grid)
        estimate = model.decode_tensor(mean, latent_grid, question.target)
    return estimate[0, 0].double().cpu().numpy()


def score(question: Question, estimate: np.ndarray) -> dict[str, float]:
    """The ablation's metrics inside the brain."""
    truth, mask = question.truth.double().numpy(), question.mask.numpy()
    peak = metrics.peak_intensity(truth, mask)
    return {
        "psnr": metrics.psnr(truth, estimate, mask, peak),
        "ssim": metrics.ssim(truth, estimate, mask, peak),
        "hfen": metrics.hfen(truth, estimate, mask, question.target.spacing_mm),
    }


@torch.inference_mode()
def patch_difference(model: LatentAutoencoder, question: Question) -> float:
    """How much patches encoded apart, without a halo, differ from the block encoded whole.

    RMS inside the brain and in the patches' inner voxels (`INNER_MM` from their faces), in
    percent of the block's peak. Voxels of 1 mm; latent cells of the patches and of the
    block coincide.
    """
    pitch_mm = model.config.latent_spacing_mm
    truth, mask = question.truth, question.mask.numpy()
    whole = answer(model, question)
    apart, seen = np.zeros_like(whole), np.zeros(mask.shape, dtype=bool)
    inner = slice(INNER_MM, INNER_MM + STRIDE_MM)
    corners = [range(0, n - PATCH_MM + 1, STRIDE_MM) for n in truth.shape]
    for start in np.stack(np.meshgrid(*corners), -1).reshape(-1, 3):
        box = tuple(slice(a, a + PATCH_MM) for a in start)
        grid = question.grid.crop(start.tolist(), (PATCH_MM,) * 3)
        a, b, c = (np.array(question.phase) + start / pitch_mm) % 1  # the block's own cells
        part = replace(
            question, x=truth[box], grid=grid, truth=truth[box], target=grid,
            mask=question.mask[box], phase=(a, b, c), side_mm=PATCH_MM,
        )  # fmt: skip
        place = tuple(slice(a + inner.start, a + inner.stop) for a in start)
        apart[place], seen[place] = answer(model, part)[inner, inner, inner], True
    counted = seen & mask
    peak = metrics.peak_intensity(truth.numpy(), mask)
    return float(100 * np.sqrt(np.mean((apart - whole)[counted] ** 2)) / peak)


Scores = dict[tuple[str, str], tuple[dict[str, float], Question, float]]


def scores(blocks: Sequence[Question], rebuild: Callable[[Question], np.ndarray]) -> Scores:
    """By subject and condition: the mean of each metric over blocks, one block, seconds."""
    grouped: dict[tuple[str, str], list[Question]] = {}
    for question in blocks:
        if question.condition != WHOLE:
            grouped.setdefault((question.subject, question.condition), []).append(question)
    result = {}
    for key, own in grouped.items():
        estimates: list[np.ndarray]
        estimates, time_s = timed(list, map(rebuild, own))
        each = [score(q, e) for q, e in zip(own, estimates, strict=True)]
        means = {m: float(np.mean([e[m] for e in each])) for m in METRICS}
        result[key] = (means, own[0], time_s)
    return result


# Rows


def score_rows(
    arm: str, budget: str, scored: Scores, numbers_of: Callable[[Question], int], config_hash: str,
    weights: str, provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Rows of one snapshot or, with an empty budget, of a codec."""
    made = []
    for means, q, time_s in scored.values():
        condition, numbers = f"{q.condition}, {budget}".removesuffix(", "), numbers_of(q)
        about = measurement(q, arm, condition, config_hash, weights)
        made += about.rows(means, metrics.UNITS, sampling(q, numbers), time_s, provenance)
    return made


def measurement(
    question: Question, arm: str, condition: str, config_hash: str, weights: str
) -> rows.Measurement:
    """One arm on the subject of a block."""
    digests = config_hash, question.data_sha256, weights
    return rows.Measurement(NAME, question.subject, arm, condition, *digests)


def sampling(question: Question, numbers: int) -> rows.Sampling:
    """Of a block of which so many numbers are kept."""
    return rows.Sampling.of(question.grid, question.target, numbers)
