"""Train arms for equal computing time on one CPU thread, each into a file of averaged weights.

A file is named after all that its weights depend on, so what is there is not trained again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from eval.arms.train import Term, train_arm, trained_or_noted, was_made
from medil.config import RunConfig
from medil.errors import InputError
from medil.model.weights import save_weights
from medil.training.patches import Scan

LEAST_STEPS = 200  # a warm-up is a quarter of it


@dataclass(frozen=True)
class Run(ABC):
    """One training run: an arm, a seed, minutes of one CPU thread, on how many scans."""

    name: str  # of the arm in the rows
    seed: int
    minutes: float
    scans: int

    def __post_init__(self) -> None:
        if not (self.minutes > 0 and self.scans > 0 and self.seed >= 0):
            raise InputError("minutes and scans must be above zero, a seed at least zero.")

    @property
    @abstractmethod
    def config(self) -> RunConfig:
        """The model and how it is trained."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""

    def path(self, folder: Path) -> Path:
        """Where the weights lie."""
        return folder / f"{self.name}_seed{self.seed}_{self.digest[:8]}.safetensors"

    def done(self, folder: Path) -> bool:
        """Whether the run was made, with weights or without."""
        return was_made(self.path(folder))


def train_for(
    run: Run, folder: Path, scans: Callable[[], Sequence[Scan]], term: Term | None = None
) -> Path:
    """Train one run into its file; the file, which is not made twice.

    A `term` is added to the loss (`train_arm`). A run whose loss stopped being finite leaves a
    note of that instead.
    """
    path = run.path(folder)
    if run.done(folder):
        return path
    own, title = scans(), f"{run.name}, seed {run.seed}"
    budget = LEAST_STEPS, 60 * run.minutes
    train = partial(train_arm, run.config, own, run.seed, *budget, title=title, term=term)
    trained = trained_or_noted(path, train)
    if trained is None:
        return path
    facts = {
        "arm": run.name,
        "seed": run.seed,
        "step": trained.by_time.steps,
        "minutes": trained.by_time.cpu_s / 60,
        "scans": run.scans,
        "threads": torch.get_num_threads(),
        "run": run.digest,
    }
    return save_weights(trained.by_time.model, run.config, path, facts, half=False, force=True)
