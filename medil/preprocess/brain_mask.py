"""Where the brain is in a raw T1w head: deepbet, or FreeSurfer's SynthStrip."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError, needs
from medil.io.intensity import replace_nonfinite
from medil.system.children import tied
from medil.volume import Volume, load, save

DEEPBET, SYNTHSTRIP, GIVEN = METHODS = ("deepbet", "synthstrip", "given")
PROGRAM = "mri_synthstrip"
SYNTHSTRIP_S = 1800.0  # a run that takes longer hangs


def brain_mask(volume: Volume, method: str = DEEPBET) -> Tensor:
    """The brain of a raw T1w head on its own grid.

    Args:
        volume: A head with its skull; for ``given`` one without, whose air is 0.
        method: ``deepbet`` (Fisch et al. 2024), ``synthstrip`` (Hoopes et al. 2022; needs
            FreeSurfer's `mri_synthstrip` on the PATH), or ``given``: all that is not 0.

    Returns:
        [D, H, W] bool.

    Raises:
        InputError: An unknown method, one that is not installed, or one that finds no brain.
    """
    if method not in METHODS:
        raise InputError(f"`strip={method}` is none of {', '.join(METHODS)}.")
    find = {DEEPBET: _by_deepbet, SYNTHSTRIP: _by_synthstrip, GIVEN: _given}[method]
    mask = find(volume)
    if not mask.any():
        raise InputError(f"{method} finds no brain; look at the scan, or try another method.")
    return mask


def _given(volume: Volume) -> Tensor:
    mask = torch.isfinite(volume.data.float()) & (volume.data != 0)
    if mask.all():
        raise InputError("the scan has no air of value 0, so no mask is given; strip it first.")
    return mask


def _by_deepbet(volume: Volume) -> Tensor:
    data, _ = replace_nonfinite(volume.data.float(), background=0.0)
    network = _deepbet()
    try:
        mask = network.run_model(data.numpy().copy()) > 0.5
        return torch.from_numpy(network.postprocess(mask).astype(bool))
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise InputError("deepbet finds no brain; is this a T1w head with its skull?") from error


@lru_cache(maxsize=1)
def _deepbet() -> Any:
    with needs("preprocess", "skull stripping needs deepbet"):
        from deepbet.bet import BrainExtraction
    return BrainExtraction(no_gpu=not torch.cuda.is_available())


def _by_synthstrip(volume: Volume) -> Tensor:
    program = shutil.which(PROGRAM)
    if program is None:
        raise InputError(f"{PROGRAM} is not on the PATH; install FreeSurfer, or use deepbet.")
    with tempfile.TemporaryDirectory() as folder:
        head, mask = Path(folder, "head.nii.gz"), Path(folder, "mask.nii.gz")
        save(Volume(volume.data.float(), volume.grid), head)
        command = [program, "-i", str(head), "-m", str(mask)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=SYNTHSTRIP_S, **tied())
        except (subprocess.SubprocessError, OSError) as error:
            raise InputError(f"{PROGRAM} failed on this scan: {type(error).__name__}.") from error
        return load(mask).data > 0.5


def volume_ml(mask: Tensor, volume: Volume) -> float:
    """The volume of a mask."""
    return float(mask.sum()) * float(np.prod(volume.grid.spacing_mm)) / 1000
