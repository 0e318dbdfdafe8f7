"""Pieces, voids and handles of a binary object, counted exactly.

False gyri and false bridges of white matter are invented detail that no error norm names;
they show as components and handles that the truth does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import euler_number

from eval.metrics.checks import bounding_box, inside
from eval.metrics.tissue import thresholds
from medil.box import Triple
from medil.errors import InputError

SPECK_MM3 = 8.0  # a cube of 2 mm: smaller pieces of white matter are noise
EVERY_NEIGHBOUR = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Topology:
    """The three Betti numbers of an object, and what follows from them."""

    components: int  # separate pieces (b0)
    cavities: int  # voids that are closed on all sides (b2)
    handles: int  # independent tunnels (b1); a solid torus has one
    euler: int  # components - handles + cavities


def topology(object_mask: np.ndarray) -> Topology:
    """Components, cavities and handles of the union of voxels. Counts, exact.

    Voxels of the object are closed cubes (26 neighbours), so pieces that share a corner are
    one, and the background has 6 neighbours. What lies outside the array is background. Neither
    direction is better in itself: an estimate should have what the truth has.

    Source: Kong and Rosenfeld 1989; Euler number of Ohser and colleagues in scikit-image.

    Raises:
        InputError: Not three axes.

    Example:
        >>> frame = np.ones((3, 3, 1), dtype=bool)
        >>> frame[1, 1] = False
        >>> topology(frame)
        Topology(components=1, cavities=0, handles=1, euler=0)
    """
    solid = np.asarray(object_mask, dtype=bool)
    if solid.ndim != 3:
        raise InputError(f"topology is that of an object on three axes, not {solid.shape}.")
    if not solid.any():
        return Topology(0, 0, 0, 0)
    solid = np.pad(solid[bounding_box(solid, 0)], 1)  # a rim, so that the outside is one piece
    components = ndimage.label(solid, EVERY_NEIGHBOUR)[1]
    cavities = ndimage.label(~solid)[1] - 1  # 6 neighbours
    euler = int(euler_number(solid, connectivity=3))
    return Topology(components, cavities, components + cavities - euler, euler)


def white_surface(
    volume: np.ndarray, mask: np.ndarray, spacing_mm: Triple, level: float | None = None
) -> np.ndarray:
    """The white matter whose surface is counted: brighter than half-way from grey to white.

    [D, H, W] bool. `level` is that border: by default as `tissue.thresholds` places it in this
    T1-weighted volume; give the truth's to hold an estimate to the truth's intensities.

    Our choice: no smoothing and no largest piece, since false pieces and bridges are what
    is looked for. Pieces (26 neighbours) below `SPECK_MM3` are dropped as noise.
    """
    if level is None:
        level = thresholds(volume, mask)[1]
    inside(volume, mask)
    white = (np.asarray(volume) > level) & np.asarray(mask, dtype=bool)
    pieces, n_pieces = ndimage.label(white, EVERY_NEIGHBOUR)
    if n_pieces == 0:
        return white
    volumes_mm3 = np.bincount(pieces.ravel()) * math.prod(spacing_mm)
    kept = volumes_mm3 >= SPECK_MM3
    kept[0] = False
    return kept[pieces]


def per_cm3(counts: Topology, volume_cm3: float) -> dict[str, float]:
    """Components and handles for each cm3, so that brains of any size can be compared.

    `volume_cm3` is that of the mask in which they were counted. The truth's value is best; more
    is invented, less is lost.

    Raises:
        InputError: The volume is not above zero.
    """
    if not volume_cm3 > 0:
        raise InputError(f"a volume of {volume_cm3} cm3 has no density; give one above zero.")
    return {
        "components_per_cm3": float(counts.components / volume_cm3),
        "handles_per_cm3": float(counts.handles / volume_cm3),
    }


# What an estimate adds and loses, change by change


@dataclass(frozen=True)
class Invented:
    """Topology that an estimate has and the truth has not, each change judged by itself."""

    bridges: int  # joins that false voxels make: two banks across a gap, or two pieces
    holes: int  # handles that lost voxels open: a sheet or a rod that is pierced
    islands: int  # pieces of false voxels that touch nothing of the truth

    @property
    def total(self) -> int:
        """All of them."""
        return self.bridges + self.holes + self.islands


def invented(truth: np.ndarray, estimate: np.ndarray) -> tuple[Invented, np.ndarray]:
    """What false and lost voxels do to the topology of the truth, piece by piece. Exact.

    The voxels in which two objects differ fall into connected pieces (26 neighbours): pieces of
    false voxels, and pieces of lost ones. Each is added to the truth, or taken from it, alone; the
    change of the Euler number, which is local, says what it does: a fall by n is n joins or handles
    more. So an invented handle and a lost one never cancel, as they do in the difference of counts.

    Connectivity is that of `topology`: 26 neighbours for the object, 6 for the background. Cavities
    of the truth count as filled, since to fill one lowers the Euler number and joins nothing.

    Args:
        truth: [D, H, W] bool.
        estimate: [D, H, W] bool, on the same voxels.

    Returns:
        The counts, and [D, H, W] bool: the voxels of the pieces that were counted.

    Raises:
        InputError: Shapes differ, or are not those of volumes.

    Example:
        >>> banks = np.ones((5, 5, 3), dtype=bool)
        >>> banks[1:4, 2] = False  # a closed trench, and its handle
        >>> joined = banks.copy()
        >>> joined[2, 2, 1] = True
        >>> invented(banks, joined)[0]
        Invented(bridges=1, holes=0, islands=0)
    """
    true, shown = np.asarray(truth, dtype=bool), np.asarray(estimate, dtype=bool)
    if true.ndim != 3 or true.shape != shown.shape:
        raise InputError(
            f"topology compares volumes of one shape, not {true.shape}, {shown.shape}."
        )
    filled = ndimage.binary_fill_holes(true)  # 6 neighbours
    shown, true = shown | (filled & ~true), filled
    where = np.zeros(true.shape, dtype=bool)
    bridges = holes = islands = 0
    for box, piece in _pieces(shown & ~true):
        fall = _euler(true[box]) - _euler(true[box] | piece)
        island = not (ndimage.binary_dilation(piece, EVERY_NEIGHBOUR) & true[box]).any()
        bridges, islands = bridges + max(0, fall), islands + island
        where[box] |= piece & (fall > 0 or island)
    for box, piece in _pieces(true & ~shown):
        fall = _euler(true[box]) - _euler(true[box] & ~piece)
        holes += max(0, fall)
        where[box] |= piece & (fall > 0)
    return Invented(bridges, holes, islands), where


def _pieces(mask: np.ndarray) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Connected pieces (26 neighbours): a box with one voxel of room, and the piece in it."""
    labels, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in found)
        yield box, labels[box] == number


def _euler(solid: np.ndarray) -> int:
    return int(euler_number(np.pad(solid, 1), connectivity=3))
