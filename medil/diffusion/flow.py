"""A latent diffusion model: rectified flow from noise to latents on one grid in mm.

Between a latent x and noise n lies the line z = (1 - t) x + t n; the network sees z and t and
estimates x, which gives the velocity x - n (Liu et al. 2022, Esser et al. 2024). U-Net and line are
MONAI's. Ours: latents are centred on their mean map, 2x2x2 cells are folded into channels, the
network sees each cell's place, and conditions are constant channels, each with a flag that says
whether it is set. A coarse flow may sample the means of blocks of cells first (a cascade, after Ho
et al. 2022), so that the place and shape of a head are learned on an eighth of the cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.diffusion.config import FlowConfig, FlowRun, FlowTraining
from medil.diffusion.latents import LatentSet
from medil.errors import InputError, needs
from medil.grid import Grid
from medil.layers.blocks import depth_to_space, space_to_depth
from medil.synth.attributes import Spread, standard_scores

TIMES = 1000  # MONAI's steps between data and noise
VARIANCES = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)  # variances of the latents, one for each Wiener filter
FLOOR = 0.4  # time below which errors of the latents have equal weight: ours


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of the latents that a flow was trained on.

    `std` is one number for all channels (Rombach et al. 2022), so that noise covers fine channels
    before coarse ones, as it does in images.
    """

    mean: Tensor  # [C, d, h, w], their mean map
    std: Tensor  # [C], of latents minus that map
    grid: Grid  # of all latents
    spreads: dict[str, Spread]  # ranges of the conditions, in the network's order
    autoencoder_id: str  # digest of the weights that encode and render these latents
    coarse: LatentStatistics | None = None  # of their block means, where there is a coarse flow


def block_means(latents: Tensor, factor: int) -> Tensor:
    """[B, C, d, h, w] -> [B, C, d/f, h/f, w/f]."""
    return functional.avg_pool3d(latents, factor)


def repeat_cells(blocks: Tensor, factor: int) -> Tensor:
    """[B, C, d, h, w] -> [B, C, f d, f h, f w], every cell f^3 times."""
    return functional.interpolate(blocks, scale_factor=float(factor)) if factor > 1 else blocks


def coarser_grid(grid: Grid, factor: int) -> Grid:
    """The grid of `block_means`."""
    return grid.resized([n // factor for n in grid.shape])


def latent_statistics(latents: LatentSet, config: FlowConfig) -> LatentStatistics:
    """The statistics of a training set, and of its block means where the flow has a coarse one."""
    coarse = None
    if config.coarse:
        blocks = replace(
            latents,
            latents=block_means(latents.latents, config.block),
            grid=coarser_grid(latents.grid, config.block),
        )
        coarse = latent_statistics(blocks, config.coarse)
    mean = latents.latents.mean(0)
    std = (latents.latents - mean).square().mean().sqrt().clamp(min=1e-6).expand(len(mean))
    spreads = latents.spreads(config.conditions)
    return LatentStatistics(mean, std, latents.grid, spreads, latents.weights_id, coarse)


class LatentFlow(nn.Module):
    """The flow of one autoencoder's latents; the statistics `known` are saved with the weights.

    Raises:
        InputError: MONAI or einops is missing, or the latent grid does not divide.
    """

    mean: Tensor
    std: Tensor
    place: Tensor

    def __init__(self, config: FlowConfig, known: LatentStatistics) -> None:
        super().__init__()
        self.config, self.known = config, known
        self.weights_id = ""
        self.facts: dict[str, Any] = {}
        self.settings: FlowRun | None = None  # of the run that trained it
        whole = config.fold * 2 ** (len(config.channels) - 1)
        if any(n % whole for n in known.grid.shape):
            raise InputError(f"a latent grid of {known.grid.shape} does not divide by {whole}.")
        inner = len(known.std) * config.fold**3
        means = len(known.std) if config.coarse else 0
        self.unet = _unet(config, inner + means + 3 + 2 * len(config.conditions), 2 * inner)
        self.coarse: LatentFlow | None = None
        if config.coarse and known.coarse:
            self.coarse = LatentFlow(config.coarse, known.coarse)
        self.gate = nn.Parameter(torch.zeros(len(VARIANCES), inner))
        self.gate.data[VARIANCES.index(1.0)] = 1.0
        self.register_buffer("mean", known.mean.clone())
        self.register_buffer("std", known.std.clone())
        self.register_buffer("place", places(self.inner_shape), persistent=False)

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Cells of the folded grid along each axis."""
        return tuple(n // self.config.fold for n in self.known.grid.shape)

    # Latents and the network's inputs

    def normalise(self, latents: Tensor) -> Tensor:
        """[B, C, d, h, w] latents -> centred, scaled and folded [B, C f^3, d/f, h/f, w/f]."""
        return self.folded(self.centred(latents))

    def centred(self, latents: Tensor) -> Tensor:
        """Latents minus their mean map, over their spread: [B, C, d, h, w]."""
        return (latents - self.mean) / self.std[:, None, None, None]

    def folded(self, latents: Tensor) -> Tensor:
        """[B, C, d, h, w] -> [B, C f^3, d/f, h/f, w/f]."""
        return space_to_depth(latents, self.config.fold)

    def denormalise(self, inner: Tensor) -> Tensor:
        """Undoes `normalise`."""
        return depth_to_space(inner, self.config.fold) * self.std[:, None, None, None] + self.mean

    def embed_conditions(self, requested: Sequence[Mapping[str, float]]) -> Tensor:
        """Requested attributes as numbers [B, 2 n]: scores, then flags, 1 where requested.

        Each of the B maps takes an attribute to a value in its unit.

        Raises:
            InputError: A condition that the model does not know.
        """
        return standard_scores(requested, self.known.spreads).to(self.mean)

    def estimate(
        self, z: Tensor, times: Tensor, conditions: Tensor, coarse: Tensor | None = None
    ) -> Tensor:
        """Clean latents that the network estimates from noisy ones.

        It estimates latents, not the noise, which fills every folded channel and would not fit
        through a network that is hardly wider (Li & He 2025, arXiv 2511.13720). `z` itself is
        added through a gate, which passes it where noise is low or signal strong and blocks it
        in air: a learned mixture of Wiener filters for each channel, which the network opens
        or closes cell by cell (our choice, after Karras et al. 2022).

        Args:
            z: [B, C f^3, ...], folded.
            times: [B], from 0 (data) to `TIMES` (noise).
            conditions: [B, 2 n] from `embed_conditions`.
            coarse: [B, C, ...] block means from `coarse.centred`, where there is a coarse flow.

        Returns:
            x, of the shape of `z`, float32.
        """
        place = self.place.expand(len(z), *self.place.shape)
        constant = conditions[:, :, None, None, None].expand(*conditions.shape, *z.shape[2:])
        inputs = [z, place, constant]
        if coarse is not None:
            inputs.append(repeat_cells(coarse, self.config.block // self.config.fold))
        guess, gate = self.unet(torch.cat(inputs, dim=1), times).float().chunk(2, dim=1)
        passed = wiener(times / TIMES).to(self.gate) @ self.gate  # [B, C f^3]
        if coarse is not None and self.config.adds:  # only the detail goes through the gate
            means = self.means_alone(coarse)
            z, guess = z - (1 - _column(times / TIMES, z)) * means, guess + means
        estimate: Tensor = guess + (passed[:, :, None, None, None] + gate) * z
        return estimate

    def means_alone(self, coarse: Tensor) -> Tensor:
        """An estimate of x from block means alone: each cell is its block's mean, folded."""
        assert self.coarse is not None
        scale = (self.coarse.std / self.std)[:, None, None, None]
        return self.folded(repeat_cells(coarse.float() * scale, self.config.block))

    def velocity(
        self, z: Tensor, times: Tensor, conditions: Tensor, coarse: Tensor | None = None
    ) -> Tensor:
        """The direction x - n of the line through `z`: (estimate - z) / t, as `estimate`."""
        share = _column(times / TIMES, z)
        return (self.estimate(z, times, conditions, coarse) - z) / share

    def loss(
        self,
        x: Tensor,
        noise: Tensor,
        times: Tensor,
        conditions: Tensor,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """The squared error of the velocity, its weight constant below t = `FLOOR`: [B].

        Args:
            x: [B, C f^3, ...] latents, as from `normalise`.
            noise: Standard normal, of that shape.
            times: [B], whole numbers from 0 to `TIMES`.
            conditions: [B, 2 n] from `embed_conditions`.
            coarse: As for `estimate`.
        """
        z = scheduler().add_noise(x, noise, times)
        error = (self.estimate(z, times, conditions, coarse) - x).square().mean(dim=(1, 2, 3, 4))
        return error / (times / TIMES).clamp(min=FLOOR) ** 2

    def forward(self, *levels: Sequence[Tensor]) -> Tensor:
        """Mean loss of this flow, plus that of the coarser ones: what training calls.

        `levels` are the arguments of `loss`, from this flow down to the coarsest.
        """
        own, *coarser = levels
        loss = self.loss(*own).mean()
        return loss + self.coarse(*coarser) if self.coarse is not None else loss


def wiener(share: Tensor) -> Tensor:
    """Gains [B, len(VARIANCES)] of Wiener filters for times t [B], 0 ... 1, one per variance of x.

    The best linear estimate of x from z = (1 - t) x + t n is the gain times z.
    """
    variance = torch.tensor(VARIANCES, device=share.device)
    t = share.float()[:, None]
    return (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1, 1]."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _unet(config: FlowConfig, channels_in: int, channels_out: int) -> nn.Module:
    with needs("sample", "sampling needs MONAI and einops"):
        import einops  # noqa: F401  MONAI's attention is built of it
        from monai.networks.nets import DiffusionModelUNet
    return DiffusionModelUNet(
        3, channels_in, channels_out, num_res_blocks=config.blocks, channels=config.channels,
        attention_levels=config.attention, num_head_channels=config.head_channels,
        norm_num_groups=config.groups,
    )  # fmt: skip


def scheduler() -> Any:
    """MONAI's straight line between data and noise, on whole times."""
    from monai.networks.schedulers import RFlowScheduler

    return RFlowScheduler(TIMES, use_discrete_timesteps=True)


def places(shape: Sequence[int]) -> Tensor:
    """[3, d, h, w]: the place of each cell's centre in the box, -1 ... 1 along each axis."""
    axes = [(2 * torch.arange(n, dtype=torch.float32) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def shifted(share: np.ndarray | float, shift: float) -> np.ndarray | float:
    """Times 0 ... 1 shifted towards noise (Esser et al. 2024, eq. 23); 0 and 1 stay."""
    return shift * share / (1 + (shift - 1) * share)


def draw_times(count: int, shift: float, rng: np.random.Generator) -> Tensor:
    """[count] whole training times, 1 ... `TIMES`."""
    drawn = [math.ceil(TIMES * shifted(float(u), shift)) for u in rng.uniform(0, 1, count)]
    return torch.tensor(drawn).clamp(1, TIMES)


def hide(conditions: Tensor, settings: FlowTraining, rng: np.random.Generator) -> Tensor:
    """[B, 2 n] with conditions removed: all of some latents, and single ones of others."""
    count, n = len(conditions), conditions.shape[1] // 2
    kept = rng.random((count, n)) >= settings.hidden_share
    kept &= rng.random((count, 1)) >= settings.dropped_share
    mask = torch.from_numpy(np.concatenate([kept, kept], axis=1)).to(conditions)
    return conditions * mask
