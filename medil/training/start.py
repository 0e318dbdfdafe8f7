"""Start a run, or resume one: from a preset and the settings that change it to a trained model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from medil.config import named
from medil.dials import changed, flat
from medil.errors import InputError, shown
from medil.formats import NewerError
from medil.training.attendance import Attendance
from medil.training.launch import check_batch, is_started, launch
from medil.training.run import CONFIG, Learner, train
from medil.training.state import read_facts, state_file


def start(
    kind: type[Learner],
    out: Path,
    preset: str | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    resume: bool = False,
    source: Path | None = None,
    warm_start_from: Path | None = None,
    time_budget_s: float = math.inf,
    processes: int | None = None,
    device: str = "auto",
    workers: int = 1,
) -> nn.Module:
    """Train a preset, or a variant of it, into a folder (`medil train`, `medil train-ldm`).

    Args:
        kind: Class of what is trained.
        out: Folder of the run; made if only its last level is missing.
        preset: Name; `tiny` when None, or the resumed run's.
        changes: Settings that differ from the preset's, by dotted name, such as
            `model.latent_spacing_mm`; values may be text. `preset` is read as one of them.
        seed: Seeds weight initialisation, data order and noise; 0 when None, or the resumed
            run's.
        resume: Continue from the state in the folder. Settings must then be the run's own, but the
            run may be made longer.
        source: Where the training set comes from: a patch store (autoencoder), or weights of
            an autoencoder (sampler).
        warm_start_from: Weights of another run to start from instead of random ones.
        time_budget_s: End this call after this time; the schedule of the run does not change.
        processes: Processes on this machine; as for `medil.training.launch.launch`.
        device: Device of each process: "auto", "cpu" or "cuda".
        workers: Processes that draw synthetic heads; more than one needs a guarded main module.

    Returns:
        The model of the averaged weights.

    Raises:
        InputError: Unknown preset or setting, a run that exists, nothing to resume, settings
            that contradict the resumed run, or a source that cannot be used.
    """
    began = time.monotonic()
    out, changes = Path(out), dict(changes or {})
    in_changes = changes.pop("preset", None)
    if preset and in_changes not in (None, preset):
        raise InputError(f"the configuration is of preset {shown(in_changes)}, not {preset!r}.")
    refusal, config, earlier = _asked(
        kind, out, preset or in_changes, changes, seed, resume, warm_start_from
    )
    if refusal and not is_started():
        raise refusal
    fabric = launch(processes, device)
    with Attendance(fabric, partial(_again, kind, out)):
        if refusal:  # here, so that one of several processes says it
            raise refusal
        check_batch(config.train, fabric.world_size)
        seed = earlier["seed"] if earlier else seed or 0
        learner = kind.from_source(config, out, source, seed, earlier, fabric, workers)
        # Drawing the training set may take minutes, which belong to the budget, not the schedule.
        budget_s = time_budget_s - (time.monotonic() - began)
        return train(learner, out, seed, resume, fabric, budget_s, warm_start_from)


def _asked(
    kind: type[Learner], out: Path, preset: str | None, changes: dict[str, Any],
    seed: int | None, resume: bool, warm_start_from: Path | None,
) -> tuple[InputError | None, Any, dict[str, Any] | None]:  # fmt: skip
    """What is wrong with the arguments, if anything; configuration; facts of a resumed run."""
    try:
        if resume and warm_start_from:
            raise InputError(
                "a resumed run continues from its own weights; leave `warm_start_from` out."
            )
        if resume:
            return None, *resumed(kind, out, preset, seed, changes)
        if state_file(out).exists():
            raise InputError(f"{out} holds a run already; resume it or choose another folder.")
        config = changed(named(kind.presets, preset or "tiny"), changes)
        if warm_start_from:
            kind.check_weights(config, warm_start_from)
    except InputError as error:
        return error, None, None
    return None, config, None


def _again(kind: type[Learner], out: Path) -> str:
    """How to go on with a run that lost a process."""
    if not state_file(out).exists():
        return "nothing is saved yet, so begin again with the same command"
    return f"resume with: medil {kind.verb} --resume -o {out}"


def resumed(
    kind: type[Learner], out: Path, preset: str | None, seed: int | None, changes: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Configuration and facts of the run in a folder; what the caller names must agree.

    A run may grow longer: more minutes where they are its length, or more steps. Its
    learning rate then follows the longer schedule from the progress that the run has in it.

    Returns:
        The configuration, perhaps longer, and the facts in the state file.

    Raises:
        InputError: There is no run, a damaged one, or one of another preset, seed or setting.
    """
    if not (state_file(out).exists() and (out / CONFIG).exists()):
        raise InputError(f"there is no run to resume in {out}.")
    own = _own(kind, out / CONFIG)
    facts = read_facts(state_file(out))
    wanted = changed(own, changes)
    has = flat(own) | {"seed": facts["seed"]}
    named_too = {"preset": preset, "seed": seed}
    wants = flat(wanted) | {k: v for k, v in named_too.items() if v is not None}
    length = "train.steps" if own.train.steps else "train.minutes"
    for name, value in wants.items():
        before = has.get(name)
        if value == before or (name == length and value > before):
            continue
        longer = " or longer" if name == length else ""
        raise InputError(
            f"the run in {out} has {name} {before}, not {value}; "
            f"resume it as it is{longer}, or choose another folder."
        )
    return wanted, facts


def _own(kind: type[Learner], path: Path) -> Any:
    """The configuration of a run, from its file."""
    try:
        return kind.recipe.from_json(path.read_text("utf-8"))
    except NewerError:
        raise
    except (InputError, UnicodeDecodeError) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{path}: {reason}; restore that file, or begin a new run.") from error
