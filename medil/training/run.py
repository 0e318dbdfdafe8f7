"""What every training run shares: steps, averaged weights, exact resume, signals, the clock.

A `Learner` says what is trained and what one step is. A run is a folder: `config.json`,
`log.jsonl`, `state.safetensors` (to resume from), `state.earlier.safetensors` (the state before
it), `weights.safetensors` (the averaged weights) and `tensorboard/`. It can be stopped at any
time and resumed; a run whose length is set in steps then ends bitwise as if it had not been
stopped.
"""

from __future__ import annotations

import copy
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from medil.config import Recipe
from medil.errors import InputError
from medil.model.weights import short_digest, weights_sha256
from medil.system.checkout import commit
from medil.system.device import place_model
from medil.system.files import atomic_output
from medil.system.lock import only_writer
from medil.training.launch import Interruption, check_batch, launch
from medil.training.log import RunLog
from medil.training.losses import Adversary
from medil.training.state import STATE, load_state, save_state, state_file
from medil.training.update import average, learning_rate, new_optimiser

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
SAVE_S = 300.0  # a state is saved at least as often, however long `save_every` steps take


class Learner(ABC):
    """What a run trains, and what it does in a step; the configuration has `train`, `to_json`."""

    verb: ClassVar[str]  # command that trains it
    recipe: ClassVar[type[Recipe]]  # class of the configuration
    presets: ClassVar[Mapping[str, Any]]  # name to configuration
    adversary: Adversary | None = None  # a discriminator that is trained with the model

    def __init__(self, config: Any) -> None:
        self.config = config
        self.facts: dict[str, Any] = {}  # stored with the run, JSON-able

    @classmethod
    @abstractmethod
    def from_source(
        cls, config: Any, out: Path, source: Path | None, seed: int,
        earlier: dict[str, Any] | None, fabric: Any, workers: int,
    ) -> Self:  # fmt: skip
        """Make the run's folder and its training set.

        Args:
            config: Configuration of the run.
            out: Folder of the run.
            source: Origin of the training set; a default when None.
            seed: Seed of the run.
            earlier: Facts of the run that is resumed; None for a new run.
            fabric: From `launch`.
            workers: Processes that draw synthetic heads.

        Raises:
            InputError: The source cannot be used, or differs from the one the run began with.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """The model with its initial weights, from torch's global random numbers."""

    def prepare(self, seed: int, device: torch.device) -> None:
        """Make what a step needs besides the model."""
        return

    @abstractmethod
    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, progress: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step; everything it draws follows from (seed, number).

        Args:
            model: Set up by Fabric.
            optimiser: Optimiser of its weights, with the learning rate of this step.
            number: Number of the step, from 0.
            progress: Share of the run that is done, 0 ... 1.
            seed: Seed of the run.
            fabric: Lightning Fabric.

        Returns:
            Values to log, and `voxels`, the number of voxels in the step.

        Raises:
            InputError: A loss or gradient that is not finite; the weights are as before.
        """

    @classmethod
    @abstractmethod
    def check_weights(cls, config: Any, path: Path) -> None:
        """Check weights to start from, before minutes are spent on the training set.

        Raises:
            InputError: They are damaged or do not fit the model.
        """

    @abstractmethod
    def warm_start(self, run: Run, path: Path) -> None:
        """Put the averaged weights of another run into the model of a new run.

        Raises:
            InputError: The weights do not fit the model.
        """

    @abstractmethod
    def save_weights(self, ema: nn.Module, path: Path, facts: dict[str, Any]) -> None:
        """Write the averaged weights with the facts of the run."""

    def close(self) -> None:
        """Stop the threads that `prepare` started."""
        return


class Run:
    """A run under way: what its state file holds, and the step that advances it.

    `seed` seeds weight initialisation, data order and noise.
    """

    def __init__(self, learner: Learner, out: Path, seed: int, fabric: Any) -> None:
        settings = self.settings = learner.config.train
        torch.set_num_threads(settings.threads)
        torch.manual_seed(seed)  # initial weights; what a step draws depends on (seed, step)
        self.learner, self.out, self.fabric = learner, out, fabric
        self.saved_step, self.saved_s = -1, time.monotonic()
        self.bare = place_model(learner.build(), fabric.device)
        self.ema = copy.deepcopy(self.bare).requires_grad_(False)
        self.optimiser = new_optimiser(self.bare, settings)
        self.model, _ = fabric.setup(self.bare, self.optimiser)
        learner.prepare(seed, fabric.device)
        self.facts: dict[str, Any] = {
            "step": 0, "elapsed_s": 0.0, "cpu_s": 0.0, "voxels": 0, "progress": 0.0, "seed": seed,
            "calls": [],
            **learner.facts,
        }  # fmt: skip

    def begin_from(self, earlier: Any, **about: Any) -> None:
        """Average from the present weights on, which come from `earlier`; note its own facts.

        Args:
            earlier: Model of another run, with the facts that its file holds.
            about: More to note of it, JSON-able.
        """
        self.ema.load_state_dict(self.bare.state_dict())
        weights = short_digest(weights_sha256(earlier))
        self.facts["earlier"] = {"weights": weights, **about, **earlier.facts}

    def restore(self) -> None:
        """Resume from the folder's state."""
        self.facts = load_state(
            state_file(self.out), self.bare, self.ema, self.optimiser, self.learner.adversary
        )

    def check_agreement(self) -> None:
        """Refuse processes that begin from different states: the disk is not the same everywhere.

        Raises:
            InputError: They do.
        """
        digest = int(weights_sha256(self.bare)[:12], 16)  # a whole number that float64 holds
        own = torch.tensor([self.facts["step"], digest], dtype=torch.float64)
        both = torch.cat([own, -own]).to(self.fabric.device)
        highest, lowest = self.fabric.all_reduce(both, reduce_op="max").cpu().chunk(2)
        if not torch.equal(highest, -lowest):
            raise InputError(
                f"the processes begin from different weights; all of them need {self.out} on the "
                "same disk."
            )

    def save(self) -> None:
        """Write the state, unless that of this step is written; only the first process does."""
        if self.fabric.is_global_zero and self.saved_step != self.facts["step"]:
            save_state(
                self.out / STATE, self.bare, self.ema, self.optimiser, self.facts,
                self.learner.adversary,
            )  # fmt: skip
        self.saved_step, self.saved_s = self.facts["step"], time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the state should be saved, by the number of steps or by the clock."""
        in_steps = self.facts["step"] % self.settings.save_every == 0
        return in_steps or time.monotonic() - self.saved_s >= SAVE_S

    def save_weights(self) -> None:
        """Write the averaged weights, and what the model card says of the run."""
        if not self.fabric.is_global_zero:
            return
        commits = dict.fromkeys(call["commit"] for call in self.facts["calls"])
        facts = {
            **self.facts,
            "minutes": self.facts["elapsed_s"] / 60,
            "commit": ", ".join(c for c in commits if c),
        }
        self.learner.save_weights(self.ema, self.out / WEIGHTS, facts)

    def note_call(self) -> None:
        """Record the step at which this call begins, its code version and its device."""
        cuda = self.fabric.device.type == "cuda"
        self.facts["calls"].append({
            "step": self.facts["step"],
            "commit": commit(),
            "device": torch.cuda.get_device_name() if cuda else platform.machine() + " CPU",
            "processes": self.fabric.world_size,
            "torch": torch.__version__,
        })  # fmt: skip

    @property
    def progress(self) -> float:
        """Share of the run that is done: of its steps, or of its wall time."""
        settings, facts = self.settings, self.facts
        if settings.steps:
            return float(facts["step"] / settings.steps)
        return float(facts["elapsed_s"] / (60 * settings.minutes))

    def synchronise(self, stop: bool) -> bool:
        """Whether any process wants to stop; also sets every clock to the latest one."""
        local = torch.tensor([self.facts["elapsed_s"], float(stop)], dtype=torch.float64)
        latest = self.fabric.all_reduce(local.to(self.fabric.device), reduce_op="max")
        self.facts["elapsed_s"], stopped = latest.tolist()
        return bool(stopped > 0)

    def advance(self) -> dict[str, float]:
        """One optimiser step, then an update of the averaged weights.

        Raises:
            InputError: A loss or gradient that is not finite; the weights are as before.
        """
        settings, number, progress = self.settings, self.facts["step"], self.progress
        rate = learning_rate(settings, progress, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        try:
            record = self.learner.step(
                self.model, self.optimiser, number, progress, self.facts["seed"], self.fabric
            )
        except InputError as error:
            raise InputError(f"step {number} failed: {error}") from error
        average(self.ema, self.bare, min(settings.ema_decay, (1 + number) / (10 + number)))
        self.facts["step"] += 1
        self.facts["voxels"] += record.pop("voxels")
        return record | {"progress": progress, "learning_rate": rate}

    def row(self, record: dict[str, float]) -> dict[str, float]:
        """A line of the log: a step's record, the run's progress and its speed."""
        counts = {k: self.facts[k] for k in ("step", "elapsed_s", "voxels")}
        elapsed_s = max(counts["elapsed_s"], 1e-9)
        return counts | record | {
            "steps_per_s": counts["step"] / elapsed_s,
            "voxels_per_s": counts["voxels"] / elapsed_s,
            "eta_s": elapsed_s * (1 / self.progress - 1),
        }  # fmt: skip


def train(
    learner: Learner,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
    warm_start_from: Path | None = None,
) -> nn.Module:
    """Train into a folder that exists, or resume; a signal or a spent budget saves and ends.

    `seed`, `resume`, `time_budget_s` and `warm_start_from` are those of
    `medil.training.start.start`; without a `fabric` a single process trains.

    Returns:
        The model of the averaged weights, in evaluation mode.

    Raises:
        InputError: A loss or gradient became NaN or infinite (the last saved state stays),
            weights to start from that do not fit, or another process trains in the folder.
    """
    began = time.monotonic()
    fabric = fabric or launch(1)
    with ExitStack() as held:
        held.callback(learner.close)
        if fabric.is_global_zero:
            held.enter_context(only_writer(out, f"medil {learner.verb}"))
        run = Run(learner, out, seed, fabric)
        if resume:
            run.restore()
        elif warm_start_from:
            learner.warm_start(run, warm_start_from)
        run.check_agreement()
        return _to_the_end(run, resume, time_budget_s, began)


def _to_the_end(run: Run, resumed: bool, time_budget_s: float, began: float) -> nn.Module:
    """Take steps until the run is complete, a signal arrives or the time budget is spent."""
    out, settings = run.out, run.settings
    check_batch(settings, run.fabric.world_size)
    run.note_call()
    if run.fabric.is_global_zero:
        with atomic_output(out / CONFIG, force=True) as temporary:
            temporary.write_text(run.learner.config.to_file(), "utf-8")
        if not resumed:
            run.save()  # so that a run killed at any time can be resumed
    silent = not run.fabric.is_global_zero
    with (
        Interruption() as interruption,
        RunLog(out, settings, run.facts["step"], run.progress, silent) as log,
    ):
        stopped, last, worked = False, time.monotonic(), time.process_time()
        while run.progress < 1 and not stopped:
            logged = run.facts["step"] % settings.log_every == 0
            record = run.advance()
            now = time.monotonic()
            run.facts["elapsed_s"] += now - last
            last = now
            if "cpu_s" in run.facts:  # runs begun by an earlier version have none
                run.facts["cpu_s"] += time.process_time() - worked
                worked = time.process_time()
            stopped = run.synchronise(bool(interruption.name) or now - began > time_budget_s)
            run.facts["progress"] = run.progress
            log.advance(run.progress)
            if logged:
                log.write(run.row(record))
            if run.is_due:
                run.save()
        run.save()
        run.save_weights()
    if stopped and run.progress < 1 and not silent:
        reason = interruption.name or "the end of the time budget"
        done = f"step {run.facts['step']} ({run.progress:.0%})"
        print(f"stopped at {done} by {reason}; resume with:")
        print(f"  medil {run.learner.verb} --resume -o {out}")
    return run.ema.eval()
