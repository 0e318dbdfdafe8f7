"""Sampling: exact flows, guidance, and agreement with a scan, all with known answers."""

import itertools
import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medil.config import preset
from medil.diffusion.flow import TIMES, block_means
from medil.diffusion.sampling import (
    check_pair,
    coarsely,
    data_consistency,
    last_steps,
    line,
    observe,
    sample,
    sample_means,
)
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.volume import Volume
from tests.diffusion.test_flow import BOX, CASCADE, CONFIG, latent_set, silent, stirred, tiny_flow


@pytest.fixture
def in_float32(monkeypatch):
    """Sampling without reduced precision."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.fixture(scope="module")
def flow():
    """A flow that estimates zero: the mean map."""
    return silent(tiny_flow())


@pytest.fixture(scope="module")
def model():
    """An autoencoder with random networks."""
    torch.manual_seed(2)
    return MedIL(preset("test").model).eval()


def exact_flow(flow, points, monkeypatch):
    """Make a flow exact for a data set of one point, [B, C f^3, ...]; gives its calls."""
    calls = []

    def velocity(z, times, conditions, given=None):
        calls.append(float(times[0]))
        return (points - z) / (times / TIMES)[:, None, None, None, None]

    monkeypatch.setattr(flow, "velocity", velocity)
    return calls


# The line


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 100])
def test_the_line_falls_from_noise_to_data_in_so_many_steps(steps):
    times = line(steps)
    assert times[0] == TIMES and times[-1] == 0 and len(times) == steps + 1
    assert all(a > b for a, b in itertools.pairwise(times))


def test_steps_are_finer_near_noise_and_even_without_a_shift():
    gaps = -np.diff(line(20))
    assert gaps[0] < 20 < gaps[-1] and (np.diff(gaps) >= -1).all()
    assert set(-np.diff(line(20, shift=1.0))) == {50}


@pytest.mark.parametrize("steps", [0, -3, TIMES + 1])
def test_a_senseless_number_of_steps_is_refused(steps):
    with pytest.raises(InputError, match=f"1 to {TIMES} steps, not {steps}"):
        line(steps)


# Along the flow


@pytest.mark.parametrize("steps", [1, 2, 13, 30])
def test_one_point_is_reached_from_any_noise_in_any_number_of_steps(flow, monkeypatch, steps):
    points = latent_set(2, seed=9).latents
    calls = exact_flow(flow, flow.normalise(points), monkeypatch)
    means = sample_means(flow, [5, 6], [{}, {}], steps=steps)
    torch.testing.assert_close(means, points, atol=1e-4, rtol=0)
    assert calls == line(steps)[:-1]  # one evaluation a step


def test_a_silent_flow_gives_the_mean_map_from_any_noise(flow):
    means = sample_means(flow, [11, 12], [{}, {}], steps=4)
    torch.testing.assert_close(means, flow.mean.expand_as(means), atol=1e-5, rtol=0)


def test_noise_is_the_seed_s_own_and_standard(flow, monkeypatch):
    monkeypatch.setattr(flow, "velocity", lambda z, times, conditions, given: torch.zeros_like(z))
    noise = flow.normalise(sample_means(flow, [11, 12], [{}, {}], steps=2))
    again = flow.normalise(sample_means(flow, [12], [{}], steps=3))
    torch.testing.assert_close(noise[1], again[0], atol=1e-5, rtol=0)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.05
    assert float(noise.square().mean()) == pytest.approx(1.0, abs=0.05)


def test_a_cascade_is_given_the_block_means_that_its_coarse_flow_drew(monkeypatch):
    points = latent_set(2, seed=9).latents
    flow, drawn = tiny_flow(config=CASCADE), []
    blocks = block_means(points, 2)
    under = exact_flow(flow.coarse, flow.coarse.normalise(blocks), monkeypatch)

    def velocity(z, times, conditions, given):
        drawn.append(given)
        return (flow.normalise(points) - z) / (times / TIMES)[:, None, None, None, None]

    monkeypatch.setattr(flow, "velocity", velocity)
    means = sample_means(flow, [5, 6], [{}, {}], steps=4)
    torch.testing.assert_close(means, points, atol=1e-4, rtol=0)
    assert len(under) == len(drawn) == 4
    for given in drawn:
        torch.testing.assert_close(given, flow.coarse.centred(blocks), atol=1e-3, rtol=0)


def test_levels_of_a_cascade_begin_from_noise_that_has_nothing_in_common(monkeypatch):
    flow = tiny_flow(config=CASCADE)
    drawn = []
    for level in (flow, flow.coarse):
        monkeypatch.setattr(
            level, "velocity", lambda z, *_: drawn.append(z.flatten()) or torch.zeros_like(z)
        )
    sample_means(flow, [3], [{}], steps=1)
    coarse, fine = drawn
    correlation = torch.corrcoef(torch.stack([coarse, fine[: len(coarse)]]))[0, 1]
    assert abs(float(correlation)) < 0.15


def test_a_correction_acts_on_block_means_as_on_latents_that_are_even():
    blocks = torch.randn(2, 8, 6, 4, 4)
    torch.testing.assert_close(coarsely(lambda z: z, 2)(blocks), blocks)
    torch.testing.assert_close(coarsely(lambda z: 2 * z + 1, 2)(blocks), 2 * blocks + 1)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.5])
def test_guidance_moves_linearly_from_no_condition_to_the_condition(flow, monkeypatch, guidance):
    plain, requested, calls = 0.25, 1.0, []

    def velocity(z, times, conditions, given=None):
        calls.append(bool(conditions.any()))
        return torch.full_like(z, requested if conditions.any() else plain)

    monkeypatch.setattr(flow, "velocity", velocity)
    means = sample_means(flow, [1], [{"brain": 30.0}], guidance, steps=5)
    asked_for = list(calls)
    with monkeypatch.context() as patch:
        patch.setattr(flow, "velocity", lambda z, times, conditions, given: torch.zeros_like(z))
        noise = flow.normalise(sample_means(flow, [1], [{}], steps=1))[0]
    expected = noise + plain + guidance * (requested - plain)
    torch.testing.assert_close(flow.normalise(means)[0], expected, atol=1e-4, rtol=0)
    assert asked_for == ([True] * 5 if guidance == 1 else [True, False] * 5)


def test_guidance_without_a_condition_costs_one_evaluation(flow, monkeypatch):
    calls = exact_flow(flow, torch.zeros(1, 64, *flow.inner_shape), monkeypatch)
    sample_means(flow, [1], [{}], guidance=3.0, steps=5)
    assert len(calls) == 5


@pytest.mark.parametrize("config", [CONFIG, CASCADE], ids=["one flow", "cascade"])
def test_a_sample_does_not_depend_on_those_beside_it(in_float32, config):
    flow = stirred(tiny_flow(config=config))
    requested = [{"brain": 25.0}, {}, {"ventricles": 30.0}]
    together = sample_means(flow, [3, 4, 5], requested, guidance=1.5, steps=4)
    for index, seed in enumerate((3, 4, 5)):
        alone = sample_means(flow, [seed], [requested[index]], guidance=1.5, steps=4)
        torch.testing.assert_close(alone[0], together[index], atol=1e-4, rtol=0)
    again = sample_means(flow, [4], [{}], guidance=1.5, steps=4)
    torch.testing.assert_close(again[0], together[1], atol=1e-4, rtol=0)
    assert (together[0] - together[2]).abs().max() > 0.5


@pytest.mark.parametrize(
    ("seeds", "requested", "guidance", "words"),
    [
        ([], [], 1.0, "at least one sample"),
        ([1], [{}, {}], 1.0, "conditions for each"),
        ([1], [{}], -1.0, "zero or above"),
        ([1], [{}], math.nan, "zero or above"),
        ([1], [{"age": 4.0}], 1.0, "no condition 'age'"),
    ],
)
def test_bad_requests_are_refused(flow, seeds, requested, guidance, words):
    with pytest.raises(InputError, match=words):
        sample_means(flow, seeds, requested, guidance, steps=2)


# Where a scan lies


def ball(grid: Grid, centre_mm, radius_mm: float = 9.0) -> Volume:
    """A ball of intensity 300 in air."""
    distance = torch.linalg.vector_norm(centres_mm(grid) - torch.tensor(centre_mm), dim=-1)
    return Volume((distance < radius_mm).float() * 300, grid)


CENTRE_MM = (13.0, -22.0, 31.0)
SCANS = {
    "straight": Grid.from_spacing((60, 70, 60), 1.0, (-17.0, -57.0, 1.0)),
    "oblique slabs": Grid.from_spacing((64, 48, 22), (1.0, 1.5, 3.0), (-19.0, -57.0, -1.0)).rotated(
        (1, 2, -0.5), 17
    ),
    "small": Grid.from_spacing((11, 12, 13), 2.0, (3.0, -33.0, 19.0)),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_box_lies_around_the_head_along_the_scan_s_axes(flow, name):
    scan = ball(SCANS[name], CENTRE_MM)
    observation = observe(scan, flow)
    largest = max(scan.grid.spacing_mm)
    np.testing.assert_allclose(observation.latent_grid.centre_mm, CENTRE_MM, atol=largest)
    assert observation.latent_grid.is_parallel_to(scan.grid) and observation.grid.is_parallel_to(
        scan.grid
    )
    assert observation.latent_grid.shape == BOX.shape
    np.testing.assert_allclose(observation.latent_grid.extent_mm, BOX.extent_mm)


@pytest.mark.parametrize("name", SCANS)
def test_all_whole_voxels_in_the_box_are_kept_where_they_were(flow, name):
    scan = ball(SCANS[name], CENTRE_MM)
    observation = observe(scan, flow)
    index = scan.grid.ras_to_index(centres_mm(observation.grid).numpy())
    whole = np.rint(index).astype(int)
    np.testing.assert_allclose(index, whole, atol=1e-6)
    i, j, k = np.moveaxis(whole, -1, 0)
    expected = observation.intensity.forward(scan.data[i, j, k])
    assert torch.equal(observation.x[0, 0], expected) and float(observation.x.max()) == 1.0
    box = observation.latent_grid
    centre = box.ras_to_index(centres_mm(scan.grid).numpy())
    half = np.array(scan.grid.spacing_mm) / np.array(box.spacing_mm) / 2
    low, high = centre - half >= -0.5 - 1e-6, centre + half <= np.array(box.shape) - 0.5 + 1e-6
    assert observation.grid.n_voxels == int((low & high).all(-1).sum())


@pytest.mark.parametrize("name", SCANS)
def test_cover_is_the_volume_that_the_scan_fills(flow, name):
    observation = observe(ball(SCANS[name], CENTRE_MM), flow)
    filled_mm3 = float(observation.cover.sum()) * np.prod(observation.latent_grid.spacing_mm)
    assert filled_mm3 == pytest.approx(np.prod(observation.grid.extent_mm), rel=1e-5)
    assert float(observation.cover.min()) >= 0 and float(observation.cover.max()) <= 1
    weights = (observation.cover[0, 0] / observation.cover.sum())[..., None]
    middle_mm = (weights * centres_mm(observation.latent_grid)).sum((0, 1, 2))
    np.testing.assert_allclose(middle_mm, observation.grid.centre_mm, atol=1.0)


def test_a_named_middle_is_taken_and_one_far_away_refused(flow):
    scan = ball(SCANS["oblique slabs"], CENTRE_MM)
    observation = observe(scan, flow, (10.0, -20.0, 30.0))
    np.testing.assert_allclose(observation.latent_grid.centre_mm, (10, -20, 30), atol=1e-9)
    with pytest.raises(InputError, match="no voxel of the scan lies in the box"):
        observe(scan, flow, (500.0, 0.0, 0.0))


# Agreement with a scan


def half_seen(flow, spacing_mm: float):
    """A random scan of the box without its leftmost 12 mm, placed as the flow's."""
    grid = BOX.with_spacing(spacing_mm)
    start = int(12 / spacing_mm)
    grid = grid.crop((start, 0, 0), (grid.shape[0] - start, *grid.shape[1:]))
    data = 0.2 + torch.rand(grid.shape, generator=torch.Generator().manual_seed(4))
    return observe(Volume(data, grid), flow, (0.0, 0.0, 0.0))


def test_a_corrected_latent_renders_as_the_scan_and_is_left_alone_outside(flow, spline_model):
    observation = half_seen(flow, 4.0)
    z, correct = torch.randn(2, 8, *BOX.shape), data_consistency(observation, spline_model)
    moved, errors = z, []
    for _ in range(4):
        rendered = spline_model.splines.render(moved, observation.latent_grid, observation.grid)
        errors.append(rendered - observation.x)
        moved = correct(moved)
    assert torch.equal(moved[:, :, :3], z[:, :, :3])  # 12 mm that the scan has not seen
    assert float(errors[0].abs().max()) > 0.5
    assert float(errors[1][:, :, 1:].abs().max()) < 0.01  # cells that reach over the cut: later
    sizes = [float(e.square().mean().sqrt()) for e in errors]
    assert all(b < 0.3 * a for a, b in itertools.pairwise(sizes))


def test_a_scan_that_the_splines_hold_gives_back_its_latent(flow, spline_model):
    grid = BOX.with_spacing(1.0)
    truth = 0.2 * torch.randn(1, 8, *BOX.shape)
    data = spline_model.splines.render(truth, BOX, grid)[0, 0]
    observation = observe(Volume(data, grid), flow, (0.0, 0.0, 0.0))
    assert observation.latent_grid.is_close(BOX) and bool((observation.cover == 1).all())
    correct = data_consistency(
        replace(observation, x=data[None, None]), spline_model
    )  # on the truth's scale
    found, errors = torch.randn(1, 8, *BOX.shape), []
    for _ in range(3):
        errors.append(float((found - truth).square().mean().sqrt()))
        found = correct(found)
    assert errors[0] > 0.9 and errors[1] < 0.25 and errors[2] < 0.08


def test_without_the_closed_form_no_sample_can_be_kept_to_a_scan(flow):
    observation = half_seen(flow, 4.0)
    with pytest.raises(InputError, match="closed form"):
        data_consistency(observation, SimpleNamespace(config=SimpleNamespace(closed_form=False)))


def test_samples_like_a_scan_render_as_it_with_the_whole_decoder(model):
    flow = stirred(tiny_flow(config=CASCADE))
    observation = half_seen(flow, 4.0)
    latents = sample(flow, model, [1, 2], steps=2, like=observation)
    free = sample(flow, model, [1, 2], steps=2)
    for one, other in zip(latents, free, strict=True):
        assert one.grid == observation.latent_grid and one.native == observation.grid
        assert one.intensity == observation.intensity and one.weights_id == model.weights_id
        truth = observation.intensity.inverse(observation.x[0, 0])
        kept, apart = (
            float((model.decode(z, observation.grid).data - truth)[1:].square().mean().sqrt())
            for z in (one, replace(other, intensity=observation.intensity))
        )
        assert kept < 0.05 * apart
    assert not torch.equal(latents[0].mean, latents[1].mean)


def test_a_short_sample_is_corrected_less_often_at_its_end():
    assert [last_steps(n) for n in (1, 2, 4, 6, 30)] == [1, 1, 2, 3, 3]


# Whole samples


def test_a_sample_knows_its_place_and_renders_anywhere(flow, model):
    (latent,) = sample(flow, model, [7], [{"brain": 30.0}], steps=2)
    assert latent.grid == BOX and latent.mean.shape == (8, *BOX.shape)
    assert latent.native.spacing_mm == (1.0, 1.0, 1.0) and latent.native.shares_extent(BOX, 1e-6)
    volume = model.decode(latent, BOX.with_spacing((3.0, 2.0, 4.0)))
    np.testing.assert_allclose(volume.grid.bounds_mm, [[-24, -16, -16], [24, 16, 16]])
    assert torch.isfinite(volume.data).all()


def test_a_flow_and_an_autoencoder_of_other_weights_are_refused(model):
    flow = tiny_flow(latent_set(weights_id="0123456789abcdef"))
    for call in (check_pair, lambda f, m: sample(f, m, [1], steps=1)):
        with pytest.raises(InputError, match="latents of another autoencoder"):
            call(flow, model)
    named = SimpleNamespace(weights_id="0123456789abcdef")
    assert check_pair(flow, named) is None
