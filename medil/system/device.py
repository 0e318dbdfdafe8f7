"""Devices to compute on: the CPU, a CUDA GPU, or (untested) Apple's MPS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medil.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
M = TypeVar("M", bound=nn.Module)


def find_device(name: str = "auto") -> torch.device:
    """The torch device that a name stands for.

    Args:
        name: "auto" is CUDA where there is a GPU, else the CPU. "mps" is never chosen
            automatically, because it is untested.

    Raises:
        InputError: An unknown name, or no such device here.
    """
    if name not in DEVICES:
        raise InputError(f"a device is one of {', '.join(DEVICES)}, not {name!r}.")
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    if (name == "cuda" and not has_cuda) or (
        name == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(f"there is no {name} device here; pass `device=cpu` or leave it out.")
    return torch.device(name)


def place_model(model: M, device: torch.device) -> M:
    """Move a model to a device, in place; on CUDA its convolutions store channels last: faster."""
    model = model.to(device)
    if device.type == "cuda":
        for layer in model.modules():
            if isinstance(layer, nn.Conv3d):
                weight = layer.weight.data
                layer.weight.data = weight.contiguous(memory_format=torch.channels_last_3d)
    return model


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 (AVX512-BF16 or AMX); others emulate it, slower."""
    names = "_is_avx512_bf16_supported", "_is_amx_tile_supported"
    return any(getattr(torch.cpu, name, bool)() for name in names)


def network_precision(
    device: torch.device, name: str = "auto", of_latents: bool = False
) -> AbstractContextManager[Any]:
    """A context in which networks on a device run in a precision; rendering stays float32.

    "auto" is bfloat16 on CUDA and on processors that have it, else float32. It costs renderings
    less than 0.01 dB (rows of `eval.reconstruction`, experiment "precision"); but latents are
    kept and compared, so on every processor they are made in float32.

    Args:
        device: Where the networks are.
        name: One of `PRECISIONS`.
        of_latents: Whether latents are made, not renderings.

    Raises:
        InputError: An unknown name.
    """
    if name not in PRECISIONS:
        raise InputError(f"a precision is one of {', '.join(PRECISIONS)}, not {name!r}.")
    fast = device.type == "cuda" or (device.type == "cpu" and not of_latents and has_bfloat16())
    if name == "bfloat16" or (name == "auto" and fast):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def training_precision(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """A context in which a loss is computed: bfloat16 if it is asked for and the machine has it.

    Processors that emulate bfloat16 train several times slower in it than in float32.
    """
    return network_precision(device, "auto" if bf16 else "float32")


def to_host(slabs: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """Move numbered slabs to the CPU; a slab on CUDA is copied while the next is computed."""
    waiting: tuple[int, Tensor, torch.cuda.Event] | None = None
    for start, slab in slabs:
        if slab.device.type != "cuda":
            yield start, slab.cpu()
            continue
        host = torch.empty(slab.shape, dtype=slab.dtype, pin_memory=True)
        host.copy_(slab, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        ready, waiting = waiting, (start, host, copied)
        if ready is not None:
            ready[2].synchronize()
            yield ready[:2]
    if waiting is not None:
        waiting[2].synchronize()
        yield waiting[:2]
