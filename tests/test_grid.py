"""`medil.grid`: where voxels are, tested in mm."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations

from medil.errors import InputError
from medil.grid import Grid, centres_mm

# From index to mm and back


def test_index_to_ras_agrees_with_nibabel(any_grid, rng):
    index = rng.uniform(-5, 12, size=(4, 5, 3))
    expected = nib.affines.apply_affine(any_grid.affine_vox2ras, index)
    np.testing.assert_allclose(any_grid.index_to_ras(index), expected, atol=1e-12)


def test_index_goes_to_mm_and_back(any_grid, rng):
    index = rng.uniform(-5, 12, size=(20, 3))
    again = any_grid.ras_to_index(any_grid.index_to_ras(index))
    np.testing.assert_allclose(again, index, atol=1e-12)


def test_norm_one_is_the_outer_face_half_a_voxel_beyond_the_last_centre(grid):
    faces = grid.index_to_norm([[-0.5, -0.5, -0.5], [6.5, 7.5, 8.5]])
    np.testing.assert_array_equal(faces, [[-1, -1, -1], [1, 1, 1]])


def test_corners_are_half_a_voxel_outside_the_outermost_centres(grid):
    centres = centres_mm(grid).reshape(-1, 3).numpy()
    half = np.array(grid.spacing_mm) / 2
    np.testing.assert_allclose(grid.bounds_mm[0], centres.min(0) - half)
    np.testing.assert_allclose(grid.bounds_mm[1], centres.max(0) + half)
    np.testing.assert_allclose(grid.bounds_mm[1] - grid.bounds_mm[0], grid.extent_mm)


def test_centres_equal_the_affine_at_each_index(any_grid):
    centres = centres_mm(any_grid)
    assert centres.shape == (*any_grid.shape, 3)
    assert centres.dtype == torch.float64
    for index in [(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3), tuple(n - 1 for n in any_grid.shape)]:
        np.testing.assert_allclose(centres[index], any_grid.index_to_ras(index), atol=1e-12)


def test_centre_is_the_mean_of_all_voxel_centres(any_grid):
    mean = centres_mm(any_grid).reshape(-1, 3).mean(0)
    np.testing.assert_allclose(any_grid.centre_mm, mean, atol=1e-10)


def test_turning_keeps_spacing_centre_and_shape(grid, oblique_grid):
    np.testing.assert_allclose(oblique_grid.spacing_mm, grid.spacing_mm)
    np.testing.assert_allclose(oblique_grid.centre_mm, grid.centre_mm)
    assert oblique_grid.shape == grid.shape
    assert not oblique_grid.is_parallel_to(grid)
    back = oblique_grid.rotated((1.0, 2.0, -0.5), -17.0)
    assert back.is_close(grid, 1e-10)


def test_turning_follows_the_right_hand_rule():
    grid = Grid.from_spacing((1, 1, 1), 1.0)
    turned = grid.rotated((0, 0, 1), 90.0)  # about S: R goes to A
    np.testing.assert_allclose(turned.directions[:, 0], [0, 1, 0], atol=1e-12)


def test_axis_offsets_measure_along_the_axis_in_mm(oblique_grid):
    fine = oblique_grid.with_spacing(0.7).crop((2, -1, 3), (4, 5, 6))
    for axis in range(3):
        index = np.zeros((fine.shape[axis], 3))
        index[:, axis] = np.arange(fine.shape[axis])
        along = oblique_grid.ras_to_index(fine.index_to_ras(index))[:, axis]
        expected = along * oblique_grid.spacing_mm[axis]
        np.testing.assert_allclose(fine.axis_offsets_mm(axis, oblique_grid), expected, atol=1e-9)


# Other grids over the same box


@pytest.mark.parametrize("shape", [(14, 16, 18), (3, 5, 20), (7, 8, 9), (1, 1, 1)])
def test_resized_keeps_the_box_exactly(any_grid, shape):
    new = any_grid.resized(shape)
    assert new.shape == shape
    np.testing.assert_allclose(new.corners_mm, any_grid.corners_mm, atol=1e-10)


def test_resized_follows_the_half_voxel_rule(grid):
    new = grid.resized((14, 4, 3))
    for axis, (n_old, n_new) in enumerate(zip(grid.shape, new.shape, strict=True)):
        index_new = np.zeros(3)
        index_new[axis] = 1
        index_old = (1 + 0.5) * n_old / n_new - 0.5
        assert grid.ras_to_index(new.index_to_ras(index_new))[axis] == pytest.approx(index_old)


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, (0.4, 2.0, 1.1)])
def test_with_spacing_has_exactly_that_spacing_and_nearly_that_box(any_grid, spacing_mm):
    new = any_grid.with_spacing(spacing_mm)
    np.testing.assert_allclose(new.spacing_mm, np.broadcast_to(spacing_mm, 3), rtol=1e-12)
    np.testing.assert_allclose(new.centre_mm, any_grid.centre_mm, atol=1e-10)
    assert new.is_parallel_to(any_grid)
    face_mm = np.abs(np.subtract(new.extent_mm, any_grid.extent_mm)) / 2
    assert (face_mm <= np.array(new.spacing_mm) / 4 + 1e-9).all()


def test_scans_of_one_head_at_1_and_0p7_mm_share_their_bounds():
    coarse = Grid.from_spacing((182, 218, 182), 1.0, origin_mm=(-90, -126, -72))
    fine = coarse.with_spacing(0.7)
    assert fine.shape == (260, 311, 260)
    assert coarse.shares_extent(fine) and fine.shares_extent(coarse)
    assert np.abs(fine.bounds_mm - coarse.bounds_mm).max() <= 0.7 / 4
    first_centres_apart = np.abs(fine.index_to_ras([0] * 3) - coarse.index_to_ras([0] * 3))
    assert first_centres_apart.max() > 0.1  # what one must not line up


def test_shared_extent_is_about_the_box_not_the_axes_order(oblique_grid):
    assert oblique_grid.shares_extent(oblique_grid.reoriented("LIA")[0], 1e-9)
    assert not oblique_grid.shares_extent(oblique_grid.shifted((5, 0, 0)))


@pytest.mark.parametrize("spacing_mm", [4.0, (2.0, 3.0, 5.0), 1.5, 0.3])
def test_covering_holds_the_box_and_wastes_less_than_a_voxel(any_grid, spacing_mm):
    cover = any_grid.covering(spacing_mm)
    excess = np.subtract(cover.extent_mm, any_grid.extent_mm)
    assert (excess > -1e-5).all()
    assert (excess < np.array(cover.spacing_mm)).all()
    index = cover.ras_to_index(any_grid.corners_mm)
    assert (index >= -0.5 - 1e-5).all()
    assert (index <= np.array(cover.shape) - 0.5 + 1e-5).all()


def test_covering_a_whole_number_of_voxels_adds_none():
    third = Grid.from_spacing((9, 9, 9), 1 / 3)
    assert third.covering(1.0).shape == (3, 3, 3)


def test_crop_leaves_voxel_centres_where_they_were(any_grid):
    block = any_grid.crop((2, -3, 4), (3, 5, 2))
    expected = any_grid.index_to_ras(np.array([1, 2, 1]) + np.array([2, -3, 4]))
    np.testing.assert_allclose(block.index_to_ras([1, 2, 1]), expected, atol=1e-12)


def test_shifting_moves_every_point_by_as_many_mm(oblique_grid):
    moved = oblique_grid.shifted((1.0, -2.0, 0.25))
    np.testing.assert_allclose(
        moved.corners_mm - oblique_grid.corners_mm, [[1.0, -2.0, 0.25]] * 8, atol=1e-12
    )


def test_boxes_overlap_where_they_share_space(grid, oblique_grid):
    for one, two in itertools.product(
        (grid, oblique_grid, oblique_grid.reoriented("LIA")[0]), repeat=2
    ):
        assert one.overlaps(two)
    width = grid.extent_mm[0]
    assert grid.overlaps(grid.shifted((width - 0.01, 0, 0)))
    assert not grid.overlaps(grid.shifted((width, 0, 0)))  # they touch
    assert not grid.overlaps(oblique_grid.shifted((0, 0, 1000)))
    small = Grid.from_spacing((1, 1, 1), 0.1, grid.centre_mm)
    assert grid.overlaps(small) and small.overlaps(grid)


def test_boxes_may_be_apart_though_their_bounds_are_not():
    bar = Grid.from_spacing((40, 1, 1), 1.0).rotated((0, 0, 1), 45)
    other = bar.shifted((10, -10, 0))
    low, high = (
        np.maximum(bar.bounds_mm[0], other.bounds_mm[0]),
        np.minimum(bar.bounds_mm[1], other.bounds_mm[1]),
    )
    assert (low < high).all() and not bar.overlaps(other)
    assert bar.overlaps(bar.rotated((0, 0, 1), 90))


@pytest.mark.parametrize(("n", "size_mm"), [(256, 0.9375), (240, 1.0), (192, 1.25), (160, 0.8)])
def test_an_affine_in_float32_adds_no_layer_of_cells(n, size_mm):
    rng = np.random.default_rng(0)
    for axis in rng.normal(size=(50, 3)):
        turned = Grid.from_spacing((n, n, 4), (size_mm, size_mm, 4.0)).rotated(axis, 33)
        stored = Grid(turned.shape, turned.affine_vox2ras.astype(np.float32))
        assert stored.covering(4.0).shape == turned.covering(4.0).shape
        assert turned.covering(4.0).shape == (n * size_mm / 4, n * size_mm / 4, 4)


# Orientation


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIA", "PIR", "SAL", "IPR"])
def test_reorientation_moves_no_voxel_in_space(oblique_grid, rng, codes):
    data = rng.normal(size=oblique_grid.shape)
    new, transform = oblique_grid.reoriented(codes)
    turned = orientations.apply_orientation(data, transform)
    assert new.orientation == codes and new.shape == turned.shape
    for index in [(0, 0, 0), (1, 2, 3), (6, 7, 8)]:
        where = np.rint(new.ras_to_index(oblique_grid.index_to_ras(index))).astype(int)
        assert turned[tuple(where)] == data[index]
        np.testing.assert_allclose(
            new.index_to_ras(where), oblique_grid.index_to_ras(index), atol=1e-12
        )


@pytest.mark.parametrize("codes", ["LPS", "LIA", "PIR"])
def test_reorientation_there_and_back_is_lossless(oblique_grid, rng, codes):
    data = rng.normal(size=oblique_grid.shape)
    new, there = oblique_grid.reoriented(codes)
    old, back = new.reoriented(oblique_grid.orientation)
    again = orientations.apply_orientation(orientations.apply_orientation(data, there), back)
    np.testing.assert_array_equal(again, data)
    np.testing.assert_allclose(old.affine_vox2ras, oblique_grid.affine_vox2ras, atol=1e-12)


def test_axes_lead_back_where_two_are_equally_near_to_a_world_axis(rng):
    lost = 0
    for angles in itertools.product(np.arange(4) * np.pi / 4, repeat=3):  # 64 rotations
        affine = np.eye(4)
        affine[:3, :3] = nib.eulerangles.euler2mat(*angles) * (1.0, 1.5, 3.0)
        grid = Grid((5, 6, 7), affine)
        new, _ = grid.reoriented("RAS")
        old, _ = new.aligned(grid)
        assert old.shape == grid.shape
        np.testing.assert_allclose(old.affine_vox2ras, affine, atol=1e-9)
        lost += new.reoriented(grid.orientation)[0].shape != grid.shape
    assert lost > 0  # codes do not lead back


@pytest.mark.parametrize("codes", ["RAX", "RRS", "RA", "rasl", ""])
def test_codes_that_name_no_orientation_are_refused(grid, codes):
    with pytest.raises(InputError, match="orientation codes"):
        grid.reoriented(codes)


# Equality and refusals


def test_grids_compare_and_hash_by_shape_and_affine(grid):
    same = Grid(grid.shape, grid.affine_vox2ras.copy())
    assert grid == same and hash(grid) == hash(same)
    assert grid != grid.shifted((1e-9, 0, 0)) and grid.is_close(grid.shifted((1e-9, 0, 0)))
    assert grid != "grid"


def test_a_grid_cannot_be_changed_through_its_affine(grid):
    with pytest.raises(ValueError, match="read-only"):
        grid.affine_vox2ras[0, 0] = 5


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.zeros((4, 4)), "zero"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.eye(3), "4 x 4"),
        (np.eye(4) + np.outer([0, 1, 0, 0], [1, -1, 0, 0]), "singular"),
        (np.ones((4, 4)), "last row"),
    ],
)
def test_useless_affines_are_refused_with_their_reason(affine, words):
    with pytest.raises(InputError, match=words):
        Grid((2, 3, 4), affine)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3), (2, 3, -1)])
def test_shapes_without_voxels_are_refused(shape, grid):
    with pytest.raises(InputError, match="three sizes"):
        Grid(shape, np.eye(4))
    with pytest.raises(InputError, match="three sizes"):
        grid.resized(shape)


@pytest.mark.parametrize("spacing_mm", [0, -1, np.nan, np.inf, (1, 1), (1, 1, 0), 1e-300])
def test_spacings_that_make_no_voxel_are_refused(grid, spacing_mm):
    with pytest.raises(InputError):
        grid.with_spacing(spacing_mm)
