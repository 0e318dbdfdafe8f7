"""The appearance flow: its preconditioning, what it sees, and how it samples."""

import numpy as np
import pytest
import torch

from medil.diffusion.appearance import (
    AppearanceFlow,
    AppearanceStatistics,
    draw_times,
    precondition,
    sample_appearance,
    times,
    tissue_box,
)
from medil.diffusion.config import AppearanceConfig
from medil.errors import InputError
from medil.synth.attributes import Spread

CONFIG = AppearanceConfig(classes=3, voxels=2, width=8, blocks=1)
KNOWN = AppearanceStatistics(
    mean=torch.tensor([1.0, -2.0]), std=torch.tensor([0.5, 2.0]), air=torch.tensor([-3.0, 3.0]),
    pitch_mm=4.0, spreads={"age": Spread(40.0, 10.0, 20.0, 60.0)}, autoencoder_id="",
)  # fmt: skip


def flow(stirred: bool = True) -> AppearanceFlow:
    """A flow whose random weights make everything that it sees matter."""
    torch.manual_seed(0)
    made = AppearanceFlow(CONFIG, KNOWN).eval()
    if stirred:
        with torch.no_grad():
            for weights in made.parameters():
                weights += 0.1 * torch.randn_like(weights)
    return made


def some(shape=(6, 6, 6), batch=1, seed=1):
    """Noisy latents and a map on their cells."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn((batch, 2, *shape), generator=draw)
    fine = (batch, *(CONFIG.voxels * n for n in shape))
    return z, torch.randint(0, 3, fine, generator=draw, dtype=torch.uint8)


def test_an_untrained_flow_estimates_as_a_wiener_filter_and_its_target_has_unit_variance():
    made = flow(stirred=False)
    z, maps = some((12, 12, 12), batch=4)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95])
    nothing = made.embed_covariates([{}] * 4)
    x = made.estimate(z, t, maps, nothing)
    gain = (1 - t) / ((1 - t) ** 2 + t**2)
    torch.testing.assert_close(x, gain[:, None, None, None, None] * z)
    clean, noise = torch.randn(2, *z.shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        made.loss(clean, noise, t, maps, nothing), torch.ones(4), atol=0.06, rtol=0
    )


def test_without_noise_the_estimate_is_the_latent_itself():
    z, maps = some()
    made = flow()
    x = made.estimate(z, torch.zeros(1), maps, made.embed_covariates([{}]))
    torch.testing.assert_close(x, z)
    assert precondition(torch.zeros(1))[1] == 0


def test_normalising_is_undone_and_tissue_has_unit_scale():
    z, _ = some()
    made = flow()
    torch.testing.assert_close(made.denormalise(made.normalise(z)), z)
    assert made.normalise(KNOWN.mean[None, :, None, None, None] + KNOWN.std[:, None, None, None])[
        0, :, 0, 0, 0
    ].tolist() == [1.0, 1.0]


def test_map_and_covariates_matter_and_an_unknown_covariate_is_refused():
    z, maps = some()
    made, t = flow(), torch.tensor([0.8])
    plain, old = made.embed_covariates([{}, {"age": 60.0}]).split(1)
    first = made.estimate(z, t, maps, plain)
    assert not torch.allclose(first, made.estimate(z, t, maps, old))
    assert not torch.allclose(first, made.estimate(z, t, (maps + 1) % 3, plain))
    assert old.tolist() == [[2.0, 1.0]]
    with pytest.raises(InputError, match="no condition 'sex'"):
        made.embed_covariates([{"sex": 1.0}])
    with pytest.raises(InputError, match="classes 0 to 2, not 3"):
        made.estimate(z, t, maps + 1, plain)


def test_inside_a_patch_the_network_says_what_it_says_in_the_whole():
    z, maps = some((16, 8, 8))
    made, t = flow(), torch.tensor([0.5])
    told = made.embed_covariates([{}])
    whole = made.estimate(z, t, maps, told)
    patch = made.estimate(z[:, :, 2:14], t, maps[:, 4:28], told)
    reach = 2 + 2 * CONFIG.blocks  # of its convolutions, in cells
    torch.testing.assert_close(whole[:, :, 2 + reach : 14 - reach], patch[:, :, reach:-reach])


def test_training_times_are_between_data_and_noise_and_a_sampler_ends_at_data():
    drawn = draw_times(2000, np.random.default_rng(0))
    assert 0 < drawn.min() < 0.1 and 0.9 < drawn.max() < 1
    assert drawn.median().item() == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.03)
    assert times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert times(2, shift=3)[1] == pytest.approx(0.75)
    with pytest.raises(InputError, match="at least one step"):
        times(0)


def test_a_sample_follows_its_seed_and_is_air_away_from_tissue():
    made = flow()
    maps = torch.zeros(24, 20, 20, dtype=torch.uint8)
    maps[8:12, 8:12, 8:12] = 2
    first, again, other = (sample_appearance(made, maps, seed, steps=3) for seed in (5, 5, 6))
    assert first.shape == (2, 12, 10, 10)
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    box = tissue_box(maps, 2)
    assert box == (slice(2, 8), slice(2, 8), slice(2, 8))
    assert not torch.allclose(first[(slice(None), *box)], other[(slice(None), *box)])
    outside = torch.ones(12, 10, 10, dtype=torch.bool)
    outside[box] = False
    assert torch.equal(first[:, outside].T.unique(dim=0), KNOWN.air[None])


def test_samples_of_gaussian_latents_keep_their_spread(monkeypatch):
    """The exact estimate of latents of mean 1 and standard deviation 0.3, in few steps."""
    made, std = flow(), 0.3

    def estimate(z, t, features, covariates):
        gain = (1 - t) * std**2 / ((1 - t) ** 2 * std**2 + t**2)
        return 1 + gain * (z - (1 - t))

    monkeypatch.setattr(made, "estimate_seen", estimate)
    maps = torch.ones(32, 32, 32, dtype=torch.uint8)
    x = made.normalise(sample_appearance(made, maps, 0)[None])
    assert x.mean().item() == pytest.approx(1, abs=0.02)
    assert x.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.zeros(8, 8, 8, dtype=torch.uint8), "without tissue"),
        (torch.ones(8, 9, 8, dtype=torch.uint8), "no whole cells of 2"),
    ],
)
def test_a_map_that_cannot_be_sampled_is_refused(maps, words):
    with pytest.raises(InputError, match=words):
        sample_appearance(flow(), maps, 0)


def test_a_short_training_learns_what_a_tissue_looks_like():
    """Class 1 has latents near +1, class 2 near -1, with little spread."""
    torch.manual_seed(0)
    made = AppearanceFlow(CONFIG, KNOWN)
    optimiser = torch.optim.AdamW(made.parameters(), 1e-2)
    rng = np.random.default_rng(0)
    told = made.embed_covariates([{}] * 4)
    maps = torch.ones(4, 8, 8, 8, dtype=torch.uint8)
    maps[:, 4:] = 2
    clean = torch.ones(4, 2, 4, 4, 4)
    clean[:, :, 2:] = -1
    for _ in range(90):
        x = clean + 0.1 * torch.randn_like(clean)
        loss = made(x, torch.randn_like(x), draw_times(4, rng), maps, told)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    latent = sample_appearance(made.eval(), maps[0], 3, steps=8)
    x = made.normalise(latent[None])[0]
    assert x[:, :2].mean().item() == pytest.approx(1, abs=0.25)
    assert x[:, 2:].mean().item() == pytest.approx(-1, abs=0.25)
