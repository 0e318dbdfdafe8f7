"""Train an autoencoder, top to bottom: on a CPU, on a GPU, or on several processes.

`medil.loop` keeps the run; here stands what an autoencoder learns from in a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medil.checkpoint import load_any, save_weights, start_from
from medil.config import RunConfig, preset
from medil.errors import InputError
from medil.loop import (
    CONFIG,
    STATE,
    WEIGHTS,
    Learner,
    Run,
    follow,
    launched,
    refuse_a_run,
    settings_of,
)
from medil.losses import Adversary, Perceptual
from medil.pool import Pool
from medil.processes import check_batch, launch
from medil.rivals import build
from medil.sampling import Scan
from medil.shortcut import LatentAutoencoder
from medil.train import Critics, draw_step, update

__all__ = ["CONFIG", "STATE", "WEIGHTS", "Autoencoding", "main_train", "train"]

ScansAt = Callable[[int], Sequence[Scan]]


def main_train(
    out: Path,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    time_budget_s: float = math.inf,
    devices: int | None = None,
    accelerator: str = "auto",
    warm_start_from: Path | None = None,
    **settings: Any,
) -> None:
    """Train a preset into a folder (the command line's `train`).

    Args:
        out: Folder of the run; made when missing.
        name: Preset; `tiny` when None, or the resumed run's.
        seed: Of weights, data order and noise; 0 when None, or the resumed run's.
        resume: Go on from `out/state.safetensors`.
        time_budget_s: Stop this call after so long, to be resumed; the schedule does not care.
        devices: Processes on this machine; 1 when None, or what torchrun and SLURM say.
        accelerator: "auto", "cpu" or "cuda".
        warm_start_from: Weights of another run of the same model to begin from.
        settings: Fields of `TrainConfig` to change, such as minutes or steps, unless None.

    Raises:
        InputError: Unknown preset, a run that exists, nothing to resume, or options that
            contradict the run that is resumed.
    """
    began = time.monotonic()
    out, changed = Path(out), {k: v for k, v in settings.items() if v is not None}
    if resume:
        if warm_start_from:
            raise InputError("a resumed run goes on from its own weights; name no others.")
        asked = {"preset": name, "seed": seed}
        config, progress = settings_of(out, RunConfig.from_json, asked, changed)
        seed, first = progress["seed"], progress["step"]
    else:
        refuse_a_run(out)
        config, seed, first = preset(name or "tiny"), seed or 0, 0
        config = replace(config, train=replace(config.train, **changed))
    fabric = launch(devices, accelerator)
    check_batch(config.train, fabric.world_size)
    out.mkdir(parents=True, exist_ok=True)
    pool = Pool(config.data, out / "cohort", seed, draws=fabric.local_rank == 0)
    try:
        pool.scans_at(first)  # drawing a cohort takes minutes, which are not the schedule's
        budget_s = time_budget_s - (time.monotonic() - began)
        train(config, pool.scans_at, out, seed, resume, fabric, budget_s, warm_start_from)
    finally:
        pool.close()


class Autoencoding(Learner):
    """An autoencoder, or a rival, on patches and whole volumes.

    Args:
        config: Of the run.
        scans_at: The training set at a step, the same in every process and call.
    """

    def __init__(self, config: RunConfig, scans_at: ScansAt) -> None:
        super().__init__(config)
        self.scans_at = scans_at
        self.perceptual: Perceptual | None = None

    def build(self) -> LatentAutoencoder:
        """The arm that the configuration names."""
        return build(self.config.model)

    def prepare(self, seed: int, device: torch.device) -> None:
        """Losses that are networks themselves."""
        if self.config.train.perceptual_weight:
            self.perceptual = Perceptual().to(device)
        if self.config.train.adversarial_weight:
            self.adversary = Adversary(seed=seed, device=device)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, share: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """Draw patches or volumes, encode, render, learn."""
        settings = self.config.train
        rng = np.random.default_rng([seed, number])
        step = draw_step(self.config, self.scans_at(number), share, rng)
        adversary = self.adversary if share >= settings.adversarial_after else None
        critics = Critics(self.perceptual, adversary)
        measure = number % settings.log_every == 0
        noise_seed = int(rng.integers(2**31))
        record = update(model, optimiser, step, settings, noise_seed, fabric, critics, measure)
        return record | {"voxels": step.target.numel()}

    def save_weights(self, ema: nn.Module, path: Path, facts: dict) -> None:
        """Half precision, with the configuration."""
        save_weights(ema, self.config, path, facts, force=True)


def warm_start(run: Run, path: Path) -> None:
    """Begin from another run's averaged weights, perhaps of a shallower model.

    Raises:
        InputError: They are of another model.
    """
    earlier = start_from(run.bare, path)
    run.ema.load_state_dict(run.bare.state_dict())
    run.progress["earlier"] = {"weights": load_any(path).weights_id, **earlier}


def train(
    config: RunConfig,
    scans_at: ScansAt,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
    warm_start_from: Path | None = None,
) -> LatentAutoencoder:
    """Run both stages, or go on with them; a signal or a spent budget saves and ends.

    Args:
        config: Of the run.
        scans_at: The training set at a step, the same in every process and call.
        out: Folder of the run, which exists.
        seed: Of weights, data order and noise.
        resume: Go on from the folder's state.
        fabric: From `launch`; one process when None.
        time_budget_s: Wall time of this call.
        warm_start_from: Weights to begin from.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: A loss or gradient became NaN or infinite; the last saved state stays.
    """
    began = time.monotonic()
    run = Run(Autoencoding(config, scans_at), out, seed, launched(fabric))
    if resume:
        run.restore()
    elif warm_start_from:
        warm_start(run, warm_start_from)
    model: Any = follow(run, resume, time_budget_s, began)
    return model
