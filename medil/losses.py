"""What training minimises: one function a term, one that sums them."""

from __future__ import annotations

import torch
from torch import Tensor


def floored_rms(estimate: Tensor, truth: Tensor, floor: float) -> Tensor:
    """Mean over the batch of sqrt(MSE + floor).

    Our choice: its gradient weighs every image about equally in dB, and the floor keeps
    it finite on images that are already right.

    Args:
        estimate: [B, 1, D, H, W].
        truth: The same shape.
        floor: Added to each image's mean squared error.

    Returns:
        A scalar.
    """
    mse = (estimate - truth).square().flatten(1).mean(dim=1)
    return torch.sqrt(mse + floor).mean()


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Mean KL divergence of N(mean, exp(log_var)) from N(0, 1), a number, in nats (paper)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()


def total_loss(
    estimate: Tensor,
    truth: Tensor,
    mean: Tensor,
    log_var: Tensor,
    floor: float,
    kl_weight: float,
) -> Tensor:
    """Reconstruction plus weighted KL."""
    return floored_rms(estimate, truth, floor) + kl_weight * kl_to_standard_normal(mean, log_var)
