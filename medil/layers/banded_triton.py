"""The maps of `medil.layers.banded` on a CUDA GPU: Triton kernels that move each number once.

A result is a short weighted sum, so summing it term by term is limited by memory bandwidth
alone. The kernel takes a list of terms for every result along the axis, which the transpose of
a map has as well as the map; neighbouring results share most of their terms, which stay in the
first-level cache. Without Triton `medil.layers.banded` uses plain tensor operations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU build of torch comes without it
    triton = None

LONGEST = 2**31  # numbers that 32-bit offsets can tell apart
TILE = 1024  # results of a program, times its positions beside the axis
LONGEST_RUN = 256  # results of a program where the axis is the last one
SHORT_RUN = 2  # and where rows lie behind it
MIX_TILE = 128  # positions of a program that mixes channels
MOST_MIXED = 64  # channels before or behind


def usable(values: Tensor) -> bool:
    """Whether the kernel can take a tensor: its device, dtype and size."""
    kinds = torch.float32, torch.float64
    on_gpu = values.is_cuda and triton is not None
    return on_gpu and values.dtype in kinds and values.numel() < LONGEST


def product(values: Tensor, step: Any, adjoint: bool, out: Tensor | None = None) -> Tensor:
    """`AxisProduct.ahead`, or `back` when `adjoint`, into contiguous `out` if given.

    Values are [G, J, M, n_in, N] (adjoint: [G, M, n_out, N]) in any shape of this order; the result
    is [G, M, n_out, N] (adjoint: [G, J, M, n_in, N]).
    """
    band, groups, inner, tail = step.band, step.groups, step.inner, step.tail
    size_in, size_out = (band.n_out, band.n_in) if adjoint else (band.n_in, band.n_out)
    kinds = band.n_functions if adjoint else 1  # of results
    offset, weight = terms(band, inner, tail, adjoint, (values.dtype, values.device))
    shape = groups, kinds, inner, size_out, tail
    result = values.new_empty(shape) if out is None else out.view(shape)
    positions = inner * tail
    results = min(LONGEST_RUN, _padded(size_out)) if step.last else SHORT_RUN
    at_once = TILE // results
    programs = (-(-positions // at_once), -(-size_out // results), groups * kinds)
    with torch.cuda.device_of(values):
        _kernel()[programs](
            values.contiguous(), result, offset, weight, positions, tail, size_out, kinds,
            values.numel() // groups, size_in * tail, offset.shape[1],
            LAST=step.last, POSITIONS=at_once, RESULTS=results,
        )  # fmt: skip
    return result if adjoint else result[:, 0]


@lru_cache(maxsize=256)
def terms(
    band: Any, inner: int, tail: int, adjoint: bool, like: tuple[torch.dtype, torch.device]
) -> tuple[Tensor, Tensor]:
    """The terms of every result: their offsets from its position, in numbers, and their weights.

    Args:
        band: A `medil.layers.banded.Band`, or its transpose when `adjoint`.
        inner: M of the values.
        tail: N of the values.
        adjoint: See `band`.
        like: Dtype and device of the weights.

    Returns:
        [results, terms] int32 and weights; results have a function each when `adjoint`.
        Those with fewer terms are filled up with weights of zero.
    """
    matrix = band.matrix  # [n_out, J, n_in]
    n_out, n_functions, n_in = matrix.shape
    if adjoint:
        table = matrix.transpose(1, 2, 0).reshape(-1, n_out)
        place = np.arange(n_out) * tail
    else:
        table = matrix.reshape(n_out, -1)
        j, i = np.divmod(np.arange(n_functions * n_in), n_in)
        place = (j * inner * n_in + i) * tail
    most = max(1, int(np.count_nonzero(table, axis=1).max()))
    first = np.argsort(table == 0, axis=1, kind="stable")[:, :most]  # what is not zero, in order
    dtype, device = like
    return (
        torch.from_numpy(place[first].astype(np.int32)).to(device),
        torch.from_numpy(np.take_along_axis(table, first, 1)).to(device, dtype),
    )


@lru_cache(maxsize=1)
def _kernel() -> Any:
    """The kernel; made when it is first needed, since a CPU build of torch has no Triton."""
    free = ["positions", "tail", "results", "kinds", "group", "row", "n_terms"]
    return triton.jit(do_not_specialize=free)(_sum_terms)


def _sum_terms(
    values: Any, out: Any, offset: Any, weight: Any, positions: Any, tail: Any, results: Any,
    kinds: Any, group: Any, row: Any, n_terms: Any,
    LAST: tl.constexpr, POSITIONS: tl.constexpr, RESULTS: tl.constexpr,
) -> None:  # fmt: skip
    """A tile of results along the axis times positions beside it; the last axis runs fastest."""
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    o = tl.program_id(1) * RESULTS + tl.arange(0, RESULTS)
    which = tl.program_id(2)
    line = ((which % kinds) * results + o) * n_terms  # of the list of terms
    source = values + (which // kinds).to(tl.int64) * group
    target = out + which.to(tl.int64) * positions * results
    wanted = o < results
    if LAST:
        inside = (p < positions)[:, None] & wanted[None, :]
        total = tl.zeros((POSITIONS, RESULTS), dtype=out.dtype.element_ty)
        for n in range(n_terms):
            there = tl.load(offset + line + n, mask=wanted, other=0)
            share = tl.load(weight + line + n, mask=wanted, other=0.0)
            seen = tl.load(source + (p * row)[:, None] + there[None, :], mask=inside, other=0.0)
            total += seen * share[None, :]
        tl.store(target + (p * results)[:, None] + o[None, :], total, mask=inside)
    else:
        inside = wanted[:, None] & (p < positions)[None, :]
        before, behind = p // tail, p % tail
        total = tl.zeros((RESULTS, POSITIONS), dtype=out.dtype.element_ty)
        for n in range(n_terms):
            there = tl.load(offset + line + n, mask=wanted, other=0)
            share = tl.load(weight + line + n, mask=wanted, other=0.0)
            from_ = (before * row + behind)[None, :] + there[:, None]
            total += tl.load(source + from_, mask=inside, other=0.0) * share[:, None]
        into = (before * results * tail + behind)[None, :] + (o * tail)[:, None]
        tl.store(target + into, total, mask=inside)


# A 1x1x1 convolution whose results are few: a matrix product that only moves numbers


def mixes(values: Tensor, n_out: int) -> bool:
    """Whether `mixed` can map values [C, N] to `n_out` channels."""
    few = max(n_out, len(values)) <= MOST_MIXED and values.stride(1) == 1
    return usable(values) and few and values.dtype == torch.float32


def mixed(weight: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """[O, C] on the channels of [C, N], plus [O]: [O, N] float32."""
    (n_out, n_in), count = weight.shape, values.shape[1]
    out = values.new_empty(n_out, count)
    with torch.cuda.device_of(values):
        _mix_kernel()[(-(-count // MIX_TILE),)](
            weight.contiguous(), values, bias, out, count, values.stride(0), n_in, n_out,
            IN=_padded(n_in), OUT=_padded(n_out), TILE=MIX_TILE,
        )  # fmt: skip
    return out


def _padded(size: int) -> int:
    """The next power of two, from 16 on: what programs and matrix units take."""
    return max(16, int(triton.next_power_of_2(size)))


@lru_cache(maxsize=1)
def _mix_kernel() -> Any:
    return triton.jit(do_not_specialize=["count", "row", "n_in", "n_out"])(_mix)


def _mix(
    weight: Any, values: Any, bias: Any, out: Any, count: Any, row: Any, n_in: Any, n_out: Any,
    IN: tl.constexpr, OUT: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    """All results at a tile of positions."""
    n = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    c, o = tl.arange(0, IN), tl.arange(0, OUT)
    there, wanted, known = n < count, o < n_out, c < n_in
    seen = tl.load(
        values + c[:, None].to(tl.int64) * row + n[None, :],
        mask=known[:, None] & there[None, :],
        other=0.0,
    )
    shares = tl.load(
        weight + o[:, None] * n_in + c[None, :], mask=wanted[:, None] & known[None, :], other=0.0
    )
    added = tl.load(bias + o, mask=wanted, other=0.0)
    total = tl.dot(shares, seen, input_precision="ieee") + added[:, None]
    into = out + o[:, None].to(tl.int64) * count + n[None, :]
    tl.store(into, total, mask=wanted[:, None] & there[None, :])
