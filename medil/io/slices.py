"""Slices that say where they lie, stacked to one volume.

Order and spacing come from positions along the normal of the slices, never from file names or
instance numbers. What is no regular stack is refused, with the place in mm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from medil.errors import InputError, printable
from medil.grid import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SAME_MM = 0.01  # slices that are closer lie at one place
UNEVEN = 0.03  # of the usual distance, by which distances may differ
ASIDE = 0.05  # of the usual distance, by which a slice may lie beside the line of the others
MOST_TILT_DEG = 0.5  # rounded positions of thin slices look like a smaller tilt
TURNED = 1e-3  # difference of direction cosines, above which slices are not parallel


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series: one file, or one frame of a file.

    Args:
        path: Its file.
        frame: Which image of the file, from 0.
        instance: The unique identifier of the file's content; never shown.
        shape: (rows, columns).
        origin_mm: [3] centre of the first pixel, in LPS+ mm.
        axes: [2, 3] unit vectors in LPS+ along a row and along a column.
        pixel_mm: Distances of neighbours along a row and along a column, in mm.
        thickness_mm: Distance to the next slice as the header says it; None if it does not.
        dtype: Of the stored numbers.
        slope: ``value = stored * slope + inter``.
        inter: See `slope`.
        kind: What it shows (image type, echo time); the same in all slices of a volume.
        order: Its place among slices of several volumes at one place.
    """

    path: Path
    frame: int
    instance: str
    shape: tuple[int, int]
    origin_mm: np.ndarray
    axes: np.ndarray
    pixel_mm: tuple[float, float]
    thickness_mm: float | None
    dtype: np.dtype
    slope: float
    inter: float
    kind: tuple[Any, ...]
    order: tuple[Any, ...]

    @property
    def normal(self) -> np.ndarray:
        """[3] unit vector in LPS+ at right angles to the slice."""
        return np.cross(*self.axes)

    @property
    def height_mm(self) -> float:
        """Place along the normal."""
        return float(self.origin_mm @ self.normal)


def volumes(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The volumes that slices make: several where each place has as many slices (echoes, times).

    Returns:
        One list a volume, sorted along the normal.

    Raises:
        InputError: Slices of several sizes or orientations, or more slices at some places than
            at others.
    """
    _check_alike(slices)
    ordered = sorted(slices, key=lambda s: s.height_mm)
    starts = np.diff([s.height_mm for s in ordered], prepend=-math.inf) > SAME_MM
    places = [
        [s for _, s in pairs]
        for _, pairs in groupby(zip(np.cumsum(starts), ordered), key=lambda pair: pair[0])
    ]
    n_volumes = len(places[0])
    _check_copies(slices)
    if any(len(place) != n_volumes for place in places):
        fullest = max(places, key=len)
        raise InputError(
            f"{len(fullest)} slices lie at one place, {_where(fullest[0])}, and fewer at others: "
            f"{_names(fullest)}; remove those that do not belong."
        )
    sorted_places = [sorted(place, key=lambda s: (s.kind, s.order)) for place in places]
    found = [list(column) for column in zip(*sorted_places)]
    if n_volumes > 1 and any(len({s.kind for s in volume}) > 1 for volume in found):
        raise InputError("slices of different kinds (image type, echo) lie at the same places.")
    return found


def _check_alike(slices: Sequence[Slice]) -> None:
    """Refuse slices that differ in orientation or size, as those of a localizer do."""
    first = slices[0]
    if any(np.abs(s.axes - first.axes).max() > TURNED for s in slices):
        counts = Counter(_plane(s) for s in slices)
        listed = ", ".join(f"{n} {plane}" for plane, n in sorted(counts.items()))
        raise InputError(
            f"the series holds slices of several orientations ({listed}), as a localizer does; "
            "they are no volume."
        )
    if any(s.shape != first.shape or not np.allclose(s.pixel_mm, first.pixel_mm) for s in slices):
        sizes = Counter((*s.shape[::-1], *s.pixel_mm) for s in slices)
        listed = ", ".join(
            f"{n} of {columns} x {rows} at {x:g} x {y:g} mm"
            for (columns, rows, x, y), n in sizes.most_common()
        )
        raise InputError(f"the slices of the series differ in size: {listed}.")


def _plane(one: Slice) -> str:
    return ("sagittal", "coronal", "axial")[int(np.abs(one.normal).argmax())]


def _check_copies(slices: Sequence[Slice]) -> None:
    """Refuse files with the same content identifier."""
    by_content: dict[tuple[str, int], list[Slice]] = {}
    for one in slices:
        by_content.setdefault((one.instance, one.frame), []).append(one)
    copies = [same for same in by_content.values() if len(same) > 1]
    if copies:
        raise InputError(
            f"the series holds slices twice or more, {len(copies)} in all, such as "
            f"{_names(copies[0])}; remove the duplicates."
        )


def _names(slices: Sequence[Slice]) -> str:
    """The files of the first two slices, with their folders where names are the same."""
    first, second = (s.path for s in slices[:2])
    n_parts = 2 if first.name == second.name else 1
    return " and ".join(printable("/".join(p.parts[-n_parts:])) for p in (first, second))


def _where(*slices: Slice) -> str:
    """Such as ``between 23.11 and 38.11 mm towards S``."""
    normal = LPS_TO_RAS @ slices[0].normal
    axis = int(np.abs(normal).argmax())
    side = "RAS"[axis] if normal[axis] > 0 else "LPI"[axis]
    heights = " and ".join(f"{s.height_mm:.2f}" for s in slices)
    return f"{'between' if len(slices) > 1 else 'at'} {heights} mm towards {side}"


def grid_of(slices: Sequence[Slice], keep_tilt: bool = False) -> tuple[Grid, list[str]]:
    """The grid of slices that `volumes` sorted: axes along a row, along a column, to the next.

    Args:
        slices: Of one volume.
        keep_tilt: Keep the shear of a tilted gantry in the affine.

    Returns:
        The grid, and what had to be assumed.

    Raises:
        InputError: Missing slices, uneven distances, slices beside the line of the others, or a
            tilt without `keep_tilt`; says where, in mm.
    """
    first, notes = slices[0], []
    if len(slices) == 1:
        if first.thickness_mm is None:
            notes.append("the header says no thickness of its one slice: 1 mm is assumed.")
        step_mm = first.normal * (first.thickness_mm or 1.0)
    else:
        step_mm = _step(slices)
        if not keep_tilt:
            _check_tilt(first, step_mm)
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.pixel_mm[0]
    affine[:3, 1] = first.axes[1] * first.pixel_mm[1]
    affine[:3, 2] = step_mm
    affine[:3, 3] = first.origin_mm
    affine[:3] = LPS_TO_RAS @ affine[:3]
    rows, columns = first.shape
    return Grid((columns, rows, len(slices)), affine), notes


def _step(slices: Sequence[Slice]) -> np.ndarray:
    """[3] from a slice to the next in LPS+ mm."""
    gaps = np.diff([s.height_mm for s in slices])
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    k = int(np.abs(gaps - usual).argmax())
    if abs(gaps[k] - usual) > max(UNEVEN * usual, SAME_MM):
        what = "a slice is missing" if gaps[k] > 1.5 * usual else "the slices are unevenly spaced"
        raise InputError(
            f"{what}: two lie {gaps[k]:.4g} mm apart, {_where(*slices[k : k + 2])}, where others "
            f"are {usual:.4g} mm apart."
        )
    origins = np.array([s.origin_mm for s in slices])
    step: np.ndarray = (origins[-1] - origins[0]) / (len(slices) - 1)
    aside = np.linalg.norm(origins - origins[0] - np.arange(len(slices))[:, None] * step, axis=1)
    k = int(aside.argmax())
    if aside[k] > max(ASIDE * usual, 2 * SAME_MM):
        raise InputError(
            f"the slices are no straight stack: the one {_where(slices[k])} lies {aside[k]:.3g} mm "
            "off the line of the others."
        )
    return step


def _check_tilt(first: Slice, step_mm: np.ndarray) -> None:
    along = float(step_mm @ first.normal)
    aside = float(np.linalg.norm(step_mm - along * first.normal))
    tilt = math.degrees(math.atan2(aside, along))
    if tilt > MOST_TILT_DEG:
        raise InputError(
            f"a gantry tilt of {tilt:.1f} degrees: each slice lies {aside:.3g} mm beside the one "
            "before; pass `keep_tilt=True` to keep this shear in the affine."
        )
