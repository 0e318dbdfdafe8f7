"""Banded maps against dense matrices, and their gradients."""

from itertools import permutations

import numpy as np
import pytest
import torch

from medil.grid import Grid
from medil.layers import banded as bands
from medil.layers import reference
from medil.layers.banded import Band, plan, render, separable
from medil.layers.bases import cubic_bspline, local_fourier
from medil.layers.operators import IntegratedLTE
from medil.layers.projection import analyse, axis_matrix, least_squares, synthesise, work

NODES = Grid.from_spacing((5, 6, 7), (4.0, 3.0, 5.0), (3, -2, 1)).rotated((1, 2, 3), 17)
SPACINGS = [(1.3, 1.1, 2.1), (1.0, 1.0, 9.0), (7.0, 1.0, 1.0), (1.0, 8.0, 1.0), (9.0, 9.0, 9.0)]


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def dense(nodes, voxels, basis):
    return [axis_matrix(basis, nodes, voxels, axis) for axis in range(3)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("basis", [local_fourier(1), cubic_bspline()], ids=["J=3", "spline"])
def test_synthesis_and_its_transpose_are_the_dense_products(basis, spacing):
    voxels, j = NODES.with_spacing(spacing).shifted((0.4, -0.3, 0.2)), basis.n_functions
    matrices = dense(NODES, voxels, basis)
    coefficients, values = random(2, 3, j, j, j, *NODES.shape), random(2, 3, *voxels.shape)
    got = synthesise(coefficients, basis, NODES, voxels)
    back = analyse(values, basis, voxels, NODES)
    means = [m / m[:, 0].sum(0).clip(min=1e-6) for m in matrices]
    for b, c in np.ndindex(2, 3):
        expected = reference.separable(coefficients[b, c].numpy(), matrices)
        np.testing.assert_allclose(got[b, c], expected, atol=1e-12)
        expected = np.einsum("XYZ,Xax,Yby,Zcz->abcxyz", values[b, c].numpy(), *means, optimize=True)
        np.testing.assert_allclose(back[b, c], expected, atol=1e-12)


@pytest.mark.parametrize("shape", list(permutations((2, 5, 20))))
def test_every_order_of_the_axes_gives_the_dense_product(shape):
    voxels = NODES.resized(shape)
    steps = plan([Band(m) for m in dense(NODES, voxels, local_fourier(1))], 1)
    growths = [step.band.growth for step in steps]
    assert growths == sorted(growths)  # what shrinks comes first
    coefficients = random(1, 1, 3, 3, 3, *NODES.shape)
    got = synthesise(coefficients, local_fourier(1), NODES, voxels)[0, 0]
    matrices = dense(NODES, voxels, local_fourier(1))
    expected = reference.separable(coefficients[0, 0].numpy(), matrices)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2])
def test_short_blocks_chunks_and_slabs_change_nothing(monkeypatch, batch):
    voxels = NODES.with_spacing((1.3, 1.1, 0.6))
    maps = [Band(m) for m in dense(NODES, voxels, local_fourier(1))]
    coefficients = random(batch, 3, 3, 3, *NODES.shape)
    expected = [reference.separable(one.numpy(), [m.matrix for m in maps]) for one in coefficients]
    for name, small in (("BLOCK", 8), ("PATTERN_ENTRIES", 1), ("SLAB_NUMBERS", 1)):
        monkeypatch.setattr(bands, name, small)
        got = render(coefficients, [Band(m.matrix) for m in maps], batch)
        np.testing.assert_allclose(got, np.stack(expected), atol=1e-12)
        back = bands.collect(got, [Band(m.matrix) for m in maps])
        assert abs(float((back * coefficients).sum() - got.square().sum())) < 1e-9


@pytest.mark.parametrize("spacing", SPACINGS[:2])
def test_gradients_are_right_twice(spacing):
    nodes = NODES.crop((0, 0, 0), (2, 3, 2))
    voxels, hats, spline = nodes.with_spacing(spacing), local_fourier(1), cubic_bspline()
    x = random(1, 2, *voxels.shape).requires_grad_()
    a = random(1, 1, 3, 3, 3, *nodes.shape).requires_grad_()
    maps = {
        "synthesise": (lambda t: synthesise(t, hats, nodes, voxels), a),
        "analyse": (lambda t: analyse(t, hats, voxels, nodes), x),
        "least_squares": (lambda t: least_squares(t, spline, voxels, nodes, 1e-3), x),
    }
    for name, (apply, argument) in maps.items():
        assert torch.autograd.gradcheck(apply, argument, fast_mode=True), name
    for apply, argument in maps.values():
        square = lambda t, apply=apply: apply(t).square().sum()  # noqa: E731
        assert torch.autograd.gradgradcheck(square, argument, fast_mode=True)


def test_weights_of_the_convolution_learn_what_they_learned_with_dense_matrices():
    layer, voxels = IntegratedLTE(4, 2, 1).double(), NODES.with_spacing((1.3, 1.1, 2.1))
    layer.amplitude.weight.data, x = random(54, 4, 1, 1, 1), random(2, 4, *NODES.shape)
    x.requires_grad_()
    mask = random(2, 2, *voxels.shape)
    inputs = [x, *layer.parameters()]
    got = torch.autograd.grad((layer(x, NODES, voxels) * mask).sum(), inputs)
    matrices = [torch.from_numpy(m.copy()) for m in dense(NODES, voxels, layer.basis)]
    amplitude = layer.amplitude(x).reshape(2, 2, 3, 3, 3, *NODES.shape)
    image = torch.einsum("noabcxyz,Xax,Yby,Zcz->noXYZ", amplitude, *matrices)
    expected = torch.autograd.grad((image * mask).sum(), inputs)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_gradients_the_operator_says_the_same_from_slab_to_slab(monkeypatch):
    layer, voxels = IntegratedLTE(4, 2, 1).double(), NODES.with_spacing((0.9, 1.1, 2.1))
    layer.amplitude.weight.data = random(54, 4, 1, 1, 1)
    layer.amplitude.bias.data = random(54)
    x = random(2, 4, *NODES.shape)
    whole = layer(x, NODES, voxels).detach()
    monkeypatch.setattr(bands, "SLAB_NUMBERS", 1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, NODES, voxels), whole)


def test_nothing_is_rounded_under_autocast():
    voxels = NODES.with_spacing((1.3, 1.1, 2.1))
    layer = IntegratedLTE(4, 1, 1)
    layer.amplitude.weight.data = random(27, 4, 1, 1, 1, dtype=torch.float32)
    x = random(1, 4, *NODES.shape, dtype=torch.float32)
    exact = layer(x, NODES, voxels)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x, NODES, voxels), exact)
    half = synthesise(torch.ones(1, 1, 1, 1, 1, 5, 6, 7).bfloat16(), cubic_bspline(), NODES, voxels)
    assert half.dtype == torch.float32


def test_a_band_names_the_inputs_that_its_results_need():
    band = Band(axis_matrix(local_fourier(1), NODES, NODES.resized((10, 6, 7)), 0))
    assert band.window(0, 10) == (0, 5)
    assert band.window(3, 5) == (1, 3)  # voxels at 1.25 and 1.75 cells, half a cell wide
    assert band.results_of(1, 2) == (1, 5)
    assert band.n_entries <= 10 * 3 * 2


def test_work_counts_weights_that_are_not_zero():
    nodes = Grid.from_spacing((40, 40, 40), 2.0)
    flops, moved = work(local_fourier(1), nodes, nodes.with_spacing(1.0), 32)
    # An eighth of a node a voxel; six weights an axis on 9 / 4, 3 / 2 and 1 numbers a voxel.
    assert flops == pytest.approx(2 * 32 * 27 / 8 + 12 * (9 / 4 + 3 / 2 + 1), rel=0.02)
    assert moved == pytest.approx(4 * (32 / 8 + 2 * (27 / 8 + 9 / 4 + 3 / 2) + 1), rel=1e-9)


def test_a_map_that_asks_for_no_gradient_leaves_none():
    values = random(1, 1, 1, 1, *NODES.shape)
    maps = tuple(Band(m) for m in dense(NODES, NODES, cubic_bspline()))
    assert not separable(values, maps).requires_grad
