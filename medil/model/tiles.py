"""The part of one grid that another depends on, so that work can be done piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from medil.grid import Grid

Block = tuple[slice, slice, slice]


@lru_cache(maxsize=256)
def support(source: Grid, target: Grid, reach_cells: float) -> tuple[Block, Grid]:
    """The block of `source` that values on `target` depend on.

    Work on the block alone gives the same values as work on the whole: nothing beyond the
    block's edge matters, unless it is the source's own edge.

    Args:
        source: Carries the features, or the image.
        target: Parallel to it or oblique; may reach outside.
        reach_cells: How far beyond a target voxel's faces an operator looks, in cells of
            `source`.

    Returns:
        Index of the block (never empty: outside the source it is the nearest edge), and
        the block's grid.
    """
    return block_around(source, target.corners_mm, reach_cells)


def block_around(source: Grid, points_mm: np.ndarray, reach_cells: float) -> tuple[Block, Grid]:
    """`support` of the smallest box, along the axes of `source`, that holds [N, 3] points."""
    index_vox, sizes = source.ras_to_index(points_mm), np.array(source.shape)
    start = np.floor(index_vox.min(0) - reach_cells).clip(0, sizes - 1).astype(int).tolist()
    stop = np.ceil(index_vox.max(0) + reach_cells + 1).clip(1, sizes).astype(int).tolist()
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return (i, j, k), source.crop(start, [b - a for a, b in zip(start, stop, strict=True)])


def cuts(size: int, thick: int, descending: bool = False) -> Iterator[tuple[int, int]]:
    """First index and length of pieces of an axis, the last one as long as what is left.

    With `descending` the end of the axis comes first.
    """
    starts = range(0, size, thick)
    for start in reversed(starts) if descending else starts:
        yield start, min(thick, size - start)


def slab_of(grid: Grid, axis: int, start: int, length: int) -> Grid:
    """The grid of some planes of a grid, counted along one axis."""
    first, shape = [0, 0, 0], list(grid.shape)
    first[axis], shape[axis] = start, length
    return grid.crop(first, shape)


def slabs(
    grid: Grid, rows: int, axis: int = 0, descending: bool = False
) -> Iterator[tuple[int, Grid]]:
    """A grid cut across an axis into slabs of `rows` planes: first index and grid of each."""
    for start, length in cuts(grid.shape[axis], rows, descending):
        yield start, slab_of(grid, axis, start, length)
