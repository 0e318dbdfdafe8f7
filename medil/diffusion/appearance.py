"""The appearance of a given anatomy: a rectified flow of latents that sees a tissue map.

p(latent | map, covariates): the map says where tissue is, the flow how it looks. The network is
convolutions alone, normed cell by cell, and sees no place: it trains on patches and samples a
whole head. Preconditioning is that of Karras et al. 2022 (EDM) on the straight line of rectified
flow, for latents of unit variance: the network's target has unit variance at every time.

Departure from the paper, whose diffusion model is given no anatomy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medil.diffusion.config import AppearanceConfig, AppearanceRun
from medil.diffusion.flow import shifted
from medil.errors import InputError
from medil.layers.blocks import ChannelNorm, Conv3d, init_weights, zero_init
from medil.synth.attributes import Spread, standard_scores
from medil.system.device import network_precision

STEPS = 8  # of a sampler, from noise to data
SHIFT = 0.4  # of its times: steps are finer near data, where the texture of a tissue is decided
Correct = Callable[[Tensor], Tensor]  # [B, C, d, h, w] latents -> latents that agree with a scan
FREQUENCIES = 16  # of the time's sines and cosines
TIME_MEAN = 0.5  # of the logit of training times: a little more noise than data, ours


@dataclass(frozen=True)
class AppearanceStatistics:
    """Statistics of the latents that a flow was trained on, in the cells that hold tissue."""

    mean: Tensor  # [C]
    std: Tensor  # [C]
    air: Tensor  # [C], the latent of a cell in an empty volume
    pitch_mm: float  # of the latents
    spreads: dict[str, Spread]  # ranges of the covariates, in the network's order
    autoencoder_id: str  # digest of the weights that encode and render these latents


class AppearanceFlow(nn.Module):
    """The flow of one autoencoder's latents given maps of `classes` tissues."""

    mean: Tensor
    std: Tensor
    air: Tensor

    def __init__(self, config: AppearanceConfig, known: AppearanceStatistics) -> None:
        super().__init__()
        self.config, self.known = config, known
        self.weights_id = ""
        self.facts: dict[str, Any] = {}
        self.settings: AppearanceRun | None = None  # of the run that trained it
        channels, width, voxels = len(known.mean), config.width, config.voxels
        self.see = nn.Conv3d(config.classes, width, voxels, stride=voxels, bias=False)
        self.enter = Conv3d(channels, width, 3, padding=1)
        self.embed = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + 2 * len(known.spreads), width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
        )  # fmt: skip
        self.blocks = nn.ModuleList(_Block(width) for _ in range(config.blocks))
        self.leave = nn.Sequential(
            ChannelNorm(width), nn.SiLU(), zero_init(Conv3d(width, channels, 3, padding=1))
        )
        init_weights(self)
        for name in ("mean", "std", "air"):
            self.register_buffer(name, getattr(known, name).clone())

    def normalise(self, latents: Tensor) -> Tensor:
        """[B, C, d, h, w] latents to zero mean and unit variance in tissue."""
        return (latents - _column(self.mean)) / _column(self.std)

    def denormalise(self, x: Tensor) -> Tensor:
        """Undoes `normalise`."""
        return x * _column(self.std) + _column(self.mean)

    def embed_covariates(self, requested: Sequence[Mapping[str, float]]) -> Tensor:
        """Covariates as numbers [B, 2 n]: standard scores, then flags, 1 where one is given.

        Raises:
            InputError: A covariate that the model does not know.
        """
        return standard_scores(requested, self.known.spreads).to(self.mean)

    def estimate(self, z: Tensor, t: Tensor, maps: Tensor, covariates: Tensor) -> Tensor:
        """The clean latents x estimated from ``z = (1 - t) x + t n``.

        Args:
            z: [B, C, d, h, w], normalised.
            t: [B] times from 0 (data) to 1 (noise).
            maps: [B, v d, v h, v w] uint8 tissue classes, v = `config.voxels` a cell.
            covariates: [B, 2 n] from `embed_covariates`.

        Returns:
            x, of the shape of `z`, float32.
        """
        return self.estimate_seen(z, t, self.features_of(maps), covariates)

    def features_of(self, maps: Tensor) -> Tensor:
        """What the network sees of maps [B, v d, v h, v w]: [B, width, d, h, w], at all times."""
        features: Tensor = self.see(one_hot(maps, self.config.classes))
        return features

    def estimate_seen(self, z: Tensor, t: Tensor, features: Tensor, covariates: Tensor) -> Tensor:
        """`estimate` from the `features_of` maps."""
        passed, added, _ = precondition(t)
        told = self.embed(torch.cat([_waves(t), covariates], dim=1))
        h = self.enter(z) + features
        for block in self.blocks:
            h = block(h, told)
        estimate: Tensor = _batch(passed) * z.float() + _batch(added) * self.leave(h).float()
        return estimate

    def loss(self, x: Tensor, noise: Tensor, t: Tensor, maps: Tensor, covariates: Tensor) -> Tensor:
        """Squared error of the estimate in units of the network's target: [B].

        `x` and `noise` [B, C, d, h, w]; other arguments as `estimate`.
        """
        z = (1 - _batch(t)) * x + _batch(t) * noise
        error = (self.estimate(z, t, maps, covariates) - x).square().mean(dim=(1, 2, 3, 4))
        return error / precondition(t)[1] ** 2

    def forward(self, *arguments: Tensor) -> Tensor:
        """The mean of `loss`: what training calls."""
        return self.loss(*arguments).mean()


class _Block(nn.Module):
    """A residual block that is told time and covariates between its convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            ChannelNorm(width), nn.SiLU(), Conv3d(width, width, 3, padding=1)
        )
        self.told = nn.Linear(width, width)
        self.last = nn.Sequential(
            ChannelNorm(width), nn.SiLU(), zero_init(Conv3d(width, width, 3, padding=1))
        )

    def forward(self, h: Tensor, told: Tensor) -> Tensor:  # [B, W, d, h, w], [B, W]
        inner = self.first(h) + self.told(told)[:, :, None, None, None]
        summed: Tensor = h + self.last(inner)
        return summed


def precondition(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight of z, weight of the network's output, and the standard deviation of z at times [B].

    For x and n of unit variance, x given z has mean ``passed z`` and standard deviation ``added``
    if both are Gaussian (Karras et al. 2022, appendix B.6, on the straight line).
    """
    variance = (1 - t) ** 2 + t**2
    return (1 - t) / variance, t / variance.sqrt(), variance.sqrt()


def one_hot(maps: Tensor, classes: int) -> Tensor:
    """[B, D, H, W] classes to [B, classes, D, H, W] float32 indicators.

    Raises:
        InputError: A class out of range.
    """
    if int(maps.max()) >= classes:
        raise InputError(f"a map holds classes 0 to {classes - 1}, not {int(maps.max())}.")
    indicators = torch.zeros(len(maps), classes, *maps.shape[1:], device=maps.device)
    return indicators.scatter_(1, maps[:, None].long(), 1.0)


def draw_times(count: int, rng: np.random.Generator) -> Tensor:
    """[count] training times: logit-normal (Esser et al. 2024, section 3.1)."""
    return torch.from_numpy(1 / (1 + np.exp(-rng.normal(TIME_MEAN, 1.0, count)))).float()


def times(steps: int, shift: float = 1.0) -> list[float]:
    """Times of a sampler from 1 (noise) to 0 (data): finer near noise above 1, near data below.

    Raises:
        InputError: No step.
    """
    if steps < 1:
        raise InputError(f"a sample takes at least one step, not {steps}.")
    even = np.linspace(1, 0, steps + 1)
    return [float(shifted(t, shift)) for t in even]


def _waves(t: Tensor) -> Tensor:
    """[B, 2 `FREQUENCIES`] sines and cosines of times, from half a wave to many."""
    angles = t[:, None] * math.pi * torch.logspace(0, 2, FREQUENCIES, device=t.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _column(values: Tensor) -> Tensor:
    """[C] as [C, 1, 1, 1]."""
    return values[:, None, None, None]


def _batch(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1, 1]."""
    return values[:, None, None, None, None]


# Sampling


@torch.inference_mode()
def sample_appearance(
    flow: AppearanceFlow,
    maps: Tensor,
    seed: int,
    covariates: Mapping[str, float] | None = None,
    steps: int = STEPS,
    shift: float = SHIFT,
    correct: Correct | None = None,
) -> Tensor:
    """One latent of a given map, from the noise of a seed, by DPM-Solver++(2M) (Lu et al. 2022).

    Of second order: on Gaussian latents its 8 steps lose less variance than 12 of Euler's method.
    Only the box of cells that hold tissue, and two cells around it, goes through the network;
    beyond, the latent is that of air.

    Args:
        flow: The trained flow.
        maps: [v d, v h, v w] uint8 tissue classes, 0 is air.
        seed: Of the noise, which does not depend on the map.
        covariates: Values in their units; unknown ones stay open.
        steps: Of the integration.
        shift: Of the times, see `times`.
        correct: Applied to the estimated latents [1, C, d, h, w] in every step.

    Returns:
        [C, d, h, w] latents in the autoencoder's own scale.

    Raises:
        InputError: A map without tissue or of another shape, an unknown covariate, no step.
    """
    voxels = flow.config.voxels
    if any(n % voxels for n in maps.shape):
        raise InputError(f"a map of {tuple(maps.shape)} voxels has no whole cells of {voxels}.")
    box = tissue_box(maps, voxels)
    told = flow.embed_covariates([covariates or {}])
    inside = maps[tuple(slice(voxels * s.start, voxels * s.stop) for s in box)][None]
    shape = [len(flow.mean), *(n // voxels for n in maps.shape)]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    here = (slice(None), slice(None), *box)

    def in_air(x: Tensor) -> Tensor:
        """Estimates in the box, among the latents of air: [1, C, d, h, w]."""
        latent = _column(flow.air).expand(1, *shape).clone()
        latent[here] = flow.denormalise(x)
        return latent

    z = noise[None][here].to(flow.mean)
    with network_precision(z.device):
        features = flow.features_of(inside.to(z.device))
    earlier: Tensor | None = None
    moments = times(steps, shift)
    for k, (now, then) in enumerate(itertools.pairwise(moments)):
        t = torch.full((1,), now, device=z.device)
        with network_precision(z.device):
            x = flow.estimate_seen(z, t, features, told)
        if correct is not None:
            x = flow.normalise(correct(in_air(x))[here])
        ahead = x
        if earlier is not None and k > 1 and then > 0:
            share = _log_snr_gap(now, then) / (2 * _log_snr_gap(moments[k - 1], now))
            ahead = (1 + share) * x - share * earlier
        z = (then / now) * z + (1 - then / now) * ahead
        earlier = x
    return in_air(z)[0]


def _log_snr_gap(now: float, then: float) -> float:
    """By how much the logarithm of data over noise rises between two times inside (0, 1)."""
    return math.log((1 - then) / then) - math.log((1 - now) / now)


def tissue_box(maps: Tensor, voxels: int, margin: int = 2) -> tuple[slice, ...]:
    """The box of latent cells that hold tissue of a map [D, H, W], with a margin of cells.

    Raises:
        InputError: There is no tissue.
    """
    places = torch.nonzero(maps)
    if not len(places):
        raise InputError("a map without tissue has no appearance; give one with a brain.")
    low, high = places.amin(0) // voxels, places.amax(0) // voxels + 1
    return tuple(
        slice(max(0, int(a) - margin), min(n // voxels, int(b) + margin))
        for a, b, n in zip(low, high, maps.shape, strict=True)
    )
