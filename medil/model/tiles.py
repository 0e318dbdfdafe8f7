"""Which part of one grid another depends on: what lets a job be done piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medil.grid import Grid

Block = tuple[slice, slice, slice]


def support(source: Grid, target: Grid, reach_cells: float) -> tuple[Block, Grid]:
    """The block of `source` that values on `target` depend on.

    Work done on the block alone then gives what work on the whole would: beyond the block's
    edge nothing is seen, unless it is the source's own edge.

    Args:
        source: Carries the features, or the image.
        target: Parallel to it or oblique; may reach outside.
        reach_cells: How far beyond a target voxel's faces an operator looks, in cells of
            `source`.

    Returns:
        Index of the block (never empty: outside the source it is the nearest edge), and
        the block's grid.
    """
    corners = source.ras_to_index(target.corners_mm)  # [8, 3]
    sizes = np.array(source.shape)
    start = np.floor(corners.min(0) - reach_cells).clip(0, sizes - 1).astype(int).tolist()
    stop = np.ceil(corners.max(0) + reach_cells + 1).clip(1, sizes).astype(int).tolist()
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return (i, j, k), source.crop(start, [b - a for a, b in zip(start, stop, strict=True)])


def cuts(size: int, thick: int, descending: bool = False) -> Iterator[tuple[int, int]]:
    """First index and length of pieces of an axis, the last one as long as what is left.

    Args:
        size: Of the axis.
        thick: Length of a piece, at least 1.
        descending: From the axis's end.

    Yields:
        (start, length).
    """
    starts = range(0, size, thick)
    for start in reversed(starts) if descending else starts:
        yield start, min(thick, size - start)
