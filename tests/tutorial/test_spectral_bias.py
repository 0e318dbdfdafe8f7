"""Toy models learn what the page says they learn, and their closed forms hold."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from medil.grid import Grid, centres_mm
from medil.layers.operators import IntegratedLTE, LiteralLTE, Trilinear
from medil.layers.reference import mode
from medil.tutorial.spectral_bias import (
    LocalTexture,
    Renderer,
    fit,
    fit_points,
    positions,
    race,
    random_crop,
    read_both_ways,
    recovered,
    relu_network,
    rivals,
    spline_error,
    start,
    waves,
)
from medil.volume import Volume

CYCLES = (1, 4, 16)
X = positions((256,))
SIGNAL = waves(X[:, 0], CYCLES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def learned(name, steps=300):
    rival = rivals((16,), scale=8.0, hidden=48, generator=seeded())[name]
    return fit_points(rival, X, SIGNAL, (0, 30, steps), batch=256, generator=seeded(1))


def test_positions_are_the_centres_of_even_cells():
    assert positions((2, 4)).tolist()[:2] == [[0.25, 0.125], [0.25, 0.375]]
    torch.testing.assert_close(positions((5, 3)).mean(0), torch.tensor([0.5, 0.5]))


def test_waves_have_amplitude_one_at_their_frequencies_and_nothing_elsewhere():
    amplitude = torch.fft.rfft(SIGNAL.double()).abs() / 128
    expected = torch.zeros_like(amplitude)
    expected[list(CYCLES)] = 1.0
    torch.testing.assert_close(amplitude, expected, atol=1e-5, rtol=0)


def test_recovered_is_the_share_in_phase():
    wave, other = (torch.sin(2 * math.pi * n * X[:, 0]) for n in (4, 5))
    assert recovered(0.3 * wave + other, wave, 4) == pytest.approx(0.3, abs=1e-5)
    assert recovered(-wave, wave, 4) == pytest.approx(-1, abs=1e-5)
    quarter = torch.cos(2 * math.pi * 4 * X[:, 0])
    assert recovered(quarter, wave, 4) == pytest.approx(0, abs=1e-5)


def test_local_waves_hold_one_cycle_a_cell_exactly():
    model = LocalTexture((16,), harmonics=2)
    inner = X[16:-16]  # beyond the outermost centres only one cell speaks
    with torch.no_grad():
        model.amplitudes[:, 3] = -1  # sin 2 pi d, and d = 16 x - 1/2 - n
        value = model(inner)[:, 0]
    torch.testing.assert_close(value, torch.sin(2 * math.pi * 16 * inner[:, 0]), atol=2e-5, rtol=0)


def test_local_waves_in_two_dimensions_equal_a_slow_loop():
    model = LocalTexture((3, 4), harmonics=1).double()
    torch.nn.init.normal_(model.amplitudes, generator=seeded())
    x = torch.rand(5, 2, generator=seeded(1), dtype=torch.float64)
    for point, fast in zip(x.tolist(), model(x)[:, 0].tolist(), strict=True):
        index = [point[0] * 3 - 0.5, point[1] * 4 - 0.5]
        slow = 0.0
        for node in product(range(-1, 4), range(-1, 5)):
            delta = [i - n for i, n in zip(index, node, strict=True)]
            weight = math.prod(max(0.0, 1 - abs(d)) for d in delta)
            cell = min(max(node[0], 0), 2), min(max(node[1], 0), 3)
            for a, b in product(range(3), repeat=2):
                wave = mode(a, delta[0]) * mode(b, delta[1])
                slow += weight * wave * model.amplitudes[(*cell, 3 * a + b)].item()
        assert fast == pytest.approx(slow, abs=1e-12)


def test_a_plain_network_learns_coarse_waves_first():
    _, early, late = learned("plain MLP")
    shares = [recovered(early.value, SIGNAL, n) for n in CYCLES]
    assert shares[0] > 0.6 > 0.3 > shares[1] > shares[2]
    assert recovered(late.value, SIGNAL, 16) < 0.2


@pytest.mark.parametrize("name", ["Fourier features", "local Fourier"])
def test_waves_in_the_input_learn_sixteen_cycles_where_the_plain_network_does_not(name):
    *_, late = learned(name)
    assert all(recovered(late.value, SIGNAL, n) > 0.95 for n in CYCLES)


def test_rivals_of_one_seed_are_the_same_and_silent_layers_stay_silent():
    one, two = (relu_network(2, 8, seeded(3)) for _ in range(2))
    torch.testing.assert_close(one(positions((4, 4))), two(positions((4, 4))), rtol=0, atol=0)
    assert not start(IntegratedLTE(3, 1, 1), seeded()).amplitude.weight.any()


def test_fit_looks_where_it_is_asked_and_finds_the_minimum():
    model = torch.nn.Linear(1, 1, bias=False)
    snapshots = fit(
        model, lambda step: (model.weight - 2).square().sum(), lambda: model.weight.clone(),
        look_at=(200, 0, 50), learning_rate=0.1,
    )  # fmt: skip
    assert [s.step for s in snapshots] == [0, 50, 200]
    assert snapshots[0].time_s == 0 < snapshots[1].time_s <= snapshots[2].time_s
    assert float(snapshots[-1].value) == pytest.approx(2, abs=1e-3)


GRID = Grid.from_spacing((20, 22, 24), (1.0, 1.5, 2.0), (-9, 4, 2)).rotated((1, 2, 3), 17)
RAMP = centres_mm(GRID) @ torch.tensor([0.03, -0.02, 0.05], dtype=torch.float64)


def test_a_crop_keeps_each_voxel_at_its_place_in_mm():
    crop = random_crop(RAMP, GRID, side_vox=6, pitch_mm=4.0, generator=seeded(2))
    expected = centres_mm(crop.voxels) @ torch.tensor([0.03, -0.02, 0.05], dtype=torch.float64)
    torch.testing.assert_close(crop.values[0, 0], expected)


def test_the_feature_grid_of_a_crop_surrounds_it_at_a_random_phase():
    generator, phases = seeded(4), []
    for _ in range(5):
        crop = random_crop(RAMP, GRID, side_vox=6, pitch_mm=4.0, generator=generator)
        assert crop.nodes.is_parallel_to(crop.voxels)
        faces = crop.nodes.ras_to_index(crop.voxels.corners_mm)  # in feature cells
        assert faces.min() > 0 - 1e-6
        assert (faces.max(axis=0) < np.array(crop.nodes.shape) - 1 + 1e-6).all()
        phases.append(crop.nodes.ras_to_index(crop.voxels.index_to_ras(np.zeros(3))) % 1)
    assert np.std(phases, axis=0).min() > 0.05


@pytest.mark.parametrize(
    "operator", [IntegratedLTE(4, 1, 1), LiteralLTE(4, 1, 4, 8), Trilinear(4, 1, 8)]
)
def test_every_operator_learns_one_crop(operator):
    crop = random_crop(RAMP.float(), GRID, side_vox=6, pitch_mm=4.0, generator=seeded(2))
    renderer = Renderer(operator, channels=4, hidden=16, generator=seeded())
    before, after = race(renderer, lambda: crop, [crop], (0, 60), 3e-3)
    assert float(before.value) == pytest.approx(float(crop.values.square().mean()))
    assert float(after.value) < 0.3 * float(before.value)


def test_splines_that_keep_every_voxel_rebuild_the_crop():
    crop = random_crop(RAMP, GRID, side_vox=6, pitch_mm=4.0, generator=seeded(2))
    side_mm = crop.voxels.extent_mm[0]
    as_many = round((4.0 * 6 / side_mm) ** 3)  # one number a voxel
    assert spline_error(crop, as_many, 4.0, ridge=1e-9) < 1e-4
    rough = torch.rand((1, 1, 6, 6, 6), dtype=torch.float64, generator=seeded())
    rough = crop._replace(values=rough)
    assert spline_error(rough, 1, 4.0) > 10 * spline_error(rough, as_many, 4.0, ridge=1e-9)


def test_a_wave_finer_than_the_voxels_averages_out_but_is_read_at_points():
    grid = Grid.from_spacing((64, 64, 4), 0.5)
    wave = torch.cos(2 * math.pi * centres_mm(grid)[..., 0] / 2)  # 2 mm long
    at_points, averages = read_both_ways(Volume(wave, grid), grid.with_spacing(2.0))
    inner = slice(2, -2)
    assert at_points.data[inner, inner].abs().max() > 0.5
    assert averages.data[inner, inner].abs().max() < 0.05
