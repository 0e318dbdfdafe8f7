"""Convolutions over consecutive slabs: each layer keeps two planes, and none is computed twice.

A 3x3x3 convolution needs one plane on either side. Each layer therefore holds its last plane
back until the next slab comes; beyond the volume's own faces it sees zeros, as it does on the
whole, and at seams it sees what lies there. So slabs of any thickness give what the whole gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid
from medil.layers.blocks import convolved
from medil.model.tiles import cuts

T = TypeVar("T")


@dataclass(frozen=True)
class Course:
    """The axis along which slabs [B, C, D, H, W] follow each other, and which end comes first.

    Planes are counted along the course: plane 0 is the last of the axis when descending.
    """

    axis: int  # 0, 1 or 2
    descending: bool = False  # slabs start at the end of the axis
    whole: bool = False  # a single slab comes, the whole volume; layers then keep no planes

    def length(self, x: Tensor) -> int:
        """Number of planes of a slab."""
        return x.shape[self.axis + 2]

    def part(self, x: Tensor, first: int, length: int) -> Tensor:
        """A view of `length` planes from the plane `first` on."""
        if self.descending:
            first = self.length(x) - first - length
        return x.narrow(self.axis + 2, first, length)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Join slabs, in their order along the course."""
        return torch.cat(list(reversed(parts) if self.descending else parts), self.axis + 2)

    def cut(self, x: Tensor, thick: int) -> Iterator[Tensor]:
        """Cut a whole volume into slabs."""
        for first, length in cuts(self.length(x), thick):
            yield self.part(x, first, length)


WHOLE = Course(0, whole=True)


def course_of(latent_grid: Grid, target: Grid, axis: int, descending: bool = False) -> Course:
    """The course along the latent axis that is closest to an axis of a target grid."""
    along = latent_grid.directions.T @ target.directions[:, axis]
    best = int(np.abs(along).argmax())
    return Course(best, descending != bool(along[best] < 0))


class Queue:
    """Planes that have arrived and are not used yet."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.held: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.held is None else self.course.length(self.held)

    def push(self, slab: Tensor) -> Tensor:
        """Add a slab behind the others, and pass it on."""
        self.held = slab if self.held is None else self.course.join([self.held, slab])
        return slab

    def take(self, n_planes: int) -> Tensor:
        """The first planes, which leave the queue."""
        assert self.held is not None
        whole, rest = self.held, len(self) - n_planes
        # A clone: a view would keep the memory of all planes.
        self.held = self.course.part(whole, n_planes, rest).clone() if rest else None
        return self.course.part(whole, 0, n_planes)


def convolve(conv: nn.Conv3d, slabs: Iterable[Tensor], course: Course) -> Iterator[Tensor]:
    """A 3x3x3 convolution (padding 1, stride 1) with zeros around the whole, slab by slab.

    Slabs [B, C, d, h, w] are all planes of a whole in the course's order, and so are the results,
    whose thickness may differ.
    """
    if course.whole:
        yield from map(conv, slabs)
        return
    padding = [1, 1, 1]
    padding[course.axis] = 0
    held: Tensor | None = None
    for slab in _between_zeros(slabs, course):
        held = slab if held is None else course.join([held, slab])
        del slab
        if (n := course.length(held)) > 2:
            out = [convolved(conv, held, padding)]
            held = course.part(held, n - 2, 2).clone()
            yield out.pop()  # not kept here: while later layers work, this one holds two planes


def _between_zeros(slabs: Iterable[Tensor], course: Course) -> Iterable[Tensor]:
    """The slabs, after and before a plane of zeros."""
    slabs = iter(slabs)
    first = next(slabs)
    zeros = torch.zeros_like(course.part(first, 0, 1))
    return chain([course.join([zeros, first])], slabs, [zeros])


def residual(block: nn.Sequential, slabs: Iterable[Tensor], course: Course) -> Iterator[Tensor]:
    """A `ResidualBlock` with this body, slab by slab."""
    before, between = block[:2], block[3:5]
    first, second = (cast(nn.Conv3d, block[n]) for n in (2, 5))
    waiting = Queue(course)
    h: Iterator[Tensor] = map(before, map(waiting.push, slabs))
    h = map(between, convolve(first, h, course))
    for added in convolve(second, h, course):
        total = [added.add_(waiting.take(course.length(added)))]
        del added
        yield total.pop()


def roll(blocks: Iterable[nn.Module], slabs: Iterator[Tensor], course: Course) -> Iterator[Tensor]:
    """Residual blocks in a row, slab by slab, from slabs to slabs as `convolve`."""
    for block in blocks:
        slabs = map(block, slabs) if course.whole else residual(block.body, slabs, course)  # type: ignore[arg-type]
    return slabs


def whole_cells(slabs: Iterable[Tensor], course: Course, factor: int) -> Iterator[Tensor]:
    """The same planes in slabs that hold a multiple of `factor` of them."""
    if course.whole:
        yield from slabs
        return
    waiting = Queue(course)
    for slab in slabs:
        waiting.push(slab)
        del slab
        if ready := len(waiting) // factor * factor:
            yield waiting.take(ready)


class Window:
    """The planes of a stream that are in use: pulled when first needed, dropped once passed."""

    def __init__(self, slabs: Iterator[Tensor], course: Course) -> None:
        self.slabs, self.course = slabs, course
        self.first = 0  # plane that the queue begins with
        self.waiting = Queue(course)

    def view(self, first: int, stop: int) -> Tensor:
        """Planes `first` to below `stop`, counted along the course; `first` never goes back."""
        self._forget(first)
        while self.first + len(self.waiting) < stop:
            self.waiting.push(next(self.slabs))
            self._forget(first)
        assert self.waiting.held is not None and self.first == first
        return self.course.part(self.waiting.held, 0, stop - first)

    def _forget(self, first: int) -> None:
        passed = min(first - self.first, len(self.waiting))
        if passed > 0:
            self.waiting.take(passed)
            self.first += passed


def under(context: Callable[[], AbstractContextManager], items: Iterator[T]) -> Iterator[T]:
    """Make each item inside a context, and leave the context while the item is used."""
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
        del item
