"""The inner loops of `medil.layers.literal_fast`, written for `torch.compile`.

Everything is a list of rows of any length, so that one compilation serves grids of any size.
What comes after `waves` are products of matrices, which a library does best. Where nothing
compiles, `medil.layers.literal_fast` goes on with plain tensor operations.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

UNCHECKED: dict[str, Any] = {"assert_indirect_indexing": False}  # `literal_fast` counts rows
PRODUCT_ROWS = 9 * 2**10  # at most, of a product: what lies between two stays in the cache
ONE_PASS_ROWS = 2**11  # of a product, from which it pays to call oneDNN
SERIES_TERMS = 7  # of cosine and sine up to a quarter turn: the next one is 6e-9


def phasor(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of pi times a number of half-turns."""
    angle = torch.pi * turn
    return angle.cos(), angle.sin()


def series_phasor(turn: Tensor) -> tuple[Tensor, Tensor]:
    """`phasor` by the Taylor series of what is left of a turn: products that a compiler fuses.

    At most half a half-turn is left, for which the series is as exact as float32 (2e-7).
    """
    if turn.dtype != torch.float32:
        return phasor(turn)
    whole = turn.round()
    angle = torch.pi * (turn - whole)
    sign = 1 - 2 * (whole - 2 * (whole / 2).floor())  # -1 where `whole` is odd
    square = angle * angle
    cos, sin = torch.zeros_like(turn), torch.zeros_like(turn)
    for power in reversed(range(SERIES_TERMS)):
        cos = cos * square + (-1) ** power / math.factorial(2 * power)
        sin = sin * square + (-1) ** power / math.factorial(2 * power + 1)
    return sign * cos, sign * angle * sin


def axis_phasors(frequency: Tensor, cell: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, K] of frequencies [cells, K] looked up by cell [N]; delta is [N, 1]."""
    return series_phasor(frequency.index_select(0, cell) * delta)


def turned_amplitudes(
    amplitude: Tensor, frequency: Tensor, delta: Tensor, phase: Tensor
) -> tuple[Tensor, ...]:
    """Amplitudes [cells, 2K], for cosines and for sines, times X: four lists of [cells, K].

    For cosines times the real and the imaginary part of X, then the same for sines.
    """
    (even, odd), (real, imag) = amplitude.chunk(2, 1), series_phasor(frequency * delta + phase)
    return even * real, even * imag, odd * real, odd * imag


def waves(
    amplitudes: tuple[Tensor, ...], y: tuple[Tensor, Tensor], z: tuple[Tensor, Tensor],
    cell: Tensor, row: Tensor, column: Tensor, like: Tensor,
) -> Tensor:  # fmt: skip
    """Amplitudes times cosines and sines, from phasors, for a list of (voxel, cell) pairs.

    Args:
        amplitudes: Four times [h w, K], from `turned_amplitudes`.
        y: Cosines and sines along y, [2 H w, K] each.
        z: Cosines and sines along z, [h 2 W, K] each.
        cell: [Q] rows of `amplitudes`.
        row: [Q] rows of `y`.
        column: [Q] rows of `z`.
        like: Gives the result's precision.

    Returns:
        [Q, 2K].
    """
    even_real, even_imag, odd_real, odd_imag = (t.index_select(0, cell) for t in amplitudes)
    cos_y, sin_y = (table.index_select(0, row) for table in y)  # [Q, K]
    cos_z, sin_z = (table.index_select(0, column) for table in z)
    real, imag = cos_y * cos_z - sin_y * sin_z, cos_y * sin_z + sin_y * cos_z  # of Y Z
    halves = even_real * real - even_imag * imag, odd_real * imag + odd_imag * real
    return torch.cat([half.to(like) for half in halves], dim=1)


def packed(weight: Tensor) -> Tensor:
    """A layer's weight in oneDNN's own order, for `relu_linear`; itself where there is none."""
    if torch.is_grad_enabled() or not one_pass(weight.device.type, weight.dtype):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), PRODUCT_ROWS)


def relu_linear(rows: Tensor, weight: Tensor, bias: Tensor, pack: Tensor) -> Tensor:
    """relu(rows W^T + b) [Q, out]: where there is oneDNN, one pass over the numbers, not two.

    Args:
        rows: [Q, in].
        weight: W, [out, in].
        bias: b, [out].
        pack: `packed` of W.
    """
    if pack.is_mkldnn and len(rows) >= ONE_PASS_ROWS:
        return torch.ops.mkldnn._linear_pointwise(rows, pack, bias, "relu", [], "")
    return torch.addmm(bias, rows, weight.T).relu_()


@lru_cache
def one_pass(kind: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies and clips at once on a device: it does in its own precisions."""
    needed = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in needed):
        return False
    reduced = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return reduced or dtype == torch.float32


class Compiler:
    """The compiled functions, until compiling fails."""

    def __init__(self) -> None:
        self.works = True
        self.axis_phasors = torch.compile(axis_phasors, fullgraph=True)
        self.turned_amplitudes = torch.compile(turned_amplitudes, fullgraph=True)
        self.waves = torch.compile(waves, fullgraph=True, options=UNCHECKED)

    def give_up(self, error: Exception) -> None:
        """Say once that rendering goes on without a compiler."""
        self.works = False
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"torch.compile failed here ({reason}); literal LTE renders without it, "
            "which is slower and gives the same values. Is there a C++ compiler?",
            RuntimeWarning,
            stacklevel=4,
        )


@lru_cache(maxsize=1)
def compiler() -> Compiler:
    """The process's compiler: one attempt, one warning."""
    return Compiler()


def of_any_length(*tables: Tensor) -> None:
    """Tell `torch.compile` that lists differ in length: one compilation serves all grids."""
    for table in tables:
        torch._dynamo.mark_dynamic(table, 0)
