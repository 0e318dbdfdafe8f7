"""Configurations and presets of the latent diffusion model and of the appearance flow."""

from __future__ import annotations

from dataclasses import dataclass, field

from medil.config import Recipe, Schedule, check_share, named
from medil.errors import InputError, shown

CONDITIONS = ("ventricles", "brain", "contrast", "spacing")  # see `medil.synth.attributes`
KNOWN_CONDITIONS = (*CONDITIONS, "real")


@dataclass(frozen=True)
class FlowConfig:
    """The network's shape."""

    channels: tuple[int, ...] = (64, 64)  # channels of the U-Net's levels, from fine to coarse
    blocks: int = 1  # residual blocks per level
    attention: tuple[bool, ...] = (False, True)  # whether each level has attention
    head_channels: int = 32  # channels of an attention head
    groups: int = 8  # groups of the group norms
    fold: int = 2  # latent cells per cell of the network along each axis
    conditions: tuple[str, ...] = CONDITIONS  # attributes that can be requested
    coarse: FlowConfig | None = None  # the flow that samples the block means, if any
    block: int = 2  # latent cells per block along each axis; `fold` divides it
    adds: bool = False  # add the network's estimate to the block means

    def __post_init__(self) -> None:
        if self.block % self.fold:
            raise InputError(f"block = {self.block} is no multiple of fold = {self.fold}.")
        if self.coarse and self.coarse.conditions != self.conditions:
            raise InputError("a flow and its coarse flow must have the same conditions.")
        if len(self.channels) != len(self.attention):
            raise InputError("channels and attention need one entry per level.")
        unknown = [name for name in self.conditions if name not in KNOWN_CONDITIONS]
        if unknown:
            raise InputError(
                f"there is no condition {shown(unknown[0])}; "
                f"choose from {', '.join(KNOWN_CONDITIONS)}."
            )


@dataclass(frozen=True)
class FlowTraining(Schedule):
    """How a flow is trained; see `Schedule`."""

    minutes: float = 60.0
    steps: int = 0
    batch: int = 1  # latents per step, over all processes
    accumulate: int = 1
    coarse_draws: int = 8  # draws for the coarse flow per latent of the batch
    given_noise: float = 0.15  # noise on the block means, in their standard deviation
    dropped_share: float = 0.2  # share of latents trained without any condition
    hidden_share: float = 0.3  # probability that a single condition is hidden
    shift: float = 3.0  # shift of training times to noise (Esser et al. 2024, eq. 23)
    given_shift: float = 1.0  # the same, for a flow that has a coarse flow
    clip_norm: float = 1.0
    learning_rate: float = 8e-4
    beta2: float = 0.99
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    ema_decay: float = 0.998
    log_every: int = 25
    save_every: int = 200
    bf16: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.dropped_share <= 1 and 0 <= self.hidden_share <= 1 and self.shift > 0):
            raise InputError("shares lie from 0 to 1, and shift above zero.")


@dataclass(frozen=True)
class FlowRun(Recipe):
    """One training run of a latent diffusion model."""

    preset: str
    model: FlowConfig = field(default_factory=FlowConfig)
    train: FlowTraining = field(default_factory=FlowTraining)
    heads: int = 160  # synthetic heads, drawn on the label maps of the train split
    real_share: float = 0.0  # share of latents from real train scans


# The latent flow that is given a tissue map


@dataclass(frozen=True)
class AppearanceConfig:
    """The network's shape (all: ours)."""

    classes: int = 11  # of the maps, air among them
    voxels: int = 4  # of the map in a latent cell, along each axis
    width: int = 96  # channels
    blocks: int = 6  # residual blocks of two convolutions
    covariates: tuple[str, ...] = ("contrast", "age", "real")

    def __post_init__(self) -> None:
        if min(self.classes - 1, self.voxels, self.width, self.blocks) < 1:
            raise InputError("classes, voxels, width and blocks must be above zero.")


@dataclass(frozen=True)
class AppearanceTraining(Schedule):
    """How it is trained; see `Schedule`."""

    minutes: float = 60.0
    steps: int = 0
    patch: int = 16  # latent cells along each axis
    batch: int = 2  # patches per step, over all processes
    accumulate: int = 1
    hidden_share: float = 0.3  # probability that a covariate is hidden
    clip_norm: float = 1.0
    learning_rate: float = 1e-3
    beta2: float = 0.99
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    ema_decay: float = 0.998
    log_every: int = 25
    save_every: int = 200
    bf16: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("hidden_share", self.hidden_share)
        if self.patch < 1:
            raise InputError(f"a patch has at least one latent cell, not {self.patch}.")


@dataclass(frozen=True)
class AppearanceRun(Recipe):
    """One training run of an appearance flow."""

    preset: str
    model: AppearanceConfig = field(default_factory=AppearanceConfig)
    train: AppearanceTraining = field(default_factory=AppearanceTraining)
    heads: int = 64  # synthetic heads beside the real train scans
    real_share: float = 0.7  # share of patches from real scans


FLOW_PRESETS: dict[str, FlowRun] = {
    "test": FlowRun(  # seconds on a CPU
        "test",
        FlowConfig(channels=(16, 16), head_channels=16),
        FlowTraining(minutes=0.2, log_every=5),
        heads=4,
    ),
    "tiny": FlowRun(  # the CPU-trained release, on latents of `tiny`
        "tiny",
        FlowConfig(
            channels=(24, 48, 48), attention=(False, False, False), head_channels=16, fold=1,
            conditions=KNOWN_CONDITIONS, adds=True,
            coarse=FlowConfig(channels=(40, 48), head_channels=16, conditions=KNOWN_CONDITIONS),
        ),
        heads=64, real_share=0.7,  # as the appearance flow of this preset
    ),
    "base": FlowRun(  # for one GPU, on latents of `base`; its weights stay below 16 MiB
        "base",
        FlowConfig(
            channels=(32, 64, 64), attention=(False, False, False), head_channels=16, fold=1,
            coarse=FlowConfig(channels=(64, 96), fold=1), adds=True,
        ),
        FlowTraining(minutes=25, batch=8, coarse_draws=4),
        heads=320,
    ),
}  # fmt: skip

APPEARANCE_PRESETS: dict[str, AppearanceRun] = {
    "test": AppearanceRun(  # seconds on a CPU
        "test",
        AppearanceConfig(width=8, blocks=1),
        AppearanceTraining(minutes=0.2, patch=8, log_every=5),
        heads=2, real_share=0.0,
    ),
    "tiny": AppearanceRun("tiny"),  # the CPU-trained release, on latents of `tiny`
}  # fmt: skip


def flow_preset(name: str) -> FlowRun:
    """The training configuration of a latent diffusion model, by the name of its preset.

    Raises:
        InputError: No such preset; the message lists all presets.
    """
    return named(FLOW_PRESETS, name)
