"""Work done block by block is the work done on the whole."""

import numpy as np
import pytest
import torch

from medil.config import PRESETS, ModelConfig
from medil.grid import Grid
from medil.layers.bases import cubic_bspline
from medil.layers.operators import OPERATORS, make_operator
from medil.model.autoencoder import MedIL
from medil.model.tiles import cuts, support

NODES = Grid.from_spacing((26, 14, 9), (4.0, 3.0, 5.0), (3, -2, 1)).rotated((1, 2, 3), 17)
FINER = NODES.with_spacing((1.7, 2.0, 2.1)).shifted((0.4, -0.3, 0.2))
THICK = NODES.with_spacing((1.6, 3.1, 11.0)).shifted((-0.9, 0.8, 0.3))
OBLIQUE = NODES.with_spacing((1.3, 1.6, 1.9)).rotated((0, 1, 1), 25).crop((14, 9, 8), (11, 3, 4))
TARGETS = {"finer": FINER, "thick": THICK, "oblique": OBLIQUE}
SMALL = ModelConfig(frequencies=4, hidden=8, harmonics=1)


def slab_of(grid, axis, start, thick):
    first, shape = [0, 0, 0], list(grid.shape)
    first[axis], shape[axis] = start, thick
    return grid.crop(first, shape)


def slabs(grid, axis):
    """Both ends and the middle, of odd thickness."""
    size = grid.shape[axis]
    return [(0, 3), (size // 2, 5), (size - 1, 1)]


def operator(kind):
    layer = make_operator(SMALL, kind, 3, 1)
    generator = torch.Generator().manual_seed(1)
    for weight in layer.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return layer


def noise(channels, grid):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, *grid.shape, generator=generator, dtype=torch.float64)


def test_a_block_holds_the_targets_cells_and_the_reach_in_mm():
    source = Grid.from_spacing((10, 12, 14), 2.0)  # cell n fills 2 n - 1 ... 2 n + 1 mm
    target = Grid.from_spacing((4, 4, 4), 1.0, (6.0, 9.0, 12.0))  # 5.5 ... 9.5 mm, and so on
    block, grid = support(source, target, 1)
    assert block == (slice(1, 7), slice(3, 9), slice(4, 10))
    np.testing.assert_allclose(grid.index_to_ras(np.zeros(3)), (2.0, 6.0, 8.0))
    margin = np.abs(grid.bounds_mm - target.bounds_mm)
    assert (margin >= 2.0).all()  # a whole cell on all sides


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_block_lies_where_it_says(target):
    small = slab_of(target, 0, 3, 2)
    block, grid = support(NODES, small, 1)
    first = [part.start for part in block]
    assert grid.shape == tuple(part.stop - part.start for part in block)
    np.testing.assert_allclose(grid.index_to_ras(np.zeros(3)), NODES.index_to_ras(first))
    corners = grid.ras_to_index(small.corners_mm)  # in cells of the block
    at_edge = (
        np.array([p.start == 0 for p in block]),
        np.array([p.stop == n for p, n in zip(block, NODES.shape, strict=True)]),
    )
    assert ((corners.min(0) >= 1) | at_edge[0]).all()
    assert ((corners.max(0) <= np.array(grid.shape) - 2) | at_edge[1]).all()


def test_far_outside_it_is_the_nearest_edge():
    below, above = NODES.crop((-20, 2, 2), (3, 3, 3)), NODES.crop((50, 2, 2), (3, 3, 3))
    assert support(NODES, below, 1)[0][0] == slice(0, 1)
    assert support(NODES, above, 1)[0][0] == slice(25, 26)


def test_the_whole_needs_the_whole():
    block, grid = support(NODES, NODES, 0)
    assert grid == NODES and block == tuple(slice(0, n) for n in NODES.shape)


@pytest.mark.parametrize("descending", [False, True])
def test_cuts_cover_an_axis_once(descending):
    pieces = list(cuts(17, 5, descending))
    covered = [n for start, length in pieces for n in range(start, start + length)]
    assert sorted(covered) == list(range(17))
    assert (pieces[0][0] > pieces[-1][0]) == descending


# Operators


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("kind", OPERATORS)
@torch.no_grad()
def test_slabs_from_their_blocks_are_slabs_of_the_whole(kind, target):
    layer, x = operator(kind), noise(3, NODES)
    whole = layer(x, NODES, target)
    for axis in (0, 2):
        for start, thick in slabs(target, axis):
            slab = slab_of(target, axis, start, min(thick, target.shape[axis] - start))
            (i, j, k), grid = support(NODES, slab, layer.reach)
            got = layer(x[:, :, i, j, k], grid, slab)
            expected = whole.narrow(axis + 2, start, slab.shape[axis])
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6 * float(whole.std()))


@torch.no_grad()
def test_targets_outside_the_features_see_the_same_edge_from_a_block():
    layer, x = operator("integrated"), noise(3, NODES)
    outside = FINER.crop((-9, -7, -5), (8, 12, 9))
    (i, j, k), grid = support(NODES, outside, layer.reach)
    got = layer(x[:, :, i, j, k], grid, outside)
    torch.testing.assert_close(got, layer(x, NODES, outside))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@torch.no_grad()
def test_the_closed_forms_slabs_come_from_their_latent_cells(target):
    arm = MedIL(PRESETS["test"].model).double()
    z = noise(8, NODES)
    whole = arm.splines.render(z, NODES, target)
    reach_cells = cubic_bspline().radius / arm.config.fine_per_latent
    for start, thick in slabs(target, 0):
        slab = slab_of(target, 0, start, min(thick, target.shape[0] - start))
        (i, j, k), grid = support(NODES, slab, reach_cells)
        got = arm.splines.render(z[:, :, i, j, k], grid, slab)
        torch.testing.assert_close(got, whole[:, :, start : start + slab.shape[0]])
