import numpy as np
import pytest
import torch

from medil import reference
from medil.grid import Grid, sample_trilinear
from medil.implicit import IntegratedLTE, LiteralLTE, Trilinear, neighbours

NODES = Grid.from_spacing((4, 5, 6), (4.0, 3.0, 5.0), (3, -2, 1)).rotated((1, 2, 3), 17)
PARALLEL = NODES.with_spacing((1.3, 2.1, 6.0)).shifted((0.4, -0.3, 0.2))
OBLIQUE = PARALLEL.rotated((0, 1, 1), 25)


def features(channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, *NODES.shape, generator=generator, dtype=torch.float64)


def awake(layer):
    """Heads start silent; give every weight something to say."""
    generator = torch.Generator().manual_seed(1)
    for weight in layer.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return layer


def some_voxels(grid, count=6):
    corners = [(0, 0, 0), tuple(n - 1 for n in grid.shape)]
    rng = np.random.default_rng(0)
    return corners + [tuple(int(rng.integers(n)) for n in grid.shape) for _ in range(count)]


def test_integrated_lte_equals_the_slow_loop():
    layer = awake(IntegratedLTE(3, 1, harmonics=2))
    with torch.no_grad():
        fast = layer(features(), NODES, PARALLEL)[0, 0]
        amplitudes = layer.amplitude(features())[0].reshape(5, 5, 5, *NODES.shape).numpy()
    for voxel in some_voxels(PARALLEL, 3):
        slow = reference.integrated_lte(amplitudes, NODES, PARALLEL, voxel)
        assert abs(float(fast[voxel]) - slow) < 1e-10


@pytest.mark.parametrize("grid", [PARALLEL, OBLIQUE], ids=["parallel", "oblique"])
def test_literal_lte_equals_the_slow_loop(grid):
    layer = awake(LiteralLTE(3, 2, frequencies=4, hidden=8))
    x = features()
    with torch.no_grad():
        fast = layer(x, NODES, grid)[0]
        amplitude = layer.amplitude(x)[0].numpy()
        frequency = layer.frequency(x)[0].unflatten(0, (-1, 3)).numpy()
        phase = layer.phase.weight.numpy()

        def head(texture):
            return layer.mlp(torch.from_numpy(texture)).numpy()

        for voxel in some_voxels(grid):
            slow = reference.literal_lte(amplitude, frequency, phase, head, NODES, grid, voxel)
            np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


def test_trilinear_equals_the_slow_loop():
    layer = Trilinear(1, 1, hidden=4).double()
    layer.mlp = torch.nn.Identity()
    fast = layer(features(1), NODES, OBLIQUE)[0, 0]
    for voxel in some_voxels(OBLIQUE):
        point = OBLIQUE.index_to_ras(np.array(voxel))
        slow = reference.trilinear(features(1)[0, 0].numpy(), NODES, point)
        assert abs(float(fast[voxel]) - slow) < 1e-10


@pytest.mark.parametrize(
    "layer",
    [IntegratedLTE(3, 1, 1), LiteralLTE(3, 1, 4, 8), Trilinear(3, 1, 8)],
    ids=["integrated", "literal", "trilinear"],
)
def test_a_crop_of_the_target_is_a_crop_of_the_result(layer):
    layer = awake(layer)
    start, shape = (1, 2, 1), (2, 3, 2)
    crop = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    with torch.no_grad():
        whole = layer(features(), NODES, PARALLEL)
        part = layer(features(), NODES, PARALLEL.crop(start, shape))
    torch.testing.assert_close(part, whole[(..., *crop)])


def test_ensemble_weights_sum_to_one_everywhere():
    index = np.random.default_rng(0).uniform(-0.5, 5.5, (50, 3))
    total = sum(weight for _, _, weight in neighbours(index, NODES.shape))
    np.testing.assert_allclose(total, 1)


def test_gradients_reach_every_weight():
    for layer in (IntegratedLTE(3, 1, 1), LiteralLTE(3, 1, 4, 8), Trilinear(3, 1, 8)):
        awake(layer)(features(), NODES, PARALLEL).square().sum().backward()
        for name, weight in layer.named_parameters():
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_interpolating_a_ramp_of_features_keeps_mm():
    from medil.grid import centres_mm

    ramp = centres_mm(NODES)[..., 1][None, None]
    inner = NODES.crop((1, 1, 1), (2, 3, 4)).with_spacing(1.0)
    y = sample_trilinear(ramp, NODES, centres_mm(inner))
    torch.testing.assert_close(y[0, 0], centres_mm(inner)[..., 1])


def test_heads_start_silent():
    for layer in (IntegratedLTE(3, 1, 1), LiteralLTE(3, 1, 4, 8), Trilinear(3, 1, 8)):
        assert not layer(features().float(), NODES, PARALLEL).any()
