"""Each term of the loss against its closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medil.config import TrainConfig
from medil.data.perceptual import alexnet_lpips
from medil.errors import InputError
from medil.training.losses import (
    FORMER_TERMS,
    Adversary,
    Perceptual,
    charbonnier,
    check_terms,
    floored_rms,
    kl_to_standard_normal,
    l1,
    total_loss,
)
from medil.training.state import load_state, save_state

PLAIN = TrainConfig()
STANDARD = torch.zeros(2, 8, 1, 1, 1)  # mean and log-variance of latents without KL


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, 1, 7, 8, 9, generator=generator, dtype=torch.float64).unbind(0)


def test_kl_is_that_of_torch_s_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 8, 3, 4, 5, generator=generator, dtype=torch.float64)
    log_var = torch.randn(2, 8, 3, 4, 5, generator=generator, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_to_standard_normal(mean, log_var), expected)


def test_a_standard_normal_latent_costs_nothing():
    assert kl_to_standard_normal(torch.zeros(3), torch.zeros(3)) == 0


def test_floored_rms_of_a_constant_offset():
    truth = torch.zeros(2, 1, 3, 4, 5)
    offset = torch.tensor([3.0, 4.0]).reshape(2, 1, 1, 1, 1)
    expected = (math.sqrt(9 + 1) + math.sqrt(16 + 1)) / 2
    assert floored_rms(truth + offset, truth, floor=1.0).item() == pytest.approx(expected)


def test_l1_and_charbonnier_of_a_constant_offset(images):
    truth = images[0]
    assert l1(truth - 0.3, truth).item() == pytest.approx(0.3)
    assert charbonnier(truth - 0.3, truth, 0.16).item() == pytest.approx(0.5)  # 3, 4, 5


@pytest.mark.parametrize("loss", ["rms", "charbonnier", "l1"])
def test_a_perfect_image_has_a_finite_gradient_of_zero(loss, images):
    truth = images[0]
    estimate = truth.clone().requires_grad_()
    value = total_loss(estimate, truth, STANDARD, STANDARD, replace(PLAIN, loss=loss))
    value.backward()
    assert value.item() == pytest.approx(0 if loss == "l1" else math.sqrt(PLAIN.loss_floor))
    assert torch.isfinite(estimate.grad).all() and estimate.grad.abs().max() == 0


@pytest.mark.parametrize("loss", ["rms", "charbonnier", "l1"])
def test_the_mean_over_equal_parts_is_the_whole(loss, images):
    settings, latents = replace(PLAIN, loss=loss, kl_weight=0.5), images
    whole = total_loss(*images, *latents, settings)
    parts = [total_loss(*(x[k : k + 2] for x in (*images, *latents)), settings) for k in (0, 2)]
    torch.testing.assert_close(whole.float(), torch.stack(parts).mean().float())


@pytest.mark.parametrize("name", FORMER_TERMS)
def test_a_term_of_earlier_releases_is_refused(name):
    check_terms(PLAIN)
    with pytest.raises(InputError, match=f"{name} belongs to a loss"):
        check_terms(replace(PLAIN, **{name: 0.1}))


def test_the_sum_weighs_the_kl_term():
    estimate, truth = torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    mean, log_var = torch.full((1, 8, 1, 1, 1), 2.0), torch.zeros(1, 8, 1, 1, 1)
    settings = TrainConfig(loss_floor=0.0, kl_weight=0.25)
    total = total_loss(estimate, truth, mean, log_var, settings)
    assert total.item() == pytest.approx(1 + 0.25 * 2)


def test_the_perceptual_term_refuses_a_random_trunk(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    alexnet_lpips.cache_clear()
    with pytest.raises(InputError, match=r"alexnet.* could not be downloaded"):
        Perceptual()


def test_the_perceptual_term_looks_at_planes_along_every_axis(monkeypatch, images):
    seen = []

    class Mean(torch.nn.Module):
        def forward(self, one, other):
            seen.append(tuple(one.shape))
            return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr("medil.training.losses.alexnet_lpips", Mean)
    monkeypatch.setattr("medil.training.losses.LEAST", 8)
    term = Perceptual()
    truth = images[0].float()
    assert term(truth + 0.1, truth).item() == pytest.approx(0.2, rel=1e-5)  # -1 ... 1 there
    assert seen == [(16, 3, 8, 9), (16, 3, 8, 9), (20, 3, 8, 8)]


@pytest.fixture
def adversary(monkeypatch):
    pytest.importorskip("monai")
    monkeypatch.setattr("medil.training.losses.STRIDED", 1)  # a small judge
    return lambda: Adversary(learning_rate=2e-3)


def fixed_patches():
    generator = torch.Generator().manual_seed(3)
    rough = torch.rand(2, 1, 16, 16, 10, generator=generator)  # thinner than the strides need
    return torch.full_like(rough, 0.5), rough


def test_an_adversary_learns_to_tell_two_patches(adversary):
    smooth, rough = fixed_patches()
    judge = adversary()
    losses = [judge.update(smooth, rough) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]
    assert judge.verdict(rough).mean() > judge.verdict(smooth).mean() + 0.5
    assert judge.generator_loss(rough) < judge.generator_loss(smooth)


def test_the_generator_s_loss_moves_the_image_and_not_the_judge(adversary):
    judge = adversary()
    estimate = fixed_patches()[1].requires_grad_()
    judge.generator_loss(estimate).backward()
    assert estimate.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in judge.net.parameters())


def test_an_adversary_goes_on_where_it_stopped(adversary, tmp_path):
    smooth, rough = fixed_patches()
    one, other = adversary(), adversary()
    for _ in range(3):
        one.update(smooth, rough)
    model = torch.nn.Linear(2, 1)
    others = model, torch.nn.Linear(2, 1), torch.optim.AdamW(model.parameters())
    save_state(tmp_path / "state.safetensors", *others, {}, one)
    load_state(tmp_path / "state.safetensors", *others, other)
    assert one.update(smooth, rough) == other.update(smooth, rough)
    for name, value in one.net.state_dict().items():
        assert torch.equal(value, other.net.state_dict()[name]), name


def test_drawing_an_adversary_leaves_the_global_generator_alone(adversary):
    before = torch.get_rng_state()
    adversary()
    assert torch.equal(before, torch.get_rng_state())
