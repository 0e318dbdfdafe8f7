"""What every training run shares: steps, averaged weights, exact resume, signals, the clock.

A `Learner` says what is trained and what one step is. A run is a folder: `config.json`,
`log.jsonl`, `state.safetensors` (to go on from), `weights.safetensors` (the averaged
weights) and `tensorboard/`. It can be stopped at any time and resumed; one whose length is
given in steps then ends bitwise as if it had not been.
"""

from __future__ import annotations

import copy
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medil.errors import InputError
from medil.system.device import placed
from medil.training.launch import Interruption, check_batch, launch
from medil.training.log import Journal
from medil.training.losses import Adversary
from medil.training.state import load_state, read_progress, save_state
from medil.training.update import average, commit, learning_rate, new_optimiser

STATE, WEIGHTS, CONFIG = "state.safetensors", "weights.safetensors", "config.json"
LENGTHS = ("minutes", "steps")  # of a run, which may grow when it is resumed


class Learner(ABC):
    """What a run trains, and what it does in a step.

    Args:
        config: With `train` (the run's length, rates and sizes) and `to_json`.
    """

    adversary: Adversary | None = None  # a loss that is trained along
    verb = "train"  # of the command line that goes on with a run

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self) -> nn.Module:
        """The model with its initial weights, of torch's random numbers as they stand."""

    def prepare(self, seed: int, device: torch.device) -> None:
        """Make what a step needs besides the model."""
        return

    @abstractmethod
    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, share: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step; all it draws follows from (seed, number).

        Args:
            model: Set up by Fabric.
            optimiser: Over its weights; the learning rate is set.
            number: Of the step, from 0.
            share: Of the run that is behind.
            seed: Of the run.
            fabric: Lightning Fabric.

        Returns:
            What to log, and `voxels`, how many the step learned from.

        Raises:
            InputError: A loss or gradient that is not finite; the weights are as before.
        """

    @abstractmethod
    def save_weights(self, ema: nn.Module, path: Path, facts: dict) -> None:
        """Write the averaged weights with the facts of the run."""


class Run:
    """A run in progress: what its state file holds, and the step that moves it on.

    Args:
        learner: What is trained.
        out: The run's folder.
        seed: Of weights, data order and noise.
        fabric: From `launch`.
    """

    def __init__(self, learner: Learner, out: Path, seed: int, fabric: Any) -> None:
        settings = self.settings = learner.config.train
        torch.set_num_threads(settings.threads)
        torch.manual_seed(seed)  # initial weights; what a step draws depends on (seed, step)
        self.learner, self.out, self.fabric = learner, out, fabric
        self.bare = placed(learner.build(), fabric.device)
        self.ema = copy.deepcopy(self.bare).requires_grad_(False)
        self.optimiser = new_optimiser(self.bare, settings)
        self.model, _ = fabric.setup(self.bare, self.optimiser)
        learner.prepare(seed, fabric.device)
        self.progress: dict[str, Any] = {
            "step": 0, "elapsed_s": 0.0, "voxels": 0, "share": 0.0, "seed": seed, "calls": [],
        }  # fmt: skip

    def restore(self) -> None:
        """Go on from the folder's state."""
        self.progress = load_state(
            self.out / STATE, self.bare, self.ema, self.optimiser, self.learner.adversary
        )

    def save(self) -> None:
        """Write the state; only the first process does."""
        if self.fabric.is_global_zero:
            save_state(
                self.out / STATE, self.bare, self.ema, self.optimiser, self.progress,
                self.learner.adversary,
            )  # fmt: skip

    def save_weights(self) -> None:
        """Write the averaged weights, and what the model card says of the run."""
        if not self.fabric.is_global_zero:
            return
        commits = dict.fromkeys(call["commit"] for call in self.progress["calls"])
        facts = {
            **self.progress,
            "minutes": self.progress["elapsed_s"] / 60,
            "commit": ", ".join(c for c in commits if c),
        }
        self.learner.save_weights(self.ema, self.out / WEIGHTS, facts)

    def note_call(self) -> None:
        """Remember where, and with which code, the run goes on from here."""
        cuda = self.fabric.device.type == "cuda"
        self.progress["calls"].append({
            "step": self.progress["step"],
            "commit": commit(),
            "device": torch.cuda.get_device_name() if cuda else platform.machine() + " CPU",
            "processes": self.fabric.world_size,
            "torch": torch.__version__,
        })  # fmt: skip

    @property
    def share(self) -> float:
        """Of the run that is behind: of its steps, or of its wall time."""
        settings, done = self.settings, self.progress
        if settings.steps:
            return done["step"] / settings.steps
        return done["elapsed_s"] / (60 * settings.minutes)

    def agree(self, stop: bool) -> bool:
        """Whether any process was told to stop; sets all clocks to the one that is ahead."""
        told = torch.tensor([self.progress["elapsed_s"], float(stop)], dtype=torch.float64)
        told = self.fabric.all_reduce(told.to(self.fabric.device), reduce_op="max")
        self.progress["elapsed_s"], stopped = told.tolist()
        return stopped > 0

    def advance(self) -> dict[str, float]:
        """One step: learn from it, average the weights.

        Raises:
            InputError: A loss or gradient that is not finite; the weights are as before.
        """
        settings, number, share = self.settings, self.progress["step"], self.share
        rate = learning_rate(settings, share, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        seed = self.progress["seed"]
        try:
            record = self.learner.step(self.model, self.optimiser, number, share, seed, self.fabric)
        except InputError as error:
            raise InputError(f"step {number} failed: {error}") from error
        average(self.ema, self.bare, min(settings.ema_decay, (1 + number) / (10 + number)))
        self.progress["step"] += 1
        self.progress["voxels"] += record.pop("voxels")
        return record | {"share": share, "learning_rate": rate}

    def row(self, record: dict[str, float]) -> dict[str, float]:
        """A line of the log: a step's record, where the run stands, how fast it is."""
        counts = {k: self.progress[k] for k in ("step", "elapsed_s", "voxels")}
        elapsed_s = max(counts["elapsed_s"], 1e-9)
        return counts | record | {
            "steps_per_s": counts["step"] / elapsed_s,
            "voxels_per_s": counts["voxels"] / elapsed_s,
            "eta_s": elapsed_s * (1 / self.share - 1),
        }  # fmt: skip


def follow(
    run: Run, resumed: bool = False, time_budget_s: float = math.inf, began: float | None = None
) -> nn.Module:
    """Take a run to its end; a signal or a spent budget saves and ends.

    Args:
        run: New, or restored.
        resumed: Which of both.
        time_budget_s: Wall time of this call.
        began: When it began (`time.monotonic`); now when None.

    Returns:
        The model of the averaged weights.

    Raises:
        InputError: A loss or gradient became NaN or infinite; the last saved state stays.
    """
    began = time.monotonic() if began is None else began
    out, settings = run.out, run.settings
    check_batch(settings, run.fabric.world_size)
    run.note_call()
    if run.fabric.is_global_zero:
        (out / CONFIG).write_text(run.learner.config.to_json() + "\n")
        if not resumed:
            run.save()  # so that a run killed at any time can be resumed
    first, silent = run.progress["step"], not run.fabric.is_global_zero
    with Interruption() as asked, Journal(out, settings, first, run.share, silent) as journal:
        stopped, last = False, time.monotonic()
        while run.share < 1 and not stopped:
            logged = run.progress["step"] % settings.log_every == 0
            record = run.advance()
            now = time.monotonic()
            run.progress["elapsed_s"] += now - last
            last = now
            stopped = run.agree(bool(asked.name) or now - began > time_budget_s)
            run.progress["share"] = run.share
            journal.advance(run.share)
            if logged:
                journal.write(run.row(record))
            if run.progress["step"] % settings.save_every == 0:
                run.save()
        run.save()
        run.save_weights()
    if stopped and run.share < 1 and not silent:
        reason = asked.name or "the end of the time budget"
        print(f"stopped at step {run.progress['step']} ({run.share:.0%}) by {reason}; go on with: ")
        print(f"  medil {run.learner.verb} --resume -o {out}")
    return run.ema.eval()


def refuse_a_run(out: Path) -> None:
    """Refuse to begin where a run lies.

    Raises:
        InputError: One does.
    """
    if (out / STATE).exists():
        raise InputError(f"{out} holds a run already; resume it or choose another folder.")


def settings_of(
    out: Path, read: Callable[[str], Any], asked: dict[str, Any], settings: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Configuration and progress of the run in a folder; what is asked for must agree.

    A run may grow longer: more minutes where they say its length, or more steps. Its
    learning rate then goes on from where the longer schedule is at that share.

    Args:
        out: The run's folder.
        read: Configuration from JSON.
        asked: Fields of the configuration, and `seed`, to agree with, unless None.
        settings: Fields of its `train`, likewise.

    Returns:
        The configuration, with the length asked for, and the state's progress.

    Raises:
        InputError: No run there, or another setting.
    """
    if not ((out / STATE).exists() and (out / CONFIG).exists()):
        raise InputError(f"there is no run to resume in {out}.")
    config, progress = read((out / CONFIG).read_text("utf-8")), read_progress(out / STATE)
    has = {**vars(config), "seed": progress["seed"], **vars(config.train)}
    clock = "steps" if config.train.steps else "minutes"
    longer = {}
    for option, value in {**asked, **settings}.items():
        if option == clock and value is not None and value > has[option]:
            longer[option] = value
        elif value is not None and value != has[option]:
            rest = " or longer" if option in LENGTHS else ""
            raise InputError(
                f"the run in {out} has {option} {has[option]}, not {value}; "
                f"resume it as it is{rest}, or choose another folder."
            )
    return replace(config, train=replace(config.train, **longer)), progress


def launched(fabric: Any) -> Any:
    """The given Fabric, or one for a single process."""
    return fabric or launch(1)
