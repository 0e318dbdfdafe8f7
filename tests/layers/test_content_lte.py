"""Waves of any frequency under a hat, averaged over voxels."""

import math

import pytest
import torch
from scipy.integrate import quad

from medil.grid import Grid, centres_mm
from medil.layers import content_lte as waves
from medil.layers.bases import local_fourier
from medil.layers.content_lte import hat_wave_integral, plane_waves, render_waves
from medil.layers.operators import IntegratedLTE
from medil.layers.projection import synthesise

NODES = Grid.from_spacing((4, 5, 6), (4.0, 3.0, 5.0), (3, -2, 1)).rotated((1, 2, 3), 17)
VOXELS = NODES.with_spacing((1.3, 2.1, 6.0)).shifted((0.4, -0.3, 0.2))


@pytest.mark.parametrize("frequency", [0.0, 1e-7, 1e-3, 0.09, 0.11, 1.0, -2.7, 6.3])
@pytest.mark.parametrize("delta", [-1.4, -0.8, 0.0, 0.3, 1.0])
def test_the_closed_form_equals_quadrature(frequency, delta):
    got = hat_wave_integral(*torch.tensor([delta, frequency], dtype=torch.float64))
    for value, wave in zip(got, (math.cos, math.sin), strict=True):
        area, _ = quad(
            lambda d, wave=wave: max(0, 1 - abs(d)) * wave(math.pi * frequency * d), 0, delta,
            points=[math.copysign(1, delta)] if abs(delta) > 1 else None, epsabs=1e-13,
        )  # fmt: skip
        assert abs(float(value) - area) < 1e-11


def test_single_precision_is_enough_at_any_frequency():
    delta = torch.linspace(-1.2, 1.2, 49)[:, None]
    frequency = torch.logspace(-6, 1, 60)
    single = hat_wave_integral(delta, frequency)
    double = hat_wave_integral(delta.double(), frequency.double())
    for a, b in zip(single, double, strict=True):
        assert (a - b).abs().max() < 1e-6


def test_the_derivative_in_frequency_is_right_at_and_around_zero():
    delta = torch.tensor([-0.9, -0.2, 0.4, 1.0]).double()[:, None]
    frequency = torch.tensor([0.0, 1e-4, 0.05, 0.2, 1.9]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: hat_wave_integral(delta, f), frequency)


def unit_responses(render, count):
    """[voxels, count]: what each amplitude of two cells, one at an edge, renders."""
    columns = []
    for index in range(count):
        amplitude = torch.zeros(count, *NODES.shape).double()
        amplitude[index, 2, 1, 3], amplitude[index, 0, 4, 5] = 1.0, 0.5
        columns.append(render(amplitude).flatten())
    return torch.stack(columns, dim=1)


def test_at_the_fixed_frequencies_waves_and_products_span_the_same_functions():
    frequency = plane_waves(1).double().T[None, ..., None, None, None].expand(1, 3, 14, 4, 5, 6)
    products = unit_responses(
        lambda a: synthesise(
            a.reshape(1, 1, 3, 3, 3, *NODES.shape), local_fourier(1), NODES, VOXELS
        ),
        27,
    )
    plane = unit_responses(
        lambda a: render_waves(a.reshape(1, 1, 2, 14, *NODES.shape), frequency, NODES, VOXELS), 28
    )
    for basis, others in ((products, plane), (plane, products)):
        weights = torch.linalg.lstsq(basis, others, driver="gelsd").solution
        torch.testing.assert_close(basis @ weights, others, rtol=0, atol=1e-11)


def test_the_constant_wave_alone_is_the_integrated_operators_first_function():
    content, fixed = waves.ContentLTE(3, 1, 1).double(), IntegratedLTE(3, 1, 1).double()
    x = torch.randn(1, 3, *NODES.shape, generator=torch.Generator().manual_seed(0)).double()
    for layer in (content, fixed):
        layer.amplitude.bias.data[0] = 0.7  # constant features: a constant image
        torch.testing.assert_close(
            layer(x, NODES, VOXELS), torch.full((1, 1, *VOXELS.shape), 0.7).double()
        )


def test_rendering_in_chunks_changes_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    amplitude = torch.randn(2, 1, 2, 14, *NODES.shape, generator=generator)
    frequency = torch.randn(2, 3, 14, *NODES.shape, generator=generator)
    whole = render_waves(amplitude, frequency, NODES, VOXELS)
    monkeypatch.setattr(waves, "NUMBERS_PER_CHUNK", 1)
    torch.testing.assert_close(render_waves(amplitude, frequency, NODES, VOXELS), whole)


def test_quadrature_for_oblique_grids_comes_near_the_closed_form(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    amplitude = torch.randn(1, 1, 2, 14, *NODES.shape, generator=generator).double()
    frequency = torch.randn(1, 3, 14, *NODES.shape, generator=generator).double()
    few = VOXELS.crop((5, 3, 1), (3, 2, 2))
    exact = render_waves(amplitude, frequency, NODES, few)
    points, errors = centres_mm(few).reshape(-1, 3), []
    for count in (4, 12):
        monkeypatch.setattr(waves, "POINTS_PER_CELL", count)
        rough = waves.render_points(amplitude, frequency, NODES, points, few.edges_mm)
        rough = rough.unflatten(-1, few.shape)
        errors.append(float((rough - exact).norm() / exact.norm()))
    assert errors[0] < 0.05 and errors[1] < errors[0] / 6  # second order: 9 times less
