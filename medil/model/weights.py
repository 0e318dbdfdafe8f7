"""Weights in and out: safetensors with the run's configuration inside, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medil.checksums import parsed
from medil.config import Recipe, RunConfig, text_digest
from medil.config import preset as named_preset
from medil.data.releases import release_path
from medil.errors import InputError, shown
from medil.formats import WEIGHTS, Format
from medil.layers.blocks import ResidualBlock, zero_init
from medil.model.autoencoder import MedIL
from medil.model.base import LatentAutoencoder
from medil.model.rivals import build
from medil.system.tensors import read_tensors, tensors_sha256, write_tensors

M = TypeVar("M", bound=nn.Module)
MOST_BESIDE = 10**6  # numbers of a model that are not in its file


# Rows, cards, manifest and pages name weights by `weights_sha256`, shown by `short_digest`.
# `weights_id` is a key that latents and samplers hold, and is never shown. Files outside this
# repository hold both, so neither can change.


def weights_id(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of all names and values: what latents and samplers store."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of all names, kinds, shapes and values: what recorded results store."""
    return tensors_sha256(module.state_dict())


def short_digest(sha256: str) -> str:
    """The first twelve digits of `weights_sha256`: how it is shown wherever people read it."""
    return sha256[:12]


def save_weights(
    model: nn.Module,
    config: RunConfig,
    path: str | Path,
    facts: dict[str, Any],
    *,
    half: bool = True,
    force: bool = False,
) -> Path:
    """Write weights with their configuration as .safetensors; `half` stores fp16, half the size.

    `facts` of the run (steps, minutes, commit, data) are JSON-able. One that exists is replaced
    with `force` alone.
    """
    return write_weights(path, model, WEIGHTS, config, facts, half=half, force=force)


def write_weights(
    path: str | Path,
    module: nn.Module,
    form: Format,
    config: Recipe,
    facts: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
    *,
    half: bool = True,
    force: bool = True,
) -> Path:
    """Write the weights of any network with the configuration and facts of its run.

    Args:
        path: The .safetensors file.
        module: The network.
        form: The file's format.
        config: Configuration of the run.
        facts: Of the run, JSON-able.
        more: Further metadata.
        half: Store float16 instead of float32.
        force: Replace a file that exists.
    """
    kind = torch.float16 if half else torch.float32
    tensors = {name: value.to(kind) for name, value in module.state_dict().items()}
    meta = {"format": str(form), "config": config.to_json(), **(more or {})}
    meta["facts"] = json.dumps(facts)
    return write_tensors(path, tensors, meta, force)


def load_model(path: str | Path, preset: str | None = None) -> LatentAutoencoder:
    """The autoencoder, MedIL or a rival, that a file of `save_weights` describes.

    Args:
        path: The file.
        preset: The preset it must belong to; any when None.

    Returns:
        The model in evaluation mode, float32, with `weights_id` and `facts` set.

    Raises:
        InputError: Unreadable, of another preset, or not fitting its own configuration.

    Example:
        >>> model = load_model(release_path("tiny"))
        >>> model.config.latent_spacing_mm, model.config.latent_channels
        (4.0, 8)
    """
    tensors, meta = read_tensors(path, WEIGHTS)
    with readable(path):
        config = RunConfig.from_json(meta["config"])
    if preset is not None and config.preset != preset:
        raise InputError(f"{path} holds weights of preset {shown(config.preset)}, not {preset!r}.")
    return with_weights(partial(build, config.model), tensors, meta, path)


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """What the metadata of a weights file says is read inside this block.

    Raises:
        InputError: It does not say it, or says what cannot be.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: its metadata cannot be read.") from error


def with_weights(
    make: Callable[[], M], tensors: dict[str, Tensor], meta: dict[str, str], path: str | Path
) -> M:
    """The model, in evaluation mode, with the tensors of a weights file, its digest and facts.

    Args:
        make: Builds the model, which is given up where it outgrows the file.
        tensors: By name, as in the file.
        meta: The file's metadata.
        path: The file, for sentences.

    Raises:
        InputError: The tensors do not fit, or hold NaN or Inf.
    """
    check_finite(tensors, path)
    try:
        with _AtMost(2 * sum(tensor.numel() for tensor in tensors.values()) + MOST_BESIDE):
            model = make()
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model that its configuration names.") from error
    model.weights_id = weights_id(model)  # type: ignore[assignment]
    with readable(path):
        facts = {**parsed(meta["facts"]), "config_hash": text_digest(meta["config"])}
    model.facts = facts  # type: ignore[assignment]
    return model.eval()


class _AtMost(TorchFunctionMode):
    """Layers that are made inside hold so many numbers at most, or a `RuntimeError` is raised.

    A file of some kB may name a model of any size, which would be made before it is compared.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.empty:  # which every layer's weights begin as
            self.numbers -= math.prod(args[0] if isinstance(args[0], tuple) else args)
            if self.numbers < 0:
                raise RuntimeError("the model is larger than the file")
        return func(*args, **(kwargs or {}))


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that would make every voxel NaN.

    Raises:
        InputError: Says in which tensor.
    """
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path} is damaged: its weights {name} hold NaN or Inf.")


def start_from(model: nn.Module, path: str | Path) -> None:
    """Put trained weights into a model, in place, of the same widths that may have another depth.

    Residual blocks that the weights lack are appended with zero output, so the deeper model begins
    exactly where the shallower one stopped (our choice, after Net2Net, Chen et al. 2016). Of the
    blocks that a shallower model lacks, the last ones of each level are left out.

    Raises:
        InputError: Unreadable, or of another shape than depth.
    """
    tensors, _ = read_tensors(path, WEIGHTS)
    check_finite(tensors, path)
    refusal = InputError(f"{path} holds weights of another model than the one to be trained.")
    try:
        keys = model.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False)
    except RuntimeError as error:
        raise refusal from error
    missing = set(keys.missing_keys)
    blocks = {n: b for n, b in model.named_modules() if isinstance(b, ResidualBlock)}
    new = [b for n, b in blocks.items() if all(f"{n}.{k}" in missing for k in b.state_dict())]
    levels = tuple({f"{n.rpartition('.')[0]}." for n in blocks})
    foreign = [key for key in keys.unexpected_keys if not key.startswith(levels)]
    if foreign or len(missing) != sum(len(b.state_dict()) for b in new):
        raise refusal
    for block in new:
        zero_init(block.last)


def load_release(name: str = "tiny") -> MedIL:
    """A released autoencoder by the name of its preset; see `release_path`.

    Raises:
        InputError: No such preset, one that has not been trained yet, or no copy of its weights.

    Example:
        >>> load_release("paper")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        medil.errors.InputError: the release 'paper' has not been trained yet; there is: tiny, ...
    """
    named_preset(name)
    model = load_model(release_path(name), preset=name)
    assert isinstance(model, MedIL)
    return model


def release_config(name: str) -> RunConfig:
    """The configuration that a release was trained with, from inside its weights file."""
    _, meta = read_tensors(release_path(name), WEIGHTS)
    return RunConfig.from_json(meta["config"])
