"""Train an autoencoder, top to bottom: on a CPU, on a GPU, or on several processes.

`medil.training.run` keeps the run; here stands what an autoencoder learns from in a step.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medil.config import RunConfig, preset
from medil.errors import InputError
from medil.model.base import LatentAutoencoder
from medil.model.rivals import build
from medil.model.weights import load_model, save_weights, start_from
from medil.training.dataset import Pool
from medil.training.launch import check_batch, launch
from medil.training.losses import Adversary, Perceptual
from medil.training.patches import Scan, Step
from medil.training.prefetch import Prefetcher
from medil.training.run import (
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
from medil.training.store import Store, open_store
from medil.training.update import Critics, draw_step, update

__all__ = ["CONFIG", "STATE", "WEIGHTS", "Autoencoding", "main_train", "train"]

ScansAt = Callable[[int], Sequence[Scan]]
AHEAD = 4  # steps drawn before they are needed, where patches come from a store or go to a card
THREADS = {"cuda": 4}  # that draw them; elsewhere one


def main_train(
    out: Path,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    time_budget_s: float = math.inf,
    devices: int | None = None,
    accelerator: str = "auto",
    warm_start_from: Path | None = None,
    store: Path | None = None,
    real_share: float | None = None,
    processes: int = 1,
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
        store: Made by `medil store`: where real scans come from; published ones when None.
        real_share: Of patches from real scans, 1 without a cohort; the preset's when None.
        processes: That draw the cohort; more than one needs a guarded main module.
        settings: Fields of `TrainConfig` to change, such as minutes or steps, unless None.

    Raises:
        InputError: Unknown preset, a run that exists, nothing to resume, options that
            contradict the run that is resumed, or a store that changed since it began.
    """
    began = time.monotonic()
    out, changed = Path(out), {k: v for k, v in settings.items() if v is not None}
    if resume:
        if warm_start_from:
            raise InputError("a resumed run goes on from its own weights; name no others.")
        asked = {"preset": name, "seed": seed}
        config, progress = settings_of(out, RunConfig.from_json, asked, changed)
        seed, first = progress["seed"], progress["step"]
        if real_share not in (None, config.data.real_share):
            raise InputError(f"the run in {out} has a real share of {config.data.real_share:g}.")
        opened = open_store(out, store, progress.get("store"))
    else:
        refuse_a_run(out)
        config, seed, first = preset(name or "tiny"), seed or 0, 0
        data = config.data if real_share is None else replace(config.data, real_share=real_share)
        config = replace(config, train=replace(config.train, **changed), data=data)
        opened = Store(store) if store else None
    fabric = launch(devices, accelerator)
    check_batch(config.train, fabric.world_size)
    out.mkdir(parents=True, exist_ok=True)
    if opened and fabric.is_global_zero:
        opened.note(out)
    pool = Pool(
        config.data, out / "cohort", seed,
        draws=fabric.local_rank == 0, store=opened, processes=processes,
    )  # fmt: skip
    try:
        pool.scans_at(first)  # drawing a cohort takes minutes, which are not the schedule's
        budget_s = time_budget_s - (time.monotonic() - began)
        train(config, pool.scans_at, out, seed, resume, fabric, budget_s, warm_start_from, opened)
    finally:
        pool.close()


class Autoencoding(Learner):
    """An autoencoder, or a rival, on patches and whole volumes.

    Args:
        config: Of the run.
        scans_at: The training set at a step, the same in every process and call.
        ahead: Steps that are drawn by threads before their turn, to the same bits; 0: none.
    """

    def __init__(self, config: RunConfig, scans_at: ScansAt, ahead: int = 0) -> None:
        super().__init__(config)
        self.scans_at, self.ahead = scans_at, ahead
        self.prefetcher: Prefetcher[tuple[Step, int]] | None = None
        self.perceptual: Perceptual | None = None
        self._one_at_a_time = threading.Lock()

    def build(self) -> LatentAutoencoder:
        """The arm that the configuration names."""
        return build(self.config.model)

    def prepare(self, seed: int, device: torch.device) -> None:
        """Losses that are networks themselves, and the threads that draw ahead."""
        if self.ahead:
            draw = functools.partial(self.draw, seed)
            self.prefetcher = Prefetcher(draw, self.ahead, THREADS.get(device.type, 1))
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
        stage = 1 if share < settings.global_share else 2
        ready = self.prefetcher
        step, noise_seed = ready.take(number, stage) if ready else self.draw(seed, number, stage)
        adversary = self.adversary if share >= settings.adversarial_after else None
        critics = Critics(self.perceptual, adversary)
        measure = number % settings.log_every == 0
        record = update(model, optimiser, step, settings, noise_seed, fabric, critics, measure)
        waited = {"waited_s": ready.waited_s} if ready else {}  # by all steps of this call
        return record | waited | {"voxels": step.target.numel()}

    def draw(self, seed: int, number: int, stage: int) -> tuple[Step, int]:
        """What a step sees, and the seed of its noise: a function of the arguments alone."""
        rng = np.random.default_rng([seed, number])
        with self._one_at_a_time:
            scans = self.scans_at(number)
        # The stage is all that a draw needs to know of the share of the run that is behind.
        step = draw_step(self.config, scans, 0.0 if stage == 1 else 1.0, rng)
        return step, int(rng.integers(2**31))

    def close(self) -> None:
        """End the threads that draw ahead."""
        if self.prefetcher:
            self.prefetcher.close()

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
    run.progress["earlier"] = {"weights": load_model(path).weights_id, **earlier}


def train(
    config: RunConfig,
    scans_at: ScansAt,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
    warm_start_from: Path | None = None,
    store: Store | None = None,
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
        store: From which scans are read; the run notes which it is.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: A loss or gradient became NaN or infinite; the last saved state stays.
    """
    began = time.monotonic()
    fabric = launched(fabric)
    learner = Autoencoding(config, scans_at, AHEAD if store or fabric.device.type == "cuda" else 0)
    try:
        run = Run(learner, out, seed, fabric)
        run.progress |= {"store": store.identity} if store else {}
        if resume:
            run.restore()
        elif warm_start_from:
            warm_start(run, warm_start_from)
        model: Any = follow(run, resume, time_budget_s, began)
    finally:
        learner.close()
    return model
