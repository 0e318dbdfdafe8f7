"""The state of a run in one safetensors file: all that it needs to resume bitwise."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from medil.errors import InputError
from medil.system.tensors import read_tensors, write_tensors
from medil.training.losses import Adversary

STATE_FORMAT = "medil-training-2"


def save_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: dict,
    adversary: Adversary | None = None,
) -> None:
    """Write everything that a bitwise resume needs, at once or not at all.

    `facts` are steps, time and seed, JSON-able; steps draw their random numbers from them. A file
    that exists is replaced.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    tensors |= _optimiser_tensors("optimiser", optimiser)
    tensors["random.torch"] = torch.get_rng_state()
    if adversary:
        tensors |= {f"adversary.net.{k}": v for k, v in adversary.net.state_dict().items()}
        tensors |= _optimiser_tensors("adversary.optimiser", adversary.optimiser)
    write_tensors(path, tensors, {"format": STATE_FORMAT, "facts": json.dumps(facts)}, force=True)


def read_facts(path: Path) -> dict:
    """The `facts` in a state file, whichever release wrote it."""
    return _facts(read_tensors(path, STATE_FORMAT)[1])


def _facts(meta: dict[str, str]) -> dict:
    """Releases up to 0.6.0 called them `progress`, and the progress in them `share`."""
    facts = json.loads(meta.get("facts") or meta["progress"])
    return {"progress" if name == "share" else name: value for name, value in facts.items()}


def load_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    adversary: Adversary | None = None,
) -> dict:
    """Restore a run, and torch's random numbers, as `save_state` left them; returns the `facts`.

    Raises:
        InputError: Unreadable, or of another model.
    """
    tensors, meta = read_tensors(path, STATE_FORMAT)
    try:
        model.load_state_dict(_under("model", tensors))
        ema.load_state_dict(_under("ema", tensors))
        _load_optimiser(optimiser, _under("optimiser", tensors))
        if adversary:
            adversary.net.load_state_dict(_under("adversary.net", tensors))
            _load_optimiser(adversary.optimiser, _under("adversary.optimiser", tensors))
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} does not fit the model of this run's config.json.") from error
    torch.set_rng_state(tensors["random.torch"])
    return _facts(meta)


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
