"""Live parts of the page on reconstruction: one crop by every code, and borders of a detail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.coders.base import linear_coders
from eval.metrics import gradient_error, peak_intensity, psnr
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.volume import Volume

SLOPE = "Slope of borders (scan: 1)"
AS_STEEP = 0.97  # of the scan's slope, and more
LEVEL_DB = 0.02  # the last five steps of a search that has levelled off gain less


def rebuilt_by_all(
    model: MedIL, release: str, volume: Volume, latent: Latent
) -> dict[str, np.ndarray]:
    """Arm -> [D, H, W] float64: linear codes of the release's size, its splines, the release."""
    rebuilt = {c.name: c.decode(c.encode(volume), volume.grid) for c in linear_coders(release)}
    for arm, alone in (("medil_splines", True), ("medil", False)):
        rebuilt[arm] = model.decode(latent, linear_only=alone).data.double().numpy()
    return rebuilt


def slope(data: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """[D, H, W]: magnitude of the gradient, per mm."""
    return np.linalg.norm(np.gradient(data, *spacing_mm), axis=0)


def scores_at_borders(
    renderings: Mapping[str, Volume], truth: Volume, mask: np.ndarray
) -> pd.DataFrame:
    """A line a rendering: PSNR, gradient error, and how steep it is at the truth's borders.

    Borders are the steepest tenth of the truth's voxels inside the mask.
    """
    true, spacing_mm = truth.data.double().numpy(), truth.grid.spacing_mm
    steep = slope(true, spacing_mm)
    borders = mask & (steep >= np.percentile(steep[mask], 90))
    scores = {}
    for name, volume in renderings.items():
        data = volume.data.double().numpy()
        scores[name] = {
            "PSNR (dB)": psnr(true, data, mask, peak_intensity(true, mask)),
            "Gradient error": gradient_error(true, data, mask, spacing_mm),
            SLOPE: slope(data, spacing_mm)[borders].mean() / steep[borders].mean(),
        }
    return pd.DataFrame(scores).T


def ceiling_words(scores: pd.DataFrame, history: Sequence[float]) -> str:
    """What a search for the best latent says about the decoder.

    `scores` of `scores_at_borders`, the encoder's latent and the best latent found last;
    `history` the root mean square errors of the search.
    """
    gain_db = scores["PSNR (dB)"].iloc[-1] - scores["PSNR (dB)"].iloc[-2]
    before, after = scores[SLOPE].iloc[-2:]
    still_db = 20 * math.log10(min(history[:-5]) / min(history))
    sharp = (
        "**Here the decoder can draw borders about as steep as the scan's,** so it is not what "
        "would keep a sampler from sharp ones. PSNR says whether they are in the right place. "
        if after >= AS_STEEP
        else "**No.** Even the best latent found renders borders softer than they are. A sampler "
        "does not know the truth, so it will not do better: what this decoder cannot draw "
        "sharply, a diffusion model on its latents cannot either. "
    )
    level = (
        "The search still gained at its end, so the ceiling lies a little higher."
        if still_db > LEVEL_DB
        else "The curve had levelled off: more steps of this search would find little."
    )
    return (
        f"With the truth in hand, {len(history) - 1} steps moved PSNR by {gain_db:+.2f} dB and "
        f"the borders from {100 * before:.0f} % to {100 * after:.0f} % of the scan's slope. "
        f"{sharp}{level}"
    )
