"""Real brains averaged to larger voxels: the questions of the curve over voxel sizes.

A brain of thin voxels is cropped to its mask, averaged to another voxel size, encoded there,
rendered there and compared there. So each size is a question of its own, and the same brains
answer all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from eval.metrics import PEAK_PERCENTILE
from eval.subjects import COHORT_SEED, MARGIN_MM, Case, Scan, Subject, averaged, same, trimmed
from medil.box import Triple
from medil.grid import Grid
from medil.volume import Volume

CUBES_MM = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
SLICES_MM = (2.0, 3.0, 4.0, 5.0, 6.0)  # along S, of 1 mm pixels
ACROSS_MM = 4.0  # slices along R and along A too
CUBES, *ALONG = ("cubes", "slices along R", "slices along A", "slices along S")
OWN = "cropped -> cropped"  # on the scan's own voxels
METRICS = ("psnr",)  # the others are too slow for so many questions
DEFINITION = {  # of the numbers; another definition is another configuration
    "version": 1,
    "metrics": METRICS,
    "peak_percentile": PEAK_PERCENTILE,
    "margin_mm": MARGIN_MM,
    "phase_seed": COHORT_SEED,
}


def slices(axis: int, thick_mm: float) -> Triple:
    """Voxel size of slices that are stacked along a voxel axis, with pixels of 1 mm."""
    a, b, c = (thick_mm if axis == other else 1.0 for other in range(3))
    return a, b, c


def condition(spacing_mm: Triple) -> str:
    """The condition in the rows, such as ``1.5 mm -> 1.5 mm`` or ``1 x 1 x 4 mm -> ...``."""
    texts = [f"{s:g}" for s in spacing_mm]
    text = texts[0] if len(set(texts)) == 1 else " x ".join(texts)
    return f"{text} mm -> {text} mm"


def whole_cells(grid: Grid, spacing_mm: Triple, rng: np.random.Generator) -> Grid:
    """The whole cells of a voxel size in a grid's box, from a random phase.

    Where a cell is a whole number of voxels long, it begins between two voxels: to cut voxels
    would blur. Latent cells then lie as on every scan, from the first corner of these cells.
    """
    ratio = np.asarray(spacing_mm) / grid.spacing_mm  # voxels to a cell
    blocks = np.abs(ratio - np.rint(ratio)) < 1e-3
    start = rng.random(3) * ratio  # in voxels, from the first face
    start = np.where(blocks, np.floor(start + 1e-6), start)
    shape = np.floor((grid.shape - start) / ratio + 1e-3).astype(int)
    first_mm = grid.index_to_ras(start + ratio / 2 - 0.5)
    return Grid.from_spacing(shape.tolist(), spacing_mm, first_mm, grid.directions)


def averaged_to(scan: Scan, spacing_mm: Triple) -> Case:
    """Encode and render the cropped brain averaged to a voxel size; the averages are the truth."""
    brain = trimmed(scan)
    hundredths = [round(100 * s) for s in spacing_mm]
    rng = np.random.default_rng([COHORT_SEED, int(brain.mask.sum()), *hundredths])
    cells = whole_cells(brain.volume.grid, spacing_mm, rng)
    data, mask = averaged(brain, cells)
    return same(Scan(Volume(torch.from_numpy(data).float(), cells), mask))


KINDS: dict[str, tuple[str, Triple]] = {  # condition -> the line of the curve, voxel size in mm
    condition(spacing_mm): (kind, spacing_mm)
    for kind, spacing_mm in (
        *((CUBES, (mm, mm, mm)) for mm in CUBES_MM),
        *((ALONG[2], slices(2, mm)) for mm in SLICES_MM),
        *((ALONG[axis], slices(axis, ACROSS_MM)) for axis in (0, 1)),
    )
}
QUESTIONS: dict[str, Callable[[Scan], Case]] = {
    OWN: lambda scan: same(trimmed(scan)),
    **{name: partial(averaged_to, spacing_mm=mm) for name, (_, mm) in KINDS.items()},
}


def asked(subject: Subject) -> Subject:
    """The subject with these questions too, if it is a real brain."""
    if subject.kind != "brain":
        return subject
    return replace(subject, conditions=(*subject.conditions, *QUESTIONS))
