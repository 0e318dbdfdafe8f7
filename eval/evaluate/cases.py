"""The three questions about a user's scan, and the arms that answer them.

They are: its own grid, voxels twice as long, half the resolution. Truth is always the
scan itself or the exact mean of its voxels, so nothing has to be known about it.
"""

from __future__ import annotations

from collections.abc import Callable

from eval.coders.base import Coder, Interpolation, coders_from, linear_coders, release_coders
from eval.evaluate.inputs import Plan
from eval.evaluate.report import COARSER, FROM_HALF, NATIVE
from eval.subjects import Case, Scan, coarser, from_coarser, same
from medil.errors import InputError
from medil.grid import Grid

NEAR_FINEST = 1.5  # axes whose voxels are at most this much longer than the finest are halved


def halved_axes(grid: Grid) -> tuple[int, int, int]:
    """2 along the axes to average, 1 along those that are already coarse.

    Thick slices stay as they are: at twice their length they would show no anatomy.

    Example:
        >>> halved_axes(Grid.from_spacing((64, 64, 20), (0.7, 0.7, 3.0)))
        (2, 2, 1)
    """
    finest = min(grid.spacing_mm)
    return tuple(2 if s <= NEAR_FINEST * finest else 1 for s in grid.spacing_mm)  # type: ignore


CASES: dict[str, Callable[[Scan], Case]] = {
    NATIVE: same,
    COARSER: lambda scan: coarser(scan, halved_axes(scan.volume.grid)),
    FROM_HALF: lambda scan: from_coarser(scan, halved_axes(scan.volume.grid)),
}


def arms(plan: Plan) -> list[Coder]:
    """Every arm of a report: the release, linear codes of its size, the user's own models.

    Raises:
        InputError: No such weights, or two arms of one name.
    """
    own = [coder for text in plan.coders for coder in coders_from(text)]
    enlarged = Interpolation()
    enlarged.conditions = (FROM_HALF,)
    found = [*release_coders(plan.release), *linear_coders(plan.release), enlarged, *own]
    names = [coder.name for coder in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two arms are called {', '.join(sorted(twice))}; rename your coder.")
    return found
