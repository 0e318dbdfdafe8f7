"""The terms of the training loss, one function each, and `total_loss`, which sums them.

Every term is a mean over the images of a batch, so that the mean over equal parts of a
batch (processes, accumulation) is the term of the whole. `Perceptual` and `Adversary` are
networks themselves, for runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.config import TrainConfig
from medil.errors import InputError

MILLIMETRE = (1.0, 1.0, 1.0)


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


def gradient_error(
    estimate: Tensor, truth: Tensor, spacing_mm: Sequence[float] = MILLIMETRE
) -> Tensor:
    """Mean absolute error of the finite differences along the three axes, per mm.

    Args:
        estimate: [B, 1, D, H, W].
        truth: The same shape.
        spacing_mm: Voxel size along D, H, W.

    Returns:
        A scalar, the mean over axes; an axis of one voxel has no error.
    """
    error = estimate - truth
    slopes = [
        error.diff(dim=axis + 2).abs().mean() / spacing_mm[axis]
        for axis in range(3)
        if error.shape[axis + 2] > 1
    ]
    return torch.stack(slopes).sum() / 3 if slopes else error.new_zeros(())


def spectral_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the Fourier amplitudes under a Hann window.

    Amplitudes, not phases: texture of the true strength at another place costs nothing. The
    window hides the step between opposite faces, and is scaled (as the transform is) to keep
    the power of white noise.

    Args:
        estimate: [B, 1, D, H, W].
        truth: The same shape.

    Returns:
        A scalar, the mean over the bins of `torch.fft.rfftn`.
    """
    window = _hann(truth)
    parts = [
        torch.fft.rfftn(x.float() * window, dim=(2, 3, 4), norm="ortho") for x in (estimate, truth)
    ]
    return (parts[0].abs() - parts[1].abs()).abs().mean()


def _hann(like: Tensor) -> Tensor:
    """[D, H, W] periodic Hann window with a mean square of 1."""
    axes = [torch.hann_window(n, device=like.device) for n in like.shape[2:]]
    depth, height, width = (a / a.square().mean().sqrt() for a in axes)
    return depth[:, None, None] * height[:, None] * width


def reconstruction_loss(
    estimate: Tensor,
    truth: Tensor,
    settings: TrainConfig,
    spacing_mm: Sequence[float] = MILLIMETRE,
) -> Tensor:
    """The term that `settings.loss` names, plus weighted gradient and spectral terms.

    Args:
        estimate: [B, 1, D, H, W] on the 0 ... 1 scale.
        truth: The same shape.
        settings: Names and weights of the terms.
        spacing_mm: Voxel size, for the gradient term alone.

    Returns:
        A scalar.
    """
    estimate, truth = estimate.float(), truth.float()
    if settings.loss == "rms":
        total = floored_rms(estimate, truth, settings.loss_floor)
    elif settings.loss == "charbonnier":
        total = charbonnier(estimate, truth, settings.loss_floor)
    else:
        total = l1(estimate, truth)
    if settings.gradient_weight:
        total = total + settings.gradient_weight * gradient_error(estimate, truth, spacing_mm)
    if settings.spectral_weight:
        total = total + settings.spectral_weight * spectral_error(estimate, truth)
    return total


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Mean KL divergence of N(mean, exp(log_var)) from N(0, 1) per number, in nats (paper)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()


def latent_consistency(mean: Tensor, mean_of_pair: Tensor) -> Tensor:
    """Squared distance of two encodings of one content, relative to the latent's variance.

    Gradients reach both encodings. The denominator, each image's own variance over its cells
    about each channel's mean, keeps its gradient: a latent cannot become consistent by
    shrinking. Its root is the centred relative L2 distance that `eval` reports.

    Args:
        mean: [B, C, d, h, w] latent means of the reference.
        mean_of_pair: The same content from another grid, on the same latent grid.

    Returns:
        A scalar, the mean over images: 0 for equal latents, about 2 for unrelated ones.
    """
    mean, mean_of_pair = mean.float(), mean_of_pair.float()
    centred = mean - mean.mean(dim=(2, 3, 4), keepdim=True)
    distance = (mean - mean_of_pair).square().flatten(1).sum(dim=1)
    return (distance / (centred.square().flatten(1).sum(dim=1) + 1e-12)).mean()


def total_loss(
    estimate: Tensor,
    truth: Tensor,
    mean: Tensor,
    log_var: Tensor,
    settings: TrainConfig,
    spacing_mm: Sequence[float] = MILLIMETRE,
) -> Tensor:
    """Reconstruction plus weighted KL."""
    kl = settings.kl_weight * kl_to_standard_normal(mean, log_var)
    return reconstruction_loss(estimate, truth, settings, spacing_mm) + kl


# Terms that are networks, for runs on a GPU

TRUNKS = {  # files of torchvision's weights, as torch hub names them
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class Perceptual(nn.Module):
    """LPIPS on planes along the three axes (Zhang et al. 2018, arXiv 1801.03924), "2.5-D".

    Its weights are read from this computer and never downloaded; a random trunk would be
    another loss under the same name.

    Args:
        net: Trunk, a key of `TRUNKS`.
        every: Only every n-th plane along an axis is compared.
        least: Smallest side of a plane, in pixels; smaller planes are enlarged for the trunk.

    Raises:
        InputError: The trunk's weights or the lpips package are not on this computer.
    """

    def __init__(self, net: str = "alex", every: int = 2, least: int = 64) -> None:
        super().__init__()
        self.every, self.least = every, least
        self.lpips = _load_lpips(net)

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean LPIPS distance over planes and axes of two [B, 1, D, H, W] images, 0 ... 1."""
        distances = []
        for axis in range(3):
            pair = [self._planes(x, axis) for x in (estimate, truth)]
            distances.append(self.lpips(*pair).mean())
        return torch.stack(distances).mean()

    def _planes(self, x: Tensor, axis: int) -> Tensor:
        """[N, 3, h, w] in -1 ... 1: every n-th plane across an axis, as grey RGB."""
        planes = x.float().movedim(axis + 2, 1)[:, :: self.every].flatten(0, 1)  # [N, 1, h, w]
        size = [max(self.least, n) for n in planes.shape[2:]]
        planes = functional.interpolate(planes, size, mode="bilinear", align_corners=False)
        return (2 * planes - 1).expand(-1, 3, -1, -1)


def _load_lpips(net: str) -> nn.Module:
    """LPIPS with frozen weights that lie on this computer."""
    if net not in TRUNKS:
        raise InputError(f"LPIPS has the trunks {', '.join(TRUNKS)}, not {net!r}.")
    path = Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]
    if not path.is_file():
        raise InputError(
            f"LPIPS weights are not on this computer; put torchvision's {path.name} into "
            f"{path.parent}, or set perceptual_weight to 0."
        )
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise InputError(
            "the perceptual loss needs lpips: pip install 'medil-book[perceptual]'."
        ) from error
    return LPIPS(net=net, verbose=False).eval().requires_grad_(False)


UNNORMALISED: dict[str, Any] = {"norm": None, "bias": True}


class Adversary:
    """A patch discriminator (Isola et al. 2017, arXiv 1611.07004; MONAI's, in 3-D).

    Our choice: no normalisation layers, which would hide the strength of an image's texture,
    and unit-gain initial weights, with which it trains without them.

    Args:
        kind: "hinge" or "least-squares" GAN.
        channels: Channels of its first layer.
        layers: Number of convolutions between its first and last.
        learning_rate: Learning rate of its own AdamW.
        seed: Seeds its initial weights.
        device: Device of its weights.

    Raises:
        InputError: An unknown kind, or MONAI is not installed.
    """

    def __init__(
        self,
        kind: str = "hinge",
        channels: int = 32,
        layers: int = 2,
        learning_rate: float = 2e-4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if kind not in ("hinge", "least-squares"):
            raise InputError(f"an adversary is hinge or least-squares, not {kind!r}.")
        try:
            from monai.networks.nets import PatchDiscriminator
        except ImportError as error:
            raise InputError(
                "the adversarial loss needs MONAI: pip install 'medil-book[rivals]'."
            ) from error
        self.kind, self.least = kind, 8 * 2**layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = PatchDiscriminator(3, channels, 1, num_layers_d=layers, **UNNORMALISED)
            _unit_gain(net)
        self.net: nn.Module = net.to(device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), learning_rate, betas=(0.5, 0.9))

    def verdict(self, x: Tensor) -> Tensor:
        """[B, 1, d, h, w]: how real each part of [B, 1, D, H, W] images looks.

        Axes of few voxels are interpolated to what the strides need.
        """
        size = [max(self.least, n) for n in x.shape[2:]]
        if size != list(x.shape[2:]):
            x = functional.interpolate(x.float(), size, mode="trilinear", align_corners=False)
        return self.net(x.float())[-1].float()

    def generator_loss(self, estimate: Tensor) -> Tensor:
        """A scalar that falls as images look more real; no gradient for the discriminator."""
        self.net.requires_grad_(False)
        verdict = self.verdict(estimate)
        self.net.requires_grad_(True)
        return -verdict.mean() if self.kind == "hinge" else (verdict - 1).square().mean()

    def update(self, estimate: Tensor, truth: Tensor) -> float:
        """One step on [B, 1, D, H, W] estimates and truth; returns the discriminator's loss."""
        fake, real = self.verdict(estimate.detach()), self.verdict(truth.detach())
        if self.kind == "hinge":
            loss = functional.relu(1 + fake).mean() + functional.relu(1 - real).mean()
        else:
            loss = fake.square().mean() + (real - 1).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _share_gradients(self.net)
        self.optimiser.step()
        return loss.item() / 2


def _unit_gain(module: nn.Module, slope: float = 0.2) -> None:
    """Initial weights that keep a signal's size through leaky ReLUs of this slope."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, slope)


def _share_gradients(module: nn.Module) -> None:
    """Average gradients over the processes of a distributed run, if there are several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad.div_(torch.distributed.get_world_size())
