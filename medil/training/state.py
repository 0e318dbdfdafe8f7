"""The state of a run in one safetensors file: all that it needs to resume bitwise.

The state before it stays beside it, in case a disk damages the newest one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medil.checksums import parsed
from medil.errors import InputError
from medil.formats import STATE as FORMAT
from medil.formats import NewerError
from medil.system.files import atomic_output
from medil.system.tensors import read_tensors, write_tensors
from medil.training.losses import Adversary

STATE, EARLIER = "state.safetensors", "state.earlier.safetensors"


def state_file(folder: Path) -> Path:
    """The state from which the run in a folder resumes: the earlier one where the newest is gone.

    The file need not exist.
    """
    is_gone = not (folder / STATE).exists() and (folder / EARLIER).exists()
    return folder / (EARLIER if is_gone else STATE)


def save_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: dict[str, Any],
    adversary: Adversary | None = None,
) -> None:
    """Write everything that a bitwise resume needs, at once or not at all.

    `facts` are steps, time and seed, JSON-able; steps draw their random numbers from them. A file
    that exists becomes the earlier state.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    tensors |= _optimiser_tensors("optimiser", optimiser)
    tensors["random.torch"] = torch.get_rng_state()
    if adversary:
        tensors |= {f"adversary.net.{k}": v for k, v in adversary.net.state_dict().items()}
        tensors |= _optimiser_tensors("adversary.optimiser", adversary.optimiser)
    if path.exists():
        _keep(path)
    write_tensors(path, tensors, {"format": str(FORMAT), "facts": json.dumps(facts)}, force=True)


def read_facts(path: Path) -> dict[str, Any]:
    """The `facts` in a state file, whichever release wrote it.

    Raises:
        InputError: It is damaged; says whether an earlier one is whole.
    """
    return _facts_of(path, _read(path)[1])


def _facts_of(path: Path, meta: dict[str, str]) -> dict[str, Any]:
    try:
        return _facts(meta)
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: its facts are none; {_way_out(path)}.") from error


def _keep(path: Path) -> None:
    """Give a state a second name, which it keeps when the next one takes its place."""
    with atomic_output(path.with_name(EARLIER), force=True) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a disk without links
            shutil.copyfile(path, temporary)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(path, FORMAT)
    except NewerError:
        raise
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; {_way_out(path)}.") from error


def _way_out(path: Path) -> str:
    """What to do where a state is damaged."""
    earlier = path.with_name(EARLIER)
    try:
        step = _facts(read_tensors(earlier, FORMAT)[1])["step"]
    except (KeyError, ValueError, AttributeError):
        return "no earlier state is whole, so begin a new run"
    return f"{earlier.name}, of step {step}, is whole: delete {path.name} to resume from there"


def _facts(meta: dict[str, str]) -> dict[str, Any]:
    """Releases up to 0.6.0 called them `progress`, and the progress in them `share`."""
    facts = parsed(meta.get("facts") or meta["progress"])
    return {"progress" if name == "share" else name: value for name, value in facts.items()}


def load_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    adversary: Adversary | None = None,
) -> dict[str, Any]:
    """Restore a run, and torch's random numbers, as `save_state` left them; returns the `facts`.

    Raises:
        InputError: Unreadable, as `read_facts`, or of another model.
    """
    tensors, meta = _read(path)
    try:
        model.load_state_dict(_under("model", tensors))
        ema.load_state_dict(_under("ema", tensors))
        _load_optimiser(optimiser, _under("optimiser", tensors))
        if adversary:
            adversary.net.load_state_dict(_under("adversary.net", tensors))
            _load_optimiser(adversary.optimiser, _under("adversary.optimiser", tensors))
        torch.set_rng_state(tensors["random.torch"])
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path} does not fit the model of this run's config.json.") from error
    return _facts_of(path, meta)


def _under(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a group, by the rest of their names."""
    return {k.removeprefix(f"{group}."): v for k, v in tensors.items() if k.startswith(f"{group}.")}


def _optimiser_tensors(group: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser: group.INDEX.NAME for each weight and quantity."""
    states = optimiser.state_dict()["state"].items()
    return {f"{group}.{index}.{k}": v for index, state in states for k, v in state.items()}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `_optimiser_tensors`."""
    state = optimiser.state_dict() | {"state": {}}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimiser.load_state_dict(state)
