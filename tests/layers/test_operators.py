"""Every operator against slow loops, and what all of them have in common."""

import numpy as np
import pytest
import torch

from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.layers import reference
from medil.layers.operators import OPERATORS, Operator, SubPixel, make_operator, resample_cubic
from medil.layers.pointwise import Trilinear, neighbours
from medil.regrid import sample_trilinear

NODES = Grid.from_spacing((4, 5, 6), (4.0, 3.0, 5.0), (3, -2, 1)).rotated((1, 2, 3), 17)
PARALLEL = NODES.with_spacing((1.3, 2.1, 6.0)).shifted((0.4, -0.3, 0.2))
OBLIQUE = NODES.with_spacing((1.3, 1.2, 1.1)).rotated((0, 1, 1), 25).crop((4, 2, 9), (3, 4, 5))
SMALL = ModelConfig(frequencies=4, hidden=8, harmonics=1)
GRIDS = pytest.mark.parametrize("grid", [PARALLEL, OBLIQUE], ids=["parallel", "oblique"])
ALL = pytest.mark.parametrize("kind", OPERATORS)


def features(channels=3, batch=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *NODES.shape, generator=generator, dtype=torch.float64)


def operator(kind, channels_out=1):
    """An operator whose heads, which start silent, have something to say."""
    layer = make_operator(SMALL, kind, 3, channels_out)
    generator = torch.Generator().manual_seed(1)
    for weight in layer.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return layer


def some_voxels(grid, count=6):
    corners = [(0, 0, 0), tuple(n - 1 for n in grid.shape)]
    rng = np.random.default_rng(0)
    return corners + [tuple(int(rng.integers(n)) for n in grid.shape) for _ in range(count)]


def head(layer):
    return lambda numbers: layer.mlp(torch.from_numpy(numbers)).numpy()


# The table


@pytest.mark.parametrize("kind", ["magic", ""])
def test_a_name_without_an_operator_is_refused(kind):
    with pytest.raises(InputError, match=rf"operator must be one of integrated, .*not {kind!r}"):
        make_operator(SMALL, kind, 3, 1)


def test_an_operator_that_cannot_encode_is_refused_in_an_encoder():
    make_operator(SMALL, "liif", 3, 1)
    with pytest.raises(InputError, match=r"encoder_operator must be one of .*not 'liif'"):
        make_operator(SMALL, "liif", 3, 1, encodes=True)


def test_one_entry_in_the_table_makes_a_new_operator(monkeypatch):
    made = Operator(lambda config, *channels: Trilinear(*channels, config.hidden + 1))
    monkeypatch.setitem(OPERATORS, "wider", made)
    assert make_operator(SMALL, "wider", 3, 1).mlp[0].out_features == SMALL.hidden + 1
    assert [type(make_operator(SMALL, kind, 3, 1)) for kind in OPERATORS][-1] is Trilinear


# Slow loops


@torch.no_grad()
def test_integrated_lte_equals_the_slow_loop():
    layer = operator("integrated")
    fast = layer(features(), NODES, PARALLEL)[0, 0]
    amplitudes = layer.amplitude(features())[0].reshape(3, 3, 3, *NODES.shape).numpy()
    for voxel in some_voxels(PARALLEL, 3):
        slow = reference.integrated_lte(amplitudes, NODES, PARALLEL, voxel)
        assert abs(float(fast[voxel]) - slow) < 1e-10


@torch.no_grad()
def test_content_lte_equals_the_slow_loop():
    layer = operator("integrated-content")
    fast = layer(features(), NODES, PARALLEL)[0, 0]
    amplitude, frequency = (t[0].numpy() for t in layer.coefficients(features()))
    for voxel in some_voxels(PARALLEL, 3):
        slow = reference.content_lte(amplitude[0], frequency, NODES, PARALLEL, voxel)
        assert abs(float(fast[voxel]) - slow) < 1e-10


@GRIDS
@torch.no_grad()
def test_literal_lte_equals_the_slow_loop(grid):
    layer, x = operator("literal", channels_out=2), features()
    fast = layer(x, NODES, grid)[0]
    amplitude = layer.amplitude(x)[0].numpy()
    frequency = layer.frequency(x)[0].unflatten(0, (-1, 3)).numpy()
    phase = layer.phase.weight.numpy()
    for voxel in some_voxels(grid):
        slow = reference.literal_lte(amplitude, frequency, phase, head(layer), NODES, grid, voxel)
        np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


@GRIDS
@torch.no_grad()
def test_skip_lte_is_the_literal_loop_axis_by_axis_plus_interpolation(grid):
    layer, x = operator("literal-skip", channels_out=2), features()
    fast = (layer(x, NODES, grid) - layer.skip(x, NODES, grid))[0]
    n = 3 * SMALL.frequencies
    along = np.zeros((n, 3, *NODES.shape))
    for k in range(n):
        along[k, k % 3] = layer.frequency(x)[0, k].numpy()
    phase_of_cells = layer.phase.weight.numpy() * NODES.spacing_mm
    amplitude = layer.amplitude(x)[0].numpy()
    for voxel in some_voxels(grid):
        slow = reference.literal_lte(
            amplitude, along, phase_of_cells, head(layer), NODES, grid, voxel
        )
        np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


@torch.no_grad()
def test_skip_lte_starts_as_interpolation():
    layer = make_operator(SMALL, "literal-skip", 3, 2).double()
    torch.nn.init.normal_(layer.skip.mlp[-1].weight)
    values = layer(features(), NODES, PARALLEL)
    assert values.abs().max() > 0.01
    torch.testing.assert_close(values, layer.skip(features(), NODES, PARALLEL))


@GRIDS
@torch.no_grad()
def test_fixed_mlp_is_the_literal_loop_with_frozen_frequencies(grid):
    layer, x = operator("fixed-mlp"), features()
    fast = layer(x, NODES, grid)[0]
    amplitude, phase = layer.amplitude(x)[0].numpy(), layer.phase.weight.numpy()
    frozen = np.broadcast_to(layer.waves.numpy()[..., None, None, None], (14, 3, *NODES.shape))
    for voxel in some_voxels(grid):
        slow = reference.literal_lte(amplitude, frozen, phase, head(layer), NODES, grid, voxel)
        np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


@GRIDS
@torch.no_grad()
def test_liif_equals_the_slow_loop(grid):
    layer, x = operator("liif"), features()
    fast = layer(x, NODES, grid)[0]
    for voxel in some_voxels(grid):
        slow = reference.liif(x[0].numpy(), head(layer), NODES, grid, voxel)
        np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


def test_trilinear_equals_the_slow_loop():
    layer = make_operator(SMALL, "trilinear", 1, 1)
    layer.mlp = torch.nn.Identity()
    fast = layer(features(1), NODES, OBLIQUE)[0, 0]
    for voxel in some_voxels(OBLIQUE):
        point = OBLIQUE.index_to_ras(np.array(voxel))
        slow = reference.trilinear(features(1)[0, 0].numpy(), NODES, point)
        assert abs(float(fast[voxel]) - slow) < 1e-10


# What all operators have in common


@ALL
@torch.no_grad()
def test_a_crop_of_the_target_is_a_crop_of_the_result(kind):
    layer, start, shape = operator(kind), (1, 2, 1), (2, 3, 2)
    crop = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    whole = layer(features(), NODES, PARALLEL)
    part = layer(features(), NODES, PARALLEL.crop(start, shape))
    torch.testing.assert_close(part, whole[(..., *crop)])


@ALL
@GRIDS
@torch.no_grad()
def test_moving_both_grids_by_the_same_mm_changes_nothing(kind, grid):
    layer, move = operator(kind), (31.7, -4.2, 8.9)
    here = layer(features(), NODES, grid)
    there = layer(features(), NODES.shifted(move), grid.shifted(move))
    torch.testing.assert_close(there, here)


@ALL
@torch.no_grad()
def test_batch_equals_loop(kind):
    layer, x = operator(kind, channels_out=2), features(batch=3)
    together = layer(x, NODES, PARALLEL)
    apart = torch.cat([layer(one[None], NODES, PARALLEL) for one in x])
    torch.testing.assert_close(together, apart)
    assert together.shape == (3, 2, *PARALLEL.shape)


@ALL
def test_reduced_precision_stays_near_the_exact_result(kind):
    layer, x = operator(kind).float(), features(batch=2).float()
    thick = NODES.with_spacing((1.0, 1.0, 3.0)).shifted((0.31, 0.17, -0.4))
    with torch.no_grad():
        exact = layer(x, NODES, thick)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(x, NODES, thick).float()
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@ALL
def test_gradients_reach_every_weight(kind):
    layer = operator(kind)
    layer(features(), NODES, PARALLEL).square().sum().backward()
    for name, weight in layer.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


@ALL
def test_heads_start_silent_and_can_leave_silence(kind):
    layer, x = make_operator(SMALL, kind, 3, 1), features().float()
    result = layer(x, NODES, PARALLEL)
    assert not result.any()
    result.sum().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in layer.parameters())


def test_ensemble_weights_sum_to_one_everywhere():
    index = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 5.5, (50, 3)))
    total = sum(weight for _, _, weight in neighbours(index, NODES.shape))
    np.testing.assert_allclose(total, 1)


def test_interpolating_a_ramp_of_features_keeps_mm():
    ramp = centres_mm(NODES)[..., 1][None, None]
    inner = NODES.crop((1, 1, 1), (2, 3, 4)).with_spacing(1.0)
    y = sample_trilinear(ramp, NODES, centres_mm(inner))
    torch.testing.assert_close(y[0, 0], centres_mm(inner)[..., 1])


# The sub-pixel peer

FINE = Grid.from_spacing((30, 28, 26), (1.0, 1.2, 0.9), (3, -2, 1)).rotated((1, 2, 3), 17)


@pytest.mark.parametrize("spacing", [0.7, 1.0, 2.3, (1.0, 1.0, 3.0)])
def test_cubic_resampling_keeps_a_constant_and_a_ramp_in_mm(spacing):
    inner = FINE.crop((10, 9, 9), (10, 10, 8)).with_spacing(spacing)
    values = torch.stack([torch.full(FINE.shape, 3.0).double(), centres_mm(FINE)[..., 2]])
    got = resample_cubic(values[:, None], FINE, inner)[:, 0]
    torch.testing.assert_close(got[0], torch.full(inner.shape, 3.0).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(got[1], centres_mm(inner)[..., 2], rtol=0, atol=0.02)


def test_cubic_resampling_onto_the_same_grid_changes_almost_nothing():
    values = torch.randn(1, 1, *FINE.shape, generator=torch.Generator().manual_seed(0)).double()
    error = resample_cubic(values, FINE, FINE) - values
    assert error.norm() < 0.01 * values.norm()


def test_cubic_resampling_to_larger_voxels_does_not_alias():
    line = torch.arange(40.0).double()
    wave = torch.cos(2 * torch.pi * line / 2.2)  # of 2.2 mm: 4 mm voxels cannot hold it
    values = wave[:, None, None].expand(40, 8, 8)[None, None]
    fine = Grid.from_spacing((40, 8, 8), 1.0)
    inner = fine.crop((8, 0, 0), (24, 8, 8)).resized((6, 8, 8))
    assert resample_cubic(values, fine, inner).abs().max() < 0.25


def test_subpixel_at_its_own_voxels_gives_back_what_its_convolution_says():
    layer, x = operator("subpixel"), features()
    assert isinstance(layer, SubPixel) and layer.factor == 2
    fixed = NODES.resized([2 * n for n in NODES.shape])
    with torch.no_grad():
        got, said = layer(x, NODES, fixed), layer.spread(x)
    corner = got[0, 0, ::2, ::2, ::2]  # channel 0 of `spread`: the first voxel of each block
    assert (corner - said[0, 0]).norm() < 0.02 * said[0, 0].norm()
