"""Train one arm with one seed, and keep snapshots of its weights.

Every arm of a seed sees the same steps. The learning rate is constant after its warm-up
and the weights are averaged over about the last tenth of the steps, so that a snapshot is
fair wherever it is taken: after S steps, and after the computing time that the reference
arm took for its S steps. Departure: a schedule that decays would need one run for each.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil.config import RunConfig, TrainConfig
from medil.errors import InputError
from medil.model.base import LatentAutoencoder
from medil.model.rivals import build
from medil.system.files import atomic_output
from medil.training.launch import launch
from medil.training.patches import Scan, Step
from medil.training.stages import hold, refinement
from medil.training.update import average, draw_step, new_optimiser, update

STAGES = {  # after an arm's name: (global_share, global_mix)
    "": (0.0, 0.0),  # the arms of the comparison: stage two alone
    " @stage1": (0.98, 0.0),
    " @both": (0.15, 0.0),
    " @both+mix": (0.15, 0.1),
    " @both+groups": (0.15, 0.0),  # and stage one leaves the LTE alone (`medil.training.stages`)
}
GROUPED = (" @both+groups",)
MOST_DECAY = 0.998
Term = Callable[[Tensor, Tensor], Tensor]


DIVERGED = ".diverged"  # ends the name of the note that a run without weights leaves


def was_made(path: Path) -> bool:
    """Whether a run left its weights, or a note that its loss stopped being finite."""
    return path.exists() or path.with_suffix(DIVERGED).exists()


def trained_or_noted(path: Path, train: Callable[[], Trained]) -> Trained | None:
    """What a run gives; None, with a note in place of its weights, where it diverged."""
    try:
        return train()
    except Diverged as error:
        with atomic_output(path.with_suffix(DIVERGED), force=True) as note:
            note.write_text(f"step {error.args[0]}\n")
        return None


class Diverged(Exception):
    """The loss is no longer finite; the argument is the step."""


@dataclass(frozen=True)
class Snapshot:
    """Averaged weights, with the steps and seconds that they took."""

    model: LatentAutoencoder
    steps: int
    cpu_s: float


@dataclass(frozen=True)
class Trained:
    """The result of one run: snapshots after the agreed steps and computing time, and its pace."""

    by_steps: Snapshot
    by_time: Snapshot
    cpu_s_per_step: float
    voxels_per_s: float
    loss: float  # mean of the last tenth of the first S steps
    on_the_way: tuple[Snapshot, ...] = ()  # at the steps that were asked for


def recipe(patch_mm: float = 24.0, batch: int = 1) -> TrainConfig:
    """The training settings of every arm: only random phases between voxels and latent cells."""
    return TrainConfig(
        patch_sides_mm=(patch_mm,), batch=batch, coarser_share=0.2, anchored_share=0.0,
        global_share=0.0, global_mix=0.0,
    )  # fmt: skip


def staged(config: RunConfig, stage: str) -> RunConfig:
    """The run with the share of whole volumes of a stage (a key of `STAGES`)."""
    share, mix = STAGES[stage]
    return replace(config, train=replace(config.train, global_share=share, global_mix=mix))


def train_arm(
    config: RunConfig,
    scans: Sequence[Scan],
    seed: int,
    steps: int,
    budget_s: float | None,
    device: str = "cpu",
    title: str = "",
    snapshots: Sequence[int] = (),
    grouped: bool = False,
    term: Term | None = None,
) -> Trained:
    """Train until both the steps and the computing time (`clock`) are spent.

    The seed sets initial weights, data order and noise. Without a budget of time, the run is a
    reference: its budget is what the steps take. `config.train.steps` is not read. Further
    `snapshots` are taken after so many steps. A `grouped` run holds the LTE still in stage one.
    A `term` of (estimate, truth) is added to the loss, with the weight `perceptual_weight`.

    Raises:
        Diverged: The loss is no longer finite.
        InputError: A grouped run of an arm without a skip.
    """
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(seed)  # initial weights; steps seed themselves
    model = build(config.model).to(device)
    refine = refinement(model) if grouped else []
    _settle(model, config, scans, seed)
    ema = copy.deepcopy(model).requires_grad_(False)
    fabric = launch(1, device)
    wrapped, optimiser = fabric.setup(model, new_optimiser(model, config.train))
    by_steps = by_time = None
    on_the_way: list[Snapshot] = []
    voxels, losses, number, spent_s = 0, [], 0, 0.0
    bar = tqdm(total=steps, desc=title, unit="step")
    while by_steps is None or by_time is None:
        started = clock(device)
        hold(refine, number / steps < config.train.global_share)
        step, loss = _one_step(wrapped, optimiser, fabric, config, scans, seed, number, steps, term)
        average(ema, model, min(MOST_DECAY, (1 + number) / (10 + number)))
        spent_s += clock(device) - started
        number, voxels = number + 1, voxels + step.target.numel()
        losses.append(loss)
        if number in snapshots:
            on_the_way.append(Snapshot(copy.deepcopy(ema).eval(), number, spent_s))
        if number == steps:
            by_steps = Snapshot(copy.deepcopy(ema).eval(), number, spent_s)
            budget_s = spent_s if budget_s is None else budget_s
        if by_time is None and budget_s is not None and spent_s >= budget_s:
            by_time = Snapshot(copy.deepcopy(ema).eval(), number, spent_s)
        bar.set_postfix(loss=f"{loss:.4f}", kvox_s=f"{voxels / spent_s / 1e3:.0f}", refresh=False)
        bar.update(number <= steps)
    bar.close()
    last = losses[max(0, steps - max(1, steps // 10)) : steps]
    pace = spent_s / number, voxels / spent_s
    return Trained(by_steps, by_time, *pace, float(np.mean(last)), tuple(on_the_way))


def clock(device: str) -> float:
    """Seconds of computing: this process's own on a CPU, so that a busy machine does not decide."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _one_step(
    model: torch.nn.Module, optimiser: torch.optim.Optimizer, fabric: Any, config: RunConfig,
    scans: Sequence[Scan], seed: int, number: int, steps: int, term: Term | None,
) -> tuple[Step, float]:  # fmt: skip
    settings = config.train
    warm = min(1.0, (number + 1) / min(settings.warmup_steps, max(1, steps // 4)))
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate * warm
    rng = np.random.default_rng([seed, number])
    # Beyond S, arms that are fast go on as at its end.
    step = draw_step(config, scans, min(number / steps, 0.97), rng)
    try:
        record = update(model, optimiser, step, settings, int(rng.integers(2**31)), fabric, term)
    except (InputError, ArithmeticError) as error:
        raise Diverged(number) from error
    if not math.isfinite(record["loss"]):
        raise Diverged(number)
    return step, record["loss"]


def _settle(model: LatentAutoencoder, config: RunConfig, scans: Sequence[Scan], seed: int) -> None:
    """Warm up on throwaway weights: the first step of a new shape costs more than its work."""
    throwaway = copy.deepcopy(model)
    fabric = launch(1, throwaway.device.type)
    throwaway, optimiser = fabric.setup(throwaway, new_optimiser(throwaway, config.train))
    for number, scan in enumerate({s.spacing_mm: s for s in scans}.values()):
        rng = np.random.default_rng([seed, number, 1])
        step = draw_step(config, [scan], 0.97, rng)
        try:
            update(throwaway, optimiser, step, config.train, number, fabric)
        except (InputError, ArithmeticError):
            return
