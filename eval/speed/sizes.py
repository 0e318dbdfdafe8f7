"""How much each profile measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much one run of the experiment measures.

    Args:
        cells: Feature cells an axis; twice as many voxels are rendered.
        cells_integrated: Of the cell-integrated layer and its peers, which a GPU renders in
            microseconds where they are few.
        rounds_slow: Of what takes seconds.
        rounds_fast: Of what takes milliseconds.
        rounds_whole: Of whole brains.
        spacings_mm: That the command line renders.
        threads_whole: Threads that whole brains are coded with, one run after another.
        tile_mm: Side of the crop that is encoded in tiles.
        rounds_training: Steps.
    """

    cells: int = 48
    cells_integrated: int = 48
    rounds_slow: int = 3
    rounds_fast: int = 7
    rounds_whole: int = 1
    spacings_mm: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35)
    threads_whole: tuple[int, ...] = (2,)
    tile_mm: float = 62.0
    rounds_training: int = 5


SIZES = {
    "quick": Sizes(),
    "gpu": Sizes(cells_integrated=128, rounds_slow=5, rounds_fast=15, rounds_training=10),
    "paper": Sizes(rounds_slow=5, rounds_fast=15, rounds_whole=3, threads_whole=(2, 1)),
}
