"""The scores of one rendering of a block.

Four questions are kept apart: how far the rendering is from the truth (PSNR, HFEN, SSIM,
and band by band what is kept, smoothed and invented), to which size it agrees with the truth
(Fourier shell correlation), whether it still agrees with what was scanned (`input_mismatch`),
and whether white matter has the truth's pieces and handles.
"""

from __future__ import annotations

import math

import numpy as np

from eval import metrics
from eval.extrapolation.blocks import AT_1_MM, CONDITIONS, HEAD_CONTENT_MM, MARGIN_MM, Block
from eval.metrics.spectra import detail_split, effective_resolution_mm, fsc
from eval.metrics.tissue import thresholds
from eval.metrics.topology import per_cm3, topology, white_surface
from medil.box import Triple
from medil.regrid import cell_average

VERSION = 2  # part of every hash: raise it when scoring itself changes
BANDS = {  # cycles per mm; the latent's own cells hold little beyond 0.25
    "middle": (0.125, 0.25),
    "fine": (0.25, 0.5),  # to what 1 mm voxels can hold
    "beyond": (0.5, 1.0),  # to what smaller voxels can hold; no training voxel held it
}
PARTS = ("kept", "smoothed", "invented", "error")
ERRORS = ("psnr", "ssim", "hfen", "fsc_05_mm")
SURFACE = ("handles_per_cm3", "components_per_cm3")
MISMATCH = "input_mismatch"
UNITS = {
    "psnr": "dB",
    "ssim": "1",
    "hfen": "1",
    "fsc_05_mm": "mm",
    **{f"detail_{part}_{band}": "1" for part in PARTS for band in BANDS},
    **dict.fromkeys(SURFACE, "1/cm3"),
    MISMATCH: "%",
}
DEFINITION = [VERSION, BANDS, MARGIN_MM, HEAD_CONTENT_MM]


def bands_of(condition: str) -> list[str]:
    """The bands that the rendered voxels can hold: beyond 1 mm voxels only smaller ones."""
    return [band for band in BANDS if band != "beyond" or CONDITIONS[condition][1] != AT_1_MM]


def scores(block: Block, condition: str, estimate: np.ndarray) -> dict[str, float]:
    """Every metric of one rendering, [D, H, W] on the block's grid of the rendered voxel size.

    The last band ends where the smallest voxels do. Where the truth is a scan, its noise counts as
    detail, so nothing can keep all of it.
    """
    rendered = CONDITIONS[condition][1]
    truth, mask = block.truth(rendered), block.mask(rendered)
    spacing_mm = block.volumes[rendered].grid.spacing_mm
    values = surface(truth, estimate, mask, spacing_mm)
    values[MISMATCH] = mismatch(block, condition, estimate)
    peak, limit_per_mm = metrics.peak_intensity(truth, mask), 0.5 / min(spacing_mm)
    shells = fsc(truth, estimate, mask, spacing_mm)
    values |= {
        "psnr": metrics.psnr(truth, estimate, mask, peak),
        "ssim": metrics.ssim(truth, estimate, mask, peak),
        "hfen": metrics.hfen(truth, estimate, mask, spacing_mm),
        "fsc_05_mm": effective_resolution_mm(shells, 0.5),
    }
    for band in bands_of(condition):
        limits = BANDS[band][0], min(BANDS[band][1], limit_per_mm)
        detail = detail_split(truth, estimate, mask, spacing_mm, limits)
        values |= {f"detail_{part}_{band}": getattr(detail, part) for part in PARTS}
    return values


def surface(
    truth: np.ndarray, shown: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> dict[str, float]:
    """Pieces and handles of white matter per cm3, at the truth's border between grey and white."""
    level = thresholds(truth, mask)[1]
    white = white_surface(shown, mask, spacing_mm, level)
    return per_cm3(topology(white), float(mask.sum()) * math.prod(spacing_mm) / 1000)


def mismatch(block: Block, condition: str, shown: np.ndarray) -> float:
    """RMS of the rendering, averaged back to the scan's voxels, less the scan; % of its peak."""
    encoded, rendered = CONDITIONS[condition]
    scan, mask = block.truth(encoded), block.mask(encoded)
    back = cell_average(shown, block.volumes[rendered].grid, block.volumes[encoded].grid)
    rms = np.sqrt(np.mean((back - scan)[mask] ** 2))
    return float(100 * rms / metrics.peak_intensity(scan, mask))
