"""A training run, top to bottom: on a CPU, on a GPU, or on several processes.

A run is a folder: `config.json`, `log.jsonl`, `state.safetensors` (to go on from),
`weights.safetensors` (the averaged weights) and `tensorboard/`. It can be stopped at any
time and resumed; one whose length is given in steps then ends bitwise as if it had not been.
"""

from __future__ import annotations

import copy
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medil.checkpoint import (
    load_any,
    load_state,
    read_progress,
    save_state,
    save_weights,
    start_from,
)  # fmt: skip
from medil.config import RunConfig, preset
from medil.errors import InputError
from medil.journal import Journal
from medil.losses import Adversary, Perceptual
from medil.pool import Pool
from medil.processes import Interruption, check_batch, launch
from medil.rivals import build
from medil.sampling import Scan
from medil.shortcut import LatentAutoencoder
from medil.train import Critics, average, commit, draw_step, learning_rate, new_optimiser, update

STATE, WEIGHTS, CONFIG = "state.safetensors", "weights.safetensors", "config.json"
ScansAt = Callable[[int], Sequence[Scan]]


def main_train(
    out: Path,
    name: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    time_budget_s: float = math.inf,
    devices: int | None = None,
    accelerator: str = "auto",
    warm_start: Path | None = None,
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
        warm_start: Weights of another run of the same model to begin from.
        settings: Fields of `TrainConfig` to change, such as minutes or steps, unless None.

    Raises:
        InputError: Unknown preset, a run that exists, nothing to resume, or options that
            contradict the run that is resumed.
    """
    began = time.monotonic()
    out, changed = Path(out), {k: v for k, v in settings.items() if v is not None}
    if (out / STATE).exists() and not resume:
        raise InputError(f"{out} holds a run already; resume it or choose another folder.")
    if resume:
        if warm_start:
            raise InputError("a resumed run goes on from its own weights; name no others.")
        config, seed, first = resumed_settings(out, name, seed, changed)
    else:
        config, seed, first = preset(name or "tiny"), seed or 0, 0
        config = replace(config, train=replace(config.train, **changed))
    fabric = launch(devices, accelerator)
    check_batch(config.train, fabric.world_size)
    out.mkdir(parents=True, exist_ok=True)
    pool = Pool(config.data, out / "cohort", seed, draws=fabric.local_rank == 0)
    try:
        pool.scans_at(first)  # drawing a cohort takes minutes, which are not the schedule's
        budget_s = time_budget_s - (time.monotonic() - began)
        train(config, pool.scans_at, out, seed, resume, fabric, budget_s, warm_start)
    finally:
        pool.close()


def resumed_settings(
    out: Path, name: str | None, seed: int | None, settings: dict[str, Any]
) -> tuple[RunConfig, int, int]:
    """Configuration, seed and step of the run in a folder; what is asked for must agree.

    Raises:
        InputError: No run there, or another preset, setting or seed.
    """
    if not ((out / STATE).exists() and (out / CONFIG).exists()):
        raise InputError(f"there is no run to resume in {out}.")
    config = RunConfig.from_json((out / CONFIG).read_text("utf-8"))
    progress = read_progress(out / STATE)
    asked = {"preset": name, "seed": seed, **settings}
    has = {"preset": config.preset, "seed": progress["seed"], **vars(config.train)}
    for option, value in asked.items():
        if value is not None and value != has[option]:
            raise InputError(
                f"the run in {out} has {option} {has[option]}, not {value}; "
                "resume it as it is, or choose another folder."
            )
    return config, progress["seed"], progress["step"]


class Run:
    """A run in progress: what its state file holds, and the step that moves it on.

    Args:
        config: Of the run.
        out: Its folder.
        seed: Of weights, data order and noise.
        fabric: From `launch`.
    """

    def __init__(self, config: RunConfig, out: Path, seed: int, fabric: Any) -> None:
        torch.set_num_threads(config.train.threads)
        torch.manual_seed(seed)  # initial weights; what a step draws depends on (seed, step)
        settings = self.settings = config.train
        self.config, self.out, self.fabric = config, out, fabric
        self.bare: LatentAutoencoder = build(config.model)
        self.ema = copy.deepcopy(self.bare).requires_grad_(False).to(fabric.device)
        self.optimiser = new_optimiser(self.bare, settings)
        self.model, _ = fabric.setup(self.bare, self.optimiser)
        self.perceptual = self.adversary = None
        if settings.perceptual_weight:
            self.perceptual = Perceptual().to(fabric.device)
        if settings.adversarial_weight:
            self.adversary = Adversary(seed=seed, device=fabric.device)
        self.progress: dict[str, Any] = {
            "step": 0, "elapsed_s": 0.0, "voxels": 0, "share": 0.0, "seed": seed, "calls": [],
        }  # fmt: skip

    def warm_start(self, path: Path) -> None:
        """Begin from another run's averaged weights, perhaps of a shallower model.

        Raises:
            InputError: They are of another model.
        """
        earlier = start_from(self.bare, path)
        self.ema.load_state_dict(self.bare.state_dict())
        self.progress["earlier"] = {"weights": load_any(path).weights_id, **earlier}

    def restore(self) -> None:
        """Go on from the folder's state."""
        self.progress = load_state(
            self.out / STATE, self.bare, self.ema, self.optimiser, self.adversary
        )

    def save(self) -> None:
        """Write the state; only the first process does."""
        if self.fabric.is_global_zero:
            save_state(
                self.out / STATE, self.bare, self.ema, self.optimiser, self.progress, self.adversary
            )

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
        save_weights(self.ema, self.config, self.out / WEIGHTS, facts, force=True)

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

    def advance(self, scans_at: ScansAt) -> dict[str, float]:
        """One step: draw it, learn from it, average the weights.

        Raises:
            InputError: A loss or gradient that is not finite; the weights are as before.
        """
        settings, number, share = self.settings, self.progress["step"], self.share
        rate = learning_rate(settings, share, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([self.progress["seed"], number])
        step = draw_step(self.config, scans_at(number), share, rng)
        adversary = self.adversary if share >= settings.adversarial_after else None
        critics = Critics(self.perceptual, adversary)
        measure = number % settings.log_every == 0
        noise_seed = int(rng.integers(2**31))
        try:
            record = update(
                self.model, self.optimiser, step, settings, noise_seed, self.fabric, critics,
                measure,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"step {number} failed: {error}") from error
        average(self.ema, self.bare, min(settings.ema_decay, (1 + number) / (10 + number)))
        self.progress["step"] += 1
        self.progress["voxels"] += step.target.numel()
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


def train(
    config: RunConfig,
    scans_at: ScansAt,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    fabric: Any = None,
    time_budget_s: float = math.inf,
    warm_start: Path | None = None,
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
        warm_start: Weights to begin from.

    Returns:
        The averaged weights' model.

    Raises:
        InputError: A loss or gradient became NaN or infinite; the last saved state stays.
    """
    began = time.monotonic()
    run = Run(config, out, seed, fabric or launch(1))
    check_batch(config.train, run.fabric.world_size)
    if resume:
        run.restore()
    elif warm_start:
        run.warm_start(warm_start)
    run.note_call()
    if not resume and run.fabric.is_global_zero:
        (out / CONFIG).write_text(config.to_json() + "\n")
        run.save()  # so that a run killed at any time can be resumed
    first, silent = run.progress["step"], not run.fabric.is_global_zero
    with Interruption() as asked, Journal(out, config.train, first, run.share, silent) as journal:
        stopped, last = False, time.monotonic()
        while run.share < 1 and not stopped:
            record = run.advance(scans_at)
            now = time.monotonic()
            run.progress["elapsed_s"] += now - last
            last = now
            stopped = run.agree(bool(asked.name) or now - began > time_budget_s)
            run.progress["share"] = run.share
            journal.advance(run.share)
            if "gain_db" in record:
                journal.write(run.row(record))
            if run.progress["step"] % config.train.save_every == 0:
                run.save()
        run.save()
        run.save_weights()
    if stopped and run.share < 1 and not silent:
        reason = asked.name or "the end of the time budget"
        print(f"stopped at step {run.progress['step']} ({run.share:.0%}) by {reason}; go on with: ")
        print(f"  medil train --resume -o {out}")
    return run.ema.eval()
