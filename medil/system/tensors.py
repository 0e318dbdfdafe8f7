"""Tensors in safetensors files: written whole or not at all, checked when they are read.

safetensors has no check sum, and a changed byte of a weight is a weight. Files therefore hold
a digest of what is in them; those of releases up to 0.6.0 do not, and are read without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medil.errors import InputError
from medil.formats import Format
from medil.system.files import atomic_output

DIGEST = "content_sha256"  # in the metadata


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names, kinds, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole = torch.empty(value.numel(), dtype=value.dtype)  # stride 1, even of a repeated number
        whole.copy_(value.detach().reshape(-1))
        digest.update(whole.view(torch.uint8).numpy().tobytes() if len(whole) else b"")
    return digest.hexdigest()


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str], force: bool = False
) -> Path:
    """Write a .safetensors file with a digest of its content; one that exists needs `force`.

    Raises:
        InputError: As `medil.system.files.atomic_output`.
    """
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_output(path, force) as temporary:
        # `save_file` has a temporary file of its own, which stays where the process is killed.
        temporary.write_bytes(save(whole, {**meta, DIGEST: _content(whole, meta)}))
    return Path(path)


def read_tensors(
    path: str | Path, expected: Format | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of one of our formats, of any when None.

    Raises:
        InputError: Missing, unreadable, damaged, of another format or of a newer version.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; name one that `medil` wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file; copy it or make it again."
        ) from error
    if expected is not None and not expected.reads(meta.get("format"), path):
        raise InputError(f"{path} does not hold what is needed here ({expected}).")
    written = meta.pop(DIGEST, None)
    if written not in (None, _content(tensors, meta)):
        raise InputError(f"{path} is damaged: its content is not what was written.")
    return tensors, meta


def _content(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    about = json.dumps(sorted(meta.items()))
    return hashlib.sha256((tensors_sha256(tensors) + about).encode()).hexdigest()
