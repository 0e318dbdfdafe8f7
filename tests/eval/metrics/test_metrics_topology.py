"""Topology against homology of small complexes, known solids and the analytic cortex."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eval.metrics.topology import (
    SPECK_MM3,
    Invented,
    Topology,
    invented,
    per_cm3,
    topology,
    white_surface,
)
from medil.errors import InputError
from medil.synth.phantoms import cortex, render


def betti_numbers(solid: np.ndarray) -> tuple[int, int, int]:
    """b0, b1 and b2 of a union of closed cubes, from the ranks of its boundary maps.

    Cells live on a grid of half steps; a cell has one dimension for each odd index.
    """
    cells = np.zeros([2 * n + 1 for n in solid.shape], dtype=bool)
    for i, j, k in np.argwhere(solid):
        cells[2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * k : 2 * k + 3] = True
    by_dimension: list[dict[tuple, int]] = [{}, {}, {}, {}]
    for cell in map(tuple, np.argwhere(cells).tolist()):
        same = by_dimension[sum(c % 2 for c in cell)]
        same[cell] = len(same)
    ranks = [0]
    for faces, bodies in itertools.pairwise(by_dimension):
        boundary = np.zeros((len(faces), len(bodies)))
        for body, column in bodies.items():
            odd = [a for a in range(3) if body[a] % 2]
            for place, axis in enumerate(odd):
                for step in (-1, 1):
                    face = tuple(c + step * (a == axis) for a, c in enumerate(body))
                    boundary[faces[face], column] = step * (-1) ** place
        ranks.append(int(np.linalg.matrix_rank(boundary)) if boundary.size else 0)
    ranks.append(0)
    return tuple(len(by_dimension[d]) - ranks[d] - ranks[d + 1] for d in range(3))


@pytest.mark.parametrize("share", [0.15, 0.4, 0.6, 0.85])
def test_counts_are_those_of_homology(rng, share):
    for shape in ((4, 4, 4), (3, 4, 5), (1, 5, 4)):
        solid = rng.random(shape) < share
        found = topology(solid)
        assert (found.components, found.handles, found.cavities) == betti_numbers(solid)
        assert found.euler == found.components - found.handles + found.cavities


def points(n: int = 41) -> list[np.ndarray]:
    """Coordinates of a cube of n voxels around its middle."""
    return list(np.indices((n, n, n)) - (n - 1) / 2)


def torus(x, y, z, centre=(0.0, 0.0, 0.0), ring=10.0, tube=3.2) -> np.ndarray:
    """A solid torus that lies in x and y."""
    x, y, z = (v - c for v, c in zip((x, y, z), centre, strict=True))
    return np.hypot(np.hypot(x, y) - ring, z) < tube


def solids() -> dict[str, tuple[np.ndarray, tuple[int, int, int]]]:
    """Solids, and their components, cavities and handles."""
    x, y, z = points()
    distance = np.sqrt(x**2 + y**2 + z**2)
    side = torus(x, y, z, (-8.0, 0, 0), 7.0), torus(x, y, z, (8.0, 0, 0), 7.0)
    links = torus(x, y, z, (-5.0, 0, 0)), torus(x, z, y, (5.0, 0, 0))
    return {
        "nothing": (distance < 0, (0, 0, 0)),
        "everything": (distance >= 0, (1, 0, 0)),
        "ball": (distance < 12, (1, 0, 0)),
        "shell": ((distance < 12) & (distance > 8), (1, 1, 0)),
        "ball in a shell": ((distance < 18) & ~((distance > 6) & (distance < 12)), (2, 1, 0)),
        "torus": (torus(x, y, z), (1, 0, 1)),
        "hollow torus": (torus(x, y, z, tube=4) & ~torus(x, y, z, tube=2), (1, 1, 2)),
        "double torus": (side[0] | side[1], (1, 0, 2)),
        "two linked rings": (links[0] | links[1], (2, 0, 2)),
        "pierced ball": ((distance < 14) & ~(np.hypot(x, y) < 4), (1, 0, 1)),
    }


@pytest.mark.parametrize("name", solids())
def test_known_solids(name):
    solid, (components, cavities, handles) = solids()[name]
    euler = components - handles + cavities
    expected = Topology(components, cavities, handles, euler)
    assert topology(solid) == expected


def test_voxels_that_share_a_corner_are_one_piece():
    solid = np.zeros((2, 2, 2), dtype=bool)
    solid[0, 0, 0] = solid[1, 1, 1] = True
    assert topology(solid).components == 1


def test_flips_and_turns_change_nothing(rng):
    solid = rng.random((9, 8, 7)) < 0.5
    assert topology(solid[::-1]) == topology(solid.transpose(2, 0, 1)) == topology(solid)


@pytest.mark.parametrize(
    ("spacing_mm", "supersample", "handles", "seed"),
    [(1.0, 1, 5, 1), (1.5, 2, 0, 0), (1.5, 1, 2, 3), ((1.0, 1.0, 2.0), 1, 3, 4)],
)
def test_the_topology_of_the_analytic_cortex_is_exact(spacing_mm, supersample, handles, seed):
    phantom = cortex(seed=seed, handles=handles, radius_mm=38.0, fold_mm=5.0)
    grid = phantom.grid(spacing_mm)
    volume = render(phantom, grid, supersample).numpy()
    white = white_surface(volume, volume > 0, grid.spacing_mm)
    expected = Topology(1, 0, phantom.facts["white_genus"], phantom.facts["white_euler"])
    assert topology(white) == expected


def three_tissues() -> tuple[np.ndarray, np.ndarray]:
    """A white ball in grey in CSF, and its mask."""
    x, y, z = points(31)
    distance = np.sqrt(x**2 + y**2 + z**2)
    volume = np.select([distance < 6, distance < 10, distance < 14], [0.9, 0.6, 0.2], 0.0)
    return volume, volume > 0


def test_white_matter_is_brighter_than_half_way_from_grey():
    volume, mask = three_tissues()
    np.testing.assert_array_equal(white_surface(volume, mask, (1, 1, 1)), volume == 0.9)
    between = np.where(volume == 0.9, 0.74, volume)
    assert not white_surface(between, mask, (1, 1, 1), level=0.75).any()
    scaled = white_surface(40 * volume + 7, mask, (1, 1, 1))  # any unit of intensity
    np.testing.assert_array_equal(scaled, volume == 0.9)


def test_false_pieces_count_unless_they_are_specks_in_mm3():
    volume, mask = three_tissues()
    volume[15, 15, 22:24] = 0.9  # two voxels of white matter in the grey
    for spacing_mm, pieces in (((1.0, 1.0, 1.0), 1), ((2.0, 2.0, 2.0), 2)):
        white = white_surface(volume, mask, spacing_mm)
        assert topology(white).components == pieces
        assert (2 * np.prod(spacing_mm) >= SPECK_MM3) == (pieces == 2)


def test_a_false_bridge_is_one_handle():
    volume, mask = three_tissues()
    before = topology(white_surface(volume, mask, (2, 2, 2)))
    volume[15:21, 15, 23] = volume[15, 15, 20:24] = volume[20, 15, 15:24] = 0.9
    after = topology(white_surface(volume, mask, (2, 2, 2)))
    assert (before.handles, after.handles, after.components) == (0, 1, 1)


def test_a_volume_without_three_intensities_has_no_white_matter():
    mask = np.ones((4, 4, 4), dtype=bool)
    assert topology(white_surface(np.ones((4, 4, 4)), mask, (1, 1, 1))) == Topology(0, 0, 0, 0)


def test_densities_are_counts_over_cm3():
    found = per_cm3(Topology(3, 1, 12, -8), 6.0)
    assert found == {"components_per_cm3": 0.5, "handles_per_cm3": 2.0}


@pytest.mark.parametrize(
    "call",
    [
        lambda: topology(np.ones((3, 3), dtype=bool)),
        lambda: per_cm3(Topology(1, 0, 0, 1), 0.0),
        lambda: white_surface(np.ones((2, 2, 2)), np.zeros((2, 2, 2), dtype=bool), (1, 1, 1)),
    ],
)
def test_what_has_no_topology_is_refused(call):
    with pytest.raises(InputError):
        call()


# Change by change


def test_an_invented_and_a_lost_handle_do_not_cancel():
    banks = np.zeros((9, 7, 5), dtype=bool)
    banks[:, 0], banks[:, -1], banks[0] = True, True, True  # a U: two banks
    shown = banks.copy()
    shown[4, :, 2] = True  # a bridge from bank to bank
    found, where = invented(banks, shown)
    assert found == Invented(bridges=1, holes=0, islands=0)
    assert where.sum() == (shown & ~banks).sum()
    ring, opened = shown, shown.copy()
    opened[4, 3, 2] = False  # the bridge is cut: a handle is lost, none is invented
    assert invented(ring, opened)[0].total == 0


def test_a_pierced_sheet_is_a_hole_and_a_loose_speck_an_island():
    sheet = np.zeros((7, 7, 5), dtype=bool)
    sheet[:, :, 1] = True
    shown = sheet.copy()
    shown[3, 3, 1] = False
    shown[5, 5, 4] = True
    assert invented(sheet, shown)[0] == Invented(bridges=0, holes=1, islands=1)


def test_to_thicken_an_object_or_to_fill_its_cavity_invents_nothing():
    ball = np.zeros((9, 9, 9), dtype=bool)
    ball[3:6, 3:6, 3:6] = True
    thicker = np.zeros_like(ball)
    thicker[2:7, 2:7, 2:7] = True
    hollow = ball.copy()
    hollow[4, 4, 4] = False
    for truth, shown in ((ball, thicker), (thicker, ball), (hollow, ball), (ball, hollow)):
        assert invented(truth, shown)[0].total == 0


def test_volumes_of_two_shapes_are_refused():
    with pytest.raises(InputError, match="one shape"):
        invented(np.ones((3, 3, 3)), np.ones((3, 3, 4)))
