"""The scores of one rendering of a block.

Four questions are kept apart: how far the rendering is from the truth (PSNR, HFEN, SSIM,
and band by band what is kept, smoothed and invented), to which size it agrees with the truth
(Fourier shell correlation), whether it still agrees with what was scanned (`input_mismatch`),
and whether white matter has the truth's pieces and handles.
"""

from __future__ import annotations

import numpy as np

from eval import metrics
from eval.extrapolation.blocks import CONDITIONS, HEAD_CONTENT_MM, MARGIN_MM, Block
from eval.metrics.spectra import detail_split, effective_resolution_mm, fsc
from eval.metrics.tissue import thresholds
from eval.metrics.topology import per_cm3, topology, white_surface
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


def bands_of(condition: str) -> dict[str, tuple[float, float]]:
    """The bands that the rendered voxels can hold, each up to their limit."""
    limit_per_mm = 0.5 / CONDITIONS[condition][1]
    return {n: (a, min(b, limit_per_mm)) for n, (a, b) in BANDS.items() if a < limit_per_mm - 1e-9}


def scores(block: Block, condition: str, estimate: np.ndarray) -> dict[str, float]:
    """Every metric of one rendering, [D, H, W] on the block's grid of the rendered voxel size."""
    in_mm, out_mm = CONDITIONS[condition]
    truth, mask = block.volumes[out_mm].double().numpy(), block.mask(out_mm)
    values = surface(truth, estimate, mask, out_mm)
    values[MISMATCH] = mismatch(block, in_mm, out_mm, estimate)
    spacing_mm, peak = (out_mm,) * 3, metrics.peak_intensity(truth, mask)
    shells = fsc(truth, estimate, mask, spacing_mm)
    values |= {
        "psnr": metrics.psnr(truth, estimate, mask, peak),
        "ssim": metrics.ssim(truth, estimate, mask, peak),
        "hfen": metrics.hfen(truth, estimate, mask, spacing_mm),
        "fsc_05_mm": effective_resolution_mm(shells, 0.5),
    }
    for band, limits in bands_of(condition).items():
        detail = detail_split(truth, estimate, mask, spacing_mm, limits)
        values |= {f"detail_{part}_{band}": getattr(detail, part) for part in PARTS}
    return values


def surface(
    truth: np.ndarray, shown: np.ndarray, mask: np.ndarray, spacing_mm: float
) -> dict[str, float]:
    """Pieces and handles of white matter per cm3, at the truth's border between grey and white."""
    level = thresholds(truth, mask)[1]
    white = white_surface(shown, mask, (spacing_mm,) * 3, level)
    return per_cm3(topology(white), mask.sum() * spacing_mm**3 / 1000)


def mismatch(block: Block, in_mm: float, out_mm: float, shown: np.ndarray) -> float:
    """RMS of the rendering, averaged back to the scan's voxels, less the scan; % of its peak."""
    scan, mask = block.volumes[in_mm].double().numpy(), block.mask(in_mm)
    back = cell_average(shown, block.grid(out_mm), block.grid(in_mm))
    rms = np.sqrt(np.mean((back - scan)[mask] ** 2))
    return float(100 * rms / metrics.peak_intensity(scan, mask))
