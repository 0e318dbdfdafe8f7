"""The tries: one change at a time to a small autoencoder, each trained for as long.

All are trained on synthetic chests by the ablation's recipe (`eval.arms.train`), from scratch
beside the closed form, for the same time on one CPU thread (`eval.arms.timed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from eval.arms import timed
from eval.arms.catalogue import ARMS, TRUNK
from eval.arms.timed import LEAST_STEPS, train_for
from eval.arms.train import recipe
from eval.rows import digest
from eval.thin_structures.chests import FOLDER, training_file, training_scans
from medil.config import ModelConfig, RunConfig
from medil.errors import InputError
from medil.training.losses import floored_rms

VERSION = 1  # part of every run's name: raise it when training itself changes
GRADIENT_WEIGHT = 1.0  # of the gradient's error, beside that of the image
CONTROL = "control"


def gradient_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Error of differences of neighbouring voxels along the axes: a high-pass loss.

    Root mean square of each [B, 1, D, H, W] image's, with a floor, averaged over axes and images.
    """
    error = estimate.float() - truth.float()
    slopes = [error.diff(dim=axis) for axis in (2, 3, 4) if error.shape[axis] > 1]
    parts = [floored_rms(slope, torch.zeros_like(slope), 3e-4) for slope in slopes]
    return GRADIENT_WEIGHT * torch.stack(parts).mean()


@dataclass(frozen=True)
class Try:
    """One change to the control."""

    title: str
    model: ModelConfig = TRUNK
    focal: bool = False  # half of the patches lie around small airways
    term: Callable[[Tensor, Tensor], Tensor] | None = None  # is added to the loss


TRIES = {
    CONTROL: Try("control"),
    "gradient": Try("gradient loss", term=gradient_error),
    "focal": Try("patches around small airways", focal=True),
    "finer": Try(
        "2 mm pitch × 1 number",
        replace(
            TRUNK, latent_spacing_mm=2.0, latent_channels=1, fine_per_latent=1, width_latent=32,
            depth_latent=1,
        ),
    ),
    "frequencies": Try("more frequencies", ARMS["integrated-j5"]),
    "encoder": Try("no frequencies in the encoder", replace(TRUNK, encoder_operator="trilinear")),
    "content": Try("frequencies by content", ARMS["integrated-content"]),
    "literal": Try("literal LTE (paper)", ARMS["literal"]),
    "trilinear": Try("trilinear (MedIL-Interp)", ARMS["trilinear"]),
    "conv": Try("Conv AE, 1 mm", ARMS["conv-1mm"]),
}  # fmt: skip


@dataclass(frozen=True)
class Run(timed.Run):
    """One training run of a try."""

    def __post_init__(self) -> None:
        if self.name not in TRIES:
            raise InputError(f"there is no try {self.name!r}; choose from {', '.join(TRIES)}.")
        super().__post_init__()

    @property
    def config(self) -> RunConfig:
        """The model under the ablation's recipe; a further term of the loss has weight 1."""
        settings = replace(recipe(), perceptual_weight=float(TRIES[self.name].term is not None))
        return RunConfig("thin_structures", TRIES[self.name].model, settings)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""
        model, settings = asdict(self.config.model), asdict(self.config.train)
        files = [training_file(index) for index in range(self.scans)]
        more = [self.name, GRADIENT_WEIGHT, LEAST_STEPS, self.seed, self.minutes]
        return digest([VERSION, model, settings, *more, files])


def train_run(run: Run, folder: Path = FOLDER) -> Path:
    """Train one run into its file, on one thread; the file, which is not made twice."""
    what = TRIES[run.name]
    return train_for(run, folder, lambda: training_scans(run.scans, what.focal, folder), what.term)


def train_all(runs: Sequence[Run], folder: Path = FOLDER) -> None:
    """Train what is not there yet, one after another, so that a stopped command can go on."""
    for run in runs:
        train_run(run, folder)
