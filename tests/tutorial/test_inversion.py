"""The searched latent: never worse than its start, and exact where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.tutorial.inversion import best_latent
from medil.volume import Volume


@pytest.fixture
def blob():
    """A smooth off-centre blob on an uneven grid."""
    grid = Grid.from_spacing((17, 14, 9), (1.0, 1.25, 2.0), origin_mm=(3.0, -20.0, 8.0))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    offset_mm = grid.index_to_ras(index) - grid.centre_mm - (1.0, -2.0, 0.5)
    values = np.exp(-np.sum(offset_mm**2, axis=-1) / (2 * 4.0**2))
    return Volume(torch.from_numpy(values).float(), grid)


def rmse(model, latent, volume):
    """Of the rendering on the volume's own grid, 0 ... 1 scale, in full precision."""
    error = model.decode(latent, volume.grid).data - volume.data
    return float(error.square().mean().sqrt()) / (latent.intensity.high - latent.intensity.low)


def test_no_steps_give_back_the_encoder_s_latent(spline_model, blob):
    encoded = spline_model.encode(blob)
    found, history = best_latent(spline_model, blob, steps=0, bf16=False)
    assert torch.equal(found.mean, encoded.mean)
    assert history == pytest.approx([rmse(spline_model, encoded, blob)], rel=1e-4)


def test_the_search_leads_from_a_wrong_latent_to_the_volume(spline_model, blob):
    encoded = spline_model.encode(blob)
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(encoded.mean.shape, generator=generator)
    wrong = replace(encoded, mean=encoded.mean + noise)
    found, history = best_latent(spline_model, blob, 60, 0.02, start=wrong, bf16=False)
    assert len(history) == 61
    assert rmse(spline_model, found, blob) == pytest.approx(min(history), rel=1e-4)
    assert rmse(spline_model, found, blob) < 0.2 * rmse(spline_model, wrong, blob)
    assert torch.equal(wrong.mean, encoded.mean + noise)  # the start is left alone


def test_splines_alone_have_no_better_latent_than_the_projection(spline_model, blob):
    """Least squares is the best already: only its small ridge leaves room."""
    smooth = spline_model.decode(spline_model.encode(blob))
    encoded = rmse(spline_model, spline_model.encode(smooth), smooth)
    found, _ = best_latent(spline_model, smooth, 20, 1e-3, bf16=False)
    assert rmse(spline_model, found, smooth) <= encoded
    assert encoded - rmse(spline_model, found, smooth) < 1e-3


def test_steps_that_overshoot_never_give_back_less_than_the_start(spline_model, blob):
    found, history = best_latent(spline_model, blob, steps=3, learning_rate=50.0, bf16=False)
    assert max(history) > 10 * history[0]
    assert rmse(spline_model, found, blob) == pytest.approx(history[0], rel=1e-4)


def test_weights_keep_their_values_and_get_no_gradient(spline_model, blob):
    before = {name: value.clone() for name, value in spline_model.state_dict().items()}
    best_latent(spline_model, blob, steps=2)
    assert all(torch.equal(before[name], v) for name, v in spline_model.state_dict().items())
    assert all(p.grad is None for p in spline_model.parameters())


def test_bfloat16_finds_what_full_precision_finds(spline_model, blob):
    latents = [best_latent(spline_model, blob, 10, bf16=b)[0] for b in (True, False)]
    in_bf16, in_full = (rmse(spline_model, latent, blob) for latent in latents)
    assert in_bf16 == pytest.approx(in_full, rel=0.05)


def test_a_negative_number_of_steps_is_refused(spline_model, blob):
    with pytest.raises(InputError, match="-1"):
        best_latent(spline_model, blob, steps=-1)
