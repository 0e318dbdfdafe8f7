"""Scores of one rendering of a block, and of one map of its uncertainty."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, stats

from eval import metrics
from eval.false_gyri.blocks import Block
from eval.metrics.topology import Invented, invented

SURFACES = ("brain", "white")  # outer and inner surface of the grey matter
CHANGES = ("bridges", "holes", "islands")
COUNTS = tuple(f"{surface}_{change}" for surface in SURFACES for change in CHANGES)
BINS = 10  # of equal size, from the smallest predicted error to the largest
PREDICTED = tuple(f"predicted_{i}" for i in range(BINS))
MEASURED = tuple(f"measured_{i}" for i in range(BINS))
OF_RENDERINGS = ("psnr", "ribbon_cm3", *COUNTS)
OF_MAPS = ("factor", "correlation", "auc", "auc_at_surfaces", *PREDICTED, *MEASURED)
UNITS = {
    "psnr": "dB", "ribbon_cm3": "cm3", "factor": "1", "correlation": "1", "auc": "1",
    "auc_at_surfaces": "1", **dict.fromkeys((*COUNTS,), "1"),
    **dict.fromkeys((*PREDICTED, *MEASURED), "1"),
}  # fmt: skip
FEWEST = 20  # voxels of false topology below which no AUC is given


def rendering(block: Block, voxels: str, estimate: np.ndarray) -> dict[str, float]:
    """PSNR, and what is invented at both surfaces, within the scored part of a block.

    Both are thresholded at the truth's borders. Counts are whole numbers; the volume of the truth's
    grey ribbon goes with them, so that they can be given per cm3 of it.
    """
    truth, inside = block.truths[voxels], block.inside(voxels)
    true = truth.data.double().numpy()
    outer, inner = block.borders
    ribbon = ((true > outer) & (true <= inner) & inside).sum()
    values = {
        "psnr": metrics.psnr(true, estimate, inside, metrics.peak_intensity(true, inside)),
        "ribbon_cm3": float(ribbon) * math.prod(truth.grid.spacing_mm) / 1000,
    }
    for surface in SURFACES:
        counts, _ = false_topology(block, voxels, estimate, surface)
        values |= {f"{surface}_{name}": float(getattr(counts, name)) for name in CHANGES}
    return values


def false_topology(
    block: Block, voxels: str, estimate: np.ndarray, surface: str
) -> tuple[Invented, np.ndarray]:
    """What an estimate invents at one surface, and [D, H, W] bool: where."""
    border = block.borders[SURFACES.index(surface)]
    true, inside = block.truths[voxels].data.double().numpy(), block.inside(voxels)
    return invented((true > border) & inside, (estimate > border) & inside)


def uncertainty(
    block: Block, voxels: str, estimate: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    """How well a map, [D, H, W] in any unit, predicts the error of an estimate.

    `factor` is the RMS error over the RMS of the map, the scale that one subject asks for. The area
    under the curve is the chance that a voxel of false topology has a larger value than another:
    any other, or one at a surface that the estimate shows. NaN where `FEWEST` is not reached. The
    bins hold equal numbers of voxels; theirs are RMS values, of the map as it is.
    """
    inside = block.inside(voxels)
    error = np.abs(estimate - block.truths[voxels].data.double().numpy())[inside]
    value = predicted[inside]
    false, at_surface = (m[inside] for m in _places(block, voxels, estimate))
    values = {
        "factor": _rms(error) / _rms(value),
        "correlation": float(np.corrcoef(value, error)[0, 1]),
        "auc": auc(value[false], value[~false]),
        "auc_at_surfaces": auc(value[false], value[at_surface & ~false]),
    }
    bins = np.array_split(np.argsort(value, kind="stable"), BINS)
    values |= {name: _rms(value[b]) for name, b in zip(PREDICTED, bins, strict=True)}
    return values | {name: _rms(error[b]) for name, b in zip(MEASURED, bins, strict=True)}


def _places(block: Block, voxels: str, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[D, H, W] bool twice: voxels of false topology, and voxels next to a shown surface."""
    false, at_surface = np.zeros(estimate.shape, bool), np.zeros(estimate.shape, bool)
    for surface, border in zip(SURFACES, block.borders, strict=True):
        false |= false_topology(block, voxels, estimate, surface)[1]
        solid = estimate > border
        at_surface |= ndimage.binary_dilation(solid) & ~ndimage.binary_erosion(solid)
    return false, at_surface


def auc(of_false: np.ndarray, of_others: np.ndarray) -> float:
    """The chance that a value of the first kind is larger than one of the second; ties are half.

    Example:
        >>> auc(np.full(20, 2.0), np.array([1.0, 3.0]))
        0.5
    """
    if len(of_false) < FEWEST or not len(of_others):
        return math.nan
    ranks = stats.rankdata(np.concatenate([of_false, of_others]))[: len(of_false)]
    above = ranks.sum() - len(of_false) * (len(of_false) + 1) / 2
    return float(above / (len(of_false) * len(of_others)))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
