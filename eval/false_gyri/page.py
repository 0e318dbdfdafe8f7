"""The small part of this experiment that its page computes while it is built."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from eval.false_gyri.arms import Case
from eval.false_gyri.blocks import Block, Source, sources
from eval.false_gyri.score import SURFACES, false_topology
from eval.metrics.topology import EVERY_NEIGHBOUR
from medil.grid import Grid

SHOWN_HEAD = 5
SHOWN_MM, MOST_MM3 = 7.0, 30.0  # shown around a bridge, and the largest that is shown


class Bridge(NamedTuple):
    """One false bridge of a rendering."""

    where: np.ndarray  # [D, H, W] bool: its voxels
    surface: str  # of `SURFACES`
    middle_mm: np.ndarray  # [3]


def shown_head() -> Source:
    """The recorded head whose bridge at 0.8 mm is easiest to see, chosen by eye."""
    return sources(SHOWN_HEAD + 1, 0)[SHOWN_HEAD]


def largest_bridge(block: Block, case: Case) -> Bridge:
    """The largest false piece below `MOST_MM3` that joins two banks: of white matter, else of all.

    Larger ones are seams along a whole gyrus, of which a part joins something.
    """
    grid = block.truths[case.voxels].grid
    most_vox, middle = MOST_MM3 / math.prod(grid.spacing_mm), _middle(grid)
    for surface in reversed(SURFACES):
        border = block.borders[SURFACES.index(surface)]
        true = block.truths[case.voxels].data.numpy() > border
        _, false = false_topology(block, case.voxels, case.plain, surface)
        labels, _ = ndimage.label(false & ~true, EVERY_NEIGHBOUR)
        beside = ndimage.binary_dilation(true, EVERY_NEIGHBOUR)
        for number in np.argsort(-np.bincount(labels.ravel(), minlength=1)[1:], kind="stable") + 1:
            piece = labels == number
            small = piece.sum() <= most_vox and middle[piece].all()
            if small and (piece & beside).any():
                places = np.argwhere(piece)
                nearest = np.abs(places - places.mean(0)).sum(1).argmin()  # to its middle
                return Bridge(piece, surface, grid.index_to_ras(places[nearest]))
    return Bridge(np.zeros(grid.shape, dtype=bool), SURFACES[1], grid.centre_mm)


def _middle(grid: Grid) -> np.ndarray:
    """[D, H, W] bool: what is `SHOWN_MM` or more from every face, so that a picture is whole."""
    middle = np.zeros(grid.shape, dtype=bool)
    margin = round(SHOWN_MM / grid.spacing_mm[0])
    middle[(slice(margin, -margin),) * 3] = True
    return middle
