"""`medil.regrid`: values keep their place in mm when they go to another grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import (
    apply_separable,
    box_average,
    cell_average,
    cubic_resample,
    resample,
    sample_trilinear,
)

GOLDEN = Path(__file__).parent / "golden" / "trilinear_scipy.json"
SLOPE = torch.tensor([0.5, -1.25, 2.0], dtype=torch.float64)  # units per mm along R, A, S


def ramp(points_mm: torch.Tensor) -> torch.Tensor:
    """A linear field of space: [..., 3] mm to [...]."""
    return points_mm @ SLOPE + 3.0


@pytest.fixture
def wide_grid() -> Grid:
    return Grid.from_spacing((18, 21, 11), (1.0, 1.5, 3.0), origin_mm=(-7, 4, 2))


# Averages


def test_cell_average_keeps_a_ramp_in_mm_and_the_total(wide_grid, rng):
    ramp_mm = centres_mm(wide_grid).numpy() @ (0.3, -1.0, 2.0)
    target = wide_grid.resized((9, 7, 11))
    expected = centres_mm(target).numpy() @ (0.3, -1.0, 2.0)
    np.testing.assert_allclose(cell_average(ramp_mm, wide_grid, target), expected, atol=1e-9)
    data = rng.normal(size=wide_grid.shape)
    uneven = cell_average(data, wide_grid, wide_grid.resized((5, 8, 4)))
    assert uneven.mean() == pytest.approx(data.mean(), abs=1e-12)


def test_cell_average_over_whole_blocks_is_the_block_mean(rng):
    grid = Grid.from_spacing((8, 6, 4), 1.0)
    data = rng.normal(size=grid.shape)
    blocks = data.reshape(4, 2, 3, 2, 2, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(cell_average(data, grid, grid.with_spacing(2.0)), blocks)


def test_cubic_resample_keeps_a_smooth_field_at_oblique_points_in_mm():
    grid = Grid.from_spacing((40, 44, 42), (1.0, 0.9, 1.1), origin_mm=(-20, -20, -20))
    field = lambda p: np.sin(p[..., 0] / 5) + np.cos(p[..., 1] / 4 + p[..., 2] / 6)  # noqa: E731
    target = grid.crop((12, 12, 12), (10, 9, 8)).rotated((1, 2, 3), 17.0)
    result = cubic_resample(field(centres_mm(grid).numpy()), grid, target)
    np.testing.assert_allclose(result, field(centres_mm(target).numpy()), atol=2e-4)


def test_cubic_resample_of_parallel_grids_equals_the_path_of_oblique_ones(wide_grid, rng):
    data = rng.normal(size=wide_grid.shape)
    target = wide_grid.shifted((0.3, -0.4, 0.5)).with_spacing((0.8, 1.1, 2.0))
    tilted = target.rotated((0, 0, 1), 1e-3)  # oblique by 0.001 degrees
    fast, slow = (cubic_resample(data, wide_grid, g) for g in (target, tilted))
    np.testing.assert_allclose(fast, slow, atol=2e-3)


def test_cubic_resample_at_the_same_voxels_is_the_identity(wide_grid, rng):
    data = rng.normal(size=wide_grid.shape)
    np.testing.assert_allclose(cubic_resample(data, wide_grid, wide_grid), data, atol=1e-10)


def test_separable_operators_equal_the_full_tensor_product(rng):
    data = rng.normal(size=(3, 4, 5))
    a, b, c = rng.normal(size=(2, 3)), rng.normal(size=(6, 4)), rng.normal(size=(3, 5))
    expected = np.einsum("ai,bj,ck,ijk->abc", a, b, c, data)
    np.testing.assert_allclose(apply_separable(data, (a, b, c)), expected)


def test_box_averages_keep_the_mean_and_a_ramp():
    grid = Grid.from_spacing((9, 10, 7), (1.0, 1.5, 2.0))
    ramp = centres_mm(grid).sum(-1)
    small = box_average(ramp, (4, 5, 7))
    assert small.mean().item() == pytest.approx(ramp.mean().item())
    exact = centres_mm(grid.resized((4, 5, 7))).sum(-1)
    torch.testing.assert_close(small[:, :, 3], exact[:, :, 3], rtol=0, atol=0.06)
    whole = box_average(ramp, (3, 5, 7))  # three and two voxels in one
    torch.testing.assert_close(whole, centres_mm(grid.resized((3, 5, 7))).sum(-1))


def test_samples_are_averaged_on_coarser_grids_and_interpolated_on_finer_ones(grid, rng):
    data = rng.normal(size=grid.shape)
    coarse = grid.crop((0, 0, 0), (6, 8, 9)).resized((3, 4, 3))
    blocks = data[:6].reshape(3, 2, 4, 2, 3, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample(data, grid, coarse), blocks)
    np.testing.assert_allclose(resample(data, grid, grid), data)
    crop = grid.crop((2, 1, 3), (4, 5, 4))
    np.testing.assert_allclose(resample(data, grid, crop), data[2:6, 1:6, 3:7])
    ramp = lambda g: centres_mm(g).numpy() @ (1.0, 0.2, 0.3)  # noqa: E731
    wide = Grid.from_spacing((60, 60, 60), 1.0)
    fine = wide.crop((24, 24, 24), (8, 8, 8)).with_spacing(0.4)
    np.testing.assert_allclose(resample(ramp(wide), wide, fine), ramp(fine), atol=1e-6)


# Trilinear interpolation


def test_trilinear_reproduces_a_linear_field_exactly_inside(any_grid, rng):
    values = torch.stack([ramp(centres_mm(any_grid)), -2 * ramp(centres_mm(any_grid))])[None]
    index = rng.uniform(0, np.array(any_grid.shape) - 1, size=(30, 2, 3))
    points = torch.from_numpy(any_grid.index_to_ras(index))
    sampled = sample_trilinear(values, any_grid, points)
    assert sampled.shape == (1, 2, 30, 2)
    np.testing.assert_allclose(sampled[0, 0], ramp(points), atol=1e-10)
    np.testing.assert_allclose(sampled[0, 1], -2 * ramp(points), atol=1e-10)


def test_trilinear_gives_each_voxel_back_at_its_centre(any_grid, rng):
    values = torch.from_numpy(rng.normal(size=(2, 3, *any_grid.shape)))
    sampled = sample_trilinear(values, any_grid, centres_mm(any_grid))
    np.testing.assert_allclose(sampled, values, atol=1e-12)


def test_trilinear_continues_the_edge_value_outside(grid, rng):
    values = torch.from_numpy(rng.normal(size=(1, 1, *grid.shape)))
    far = torch.from_numpy(grid.index_to_ras([[-4.0, -2.0, -9.0], [50.0, 50.0, 50.0]]))
    sampled = sample_trilinear(values, grid, far)[0, 0]
    np.testing.assert_allclose(sampled, [values[0, 0, 0, 0, 0], values[0, 0, -1, -1, -1]])


def test_trilinear_agrees_with_scipy_on_an_oblique_target():
    """Golden values of `scipy.ndimage.map_coordinates`, order 1, mode nearest.

    Both compute in float64; 1e-9 leaves room for the order of operations alone.
    """
    golden = json.loads(GOLDEN.read_text())
    grid = Grid(tuple(golden["shape"]), np.array(golden["affine_vox2ras"]))
    values = torch.tensor(golden["values"], dtype=torch.float64).reshape(1, 1, *grid.shape)
    points = torch.tensor(golden["points_mm"], dtype=torch.float64)
    sampled = sample_trilinear(values, grid, points)[0, 0]
    np.testing.assert_allclose(sampled, golden["sampled"], atol=1e-9)


def test_ramp_on_a_resized_grid_is_the_same_ramp_in_mm(any_grid):
    values = ramp(centres_mm(any_grid))[None, None]
    inner = any_grid.resized((9, 11, 20)).crop((1, 1, 2), (7, 9, 16))  # away from the edge
    sampled = sample_trilinear(values, any_grid, centres_mm(inner))[0, 0]
    np.testing.assert_allclose(sampled, ramp(centres_mm(inner)), atol=1e-10)


def test_bad_input_is_one_sentence(grid):
    data = np.zeros(grid.shape)
    with pytest.raises(InputError, match="its grid"):
        cubic_resample(data[1:], grid, grid)
    with pytest.raises(InputError, match="parallel grids"):
        cell_average(data, grid, grid.rotated((0, 0, 1), 10))
