"""Literal LTE by products of phasors: equal to one query at a time, on every kind of grid."""

import numpy as np
import pytest
import torch

from medil.grid import Grid
from medil.layers import literal_fast as separable
from medil.layers import reference
from medil.layers.content_lte import plane_waves
from medil.layers.pointwise import LIIF, FixedMLP, LiteralLTE, PointOperator, Trilinear
from medil.model.tiles import support

NODES = Grid.from_spacing((5, 4, 6), (2.0, 2.5, 3.0), (0.5, -1.0, 2.0))
TARGETS = {
    "finer, shifted, anisotropic": Grid.from_spacing((7, 8, 9), (1.1, 0.9, 1.3), (1.3, 0.4, 2.9)),
    "coarser": Grid.from_spacing((3, 2, 4), (3.1, 4.9, 4.3), (0.9, 0.0, 2.2)),
    "reaching outside": Grid.from_spacing((8, 6, 7), (2.7, 3.1, 4.0), (-5.0, -4.0, -3.0)),
    "wholly outside": Grid.from_spacing((2, 3, 2), 1.0, (40.0, -30.0, 2.0)),
    "centres on centres": NODES.resized((15, 12, 18)),
    "one voxel thin": Grid.from_spacing((1, 5, 1), 1.7, (3.0, 1.0, 7.0)),
    "one voxel": Grid.from_spacing((1, 1, 1), 1.0, (3.0, 1.0, 7.0)),
    "a turned frame": None,  # both grids oblique to the world, parallel to each other
}


def grids(name: str) -> tuple[Grid, Grid]:
    if name != "a turned frame":
        return NODES, TARGETS[name]
    nodes = NODES.rotated((1, 2, 3), 25)
    return nodes, nodes.with_spacing((1.3, 1.1, 0.9))


def layer(channels_out: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> LiteralLTE:
    operator = LiteralLTE(4, channels_out, frequencies=5, hidden=8)
    return awake(operator, seed).to(dtype)


def awake(operator: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights of all layers at random, the silent last one too."""
    rng = torch.Generator().manual_seed(seed)
    for p in operator.parameters():
        p.data.normal_(std=0.4, generator=rng)
    return operator


def features(nodes: Grid = NODES, batch: int = 2, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(
        batch, 4, *nodes.shape, generator=torch.Generator().manual_seed(1), dtype=dtype
    )


def maps(operator: LiteralLTE, x: torch.Tensor, nodes: Grid, voxels: Grid) -> list[torch.Tensor]:
    amplitude, phase = operator.coefficients(x, nodes, voxels.edges_mm)
    return [amplitude, operator.frequency_maps(x), phase]


def plain(operator: LiteralLTE, x: torch.Tensor, nodes: Grid, voxels: Grid) -> torch.Tensor:
    return PointOperator.forward(operator, x, nodes, voxels)


def rendered(operator: LiteralLTE, x: torch.Tensor, nodes: Grid, voxels: Grid) -> torch.Tensor:
    return separable.render(*maps(operator, x, nodes, voxels), operator.mlp, nodes, voxels)


@pytest.mark.parametrize("grad", [False, True], ids=["no gradients", "gradients"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", TARGETS)
def test_products_of_phasors_are_the_local_ensemble(name, dtype, tolerance, grad):
    nodes, voxels = grids(name)
    operator, x = layer(dtype=dtype), features(nodes, dtype=dtype)
    with torch.set_grad_enabled(grad):
        fast, slow = rendered(operator, x, nodes, voxels), plain(operator, x, nodes, voxels)
    assert fast.shape == (2, 2, *voxels.shape)
    assert fast.dtype == dtype
    # The phase of far extrapolation is many turns: float32 loses there in both forms.
    scale = max(1.0, slow.abs().max().item()) * (100 if name == "wholly outside" else 1)
    torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance * scale)


def test_the_layer_takes_this_form_when_it_renders_and_the_plain_one_when_it_learns():
    voxels = TARGETS["finer, shifted, anisotropic"]
    operator, x = layer(), features()
    assert torch.equal(operator(x, NODES, voxels), plain(operator, x, NODES, voxels))
    with torch.no_grad():
        assert torch.equal(operator(x, NODES, voxels), rendered(operator, x, NODES, voxels))


def test_fixed_frequencies_take_the_same_path():
    voxels = TARGETS["reaching outside"]
    operator = awake(FixedMLP(4, 2, plane_waves(1), 8), 2).double()
    learns = operator(features(), NODES, voxels).detach()
    with torch.no_grad():
        torch.testing.assert_close(operator(features(), NODES, voxels), learns, rtol=0, atol=1e-9)


def test_every_voxel_is_what_the_slow_loop_says():
    voxels = TARGETS["finer, shifted, anisotropic"]
    operator, x = layer(), features(batch=1)
    with torch.no_grad():
        fast = operator(x, NODES, voxels)[0].numpy()
        amplitude = operator.amplitude(x)[0].numpy()
        frequency = operator.frequency(x)[0].unflatten(0, (-1, 3)).numpy()
        weight = operator.phase.weight.numpy()

        def mlp(wave: np.ndarray) -> np.ndarray:
            return operator.mlp(torch.from_numpy(wave)).numpy()

        for voxel in [(0, 0, 0), (3, 4, 5), (6, 7, 8), (0, 7, 4)]:
            slow = reference.literal_lte(amplitude, frequency, weight, mlp, NODES, voxels, voxel)
            np.testing.assert_allclose(fast[(slice(None), *voxel)], slow, atol=1e-10)


@pytest.mark.parametrize("name", ["finer, shifted, anisotropic", "reaching outside"])
def test_gradients_are_those_of_the_plain_form(name):
    nodes, voxels = grids(name)
    operator, gradients = layer(), []
    for form in (rendered, plain):
        x = features(nodes).requires_grad_()
        loss = form(operator, x, nodes, voxels).square().mean()
        gradients.append(torch.autograd.grad(loss, [x, *operator.parameters()]))
    for fast, slow in zip(*gradients, strict=True):
        assert slow.abs().max() > 0
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


def test_rows_that_do_not_fit_one_step_change_nothing(monkeypatch):
    voxels = TARGETS["finer, shifted, anisotropic"]
    operator, x = layer(), features()
    whole = rendered(operator, x, NODES, voxels)
    monkeypatch.setattr(separable, "PAIRS_PER_ROWS", 1)
    in_steps = rendered(operator, x, NODES, voxels)
    torch.testing.assert_close(in_steps, whole, rtol=0, atol=1e-12)


def test_oblique_grids_take_the_plain_form():
    voxels = TARGETS["finer, shifted, anisotropic"].rotated((1, 0, 1), 20)
    operator, x = layer(), features()
    with torch.no_grad():
        assert torch.equal(operator(x, NODES, voxels), plain(operator, x, NODES, voxels))


@pytest.mark.parametrize("operator", [LiteralLTE(4, 1, 3, 8), FixedMLP(4, 1, plane_waves(1), 8),
                                      LIIF(4, 1, 8), Trilinear(4, 1, 8)],
                         ids=lambda o: type(o).__name__)  # fmt: skip
def test_a_slab_needs_no_more_cells_than_its_reach(operator):
    nodes = Grid.from_spacing((12, 9, 8), 2.0)
    awake(operator, 3).double()
    voxels = nodes.with_spacing((1.3, 1.7, 1.1))
    x = features(nodes, 1)
    with torch.no_grad():
        whole = operator(x, nodes, voxels)
        for start in (0, 5, voxels.shape[0] - 4):
            slab = voxels.crop((start, 0, 0), (4, *voxels.shape[1:]))
            at, part = support(nodes, slab, operator.reach)
            piece = operator(x[(..., *at)], part, slab)
            torch.testing.assert_close(piece, whole[:, :, start : start + 4], rtol=0, atol=1e-10)


def test_reduced_precision_touches_the_mlp_and_not_the_angles():
    voxels = TARGETS["finer, shifted, anisotropic"]
    operator, x = layer(dtype=torch.float32), features(dtype=torch.float32)
    with torch.no_grad():
        amplitude, frequency, phase = maps(operator, x, NODES, voxels)
        # Forty half-turns a cell: angles of thousands of degrees, noise in 8 bits.
        pairs = []
        for f in (frequency, frequency + 40.0):
            given = amplitude, f, phase, operator.mlp, NODES, voxels
            exact = separable.render(*given)
            with torch.autocast("cpu", torch.bfloat16):
                pairs.append((separable.render(*given), exact))
    for low, high in pairs:
        assert low.dtype == torch.float32
        error = (low - high).square().mean().sqrt() / high.std()
        assert 0 < error < 0.02
