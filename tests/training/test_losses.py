"""Each term of the loss against its closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medil.config import TrainConfig
from medil.errors import InputError
from medil.training.losses import (
    Adversary,
    Perceptual,
    charbonnier,
    floored_rms,
    gradient_error,
    kl_to_standard_normal,
    l1,
    latent_consistency,
    reconstruction_loss,
    spectral_error,
    total_loss,
)
from medil.training.state import load_state, save_state

PLAIN = TrainConfig()
ALL = TrainConfig(gradient_weight=0.3, spectral_weight=0.7)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, 1, 7, 8, 9, generator=generator, dtype=torch.float64).unbind(0)


def wave(shape, cycles, phase):
    """A sine along each axis, so many cycles in the box, [1, 1, D, H, W]."""
    turns = [
        c * torch.arange(n, dtype=torch.float64) / n for c, n in zip(cycles, shape, strict=True)
    ]
    angle = turns[0][:, None, None] + turns[1][:, None] + turns[2]
    return torch.sin(2 * math.pi * (angle + phase))[None, None]


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
    value = reconstruction_loss(estimate, truth, replace(ALL, loss=loss))
    value.backward()
    assert value.item() == pytest.approx(0 if loss == "l1" else math.sqrt(ALL.loss_floor))
    assert torch.isfinite(estimate.grad).all() and estimate.grad.abs().max() == 0


def test_a_ramp_s_gradient_error_is_its_slope_per_mm():
    truth = torch.zeros(1, 1, 4, 5, 6)
    axes = [torch.arange(float(n)) for n in (4, 5, 6)]
    ramp = 0.2 * axes[0][:, None, None] - 0.3 * axes[1][:, None] + 0.1 * axes[2]
    assert gradient_error(truth + ramp, truth).item() == pytest.approx(0.6 / 3)
    per_mm = (0.2 / 1 + 0.3 / 1.5 + 0.1 / 4) / 3
    assert gradient_error(truth + ramp, truth, (1, 1.5, 4)).item() == pytest.approx(per_mm)
    assert gradient_error(truth + 5.0, truth).item() == 0  # an offset has no slope


def test_one_plane_has_no_slope_across_it():
    plane = torch.arange(5.0).reshape(1, 1, 1, 5, 1)
    assert gradient_error(plane, torch.zeros_like(plane)).item() == pytest.approx(1 / 3)


def test_a_shifted_sine_has_the_same_amplitudes():
    shape, cycles = (16, 12, 14), (3, 0, 4)
    still, moved = wave(shape, cycles, 0.0), wave(shape, cycles, 0.17)
    assert l1(moved, still) > 0.3
    assert spectral_error(moved, still).item() == pytest.approx(0, abs=1e-7)
    assert spectral_error(2 * still, still).item() == pytest.approx(
        spectral_error(still, 0 * still).item(), rel=1e-5
    )


def test_the_spectral_term_knows_how_strong_white_noise_is():
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, 1, 40, 40, 40, generator=generator)
    rayleigh_mean = 0.1 * math.sqrt(math.pi) / 2  # of a complex Gaussian of variance 0.01
    error = spectral_error(noise, torch.zeros_like(noise)).item()
    assert error == pytest.approx(rayleigh_mean, rel=0.02)


@pytest.mark.parametrize("loss", ["rms", "charbonnier", "l1"])
def test_the_mean_over_equal_parts_is_the_whole(loss, images):
    settings = replace(ALL, loss=loss)
    whole = reconstruction_loss(*images, settings)
    parts = [reconstruction_loss(*(x[k : k + 2] for x in images), settings) for k in (0, 2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())
    halves = [latent_consistency(*(x[k : k + 2] for x in images)) for k in (0, 2)]
    torch.testing.assert_close(latent_consistency(*images), torch.stack(halves).mean())


def test_gradient_and_spectral_terms_are_off_by_default_and_add_up(images):
    plain = floored_rms(*(x.float() for x in images), PLAIN.loss_floor)
    assert reconstruction_loss(*images, PLAIN).item() == plain.item()
    terms = 0.3 * gradient_error(*images, (1, 2, 3)) + 0.7 * spectral_error(*images)
    both = reconstruction_loss(*images, ALL, (1, 2, 3))
    assert both.item() == pytest.approx((plain + terms).item(), rel=1e-5)
    assert PLAIN.perceptual_weight == PLAIN.adversarial_weight == PLAIN.consistency_weight == 0


def test_the_sum_weighs_the_kl_term():
    estimate, truth = torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    mean, log_var = torch.full((1, 8, 1, 1, 1), 2.0), torch.zeros(1, 8, 1, 1, 1)
    settings = TrainConfig(loss_floor=0.0, kl_weight=0.25)
    total = total_loss(estimate, truth, mean, log_var, settings)
    assert total.item() == pytest.approx(1 + 0.25 * 2)


def test_latent_consistency_is_relative_and_moves_both(images):
    mean = images[0].requires_grad_()
    centred = mean - mean.mean(dim=(2, 3, 4), keepdim=True)
    pair = (mean.mean(dim=(2, 3, 4), keepdim=True) + 0.9 * centred).detach().requires_grad_()
    distance = latent_consistency(mean, pair)
    assert distance.item() == pytest.approx(0.1**2, rel=1e-4)
    assert latent_consistency(7 * mean, 7 * pair).item() == pytest.approx(0.1**2, rel=1e-4)
    assert latent_consistency(mean, mean).item() == 0
    distance.backward()
    assert mean.grad.abs().max() > 0 and pair.grad.abs().max() > 0


def test_unrelated_latents_are_about_two_apart():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 8, 6, 6, 6, generator=generator)
    assert latent_consistency(one, other).item() == pytest.approx(2, rel=0.1)


def test_the_perceptual_term_refuses_a_random_trunk(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"weights are not on this computer.*alexnet"):
        Perceptual()
    with pytest.raises(InputError, match="not 'resnet'"):
        Perceptual("resnet")


def test_the_perceptual_term_looks_at_planes_along_every_axis(monkeypatch, images):
    seen = []

    class Mean(torch.nn.Module):
        def forward(self, one, other):
            seen.append(tuple(one.shape))
            return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr("medil.training.losses._load_lpips", lambda net: Mean())
    term = Perceptual(every=2, least=8)
    truth = images[0].float()
    assert term(truth + 0.1, truth).item() == pytest.approx(0.2, rel=1e-5)  # -1 ... 1 there
    assert seen == [(16, 3, 8, 9), (16, 3, 8, 9), (20, 3, 8, 8)]


@pytest.fixture
def adversary():
    pytest.importorskip("monai")
    return lambda kind="hinge": Adversary(kind, channels=4, layers=1, learning_rate=2e-3)


def fixed_patches():
    generator = torch.Generator().manual_seed(3)
    rough = torch.rand(2, 1, 16, 16, 10, generator=generator)  # thinner than the strides need
    return torch.full_like(rough, 0.5), rough


@pytest.mark.parametrize("kind", ["hinge", "least-squares"])
def test_an_adversary_learns_to_tell_two_patches(adversary, kind):
    smooth, rough = fixed_patches()
    judge = adversary(kind)
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
    with pytest.raises(InputError, match="not 'wasserstein'"):
        Adversary("wasserstein")
