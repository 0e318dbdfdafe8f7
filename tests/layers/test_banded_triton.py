"""The card's kernel and what is computed there, judged by the processor."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.config import preset
from medil.diffusion.config import FLOW_PRESETS
from medil.diffusion.latents import LatentSet
from medil.diffusion.training import FlowLearner
from medil.grid import Grid
from medil.layers import banded_triton as gpu
from medil.layers.banded import Band, plan
from medil.layers.blocks import init_weights
from medil.model.autoencoder import MedIL
from medil.system.device import place_model
from medil.training.launch import launch
from medil.training.patches import prepare_scan
from medil.training.update import draw_step, new_optimiser, step_loss, update
from medil.volume import Volume

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def bands(functions, rng):
    """Three narrow maps, upwards and downwards, each with a random part of its window empty."""
    made = []
    for n_out, n_in in ((14, 7), (11, 6), (5, 12)):
        place = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
        near = np.abs(place[:, None] - np.arange(n_in)) < 1 + n_in / n_out
        matrix = rng.normal(size=(n_out, functions, n_in)) * near[:, None]
        made.append(Band(matrix * (rng.random(matrix.shape) < 0.9)))
    return made


def shapes(step):
    """Of what a map takes, and of what its transpose takes."""
    inner, tail, band = step.inner, step.tail, step.band
    ahead = (step.groups, band.n_functions, inner, band.n_in, tail)
    return ahead, (step.groups, inner, band.n_out, tail)


@pytest.mark.parametrize(("functions", "batch"), [(3, 2), (1, 3)])
def test_terms_say_the_map_and_its_transpose(functions, batch, rng):
    like = torch.float64, torch.device("cpu")
    for step in plan(bands(functions, rng), batch):
        ahead, back = shapes(step)
        x, y = (torch.from_numpy(rng.normal(size=shape)) for shape in (ahead, back))
        # Every group, and every position beside the axis, has the same terms.
        offset, weight = gpu.terms(step.band, step.inner, step.tail, False, like)
        first = x[0].flatten()
        summed = (first[offset.long()] * weight).sum(1)
        torch.testing.assert_close(summed, step.ahead(x).reshape(back)[0, 0, :, 0])
        offset, weight = gpu.terms(step.band, step.inner, step.tail, True, like)
        summed = (y[0].flatten()[offset.long()] * weight).sum(1)
        found = step.back(y).reshape(ahead)[0, :, 0, :, 0]
        torch.testing.assert_close(summed.reshape(found.shape), found)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("functions", "batch"), [(3, 2), (1, 3)])
def test_the_kernel_maps_as_the_processor_does(functions, batch, dtype, rng):
    assert gpu.triton is not None
    for step in plan(bands(functions, rng), batch):
        for shape, name in zip(shapes(step), ("ahead", "back"), strict=True):
            x = torch.from_numpy(rng.normal(size=shape)).to(dtype)
            assert gpu.usable(x.cuda())
            here, there = getattr(step, name)(x), getattr(step, name)(x.cuda())
            torch.testing.assert_close(there.cpu().reshape(here.shape), here)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize(("n_in", "n_out", "count"), [(32, 27, 1000), (5, 3, 77), (64, 64, 129)])
def test_channels_are_mixed_on_a_card_as_by_a_processor(n_in, n_out, count, rng):
    whole = torch.from_numpy(rng.normal(size=(n_in, count + 10))).float().cuda()
    values = whole[:, 4 : count + 4]  # rows that do not follow each other
    weight = torch.from_numpy(rng.normal(size=(n_out, n_in))).float().cuda()
    bias = torch.from_numpy(rng.normal(size=n_out)).float().cuda()
    assert gpu.mixes(values, n_out)
    torch.testing.assert_close(
        gpu.mixed(weight, values, bias), torch.addmm(bias[:, None], weight, values),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def scans(rng):
    data = torch.from_numpy(rng.random((40, 41, 42))).float()
    grid = Grid.from_spacing(data.shape, (1.0, 1.1, 1.2))
    return [prepare_scan(Volume(data, grid))]


def model_of(config, seed=0):
    torch.manual_seed(seed)
    model = MedIL(config.model)
    init_weights(model)
    for head in (model.encoder.out, model.decoder.render.amplitude):  # which start silent
        torch.nn.init.normal_(head.weight, std=0.02)
    return model


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_training_step_on_a_card_has_the_gradients_of_one_on_a_processor(share, rng):
    config = preset("test")
    config = replace(config, train=replace(config.train, batch=2, bf16=False))
    step = draw_step(config, scans(rng), share, rng)
    noise = torch.randn(2, config.model.latent_channels, *step.latent_grid.shape)
    losses, gradients = [], []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for device in ("cpu", "cuda"):
            model = place_model(model_of(config), torch.device(device))
            loss, _ = step_loss(model, step, noise, config.train)
            loss.backward()
            losses.append(loss.item())
            gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    far = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert float(far) < 1e-3


@pytest.mark.gpu
@needs_card
def test_a_card_learns_in_reduced_precision(rng):
    config = preset("test")
    config = replace(config, train=replace(config.train, batch=2, steps=20, warmup_steps=1))
    model = place_model(model_of(config), torch.device("cuda"))
    optimiser = new_optimiser(model, config.train)
    step = draw_step(config, scans(rng), 1.0, rng)
    fabric = launch(1, "cuda")
    model, optimiser = fabric.setup(model, optimiser)
    losses = [update(model, optimiser, step, config.train, 1, fabric)["loss"] for _ in range(20)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("turned", [False, True])
def test_a_card_codes_a_volume_as_a_processor_does(turned, rng):
    model = model_of(preset("test"))
    (made,) = scans(rng)
    volume = Volume(made.data, Grid.from_spacing(made.data.shape, made.spacing_mm))
    target = volume.grid.with_spacing(1.5)
    target = target.rotated((1, 1, 0), 20.0) if turned else target
    here = model.decode(model.encode(volume), target).data
    card = place_model(model_of(preset("test")), torch.device("cuda"))
    there = card.decode(card.encode(volume), target).data
    assert float((here - there).square().mean().sqrt()) < 0.02 * float(here.std())


@pytest.mark.gpu
@needs_card
def test_a_flow_steps_on_a_card(rng):
    flow = replace(FLOW_PRESETS["base"], train=replace(FLOW_PRESETS["base"].train, batch=2))
    grid = Grid.from_spacing((16, 16, 16), 4.0)
    latents = torch.from_numpy(rng.normal(size=(3, 8, *grid.shape))).float()
    known = torch.from_numpy(rng.random((3, 4)))
    learner = FlowLearner(flow, LatentSet(latents, grid, known, "0123"))
    fabric = launch(1, "cuda")
    model = place_model(learner.build(), fabric.device)
    model, optimiser = fabric.setup(model, new_optimiser(model, flow.train))
    learner.prepare(0, fabric.device)
    losses = [learner.step(model, optimiser, k, 0.0, 0, fabric)["loss"] for k in range(3)]
    assert np.isfinite(losses).all()
