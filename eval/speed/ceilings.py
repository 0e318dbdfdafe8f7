"""What the machine can do: how fast it copies and multiplies, measured like everything else.

A renderer that makes so many operations and moves so many bytes a voxel cannot take less than
the longer of the two times (the roofline). Its share of the ceiling is that time over its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.speed.clock import Spread, spread

COPIED = 2**26  # numbers: far more than any cache holds
SIDE = 1536  # of the matrices that are multiplied
SIDE_CUDA = 8192


@dataclass(frozen=True)
class Work:
    """The work of rendering one voxel.

    Args:
        flop: Additions and multiplications.
        moved: Bytes read and written by the passes of the algorithm, each once.
    """

    flop: float
    moved: float

    def at_ceiling_s(self, flop_per_s: float, bytes_per_s: float) -> tuple[float, float]:
        """The least seconds that arithmetic and copying would take."""
        return self.flop / flop_per_s, self.moved / bytes_per_s


def shares(
    work: Work, seconds: Sequence[float], n_voxels: int, flop_per_s: Sequence[float],
    bytes_per_s: Sequence[float],
) -> dict[str, Spread]:  # fmt: skip
    """Arithmetic, copying and the larger of the two, in percent of the time taken, by round.

    Args:
        work: Of one voxel.
        seconds: Time for all voxels, in each round.
        n_voxels: Number of voxels.
        flop_per_s: Measured on the machine in the same rounds.
        bytes_per_s: Likewise.
    """
    rounds = [
        [100 * n_voxels * least / taken for least in work.at_ceiling_s(flop, moved)]
        for taken, flop, moved in zip(seconds, flop_per_s, bytes_per_s, strict=True)
    ]
    return {
        "arithmetic_share": spread([arithmetic for arithmetic, _ in rounds]),
        "copy_share": spread([copying for _, copying in rounds]),
        "ceiling_share": spread([max(both) for both in rounds]),
    }


def jobs(device: str, dtype: torch.dtype = torch.float32) -> dict[str, Callable[[], Tensor]]:
    """A copy of a large tensor and a product of two matrices, to be timed beside renderers."""
    side = SIDE if device == "cpu" else SIDE_CUDA
    source = torch.ones(COPIED, dtype=dtype, device=device)
    target = torch.empty_like(source)
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return {"copy": lambda: target.copy_(source), "multiply": lambda: torch.mm(a, b, out=out)}


def copied_bytes(dtype: torch.dtype = torch.float32) -> int:
    """Read and written by the copy of `jobs`."""
    return 2 * COPIED * dtype.itemsize


def multiplied_flop(device: str) -> int:
    """Done by the product of `jobs`."""
    return 2 * (SIDE if device == "cpu" else SIDE_CUDA) ** 3
