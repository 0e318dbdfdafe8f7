"""Training of an autoencoder on patches and whole volumes of a training set.

`medil.training.run` runs the steps on a CPU, a GPU or several processes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from medil.config import PRESETS, RunConfig
from medil.model.base import LatentAutoencoder
from medil.model.rivals import build
from medil.model.weights import (
    load_model,
    save_weights,
    start_from,
)
from medil.system.files import make_folder
from medil.training.dataset import training_scans
from medil.training.losses import Adversary, Perceptual, check_terms
from medil.training.patches import Scan, Step
from medil.training.prefetch import Prefetcher
from medil.training.run import Learner, Run
from medil.training.store import Store, open_store
from medil.training.update import draw_step, update

AHEAD = 4  # steps drawn before they are needed, where patches come from a store or go to a GPU
THREADS = {"cuda": 4}  # threads that draw them; 1 on other devices


class AutoencoderLearner(Learner):
    """An autoencoder, or a rival, on patches and whole volumes.

    Args:
        config: Configuration of the run.
        scans: The training set.
        ahead: Number of steps that threads draw in advance; it does not change the data.
    """

    verb, recipe, presets = "train", RunConfig, PRESETS

    def __init__(self, config: RunConfig, scans: Sequence[Scan], ahead: int = 0) -> None:
        super().__init__(config)
        check_terms(config.train)
        self.scans, self.ahead = scans, ahead
        self.prefetcher: Prefetcher[tuple[Step, int]] | None = None
        self.perceptual: Perceptual | None = None

    @classmethod
    def from_source(
        cls, config: RunConfig, out: Path, source: Path | None, seed: int,
        earlier: dict[str, Any] | None, fabric: Any, workers: int,
    ) -> Self:  # fmt: skip
        """Draw the cohort into the run's folder, and open the patch store `source`."""
        check_terms(config.train)  # before minutes of drawing
        if earlier is None:
            store = Store(source) if source else None
        else:
            store = open_store(out, source, earlier.get("store"))
        make_folder(out)
        scans = training_scans(
            config.data, out / "cohort", seed,
            draws=fabric.local_rank == 0, store=store, processes=workers,
        )  # fmt: skip
        learner = cls(config, scans, AHEAD if store or fabric.device.type == "cuda" else 0)
        if store:
            learner.facts["store"] = store.identity
            if fabric.is_global_zero:
                store.note(out)
        return learner

    def build(self) -> LatentAutoencoder:
        """The architecture that the configuration names."""
        return build(self.config.model)

    def prepare(self, seed: int, device: torch.device) -> None:
        """Make the losses that are networks, and the threads that draw ahead."""
        if self.ahead:
            draw = functools.partial(self.draw, seed)
            self.prefetcher = Prefetcher(draw, self.ahead, THREADS.get(device.type, 1))
        if self.config.train.perceptual_weight:
            self.perceptual = Perceptual().to(device)
        if self.config.train.adversarial_weight:
            self.adversary = Adversary(seed=seed, device=device)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, progress: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step on patches or whole volumes."""
        settings = self.config.train
        stage = 1 if progress < settings.global_share else 2
        ready = self.prefetcher
        step, noise_seed = ready.take(number, stage) if ready else self.draw(seed, number, stage)
        adversary = self.adversary if progress >= settings.adversarial_after else None
        record = update(
            model, optimiser, step, settings, noise_seed, fabric, self.perceptual, adversary,
            measure=number % settings.log_every == 0,
        )  # fmt: skip
        waited = {"waited_s": ready.waited_s} if ready else {}  # by all steps of this call
        return record | waited | {"voxels": step.target.numel()}

    def draw(self, seed: int, number: int, stage: int) -> tuple[Step, int]:
        """The data of a step and the seed of its noise; both depend on the arguments alone."""
        rng = np.random.default_rng([seed, number])
        # A draw depends on the run's progress only through the stage.
        step = draw_step(self.config, self.scans, 0.0 if stage == 1 else 1.0, rng)
        return step, int(rng.integers(2**31))

    @classmethod
    def check_weights(cls, config: RunConfig, path: Path) -> None:
        """Refuse weights that do not fit the model."""
        start_from(build(config.model), path)

    def warm_start(self, run: Run, path: Path) -> None:
        """Start from another run's averaged weights, perhaps of a shallower model."""
        start_from(run.bare, path)
        run.begin_from(load_model(path))

    def save_weights(self, ema: nn.Module, path: Path, facts: dict[str, Any]) -> None:
        """Write the averaged weights in half precision, with the configuration."""
        save_weights(ema, self.config, path, facts, force=True)

    def close(self) -> None:
        """Stop the threads that draw in advance."""
        if self.prefetcher:
            self.prefetcher.close()
