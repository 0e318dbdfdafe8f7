"""How far an estimate is from the truth, inside a mask: one function per number.

`truth` and `estimate` are [D, H, W] in one intensity unit, `mask` is [D, H, W] bool, and
`spacing_mm` is the voxel size along D, H, W. Every function takes the truth first, works in
float64, and raises `InputError` where shapes differ or the mask is empty. `catalogue` lists
unit, range, direction and source of every number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import cast

import numpy as np

from eval.metrics.catalogue import METRICS, UNITS, VOLUME_METRICS, scored
from eval.metrics.checks import checked
from eval.metrics.edges import (
    INSIDE_MM,
    MOST_EDGES,
    REACH_MM,
    RELAPSE,
    STEP_MM,
    STRONGEST,
    edge_width_mm,
)
from eval.metrics.errors import (
    HFEN_SIGMA_MM,
    PEAK_PERCENTILE,
    gradient_error,
    hfen,
    nrmse,
    peak_intensity,
    psnr,
)
from eval.metrics.masks import brain_mask, head_mask
from eval.metrics.perceptual import N_SLICES, TRUNK, lpips_25d
from eval.metrics.spectra import (
    RIM_MM,
    SHELL_WIDTH_PER_MM,
    Detail,
    Shells,
    detail_split,
    effective_resolution_mm,
    fsc,
)
from eval.metrics.structure import MS_SSIM_WEIGHTS, SSIM_SIGMA_VOX, ms_ssim, ssim
from eval.metrics.tissue import BINS, thresholds, tissue_dice
from eval.metrics.topology import SPECK_MM3, per_cm3, topology, white_surface
from medil.box import Triple
from medil.errors import InputError

DEFINITION = {  # what the numbers of `all_metrics` mean; another meaning is another hash
    "version": 3,
    "peak_percentile": PEAK_PERCENTILE,
    "ssim_sigma_vox": SSIM_SIGMA_VOX,
    "ms_ssim_weights": MS_SSIM_WEIGHTS,
    "hfen_sigma_mm": HFEN_SIGMA_MM,
    "fsc_shell_per_mm": SHELL_WIDTH_PER_MM,
    "fsc_rim_mm": RIM_MM,
    "edges": [STRONGEST, INSIDE_MM, REACH_MM, STEP_MM, RELAPSE, MOST_EDGES],
    "tissue_bins": BINS,
    "white_speck_mm3": SPECK_MM3,
    "lpips": [TRUNK, N_SLICES],
}

__all__ = [
    "DEFINITION",
    "HFEN_SIGMA_MM",
    "METRICS",
    "PEAK_PERCENTILE",
    "SSIM_SIGMA_VOX",
    "UNITS",
    "VOLUME_METRICS",
    "Detail",
    "Shells",
    "all_metrics",
    "brain_mask",
    "detail_split",
    "edge_width_mm",
    "fsc",
    "gradient_error",
    "head_mask",
    "hfen",
    "lpips_25d",
    "nrmse",
    "peak_intensity",
    "psnr",
    "scored",
    "ssim",
    "topology",
    "white_surface",
]


def all_metrics(
    truth: np.ndarray,
    estimate: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Triple,
    wanted: Collection[str] = VOLUME_METRICS,
) -> dict[str, float]:
    """Metrics of one volume against its truth, by name (`wanted` of `scored`); units in `UNITS`.

    The peak is `peak_intensity`, and white matter is what is brighter than the *truth's*
    border of grey and white, in the estimate too; the tissue metrics expect a brain. Pieces and
    handles are the estimate's own count: compare them with those of the truth, which are its
    metrics against itself. NaN where a metric has no value: a truth without strong edges or that
    is constant, an estimate with a voxel that is not finite. `lpips` only where its weights are
    at hand.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    peak = peak_intensity(truth, mask)
    case = (truth, estimate, mask)
    groups: list[tuple[tuple[str, ...], Callable[[], tuple[float, ...]]]] = [
        (("psnr",), lambda: (psnr(*case, peak),)),
        (("ssim",), lambda: (ssim(*case, peak),)),
        (("ms_ssim",), lambda: (ms_ssim(*case, peak),)),
        (("nrmse",), lambda: (nrmse(*case),)),
        (("hfen",), lambda: (hfen(*case, spacing_mm),)),
        (("gradient_error",), lambda: (gradient_error(*case, spacing_mm),)),
        (("fsc_05_mm",), lambda: (_resolution(*case, spacing_mm),)),
        (("edge_width_mm",), lambda: (edge_width_mm(*case, spacing_mm),)),
        (("dice_csf", "dice_grey", "dice_white"), lambda: tuple(tissue_dice(*case).values())),
        (("components_per_cm3", "handles_per_cm3"), lambda: _white_matter(*case, spacing_mm)),
    ]
    if "lpips" in scored():
        groups.append((("lpips",), lambda: (cast(float, lpips_25d(*case, peak)),)))
    finite = bool(np.isfinite(estimate).all() and np.isfinite(truth).all())
    values: dict[str, float] = {}
    for names, compute in (group for group in groups if {*group[0]} & {*wanted}):
        values |= dict.fromkeys(names, math.nan)
        if finite:
            with suppress(InputError):
                values |= zip(names, compute())
    return values


def _resolution(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> float:
    if np.ptp(truth[mask]) == 0:
        return math.nan
    return effective_resolution_mm(fsc(truth, estimate, mask, spacing_mm), 0.5)


def _white_matter(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> tuple[float, float]:
    level = thresholds(truth, mask)[1]
    if not math.isfinite(level):
        return math.nan, math.nan
    counted = topology(white_surface(estimate, mask, spacing_mm, level))
    counts = per_cm3(counted, float(mask.sum()) * math.prod(spacing_mm) / 1000)
    return counts["components_per_cm3"], counts["handles_per_cm3"]
