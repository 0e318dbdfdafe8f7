import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from medil.layers import reference
from medil.layers.bases import cell_average, cubic_bspline, hat, local_fourier


@pytest.mark.parametrize("width", [0.05, 0.4, 1.0, 3.3])
@pytest.mark.parametrize("delta", [-1.7, -0.6, 0.0, 0.31, 1.0])
def test_cell_average_equals_quadrature(delta, width):
    fast = cell_average(local_fourier(2), np.array(delta), width)
    slow = [reference.mean_over_cell(j, delta, width) for j in range(5)]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_cell_average_tends_to_the_point_value():
    delta = np.linspace(-1.2, 1.2, 25) + 0.013  # off the kinks
    for basis in (local_fourier(3), cubic_bspline()):
        point = cell_average(basis, delta, 0)
        np.testing.assert_allclose(cell_average(basis, delta, 1e-4), point, atol=1e-7)


def test_windows_of_neighbours_sum_to_one():
    delta = torch.linspace(0, 1, 11).double()[:, None] - torch.arange(-2, 4)
    np.testing.assert_allclose(hat(delta).sum(-1), 1)
    np.testing.assert_allclose(cubic_bspline().value(delta)[..., 0].sum(-1), 1)


def test_functions_vanish_at_their_radius():
    for basis in (local_fourier(2), cubic_bspline()):
        edge = torch.tensor([-basis.radius, basis.radius, basis.radius + 0.7]).double()
        np.testing.assert_allclose(basis.value(edge), 0, atol=1e-15)


def test_a_voxel_far_wider_than_the_window_sees_its_whole_area():
    wide = cell_average(cubic_bspline(), np.array(0.0), 10.0)
    np.testing.assert_allclose(wide, 1 / 10)


def test_the_cubic_spline_s_antiderivative_is_scipy_s():
    spline = BSpline.basis_element(np.arange(-2.0, 3.0)).antiderivative()
    delta = np.linspace(-2, 2, 101)
    mine = cubic_bspline().integral(delta)[..., 0]
    np.testing.assert_allclose(mine - mine[0], spline(delta) - spline(-2.0), atol=1e-15)
    np.testing.assert_allclose(cubic_bspline().integral(np.array([-9.0, 9.0]))[..., 0], [-0.5, 0.5])
