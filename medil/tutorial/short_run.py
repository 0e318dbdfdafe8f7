"""A training run of seconds: one head cut in two, the smallest preset, Ctrl-C at a chosen step."""

from __future__ import annotations

import io
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from medil.config import PRESETS, RunConfig
from medil.training.autoencoder import AutoencoderLearner
from medil.training.patches import Scan, Step
from medil.training.run import train
from medil.volume import Volume


def halves(volume: Volume) -> tuple[Volume, Volume]:
    """Back and front of a volume [D, H, W], cut by a plane across its second axis."""
    depth, height, width = volume.grid.shape
    middle = height // 2

    def part(start: int, stop: int) -> Volume:
        grid = volume.grid.crop((0, start, 0), (depth, stop - start, width))
        return Volume(volume.data[:, start:stop], grid)

    return part(0, middle), part(middle, height)


def short_config(steps: int, closed_form: bool = False, **settings: Any) -> RunConfig:
    """The preset `test` for so many steps: a quarter on whole volumes, then patches with some.

    `settings` are fields of `TrainConfig`. With `closed_form` the network learns a residual, at a
    lower learning rate.
    """
    preset = PRESETS["test"]
    learned = {"learning_rate": 5e-4 if closed_form else 2e-3, "warmup_steps": 10}
    stages = {"global_share": 0.25, "global_mix": 0.1, "ema_decay": 0.95, "log_every": 2}
    train_config = replace(preset.train, steps=steps, **(learned | stages | settings))
    model = replace(preset.model, closed_form=closed_form)
    return replace(preset, model=model, train=train_config)


class _Interrupted(AutoencoderLearner):
    """A learner that gets Ctrl-C before it draws one step."""

    interrupt_at: int | None = None

    def draw(self, seed: int, number: int, stage: int) -> tuple[Step, int]:
        if number == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return super().draw(seed, number, stage)


def run_in(
    folder: Path,
    config: RunConfig,
    scans: Sequence[Scan],
    resume: bool = False,
    interrupt_at: int | None = None,
) -> nn.Module:
    """Train into a folder, made if missing, without a progress bar; seed 0.

    `interrupt_at` is the step before which Ctrl-C arrives; None for never. Returns the model of
    the averaged weights, as `medil.training.run.train` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learner = _Interrupted(config, scans)
    learner.interrupt_at = interrupt_at
    with redirect_stderr(io.StringIO()):
        return train(learner, folder, seed=0, resume=resume)
