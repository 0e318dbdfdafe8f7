import numpy as np
import pytest
import torch

from medil.grid import Grid, centres_mm
from medil.layers import projection
from medil.layers.bases import cubic_bspline, local_fourier
from medil.layers.projection import (
    analyse,
    axis_matrix,
    least_squares,
    synthesise,
    synthesise_points,
)
from medil.regrid import sample_trilinear

NODES = Grid.from_spacing((5, 6, 7), 4.0, (3, -2, 1)).rotated((1, 2, 3), 17)


def random_coefficients(j, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, j, j, j, *NODES.shape, generator=generator, dtype=torch.float64)


def ramp(grid, slope=(0.3, -0.2, 0.5)):
    return (centres_mm(grid) @ torch.tensor(slope, dtype=torch.float64))[None, None]


def test_synthesis_of_a_constant_is_that_constant_at_any_voxel_size():
    ones = torch.ones(1, 1, 1, 1, 1, *NODES.shape, dtype=torch.float64)
    for spacing in ((0.7, 1.0, 3.0), (5.0, 6.0, 9.0)):
        for basis in (local_fourier(0), cubic_bspline()):
            y = synthesise(ones, basis, NODES, NODES.with_spacing(spacing))
            torch.testing.assert_close(y, torch.ones_like(y))


@pytest.mark.parametrize("turn_deg", [0, 30], ids=["parallel", "oblique"])
@pytest.mark.parametrize("spacing", [(0.8, 0.9, 1.1), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("basis", [local_fourier(0), cubic_bspline()], ids=["hat", "spline"])
def test_a_ramp_stays_the_same_ramp_in_mm(basis, spacing, turn_deg):
    coefficients = ramp(NODES)[:, :, None, None, None]  # both bases reproduce linear functions
    inner = NODES.crop((2, 2, 3), (1, 1, 1)).with_spacing(spacing).shifted((0.31, 0.17, -0.23))
    target = inner.rotated((0, 1, 1), turn_deg)
    y = synthesise(coefficients, basis, NODES, target)
    tolerance = 1e-10 if turn_deg == 0 or basis.radius == 2 else 0.05  # hat: Gauss over its kink
    torch.testing.assert_close(y, ramp(target), atol=tolerance, rtol=0)


def test_large_voxels_are_averages_of_the_small_voxels_inside_them():
    basis, coefficients = local_fourier(2), random_coefficients(5)
    large = NODES.resized((5, 3, 4))
    small = large.resized((10, 12, 20))
    pooled = torch.nn.functional.avg_pool3d(
        synthesise(coefficients, basis, NODES, small), (2, 4, 5)
    )
    torch.testing.assert_close(synthesise(coefficients, basis, NODES, large), pooled)


@pytest.mark.parametrize("spacing", [(1.0, 1.5, 2.0), (3.0, 4.0, 2.5), (6.0, 8.0, 7.0)])
def test_oblique_path_agrees_with_the_separable_one(spacing):
    target = NODES.with_spacing(spacing)
    # Gauss points converge fast on the smooth spline, slowly across the hat's kinks.
    for basis, tolerance in ((cubic_bspline(), 0.005), (local_fourier(1), 0.1)):
        coefficients = random_coefficients(basis.n_functions)[:, :1]
        exact = synthesise(coefficients, basis, NODES, target)
        points = centres_mm(target).reshape(-1, 3)
        rough = synthesise_points(coefficients, basis, NODES, points, target.edges_mm)
        error = exact - rough.reshape(exact.shape)
        assert error.square().mean().sqrt() < tolerance * exact.std()


def test_oblique_target_puts_values_at_the_right_mm():
    basis, coefficients = cubic_bspline(), random_coefficients(1)
    target = Grid.from_spacing((3, 4, 5), 0.01, NODES.centre_mm).rotated((0, 1, 1), 40)
    y = synthesise(coefficients, basis, NODES, target)
    points = centres_mm(target).reshape(-1, 3)
    expected = synthesise_points(coefficients, basis, NODES, points)
    torch.testing.assert_close(y.flatten(2), expected, atol=1e-4, rtol=0)


def test_first_mode_alone_is_trilinear_interpolation():
    coefficients = random_coefficients(1)
    points = torch.from_numpy(NODES.index_to_ras(np.random.default_rng(0).uniform(0, 4, (20, 3))))
    ours = synthesise_points(coefficients, local_fourier(0), NODES, points)
    theirs = sample_trilinear(coefficients[:, :, 0, 0, 0], NODES, points)
    torch.testing.assert_close(ours, theirs)


def test_analysis_is_the_normalised_transpose_of_synthesis():
    basis, voxels = local_fourier(1), NODES.with_spacing((1.0, 1.5, 2.5))
    values = torch.randn(1, 1, *voxels.shape, dtype=torch.float64)
    coefficients = random_coefficients(3)[:, :1]
    weights = [axis_matrix(basis, NODES, voxels, axis)[:, 0].sum(0) for axis in range(3)]
    weight = torch.from_numpy(np.einsum("x,y,z->xyz", *weights))
    left = (synthesise(coefficients, basis, NODES, voxels) * values).sum()
    right = (coefficients * analyse(values, basis, voxels, NODES) * weight).sum()
    torch.testing.assert_close(left, right)


def test_analysis_of_a_constant_does_not_depend_on_the_voxel_size():
    for spacing in (0.8, 2.0, (1.0, 1.0, 5.0)):
        voxels = NODES.with_spacing(spacing)
        ones = torch.ones(1, 1, *voxels.shape, dtype=torch.float64)
        mean = analyse(ones, local_fourier(1), voxels, NODES)[0, 0, 0, 0, 0]
        torch.testing.assert_close(mean, torch.ones_like(mean))


def test_least_squares_recovers_the_coefficients_it_could_have_come_from():
    basis, coefficients = cubic_bspline(), random_coefficients(1)[:, :1]
    voxels = NODES.with_spacing(1.0)
    values = synthesise(coefficients, basis, NODES, voxels)
    found = least_squares(values, basis, voxels, NODES, ridge=0.0)
    assert (found - coefficients[:, :, 0, 0, 0]).abs().max() < 0.02  # a 1e-4 ridge remains


def test_batch_equals_loop():
    basis, voxels = cubic_bspline(), NODES.with_spacing(1.5)
    values = torch.randn(3, 1, *voxels.shape, dtype=torch.float64)
    together = least_squares(values, basis, voxels, NODES, 1e-2)
    apart = torch.cat([least_squares(v[None], basis, voxels, NODES, 1e-2) for v in values])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize(
    ("n_voxels", "start", "step"), [(900, 0.0, 1.0), (320, 0.9, 2.8), (1801, -0.25, 0.5)]
)
def test_a_long_axis_is_inverted_run_by_run_as_at_once(monkeypatch, n_voxels, start, step):
    place = (900, n_voxels, start, step)
    invert = projection._least_squares_band.__wrapped__  # without its cache
    whole = invert(cubic_bspline(), place, 2e-3).matrix
    monkeypatch.setattr(projection, "LONG_NODES", 500)
    monkeypatch.setattr(projection, "RUN", 200)
    runs = invert(cubic_bspline(), place, 2e-3).matrix
    assert runs.shape == whole.shape
    np.testing.assert_allclose(runs, whole, atol=1e-8 * np.abs(whole).max())
