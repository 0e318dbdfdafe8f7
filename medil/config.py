"""The autoencoder's configuration and presets, and what every run's configuration shares.

Settings are fields of frozen dataclasses. Those of the segmenter are in `medil.anatomy.config`,
those of the flows in `medil.diffusion.config`.

Sources of values: `paper` (arXiv 2504.09322), `LTE` (Lee & Jin 2022), `ours` (measured).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from medil.checksums import SUM, parsed, summed, without_sum
from medil.dials import build
from medil.errors import InputError, printable, shown
from medil.formats import CONFIG, FIELD, NewerError, claimed

P = TypeVar("P")
LOSSES = ("rms", "charbonnier", "l1")
RETIRED = ("data.renew_every",)  # fields of earlier releases, which their files still hold
ARCHITECTURES = (
    "medil",
    "conv",  # MONAI's AutoencoderKL on a fixed grid, resampled in and out
    "resizing",  # resolution-invariant autoencoder (arXiv 2503.09828): learned resizing
)


def check_share(name: str, value: float) -> None:
    """Refuse a share that is not from 0 to below 1, with an `InputError`."""
    if not 0 <= value < 1:
        raise InputError(f"{name} is a share from 0 to below 1, not {value}.")


class Schedule:
    """Length and steps of a run: the fields that every training configuration has.

    Each declares them anew, with its own defaults and in the order of its JSON file.
    """

    minutes: float  # wall time of the run, unless `steps` is set
    steps: int  # length of the run in steps; 0: `minutes` decide
    batch: int  # examples per step, over all processes
    accumulate: int  # gradient accumulation: parts of a process's share of a batch
    clip_norm: float  # largest gradient norm
    learning_rate: float  # largest one: it rises over `warmup_steps`, then falls
    beta2: float  # of AdamW
    weight_decay: float
    warmup_steps: int
    ema_decay: float  # of the averaged weights
    log_every: int  # steps
    save_every: int  # steps
    bf16: bool  # networks run in bfloat16 where the machine has it
    threads: int  # of torch

    def __post_init__(self) -> None:
        if not (self.minutes > 0 and self.learning_rate > 0 and self.steps >= 0):
            raise InputError(
                "minutes and learning_rate must be above zero, and steps at least zero."
            )
        if min(self.batch, self.accumulate) < 1 or self.batch % self.accumulate:
            raise InputError(
                f"a batch of {self.batch} cannot be split into {self.accumulate} equal parts."
            )


@dataclass(frozen=True)
class ModelConfig:
    """The autoencoder's shape."""

    architecture: str = "medil"  # or a rival's
    operator: str = "integrated"  # features -> voxels: ours; "literal" is the paper's
    encoder_operator: str = "integrated"  # native voxels -> features; see `layers.operators`
    closed_form: bool = True  # least-squares projection plus learned residual: ours
    latent_spacing_mm: float = 4.0  # pitch of the latent grid: ours
    latent_channels: int = 8  # numbers per latent cell
    fine_per_latent: int = 2  # fine feature cells per latent cell along each axis
    width_encoder: int = 32  # channels of the encoder's fine level
    width_latent: int = 64  # channels at the latent pitch
    width_fine: int = 32  # channels of the decoder's fine level
    depth_encoder: int = 1  # residual blocks at each encoder level
    depth_latent: int = 5  # decoder blocks at the latent pitch
    depth_fine: int = 3  # decoder blocks at the fine pitch
    harmonics: int = 1  # K: J = 2 K + 1 local functions per axis (integrated LTE)
    frequencies: int = 32  # predicted frequencies per cell (literal LTE)
    hidden: int = 64  # MLP width of the operators that have one
    working_mm: float = 1.0  # fixed grid of "conv" and of "subpixel"
    ridge: float = 2e-3  # second-difference penalty of the projection: ours
    log_var_start: float = -9.0  # initial log-variance: a latent nearly without noise

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise InputError(
                f"architecture must be one of {known}, not {shown(self.architecture)}."
            )
        if self.closed_form and self.latent_channels != self.fine_per_latent**3:
            raise InputError(
                f"the closed-form encoder fills fine_per_latent ** 3 = {self.fine_per_latent**3} "
                f"channels, so latent_channels cannot be {self.latent_channels}."
            )
        if self.latent_spacing_mm <= 0 or min(self.latent_channels, self.fine_per_latent) < 1:
            raise InputError("latent spacing, channels and fine_per_latent must be above zero.")


@dataclass(frozen=True)
class TrainConfig(Schedule):
    """Two stages: whole volumes at low resolution, then native-resolution patches (paper).

    `Schedule` says what the fields without a comment are.
    """

    minutes: float = 45.0
    steps: int = 0
    global_share: float = 0.05  # share of the run on stage one
    global_mix: float = 0.02  # share of stage-two steps on whole low-resolution volumes: ours
    patch_sides_mm: tuple[float, ...] = (40.0,)  # sides of stage-two patches, drawn evenly
    anchored_share: float = 0.5  # share of patches whose latent grid starts at their corner: ours
    batch: int = 1  # patches per step, over all processes
    accumulate: int = 1
    coarser_share: float = 0.1  # share of stage-two steps that render finer voxels than they encode
    clip_norm: float = 1.0
    learning_rate: float = 5e-4
    beta2: float = 0.99
    weight_decay: float = 1e-4
    warmup_steps: int = 50
    ema_decay: float = 0.998
    kl_weight: float = 1e-6  # paper: a KL-regularised latent
    loss: str = "rms"  # or "charbonnier", "l1"
    loss_floor: float = 3e-4  # sqrt(MSE + floor): ours; Charbonnier's eps^2
    gradient_weight: float = 0.0  # of earlier releases, like the next two: their files hold them
    spectral_weight: float = 0.0
    consistency_weight: float = 0.0
    perceptual_weight: float = 0.0  # weight of LPIPS on planes; needs its weights, and a GPU
    adversarial_weight: float = 0.0  # weight of a patch discriminator; needs a GPU
    adversarial_after: float = 0.5  # progress of the run at which the discriminator begins
    log_every: int = 25
    save_every: int = 200
    bf16: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.patch_sides_mm or min(self.patch_sides_mm) <= 0:
            raise InputError("patch_sides_mm needs at least one side, all above zero.")
        if self.loss not in LOSSES:
            raise InputError(f"loss must be one of {', '.join(LOSSES)}, not {shown(self.loss)}.")
        weights = [n for n in vars(self) if n.endswith("_weight") and getattr(self, n) < 0]
        if weights:
            raise InputError(f"{weights[0]} cannot be below zero.")
        shares = "global_share", "global_mix", "coarser_share", "anchored_share"
        for name in (*shares, "adversarial_after"):
            check_share(name, getattr(self, name))


@dataclass(frozen=True)
class DataConfig:
    """What the model is trained on."""

    subjects: int = 24  # volumes of the cohort
    real_share: float = 0.3  # share of patches from real volumes, if any; 1: no cohort
    mix: tuple[str, ...] = ()  # such as "brain:3", "head:1": weights of kinds of real volumes; ours
    thick_share: float = 0.0  # share of patches of thin voxels that are averaged to slices: ours
    thick_mm: tuple[float, float] = (2.0, 6.0)  # thickness of these slices
    near_1mm_share: float = 0.7  # share of cohort subjects at 0.9-1.1 mm: ours
    slice_mm: tuple[float, float] = (1.5, 5.0)  # slice thickness of anisotropic subjects
    max_tilt_deg: float = 15.0  # largest angle between the axes of scan and head
    noise: tuple[float, float] = (0.0, 0.01)  # Rician sigma: ours, low, as noise teaches nothing
    texture: tuple[float, float] = (0.003, 0.02)  # fine texture within tissue: ours, low too
    seed_cohort: int = 1000

    def __post_init__(self) -> None:
        if self.subjects < 1:
            raise InputError(f"a cohort needs at least one subject, not {self.subjects}.")
        if not 0 <= self.real_share <= 1:
            raise InputError(f"real_share is a share from 0 to 1, not {self.real_share}.")
        check_share("near_1mm_share", self.near_1mm_share)
        check_share("thick_share", self.thick_share)
        if not 0 < self.thick_mm[0] <= self.thick_mm[1]:
            raise InputError(f"thick_mm needs two rising sizes above zero, not {self.thick_mm}.")
        self.weights()

    def weights(self) -> dict[str, float]:
        """`mix` as weights by kind; all volumes are equally likely where it is empty.

        Raises:
            InputError: Not ``kind:weight``, a kind named twice, or a weight not above zero.
        """
        weights: dict[str, float] = {}
        for text in self.mix:
            kind, _, number = text.partition(":")
            try:
                weight = float(number)
            except ValueError:
                weight = 0.0
            if kind in weights or not 0 < weight < float("inf"):
                raise InputError(
                    f"mix names each kind once, with a weight above zero, such as brain:3; "
                    f"not {shown(text)}."
                )
            weights[kind] = weight
        return weights


class Recipe:
    """Base of the configurations of runs, such as `RunConfig`: JSON and digest."""

    def to_json(self) -> str:
        """The whole configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)  # type: ignore[call-overload]

    def to_file(self) -> str:
        """`to_json` as a file: with its format, and a check sum that finds a changed digit."""
        values = {FIELD: str(CONFIG), **json.loads(self.to_json())}
        return json.dumps(summed(values), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration that `to_json` or `to_file` wrote; unknown fields are refused.

        Raises:
            InputError: An unknown field, damage, or a newer version of the format.
        """
        try:
            return build(cls, without_retired(without_sum(parsed(text))))
        except NewerError:
            raise
        except (ValueError, AttributeError, TypeError) as error:
            reason = printable(str(error)).rstrip(".")
            raise InputError(f"this is not a configuration of this version: {reason}.") from error

    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        return text_digest(self.to_json())


@dataclass(frozen=True)
class RunConfig(Recipe):
    """One training run."""

    preset: str
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)


def without_retired(raw: dict[str, Any]) -> dict[str, Any]:
    """Remove version, check sum, and fields that only earlier releases had, from a configuration.

    Raises:
        InputError: It is of a newer version, or something else.
    """
    claimed(raw, "this configuration", CONFIG, "is none of a training run.")
    return {
        group: {k: v for k, v in values.items() if f"{group}.{k}" not in RETIRED}
        if isinstance(values, dict)
        else values
        for group, values in raw.items()
        if group not in (SUM, FIELD)
    }


def text_digest(text: str) -> str:
    """Twelve hexadecimal digits of a text, such as a configuration in a weights file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


TEST = ModelConfig(
    width_encoder=16, width_latent=16, width_fine=16, depth_latent=1, depth_fine=1, frequencies=4,
    hidden=16,
)  # fmt: skip

PRESETS: dict[str, RunConfig] = {
    # name          what it is for
    "test": RunConfig(  # seconds on a CPU
        "test",
        TEST,
        TrainConfig(minutes=0.2, patch_sides_mm=(24,), log_every=5),
        DataConfig(subjects=2, real_share=0.0),
    ),
    "tiny": RunConfig(  # the CPU-trained release
        "tiny",
        ModelConfig(depth_encoder=3, depth_fine=4),
        TrainConfig(
            minutes=600, patch_sides_mm=(32, 40, 48), coarser_share=0.2, ema_decay=0.999,
            global_mix=0.05, learning_rate=4e-4, warmup_steps=200,
        ),
        DataConfig(subjects=24, real_share=0.88, thick_share=0.25),
    ),
    "chest-tiny": RunConfig(  # chest CT, begun from `tiny`; its scans come from a store
        "chest-tiny",
        ModelConfig(depth_encoder=2, depth_fine=4),  # fp16 weights below 4 MB
        TrainConfig(
            minutes=300, global_share=0.0, patch_sides_mm=(32, 40, 48), coarser_share=0.2,
            ema_decay=0.999, global_mix=0.05, learning_rate=4e-4, warmup_steps=200,
        ),
        DataConfig(real_share=1.0, mix=("chest:1",), thick_share=0.25),
    ),
    "base": RunConfig(  # for one GPU; its weights stay below 16 MiB
        "base",
        ModelConfig(
            width_encoder=64, width_latent=128, width_fine=64, depth_latent=6, depth_fine=4
        ),
        TrainConfig(
            minutes=25, patch_sides_mm=(40, 48, 64), batch=16, coarser_share=0.3,
            global_mix=0.05, warmup_steps=100, learning_rate=8e-4,
        ),
        DataConfig(subjects=96),
    ),
    "paper": RunConfig(  # all learned, LTE as published: for comparison
        "paper",
        ModelConfig(
            operator="literal", encoder_operator="literal", closed_form=False, frequencies=128,
            hidden=256, width_encoder=64, width_latent=128, width_fine=64,
        ),
        TrainConfig(minutes=600, patch_sides_mm=(48, 64), batch=8),
        DataConfig(subjects=400),
    ),
}  # fmt: skip


def named(presets: Mapping[str, P], name: str) -> P:
    """A preset by name; the error lists all names."""
    if name not in presets:
        raise InputError(f"there is no preset {shown(name)}; choose one of {', '.join(presets)}.")
    return presets[name]


def preset(name: str) -> RunConfig:
    """The training configuration of an autoencoder, by the name of its preset.

    Raises:
        InputError: No such preset; the message lists all presets.

    Example:
        >>> preset("tiny").model.latent_spacing_mm
        4.0
        >>> preset("huge")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        medil.errors.InputError: there is no preset 'huge'; choose one of test, tiny, ...
    """
    return named(PRESETS, name)
