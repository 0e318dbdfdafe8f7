"""Phantoms against closed forms: positions and volumes in mm, genus, radii in HU."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.synth.airway import LUMEN_HU, PARENCHYMA_HU, WALL_HU
from medil.synth.cortex import spread_directions
from medil.synth.phantom import BLOCK
from medil.synth.phantoms import PHANTOMS, airway, ball, cortex, ramp, render, shepp_logan


def integral_mm3(values: torch.Tensor, grid: Grid) -> float:
    """Sum of values times the voxel's volume."""
    return float(values.double().sum()) * math.prod(grid.spacing_mm)


@pytest.fixture(scope="module")
def bridged():
    """A small cortex with two handles, its render and grid."""
    phantom = cortex(seed=3, handles=2, radius_mm=38.0, fold_mm=5.0)
    grid = phantom.grid(1.1)
    return phantom, render(phantom, grid, 2).numpy(), grid


@pytest.fixture(scope="module")
def tree():
    """The default airway."""
    return airway()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_a_rendered_ramp_is_the_ramp_at_each_centre(grid, oblique_grid, turned, supersample):
    target = oblique_grid if turned else grid
    slope, offset = (0.01, -0.02, 0.03), 0.4
    rendered = render(ramp(slope, offset), target, supersample)
    expected = centres_mm(target) @ torch.tensor(slope, dtype=torch.float64) + offset
    torch.testing.assert_close(rendered.double(), expected, atol=1e-6, rtol=0)


def test_a_block_s_seam_does_not_show():
    target = Grid.from_spacing((BLOCK + 3, 5, 2), (0.5, 1.0, 2.0), (3.0, -2.0, 1.0))
    rendered = render(ramp((0.1, 0.0, 0.0), 0.0), target).double()
    torch.testing.assert_close(rendered.diff(dim=0), torch.full((BLOCK + 2, 5, 2), 0.05).double())


@pytest.mark.parametrize("spacing_mm", [1.0, (0.8, 1.3, 2.1)])
@pytest.mark.parametrize("edge_mm", [0.0, 3.0])
def test_a_rendered_ball_has_its_volume(spacing_mm, edge_mm):
    phantom = ball(12.0, (1.3, -0.4, 0.7), inside=2.0, outside=0.5, edge_mm=edge_mm)
    grid = phantom.grid(spacing_mm)
    excess = integral_mm3(render(phantom, grid, 4) - 0.5, grid)
    assert excess == pytest.approx(phantom.facts["integral_mm3"], rel=2e-3)
    assert phantom.facts["volume_mm3"] == pytest.approx(4 / 3 * math.pi * 12.0**3)


def test_a_ball_s_centre_of_mass_is_its_centre(oblique_grid):
    centre = oblique_grid.centre_mm
    fine = oblique_grid.resized((21, 24, 27))
    rendered = render(ball(3.0, tuple(centre)), fine).double()
    found = (rendered[..., None] * centres_mm(fine)).sum((0, 1, 2)) / rendered.sum()
    np.testing.assert_allclose(found.numpy(), centre, atol=0.02)


def test_two_grids_of_one_box_hold_the_same_amount():
    phantom = shepp_logan(40.0)
    coarse = phantom.grid((2.0, 2.5, 3.0))
    fine = coarse.resized([2 * n for n in coarse.shape])
    amounts = [integral_mm3(render(phantom, g, s), g) for g, s in ((coarse, 4), (fine, 2))]
    assert amounts[0] == pytest.approx(amounts[1], rel=1e-6)  # the same quadrature points
    assert amounts[0] == pytest.approx(phantom.facts["integral_mm3"], rel=5e-3)


def test_shepp_logan_s_landmarks_are_where_the_table_puts_them():
    points = {(0, 0, 0): 0.2, (0, 88, 0): 1.0, (22, 0, 0): 0.0, (0, 35, -15): 0.3, (99, 0, 0): 0.0}
    values = shepp_logan(100.0)(torch.tensor(list(points), dtype=torch.float64))
    np.testing.assert_allclose(values.numpy(), list(points.values()), atol=1e-12)


@pytest.mark.parametrize("name", ["shepp_logan", "airway"])
def test_the_cheap_formula_of_a_box_equals_the_whole_one(name, rng):
    phantom = PHANTOMS[name]()
    low, high = phantom.bounds_mm.mean(0) - 9, phantom.bounds_mm.mean(0) + 9
    points = torch.from_numpy(rng.uniform(low, high, size=(2000, 3)))
    torch.testing.assert_close(phantom.near(low, high)(points), phantom(points))


def test_white_matter_has_the_genus_that_was_built(bridged):
    measure = pytest.importorskip("skimage.measure")
    phantom, values, _ = bridged
    white = values > 0.76
    assert measure.euler_number(white, connectivity=3) == phantom.facts["white_euler"] == -1
    assert measure.euler_number(white, connectivity=1) == 1 - phantom.facts["white_genus"]


def test_without_handles_white_matter_is_a_folded_ball():
    measure = pytest.importorskip("skimage.measure")
    phantom = cortex(seed=1, radius_mm=36.0)
    values = render(phantom, phantom.grid(1.3), 2).numpy()
    radii = np.linalg.norm(centres_mm(phantom.grid(1.3)).numpy(), axis=-1)
    assert measure.euler_number(values > 0.76, connectivity=3) == phantom.facts["white_euler"] == 1
    assert (values[radii > 37.5] > 0.76).any() and (values[radii < 34.5] < 0.7).any()  # folds


def test_the_grey_ribbon_is_as_thick_as_it_says(bridged):
    phantom, values, grid = bridged
    points = centres_mm(grid).numpy()
    white = cKDTree(points[values > 0.76])  # middles of voxels: half a voxel inside
    tissue = phantom.facts["values"]
    grey_mm, csf_mm = (
        white.query(points[np.abs(values - tissue[name]) < 1e-3][::4])[0]
        for name in ("grey", "csf")
    )
    thickness_mm, diagonal_mm = phantom.facts["thickness_mm"], 1.1 * math.sqrt(3)
    assert grey_mm.max() < thickness_mm + diagonal_mm / 2
    assert csf_mm.min() > thickness_mm
    assert csf_mm.min() < thickness_mm + diagonal_mm  # the ribbon is not thicker either


def test_a_seed_moves_the_folds_and_not_the_facts():
    one, again, other = (cortex(seed=s, handles=1) for s in (0, 0, 5))
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 3)) * 35)
    assert torch.equal(one(points), again(points)) and not torch.equal(one(points), other(points))
    assert one.facts["white_genus"] == other.facts["white_genus"] == 1


def test_handles_stand_apart():
    directions = spread_directions(np.random.default_rng(2))
    cosines = (directions @ directions.T)[~np.eye(8, dtype=bool)]
    assert np.degrees(np.arccos(cosines.max())) == pytest.approx(70.5, abs=0.1)


@pytest.mark.parametrize("generation", [0, 2, 4, 6])
def test_an_airway_s_cross_section_has_the_area_of_its_radius(tree, generation):
    branch = next(b for b in tree.facts["branches"] if b["generation"] == generation)
    start, end = np.array(branch["start_mm"]), np.array(branch["end_mm"])
    along = (end - start) / np.linalg.norm(end - start)
    across = np.linalg.svd(along[None])[2][1:]  # two directions at right angles to it
    directions = np.stack([*across, along], axis=1)
    outer_mm, n = branch["radius_mm"] + branch["wall_mm"], 80
    spacing_mm = 2 * outer_mm / n
    first = start + 0.6 * (end - start) - directions[:, :2].sum(1) * spacing_mm * (n - 1) / 2
    plane = Grid.from_spacing((n, n, 1), spacing_mm, first, directions)
    lumen = ((WALL_HU - render(tree, plane)) / (WALL_HU - LUMEN_HU)).double()[..., 0]
    radii = torch.linalg.vector_norm(
        centres_mm(plane)[..., 0, :] - torch.from_numpy(plane.centre_mm), dim=-1
    )
    inside = radii < branch["radius_mm"] + branch["wall_mm"] / 2
    radius_mm = math.sqrt(float(lumen[inside].sum()) * spacing_mm**2 / math.pi)
    assert radius_mm == pytest.approx(branch["radius_mm"], rel=5e-3)


def test_children_obey_murray_s_law_and_leave_from_their_parent(tree):
    branches = tree.facts["branches"]
    for index, parent in enumerate(branches):
        children = [b for b in branches if b["parent"] == index]
        for child in children:
            assert child["start_mm"] == parent["end_mm"]
            assert child["generation"] == parent["generation"] + 1
        if len(children) == 2:
            total = sum(child["radius_mm"] ** 3 for child in children)
            assert total == pytest.approx(parent["radius_mm"] ** 3)


def test_the_lumen_is_one_tree_without_loops():
    measure = pytest.importorskip("skimage.measure")
    phantom = airway(seed=4, generations=3)
    values = render(phantom, phantom.grid(1.25), 2).numpy()
    lumen = values < (LUMEN_HU + PARENCHYMA_HU) / 2
    assert measure.euler_number(lumen, connectivity=3) == 1
    assert measure.label(lumen, connectivity=3).max() == 1
    assert values.min() == LUMEN_HU and values.max() == WALL_HU


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_every_phantom_fits_its_box_and_window(name, rng):
    phantom = PHANTOMS[name]()
    points = torch.from_numpy(rng.uniform(*phantom.bounds_mm, size=(4000, 3)))
    values = phantom(points)
    assert values.shape == (4000,) and values.dtype == torch.float64
    if name != "shepp_logan":  # its window cuts the skull, as is usual
        assert phantom.window[0] <= values.min() and values.max() <= phantom.window[1]
    grid = phantom.grid((2.0, 3.0, 4.0))
    assert (grid.bounds_mm[0] <= phantom.bounds_mm[0] + 1e-6).all()
    assert (grid.bounds_mm[1] >= phantom.bounds_mm[1] - 1e-6).all()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: cortex(handles=9), "handles"),
        (lambda: cortex(radius_mm=20), "radius_mm"),
        (lambda: ball(0.0), "radius"),
        (lambda: airway(generations=12), "generations"),
        (lambda: airway(trachea_radius_mm=0), "trachea_radius_mm"),
        (lambda: render(ball(), Grid.from_spacing((2, 2, 2), 1.0), 0), "supersample"),
        (lambda: ball().grid(-1.0), "spacing_mm"),
    ],
)
def test_impossible_phantoms_say_why(make, word):
    with pytest.raises(InputError, match=word):
        make()
