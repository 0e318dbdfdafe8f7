"""Configuration and presets of the tissue segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field

from medil.config import Recipe, Schedule, named
from medil.errors import InputError


@dataclass(frozen=True)
class SegmenterConfig:
    """The network's shape."""

    widths: tuple[int, ...] = (32, 48, 64, 64)  # channels at 2, 4, 8, ... mm
    depths: tuple[int, ...] = (1, 1, 1, 2)  # residual blocks of each level, on each way
    width_voxel: int = 16  # channels at 1 mm

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or min(*self.widths, self.width_voxel) < 1:
            raise InputError("widths and depths need one entry a level, and widths from 1.")


@dataclass(frozen=True)
class SegmenterTraining(Schedule):
    """How a segmenter is trained; see `Schedule`."""

    minutes: float = 60.0
    steps: int = 0
    batch: int = 1  # patches per step, over all processes
    accumulate: int = 1
    side_vox: int = 80  # side of a patch, in voxels of 1 mm
    dice_weight: float = 0.5  # weight of the Dice loss beside the cross-entropy
    shift_mm: float = 6.0  # standard deviation of a patch's shift from its place in the brain
    clip_norm: float = 1.0
    learning_rate: float = 2e-3
    beta2: float = 0.99
    weight_decay: float = 1e-3
    warmup_steps: int = 50
    ema_decay: float = 0.995
    log_every: int = 25
    save_every: int = 100
    bf16: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side_vox < 1 or self.dice_weight < 0 or self.shift_mm < 0:
            raise InputError("side_vox must be above zero; dice_weight and shift_mm not below it.")


@dataclass(frozen=True)
class SegmenterRun(Recipe):
    """One training run of a tissue segmenter."""

    preset: str
    model: SegmenterConfig = field(default_factory=SegmenterConfig)
    train: SegmenterTraining = field(default_factory=SegmenterTraining)
    heads: int = 48  # synthetic heads, drawn on the label maps of the train split

    def __post_init__(self) -> None:
        unit = 2 ** len(self.model.widths)
        if self.train.side_vox % unit:
            raise InputError(f"side_vox = {self.train.side_vox} is no multiple of {unit}.")


SEGMENTER_PRESETS: dict[str, SegmenterRun] = {
    "test": SegmenterRun(  # seconds on a CPU
        "test",
        SegmenterConfig(widths=(8, 8), depths=(1, 1), width_voxel=8),
        SegmenterTraining(minutes=0.2, side_vox=32, log_every=5),
        heads=2,
    ),
    "tiny": SegmenterRun("tiny"),  # the CPU-trained release
}


def segmenter_preset(name: str) -> SegmenterRun:
    """The training configuration of a tissue segmenter, by the name of its preset.

    Raises:
        InputError: No such preset; the message lists all presets.
    """
    return named(SEGMENTER_PRESETS, name)
