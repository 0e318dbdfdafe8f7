"""Weights in and out: safetensors with the run's configuration inside, nothing pickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medil.autoencoder import MedIL
from medil.blocks import ResidualBlock, silent
from medil.config import PRESETS, RunConfig
from medil.errors import InputError
from medil.files import atomic_output
from medil.losses import Adversary
from medil.rivals import build
from medil.shortcut import LatentAutoencoder

FORMAT = "medil-weights-1"
RELEASES = Path(__file__).parent / "releases"


def weights_digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of all weights, by name and value."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_weights(
    model: nn.Module, config: RunConfig, path: str | Path, facts: dict, *, half=True, force=False
) -> Path:
    """Write weights with their configuration.

    Args:
        model: The autoencoder.
        config: Of the run that trained it.
        path: Where; .safetensors.
        facts: What is worth knowing of the run (steps, minutes, commit, data), JSON-able.
        half: Store fp16, which halves the file.
        force: Replace a file that exists.

    Returns:
        The path.
    """
    kind = torch.float16 if half else torch.float32
    tensors = {name: value.to(kind).contiguous() for name, value in model.state_dict().items()}
    meta = {"format": FORMAT, "config": config.to_json(), "facts": json.dumps(facts)}
    with atomic_output(path, force) as temporary:
        save_file(tensors, temporary, meta)
    return Path(path)


def read_tensors(path: str | Path, expected: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of one of our formats.

    Raises:
        InputError: Missing, unreadable or of another format.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; name weights made by `medil train`.")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}).") from error
    if meta.get("format") != expected:
        raise InputError(f"{path} does not hold what is needed here ({expected}).")
    return tensors, meta


def load_model(path: str | Path, preset: str | None = None) -> MedIL:
    """The MedIL that a weights file describes, as `load_any`.

    Raises:
        InputError: As `load_any`, or the weights of a rival, which encodes no whole volumes.
    """
    model = load_any(path, preset)
    if not isinstance(model, MedIL):
        name = model.config.architecture
        raise InputError(f"{path} holds weights of the rival {name!r}; only `eval` can use them.")
    return model


def load_any(path: str | Path, preset: str | None = None) -> LatentAutoencoder:
    """The autoencoder, MedIL or a rival, that a weights file describes.

    Args:
        path: Written by `save_weights`.
        preset: The preset it must belong to; any when None.

    Returns:
        The model in evaluation mode, float32, with `weights_id` and `facts` set.

    Raises:
        InputError: Unreadable, of another preset, or not fitting its own configuration.
    """
    tensors, meta = read_tensors(path, FORMAT)
    config = RunConfig.from_json(meta["config"])
    if preset is not None and config.preset != preset:
        raise InputError(f"{path} holds weights of preset {config.preset!r}, not {preset!r}.")
    model = build(config.model)
    try:
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model that its configuration names.") from error
    model.weights_id = weights_digest(model)
    model.facts = {**json.loads(meta["facts"]), "config_hash": config.digest()}
    return model.eval()


def start_from(model: nn.Module, path: str | Path) -> dict:
    """Put trained weights into a model of the same widths that may be deeper.

    Residual blocks that the weights lack are appended silent, so the deeper model begins
    exactly where the shallower one stopped (our choice, after Net2Net, Chen et al. 2016).

    Args:
        model: To be trained; changed in place.
        path: Written by `save_weights`.

    Returns:
        The facts of the run that made the weights.

    Raises:
        InputError: Unreadable, or of another shape than depth.
    """
    tensors, meta = read_tensors(path, FORMAT)
    fresh = model.state_dict()
    missing = set(fresh) - set(tensors)
    fits = all(n in fresh and fresh[n].shape == t.shape for n, t in tensors.items())
    blocks = {n: b for n, b in model.named_modules() if isinstance(b, ResidualBlock)}
    new = [b for n, b in blocks.items() if all(f"{n}.{k}" in missing for k in b.state_dict())]
    if not fits or len(missing) != sum(len(b.state_dict()) for b in new):
        raise InputError(f"{path} holds weights of another model than the one to be trained.")
    model.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False)
    for block in new:
        silent(block.last)
    return json.loads(meta["facts"])


def cumulative(facts: dict, name: str) -> float:
    """Steps or minutes of a run and of all those whose weights it began from.

    Args:
        facts: Of the run.
        name: "step" or "minutes".
    """
    earlier = facts.get("earlier")
    return facts.get(name, 0) + (cumulative(earlier, name) if earlier else 0)


def load_release(name: str = "tiny") -> MedIL:
    """A release that comes with the package.

    Raises:
        InputError: No such preset, or one that has not been trained yet.

    Example:
        >>> load_release("paper")
        Traceback (most recent call last):
        medil.errors.InputError: the release 'paper' has not been trained yet; there is: tiny, base.
    """
    path = RELEASES / f"{name}.safetensors"
    if not path.is_file():
        have = ", ".join(n for n in PRESETS if (RELEASES / f"{n}.safetensors").is_file()) or "none"
        if name in PRESETS:
            raise InputError(f"the release {name!r} has not been trained yet; there is: {have}.")
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    return load_model(path, preset=name)


def release_config(name: str) -> RunConfig:
    """The configuration that a release was trained with, from inside its weights file."""
    _, meta = read_tensors(RELEASES / f"{name}.safetensors", FORMAT)
    return RunConfig.from_json(meta["config"])


# The state of a run, for resuming

STATE_FORMAT = "medil-training-2"


def save_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: dict,
    adversary: Adversary | None = None,
) -> None:
    """Write everything a run needs to go on as if it had never stopped, at once or not at all.

    Args:
        path: Where; a file that exists is replaced.
        model: The weights that training moves.
        ema: Their average.
        optimiser: Of the model.
        progress: Steps, time and seed, JSON-able; steps draw their own numbers from it.
        adversary: With its own optimiser, where there is one.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
    tensors["random.torch"] = torch.get_rng_state()
    if adversary:
        tensors |= {f"adversary.{k}": v for k, v in adversary.state_tensors().items()}
    with atomic_output(path, force=True) as temporary:
        meta = {"format": STATE_FORMAT, "progress": json.dumps(progress)}
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, temporary, meta)


def read_progress(path: Path) -> dict:
    """The `progress` in a state file."""
    return json.loads(read_tensors(path, STATE_FORMAT)[1]["progress"])


def load_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    adversary: Adversary | None = None,
) -> dict:
    """Put a run, and torch's random numbers, back where `save_state` left them.

    Returns:
        The run's `progress`.

    Raises:
        InputError: Unreadable, or of another model.
    """
    tensors, meta = read_tensors(path, STATE_FORMAT)
    names = ("model", "ema", "optimiser", "random", "adversary")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for name, value in tensors.items():
        part, key = name.split(".", 1)
        parts[part][key] = value
    state = optimiser.state_dict()
    state["state"] = {}
    for name, value in parts["optimiser"].items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    try:
        model.load_state_dict(parts["model"])
        ema.load_state_dict(parts["ema"])
        optimiser.load_state_dict(state)
        if adversary:
            adversary.load_state_tensors(parts["adversary"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} does not fit the model of this run's config.json.") from error
    torch.set_rng_state(parts["random"]["torch"])
    return json.loads(meta["progress"])
