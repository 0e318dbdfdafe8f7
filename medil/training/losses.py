"""The terms of the training loss, one function each, and `total_loss`, which sums them.

Every term is a mean over the images of a batch, so that the mean over equal parts of a
batch (processes, accumulation) is the term of the whole. `Perceptual` and `Adversary` are
networks themselves, for runs on a GPU.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.config import TrainConfig
from medil.data.perceptual import alexnet_lpips
from medil.errors import InputError, needs

FORMER_TERMS = ("gradient_weight", "spectral_weight", "consistency_weight")


def floored_rms(estimate: Tensor, truth: Tensor, floor: float) -> Tensor:
    """Mean over a batch [B, 1, D, H, W] of sqrt(MSE + floor).

    Our choice: its gradient weighs every image about equally in dB, and the floor keeps
    it finite on images without error.
    """
    mse = (estimate - truth).square().flatten(1).mean(dim=1)
    return torch.sqrt(mse + floor).mean()


def charbonnier(estimate: Tensor, truth: Tensor, floor: float) -> Tensor:
    """Mean over voxels of sqrt(error^2 + floor): a smooth L1."""
    return torch.sqrt((estimate - truth).square() + floor).mean()


def l1(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error."""
    return (estimate - truth).abs().mean()


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Mean KL divergence of N(mean, exp(log_var)) from N(0, 1) per number, in nats (paper)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()


def total_loss(
    estimate: Tensor, truth: Tensor, mean: Tensor, log_var: Tensor, settings: TrainConfig
) -> Tensor:
    """The term that `settings.loss` names, plus weighted KL.

    Args:
        estimate: [B, 1, D, H, W] on the 0 ... 1 scale.
        truth: The same shape.
        mean: [B, C, d, h, w] of the latents.
        log_var: The same shape.
        settings: Names and weights of the terms.
    """
    estimate, truth = estimate.float(), truth.float()
    if settings.loss == "rms":
        error = floored_rms(estimate, truth, settings.loss_floor)
    elif settings.loss == "charbonnier":
        error = charbonnier(estimate, truth, settings.loss_floor)
    else:
        error = l1(estimate, truth)
    return error + settings.kl_weight * kl_to_standard_normal(mean, log_var)


def check_terms(settings: TrainConfig) -> None:
    """Refuse weights of terms that only earlier releases had.

    Raises:
        InputError: One of them is not zero.
    """
    for name in FORMER_TERMS:
        if getattr(settings, name):
            raise InputError(f"{name} belongs to a loss that earlier releases had; set it to 0.")


# Terms that are networks, for runs on a GPU

EVERY = 2  # LPIPS compares every second plane along an axis
LEAST = 64  # smallest side of a plane, in pixels; smaller planes are enlarged for the trunk
STRIDED = 2  # convolutions between the discriminator's first and last


class Perceptual(nn.Module):
    """LPIPS on planes along the three axes (Zhang et al. 2018, arXiv 1801.03924), "2.5-D".

    Raises:
        InputError: As `medil.data.perceptual.alexnet_lpips`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lpips = deepcopy(alexnet_lpips())  # which others use on another device

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean LPIPS distance over planes and axes of two [B, 1, D, H, W] images, 0 ... 1."""
        distances = []
        for axis in range(3):
            pair = [self._planes(x, axis) for x in (estimate, truth)]
            distances.append(self.lpips(*pair).mean())
        return torch.stack(distances).mean()

    def _planes(self, x: Tensor, axis: int) -> Tensor:
        """[N, 3, h, w] in -1 ... 1: every second plane across an axis, as grey RGB."""
        planes = x.float().movedim(axis + 2, 1)[:, ::EVERY].flatten(0, 1)  # [N, 1, h, w]
        size = [max(LEAST, n) for n in planes.shape[2:]]
        planes = functional.interpolate(planes, size, mode="bilinear", align_corners=False)
        return (2 * planes - 1).expand(-1, 3, -1, -1)


UNNORMALISED: dict[str, Any] = {"norm": None, "bias": True}


class Adversary:
    """A patch discriminator (Isola et al. 2017, arXiv 1611.07004; MONAI's, in 3-D), hinge loss.

    Our choice: no normalisation layers, which would hide the strength of an image's texture,
    and unit-gain initial weights, with which it trains without them.

    Args:
        learning_rate: Learning rate of its own AdamW.
        seed: Seeds its initial weights.
        device: Device of its weights.

    Raises:
        InputError: MONAI is not installed.
    """

    def __init__(
        self, learning_rate: float = 2e-4, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        with needs("rivals", "the adversarial loss needs MONAI"):
            from monai.networks.nets import PatchDiscriminator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = PatchDiscriminator(3, 32, 1, num_layers_d=STRIDED, **UNNORMALISED)
            _unit_gain(net)
        self.net: nn.Module = net.to(device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), learning_rate, betas=(0.5, 0.9))

    def verdict(self, x: Tensor) -> Tensor:
        """[B, 1, d, h, w]: how real each part of [B, 1, D, H, W] images looks.

        Axes of few voxels are interpolated to what the strides need.
        """
        size = [max(8 * 2**STRIDED, n) for n in x.shape[2:]]
        if size != list(x.shape[2:]):
            x = functional.interpolate(x.float(), size, mode="trilinear", align_corners=False)
        verdict: Tensor = self.net(x.float())[-1]
        return verdict.float()

    def generator_loss(self, estimate: Tensor) -> Tensor:
        """A scalar that falls as images look more real; no gradient for the discriminator."""
        self.net.requires_grad_(False)
        verdict = self.verdict(estimate)
        self.net.requires_grad_(True)
        return -verdict.mean()

    def update(self, estimate: Tensor, truth: Tensor) -> float:
        """One step on [B, 1, D, H, W] estimates and truth; returns the discriminator's loss."""
        fake, real = self.verdict(estimate.detach()), self.verdict(truth.detach())
        loss = functional.relu(1 + fake).mean() + functional.relu(1 - real).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _share_gradients(self.net)
        self.optimiser.step()
        return loss.item() / 2


def _unit_gain(module: nn.Module) -> None:
    """Initial weights that keep a signal's size through leaky ReLUs of slope 0.2."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, 0.2)


def _share_gradients(module: nn.Module) -> None:
    """Average gradients over the processes of a distributed run, if there are several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad.div_(torch.distributed.get_world_size())
