"""Maps along the three axes of a grid whose matrices are nearly all zeros.

A voxel depends on two to four nodes per axis, so along an axis each result is a sum of a few
weighted rows: `torch.nn.functional.embedding_bag` computes it without touching a zero. The
last axis has no rows to add; it takes dense products of short blocks. Nothing is transposed
or copied between the axes, and every map comes with its transpose, which is its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from medil.layers import banded_triton as gpu

PATTERN_ENTRIES = 2**17  # size of a cached pattern: 1 MB in float32
DENSE = 0.25  # share of numbers that are not zero from which a dense product is faster
BLOCK = 32  # results of the last axis in one dense product
SLAB_NUMBERS = 2**19  # coefficients rendered at a time, so that they stay in the cache
SLAB_NUMBERS_CUDA = 2**28  # likewise on a GPU, which small tasks leave idle

Like = tuple[torch.dtype, torch.device]


class Band:
    """A map along one axis: matrix [n_out, J, n_in] float64, most of it zero."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        self.n_out, self.n_functions, self.n_in = matrix.shape
        self.n_entries = int(np.count_nonzero(matrix)) or 1

    @property
    def density(self) -> float:
        """The share of its numbers that are not zero."""
        return self.n_entries / int(self.matrix.size)

    @property
    def growth(self) -> float:
        """Numbers after the map for every number before it."""
        return float(self.n_out / (self.n_functions * self.n_in))

    def window(self, start: int, stop: int) -> tuple[int, int]:
        """The run of inputs that the results `start` ... `stop` depend on, never empty."""
        return _span(self.matrix[start:stop].any((0, 1)))

    def results_of(self, start: int, stop: int) -> tuple[int, int]:
        """The run of results that depend on the inputs `start` ... `stop`, never empty."""
        return _span(self.matrix[:, :, start:stop].any((1, 2)))


def _span(used: ArrayLike) -> tuple[int, int]:
    """The first index that is True and the one after the last; (0, 1) where none is."""
    index = np.flatnonzero(used)
    return (int(index[0]), int(index[-1]) + 1) if len(index) else (0, 1)


@lru_cache(maxsize=256)
def part(band: Band, start: int, stop: int) -> tuple[Band, int, int]:
    """The part of a map for a run of results, and the run of inputs that it needs."""
    if (start, stop) == (0, band.n_out):
        return band, 0, band.n_in
    first, last = band.window(start, stop)
    return Band(band.matrix[start:stop, :, first:last]), first, last


@lru_cache(maxsize=256)
def part_from(band: Band, start: int, stop: int) -> tuple[Band, int, int]:
    """The part of a map for a run of inputs, and the run of results that it adds to."""
    if (start, stop) == (0, band.n_in):
        return band, 0, band.n_out
    first, last = band.results_of(start, stop)
    return Band(band.matrix[first:last, :, start:stop]), first, last


# Along an axis that is not the last: sums of rows


@lru_cache(maxsize=32)
def _pattern(
    band: Band, groups: int, inner: int, adjoint: bool, like: Like
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that each result adds up, for `embedding_bag`: index, offsets, weights."""
    kinds: np.ndarray
    g, m = np.arange(groups)[:, None, None], np.arange(inner)[:, None]
    if adjoint:  # results (g, j, m, i), each a few of (g, m, o)
        j, i, o = np.nonzero(band.matrix.transpose(1, 2, 0))
        kind, local = j * band.n_in + i, o
        kinds = np.arange(band.n_functions * band.n_in).reshape(-1, 1, band.n_in)
        start = (g[:, None] * inner + m) * band.n_out
    else:  # results (g, m, o), each a few of (g, j, m, i)
        o, j, i = np.nonzero(band.matrix)
        kind, local = o, j * inner * band.n_in + i
        kinds = np.arange(band.n_out)
        start = (g * band.n_functions * inner + m) * band.n_in
    kinds, start = (a.ravel() for a in np.broadcast_arrays(kinds, start))
    counts = np.bincount(kind, minlength=kinds.max() + 1)
    first = np.cumsum(counts) - counts
    many = counts[kinds]
    offsets = np.cumsum(many) - many
    entry = np.arange(many.sum()) + np.repeat(first[kinds] - offsets, many)
    index = local[entry] + np.repeat(start, many)
    dtype, device = like
    return (
        torch.from_numpy(index.astype(np.int32)).to(device),
        torch.from_numpy(offsets.astype(np.int32)).to(device),
        torch.from_numpy(band.matrix[o, j, i][entry]).to(device, dtype),
    )


@lru_cache(maxsize=32)
def _dense(band: Band, adjoint: bool, like: Like) -> Tensor:
    """The dense matrix of a map of one function."""
    matrix = band.matrix[:, 0].T if adjoint else band.matrix[:, 0]
    return torch.tensor(matrix, dtype=like[0], device=like[1])


@dataclass(frozen=True)
class AxisProduct:
    """A map along one axis of three: [G, J, M, n_in, N] -> [G, M, n_out, N].

    G = `groups` and M = `inner` are the numbers of all dimensions before J, and between J and
    n_in; N = `tail`, behind n_in, is 1 on the last axis.
    """

    band: Band
    groups: int
    inner: int
    tail: int

    @property
    def last(self) -> bool:
        """Whether the axis is the last in memory."""
        return self.tail == 1

    def ahead(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Apply the map; on the last axis into `out`, unless None."""
        if gpu.usable(values):
            return gpu.product(values, self, adjoint=False, out=out)
        return _last_ahead(values, self, out) if self.last else self._rows(values, False)

    def back(self, values: Tensor) -> Tensor:
        """Apply the transpose."""
        if gpu.usable(values):
            return gpu.product(values, self, adjoint=True)
        return _last_back(values, self) if self.last else self._rows(values, True)

    def _rows(self, values: Tensor, adjoint: bool) -> Tensor:
        table = values.reshape(self.groups, -1, self.tail)
        if self.inner == self.band.n_functions == 1 and self.band.density > DENSE:
            return torch.matmul(_dense(self.band, adjoint, (values.dtype, values.device)), table)
        at_once = max(1, PATTERN_ENTRIES // (self.inner * self.band.n_entries))
        parts = []
        for rows in table.split(min(self.groups, at_once)):
            like = values.dtype, values.device
            index, offsets, weight = _pattern(self.band, len(rows), self.inner, adjoint, like)
            flat = rows.flatten(0, 1)
            parts.append(
                functional.embedding_bag(
                    index, flat, offsets, mode="sum", per_sample_weights=weight
                )
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts)


# Along the last axis: dense products of blocks

Block = tuple[slice, slice, list[Tensor]]


def _cut(band: Band, adjoint: bool) -> list[tuple[int, int, int, int]]:
    """Runs of results and the run of inputs of each; a single one where short ones don't pay."""
    size, full = (band.n_in, band.n_out) if adjoint else (band.n_out, band.n_in)
    look = band.results_of if adjoint else band.window
    count = max(1, round(size / BLOCK))
    edges = [size * n // count for n in range(count + 1)]
    runs = [(a, b, *look(a, b)) for a, b in pairwise(edges)]
    worth = sum((b - a) * (d - c) for a, b, c, d in runs) < 0.6 * size * full
    return runs if worth else [(0, size, 0, full)]


@lru_cache(maxsize=64)
def _blocks(band: Band, adjoint: bool, like: Like) -> list[Block]:
    """Slices of results and of inputs, and the matrix [inputs, results] of each function."""
    dtype, device = like
    blocks = []
    for a, b, c, d in _cut(band, adjoint):
        here = band.matrix[c:d, :, a:b] if adjoint else band.matrix[a:b, :, c:d].T
        each = [
            torch.tensor(here[:, j], device=device, dtype=dtype) for j in range(band.n_functions)
        ]  # [inputs, results]
        blocks.append((slice(a, b), slice(c, d), each))
    return blocks


def _last_ahead(values: Tensor, step: AxisProduct, out: Tensor | None) -> Tensor:
    """[G, J, M, n_in] -> [G, M, n_out]."""
    band = step.band
    table = values.reshape(step.groups, band.n_functions, step.inner, band.n_in)
    if out is None:
        out = values.new_empty(step.groups, step.inner, band.n_out)
    result = out.view(step.groups, step.inner, band.n_out)
    for into, from_, each in _blocks(band, False, (values.dtype, values.device)):
        for group, rows in zip(result[..., into], table[..., from_], strict=True):
            for j, matrix in enumerate(each):
                torch.addmm(group, rows[j], matrix, beta=min(j, 1), out=group)
    return out


def _last_back(values: Tensor, step: AxisProduct) -> Tensor:
    """[G, M, n_out] -> [G, J, M, n_in]."""
    band = step.band
    table = values.reshape(step.groups, step.inner, band.n_out)
    out = values.new_empty(step.groups, band.n_functions, step.inner, band.n_in)
    for into, from_, each in _blocks(band, True, (values.dtype, values.device)):
        for group, rows in zip(out[..., into], table[..., from_], strict=True):
            for j, matrix in enumerate(each):
                torch.mm(rows, matrix, out=group[j])
    return out


# Three axes

Source = Callable[[int, int], Tensor]


def plan(bands: Sequence[Band], batch: int) -> list[AxisProduct]:
    """The axes in the order that moves the fewest numbers, with the memory layout at each."""
    j = bands[0].n_functions
    size = {"b": batch, "jx": j, "jy": j, "jz": j}
    for name, band in zip("xyz", bands, strict=True):
        size[name], size[name.upper()] = band.n_in, band.n_out
    labels, steps = ["b", "jx", "jy", "jz", "x", "y", "z"], []
    for axis in sorted(range(3), key=lambda axis: (round(bands[axis].growth, 3), axis)):
        name = "xyz"[axis]
        p, q = labels.index(f"j{name}"), labels.index(name)
        runs = labels[:p], labels[p + 1 : q], labels[q + 1 :]
        sizes = (math.prod(size[label] for label in run) for run in runs)
        groups, inner, tail = sizes
        if j == 1:  # one function: dimensions before the axis are all alike
            groups, inner = (1, groups * inner) if tail == 1 else (groups * inner, 1)
        steps.append(AxisProduct(bands[axis], groups, inner, tail))
        labels = [*runs[0], *runs[1], name.upper(), *runs[2]]
    return steps


def slab_numbers(like: Tensor) -> int:
    """Number of coefficients to render at a time on the device of a tensor."""
    return SLAB_NUMBERS_CUDA if like.is_cuda else SLAB_NUMBERS


def render(
    source: Source | Tensor, bands: Sequence[Band], batch: int, at_once: int = SLAB_NUMBERS
) -> Tensor:
    """Three maps, slab by slab along the first axis so that intermediates stay in the cache.

    Args:
        source: [B, J, J, J, x, y, z], or a function that makes it for planes start ... stop of x.
        bands: The map of each axis.
        batch: B.
        at_once: Coefficients in a slab, about.

    Returns:
        [B, X, Y, Z].
    """
    x, y, z = bands
    if isinstance(source, Tensor):
        whole = source.reshape(batch, -1, x.n_in, y.n_in, z.n_in)
        source = lambda start, stop: whole[:, :, start:stop]  # noqa: E731
    plane = batch * x.n_functions**3 * y.n_in * z.n_in * x.n_in
    thick = max(1, round(at_once / plane * x.n_out))
    out = None
    for start in range(0, x.n_out, thick):
        stop = min(start + thick, x.n_out)
        here, first, last = part(x, start, stop)
        values = source(first, last).contiguous()
        if out is None:
            out = values.new_empty(batch, x.n_out, y.n_out, z.n_out)
        slab = out[:, start:stop]
        steps = plan((here, y, z), batch)
        for step in steps[:-1]:
            values = step.ahead(values)
        into = slab if steps[-1].last and slab.is_contiguous() else None
        values = steps[-1].ahead(values, into)
        if into is None:
            slab.copy_(values.reshape(slab.shape))
    assert out is not None
    return out


def collect(values: Tensor, bands: Sequence[Band]) -> Tensor:
    """The transpose of `render`: [B, X, Y, Z] -> [B, J, J, J, x, y, z]."""
    j, batch = bands[0].n_functions, len(values)
    for step in reversed(plan(bands, batch)):
        values = step.back(values)
    return values.reshape(batch, j, j, j, *(band.n_in for band in bands))


class Separable(torch.autograd.Function):
    """`render` or `collect`, each the other's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bands: tuple[Band, ...], adjoint: bool) -> Tensor:
        """Apply one of them, never in reduced precision."""
        ctx.bands, ctx.adjoint = bands, adjoint
        with torch.autocast(values.device.type, enabled=False):
            values = values.contiguous()
            if adjoint:
                return collect(values, bands)
            return render(values, bands, len(values), slab_numbers(values))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The transpose, which has a gradient itself."""
        return separable(grad, ctx.bands, not ctx.adjoint), None, None


def separable(values: Tensor, bands: tuple[Band, ...], adjoint: bool = False) -> Tensor:
    """`render`, or `collect` where `adjoint`, with gradients of any order."""
    apply: Callable[..., Tensor] = Separable.apply
    return apply(values, bands, adjoint)
