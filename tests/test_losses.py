"""Each term of the loss against its closed form."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medil.losses import floored_rms, kl_to_standard_normal, total_loss


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


def test_a_perfect_image_has_a_finite_gradient():
    estimate = torch.ones(1, 1, 2, 2, 2, requires_grad=True)
    floored_rms(estimate, torch.ones(1, 1, 2, 2, 2), floor=3e-4).backward()
    assert torch.isfinite(estimate.grad).all()
    assert estimate.grad.abs().max() == 0


def test_the_sum_weighs_the_kl_term():
    estimate, truth = torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    mean, log_var = torch.full((1, 8, 1, 1, 1), 2.0), torch.zeros(1, 8, 1, 1, 1)
    total = total_loss(estimate, truth, mean, log_var, floor=0.0, kl_weight=0.25)
    assert total.item() == pytest.approx(1 + 0.25 * 2)
