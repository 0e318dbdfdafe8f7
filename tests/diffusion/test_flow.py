"""The flow: what it is told, where its cells lie, what its loss is for a network known in full."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.diffusion.config import CONDITIONS, FlowConfig, FlowTraining
from medil.diffusion.flow import (
    FLOOR,
    TIMES,
    VARIANCES,
    LatentFlow,
    block_means,
    coarser_grid,
    draw_times,
    hide,
    latent_statistics,
    places,
    repeat_cells,
    scheduler,
    shifted,
    wiener,
)
from medil.diffusion.latents import LatentSet
from medil.errors import InputError
from medil.grid import Grid, centres_mm

pytest.importorskip("monai", reason="needs the extra `sample`")
pytest.importorskip("einops", reason="needs the extra `sample`")

CONFIG = FlowConfig(channels=(16, 16), head_channels=16)
COARSE = FlowConfig(channels=(16,), attention=(False,), head_channels=16)
CASCADE = replace(CONFIG, coarse=COARSE)  # on a flow of the means of blocks of 2 x 2 x 2 cells
UNFOLDED = replace(CASCADE, fold=1, adds=True)  # sees every cell, and adds to the means
# 48 x 32 x 32 mm around 0. With two coarse cells along the first axis torch's bf16 gradients
# of a convolution hold NaN at random on some CPUs; here, as in every preset, there are more.
BOX = Grid.from_spacing((12, 8, 8), 4.0, (-22.0, -14.0, -14.0))


def latent_set(count: int = 6, weights_id: str = "", seed: int = 3, channels: int = 8) -> LatentSet:
    """Random latents whose channels differ in spread, around a mean map."""
    draw = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.1, 2.0, channels)[:, None, None, None]
    mean = torch.randn((channels, *BOX.shape), generator=draw)
    latents = mean + scales * torch.randn((count, channels, *BOX.shape), generator=draw)
    known = torch.rand((count, len(CONDITIONS)), generator=draw) * 30 + 20
    return LatentSet(latents, BOX, known, weights_id)


def tiny_flow(latents: LatentSet | None = None, config: FlowConfig = CONFIG) -> LatentFlow:
    """A flow without training: its network gives zero, its filters pass."""
    torch.manual_seed(0)
    return LatentFlow(config, latent_statistics(latents or latent_set(), config)).eval()


def stirred(flow: LatentFlow) -> LatentFlow:
    """The flow with random weights everywhere, so that all it sees matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in flow.parameters():
            weights += 0.1 * torch.randn_like(weights)
    return flow


# Latents inside the network


def test_a_training_set_has_no_mean_and_unit_spread_inside():
    latents = latent_set()
    flow = tiny_flow(latents)
    inner = flow.normalise(latents.latents)
    assert inner.shape == (6, 64, 6, 4, 4)
    torch.testing.assert_close(inner.mean(0), torch.zeros(64, 6, 4, 4), atol=1e-4, rtol=0)
    assert float(inner.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_channels_keep_their_shares_of_the_spread_inside():
    latents = latent_set()
    inner = tiny_flow(latents).normalise(latents.latents).reshape(6, 8, 8, -1)
    centred = latents.latents - latents.latents.mean(0)
    power, inside = centred.square().mean((0, 2, 3, 4)), inner.square().mean((0, 2, 3))
    assert float(power[-1] / power[0]) > 100
    torch.testing.assert_close(inside / inside[-1], power / power[-1], rtol=1e-3, atol=0)


def test_denormalise_undoes_normalise():
    latents = latent_set()
    flow = tiny_flow(latents)
    again = flow.denormalise(flow.normalise(latents.latents))
    torch.testing.assert_close(again, latents.latents, atol=1e-5, rtol=0)


def from_norm(coord_norm: np.ndarray) -> np.ndarray:
    """RAS+ points, in mm, of coordinates in -1 ... 1 across the box."""
    return BOX.index_to_ras(((coord_norm + 1) * np.array(BOX.shape) - 1) / 2)


@pytest.mark.parametrize("cell", [(0, 0, 0), (2, 5, 7), (11, 7, 4)])
def test_a_bump_lies_in_the_inner_cell_that_place_says(cell):
    flow = tiny_flow()
    bump = torch.zeros(1, 8, *BOX.shape)
    bump[(0, 3, *cell)] = 1.0
    inner = flow.folded(bump)
    assert inner.count_nonzero() == 1
    there = inner[0].sum(0).nonzero()[0].tolist()
    coord_norm = flow.place[(slice(None), *there)].numpy()
    centre_mm = from_norm(coord_norm)
    offset_mm = BOX.index_to_ras(np.array(cell)) - centre_mm
    np.testing.assert_allclose(np.abs(offset_mm), 2.0, atol=1e-4)  # half a latent cell


def test_places_are_the_centres_of_cells_in_mm():
    coord_norm = places((6, 4, 4)).movedim(0, -1).numpy()
    found_mm = from_norm(coord_norm)
    np.testing.assert_allclose(found_mm, centres_mm(BOX.resized((6, 4, 4))), atol=1e-4)


def test_a_grid_that_does_not_fold_is_refused():
    latents = latent_set()
    known = latent_statistics(latents, CONFIG)
    odd = replace(known, mean=known.mean[:, :6], grid=BOX.crop((0, 0, 0), (6, 8, 8)))
    with pytest.raises(InputError, match="does not divide by 4"):
        LatentFlow(CONFIG, odd)


def test_without_einops_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    with pytest.raises(InputError, match=r"pip install 'medil-book\[sample\]'"):
        tiny_flow()


# Conditions


def test_measure_keeps_mean_spread_and_range_of_each_condition():
    latents = latent_set(weights_id="abc")
    known = latent_statistics(latents, replace(CONFIG, conditions=("brain", "spacing")))
    assert list(known.spreads) == ["brain", "spacing"] and known.autoencoder_id == "abc"
    column = latents.known[:, list(CONDITIONS).index("brain")].numpy().astype(float)
    brain = known.spreads["brain"]
    assert (brain.low, brain.high) == (column.min(), column.max())
    assert brain.mean == pytest.approx(column.mean()) and brain.std == pytest.approx(column.std())


def test_tell_gives_standard_scores_and_flags():
    flow = tiny_flow()
    spread = flow.known.spreads["brain"]
    conditions = flow.embed_conditions(
        [{"brain": spread.mean + 2 * spread.std}, {}, {"ventricles": 0.0}]
    )
    column = list(flow.known.spreads).index("brain")
    n = len(flow.known.spreads)
    expected = torch.zeros(2, 2 * n)
    expected[0, column], expected[0, n + column] = 2.0, 1.0
    torch.testing.assert_close(conditions[:2], expected)
    low = flow.known.spreads["ventricles"]
    assert (
        conditions[2, 0] == pytest.approx(-low.mean / low.std)
        and conditions[2, n:].tolist()[0] == 1.0
    )


def test_an_unknown_condition_is_refused_and_the_known_ones_named():
    with pytest.raises(InputError, match="'age'; choose from ventricles, brain, contrast"):
        tiny_flow().embed_conditions([{"age": 40.0}])


def test_conditions_are_hidden_at_their_rates_and_leave_no_trace(rng):
    n, count = 4, 20_000
    scores = torch.rand(count, n) + 1.0
    conditions = torch.cat([scores, torch.ones(count, n)], dim=1)
    shown = hide(conditions, FlowTraining(dropped_share=0.2, hidden_share=0.3), rng)
    given = shown[:, n:]
    assert set(given.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(shown[:, :n], scores * given)
    np.testing.assert_allclose(given.mean(0).numpy(), 0.8 * 0.7, atol=0.015)
    alone = float((given.sum(1) == 0).float().mean())
    assert alone == pytest.approx(0.2 + 0.8 * 0.3**4, abs=0.01)


def test_nothing_is_hidden_where_the_shares_are_zero(rng):
    conditions = torch.cat([torch.randn(50, 4), torch.ones(50, 4)], dim=1)
    assert torch.equal(
        hide(conditions, FlowTraining(dropped_share=0, hidden_share=0), rng), conditions
    )


def test_what_is_told_changes_the_velocity_and_what_is_hidden_does_not():
    flow = stirred(tiny_flow())
    z = torch.randn(1, 64, *flow.inner_shape)
    times = torch.tensor([500.0])
    with torch.inference_mode():
        plain, conditions, other = (
            flow.velocity(z, times, flow.embed_conditions([requested]))
            for requested in ({}, {"ventricles": 20.0}, {"ventricles": 50.0})
        )
    assert (plain - conditions).abs().max() > 1e-3 and (conditions - other).abs().max() > 1e-3


# Times and the loss


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_training_times_are_whole_in_range_and_lean_as_asked(rng, shift):
    times = draw_times(20_000, shift, rng)
    assert times.dtype == torch.int64 and int(times.min()) >= 1 and int(times.max()) <= TIMES
    for share in (0.25, 0.5, 0.75):
        quantile = TIMES * float(shifted(share, shift))
        assert float((times <= quantile).float().mean()) == pytest.approx(share, abs=0.015)
    assert float(shifted(0.5, 3.0)) == 0.75  # by hand: 3/2 over 1 + 2/2


def test_the_line_runs_from_data_to_noise():
    x, n = torch.randn(2, 4, 4, 4, 4), torch.randn(2, 4, 4, 4, 4)
    for time, expected in ((0, x), (250, 0.75 * x + 0.25 * n), (TIMES, n)):
        z = scheduler().add_noise(x, n, torch.tensor([time, time]))
        torch.testing.assert_close(z, expected, atol=1e-6, rtol=0)


def silent(flow: LatentFlow, gate: float = 0.0) -> LatentFlow:
    """The flow with an output layer of zeros, and filters that pass this much."""
    with torch.no_grad():
        for weights in flow.unet.out.parameters():
            weights.zero_()
        flow.gate *= gate
    return flow


@pytest.mark.parametrize("time", [1, 300, 700, TIMES])
def test_a_fresh_flow_is_the_best_there_is_for_standard_normal_latents(time):
    flow, share = silent(tiny_flow(), gate=1.0), time / TIMES
    draw = torch.Generator().manual_seed(5)
    x, n = (torch.randn((40, 64, *flow.inner_shape), generator=draw) for _ in range(2))
    with torch.inference_mode():
        loss = flow((x, n, torch.full((40,), time), torch.zeros(40, 8)))
    left = share**2 / ((1 - share) ** 2 + share**2)  # variance of x given z
    assert float(loss) == pytest.approx(left / max(share, FLOOR) ** 2, rel=0.02)


def test_each_wiener_filter_is_the_best_multiple_for_its_variance():
    share, step = torch.tensor([0.0, 0.2, 0.7, 1.0]), 1e-3
    best = wiener(share).double()
    t, variance = share.double()[:, None], torch.tensor(VARIANCES).double()

    def error(a):  # E (x - a z)^2 of z = (1 - t) x + t n
        return (1 - a * (1 - t)) ** 2 * variance + (a * t) ** 2

    assert bool((error(best) <= torch.minimum(error(best + step), error(best - step))).all())
    np.testing.assert_allclose(best[0], 1.0)
    np.testing.assert_allclose(best[-1], 0.0)


def test_a_silent_network_s_loss_is_the_power_of_the_data_over_that_of_the_time():
    flow = silent(tiny_flow())
    x, n = torch.randn(3, 64, *flow.inner_shape), torch.randn(3, 64, *flow.inner_shape)
    times = torch.tensor([1, 700, TIMES])
    loss = flow.loss(x, n, times, flow.embed_conditions([{}, {}, {}]))
    power = x.square().mean((1, 2, 3, 4))
    shares = torch.tensor([FLOOR, 0.7, 1.0])
    torch.testing.assert_close(loss, power / shares**2)


def test_the_loss_is_the_squared_error_of_the_velocity():
    flow = stirred(tiny_flow())
    x, n = torch.randn(2, 64, *flow.inner_shape), torch.randn(2, 64, *flow.inner_shape)
    times, conditions = torch.tensor([600, 900]), flow.embed_conditions([{"brain": 25.0}, {}])
    with torch.inference_mode():
        z = scheduler().add_noise(x, n, times)
        error = flow.velocity(z, times, conditions) - (x - n)
        loss = flow.loss(x, n, times, conditions)
    torch.testing.assert_close(loss, error.square().mean((1, 2, 3, 4)), rtol=1e-4, atol=0)


# A flow on a coarser one


def test_block_means_lie_on_the_coarser_grid_in_mm():
    grid = coarser_grid(BOX, 2)
    np.testing.assert_allclose(grid.bounds_mm, BOX.bounds_mm)
    np.testing.assert_allclose(grid.spacing_mm, 8.0)
    positions = centres_mm(BOX).movedim(-1, 0)[None]  # a latent that says where it lies
    found = block_means(positions, 2)[0].movedim(0, -1)
    np.testing.assert_allclose(found, centres_mm(grid), atol=1e-9)


def test_a_cascade_measures_the_means_of_its_blocks():
    latents = latent_set(weights_id="abc")
    known = latent_statistics(latents, CASCADE)
    under = known.coarse
    assert under.grid == coarser_grid(BOX, 2) and under.coarse is None
    assert under.spreads == known.spreads and under.autoencoder_id == "abc"
    torch.testing.assert_close(under.mean, block_means(known.mean[None], 2)[0])
    assert float(known.std[0] / under.std[0]) == pytest.approx(8**0.5, rel=0.1)  # white latents


def test_a_cascade_s_loss_is_the_sum_of_its_levels():
    flow = stirred(tiny_flow(config=CASCADE))
    draw = torch.Generator().manual_seed(2)
    x, n = (torch.randn((2, 64, *flow.inner_shape), generator=draw) for _ in range(2))
    u, m = (torch.randn((4, 64, *flow.coarse.inner_shape), generator=draw) for _ in range(2))
    given = torch.randn((2, 8, *flow.inner_shape), generator=draw)
    fine = (x, n, torch.tensor([500, 700]), torch.zeros(2, 8), given)
    coarse = (u, m, torch.tensor([100, 500, 700, 900]), torch.zeros(4, 8))
    with torch.inference_mode():
        both = flow(fine, coarse)
        apart = flow.loss(*fine).mean() + flow.coarse.loss(*coarse).mean()
        own, other = flow.loss(*fine), flow.loss(*fine[:4], given + 1)
    torch.testing.assert_close(both, apart)
    assert float((other - own).abs().min()) > 1e-3  # what is given is seen


def test_an_unfolded_flow_adds_to_the_means_that_it_is_given():
    latents = latent_set()
    flow = tiny_flow(latents, UNFOLDED)  # its network gives zero, its filters pass
    blocks = block_means(latents.latents, 2)
    alone = flow.means_alone(flow.coarse.centred(blocks))
    # In the flow's own units: what is left of each block's mean map and spread.
    expected = flow.normalise(repeat_cells(blocks, 2)) - flow.normalise(
        repeat_cells(block_means(flow.mean[None], 2), 2)
    )
    expected += flow.normalise(flow.mean[None])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    times, conditions = torch.full((len(alone),), 700), torch.zeros(len(alone), 8)
    given = flow.coarse.centred(blocks)
    detail = torch.randn(alone.shape, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        found = flow.estimate(0.3 * (alone + detail), times, conditions, given)
    passed = wiener(torch.tensor([0.7]))[0, VARIANCES.index(1.0)]
    torch.testing.assert_close(found, alone + passed * 0.3 * detail, atol=1e-5, rtol=1e-5)
    assert flow.inner_shape == BOX.shape and alone.shape == latents.latents.shape


def test_repeated_cells_lie_where_their_block_lies():
    grid = coarser_grid(BOX, 2)
    blocks = centres_mm(grid).movedim(-1, 0)[None]
    gap_mm = repeat_cells(blocks, 2)[0].movedim(0, -1) - centres_mm(BOX)
    assert float(gap_mm.abs().max()) == pytest.approx(2.0)  # half a cell, either way
    assert repeat_cells(blocks, 1) is blocks


def test_folds_that_do_not_fill_a_block_are_refused():
    with pytest.raises(InputError, match="no multiple of fold = 3"):
        replace(CONFIG, fold=3)


def test_levels_that_know_different_conditions_are_refused():
    with pytest.raises(InputError, match="the same conditions"):
        replace(CONFIG, coarse=replace(COARSE, conditions=("brain",)))
