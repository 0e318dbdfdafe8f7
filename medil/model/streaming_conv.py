"""Convolutions over consecutive slabs: each layer keeps two planes, and none is computed twice.

A 3x3x3 convolution needs one plane on either side. Each layer therefore holds its last plane
back until the next slab comes; beyond the volume's own faces it sees zeros, as it does on the
whole, and at seams it sees what lies there. So slabs of any thickness give what the whole gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid
from medil.layers.blocks import ChannelNorm, activate_into, convolved
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

    def room(self, like: Tensor, n_planes: int) -> Tensor:
        """Memory for planes like those of a slab, in the precision that networks run in.

        Channels lie last. On the CPU the course lies first, so that a run of planes is one
        block and is convolved where it is.
        """
        kind, dtype = like.device.type, like.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        outer = self.axis if kind == "cpu" else 0
        batch, channels, *sizes = like.shape
        sizes[self.axis] = n_planes
        sizes[0], sizes[outer] = sizes[outer], sizes[0]
        room = like.new_empty(batch, *sizes, channels, dtype=dtype).movedim(-1, 1)
        return room.transpose(2, outer + 2)

    def laid(self, x: Tensor) -> Tensor:
        """The same slab, on the CPU in memory as `room` has it."""
        if self.whole or x.device.type != "cpu":
            return x
        return self.room(x, self.length(x)).copy_(x)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Join slabs, in their order along the course; a single one is not copied."""
        if len(parts) == 1:
            return parts[0]
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
        self.slabs: deque[Tensor] = deque()

    def __len__(self) -> int:
        return sum(map(self.course.length, self.slabs))

    def push(self, slab: Tensor) -> Tensor:
        """Add a slab behind the others, and pass it on."""
        self.slabs.append(slab)
        return slab

    def take(self, n_planes: int) -> list[Tensor]:
        """The first planes, which leave the queue: views of slabs, in their order."""
        parts = []
        while n_planes:
            slab = self.slabs.popleft()
            length = self.course.length(slab)
            n = min(n_planes, length)
            parts.append(self.course.part(slab, 0, n))
            if n < length:
                self.slabs.appendleft(self.course.part(slab, n, length - n))
            n_planes -= n
        return parts


Fill = Callable[[Tensor, Tensor], object]  # writes a slab, or what is made of it, into a tensor


def convolve(
    conv: nn.Conv3d, slabs: Iterable[Tensor], course: Course, fill: Fill = Tensor.copy_
) -> Iterator[Tensor]:
    """A 3x3x3 convolution (padding 1, stride 1) with zeros around the whole, slab by slab.

    Slabs [B, C, d, h, w] are all planes of a whole in the course's order, and so are the results,
    whose thickness may differ. `fill(planes, slab)` may write a function of a slab's voxels in
    its place.
    """
    if course.whole:
        yield from map(conv, slabs)
        return
    padding = [1, 1, 1]
    padding[course.axis] = 0
    held: Tensor | None = None  # the last planes, which later results need
    for slab in chain(slabs, [None]):
        if slab is not None and held is None:
            held = course.room(slab, 1).zero_()
        assert held is not None, "no slab came"
        n_held, n_new = course.length(held), 1 if slab is None else course.length(slab)
        planes = [course.room(held, n_held + n_new)]
        course.part(planes[0], 0, n_held).copy_(held)
        after = course.part(planes[0], n_held, n_new)
        after.zero_() if slab is None else fill(after, slab)
        del slab, after
        n_kept = min(2, n_held + n_new)
        held = course.part(planes[0], n_held + n_new - n_kept, n_kept).clone()
        if n_held + n_new > 2:
            out = [convolved(conv, planes.pop(), padding)]
            yield out.pop()  # not kept here: while later layers work, this one holds two planes


def residual(block: nn.Sequential, slabs: Iterable[Tensor], course: Course) -> Iterator[Tensor]:
    """A `ResidualBlock` with this body, slab by slab."""
    fills = [partial(activate_into, norm=cast(ChannelNorm, block[n])) for n in (0, 3)]
    first, second = (cast(nn.Conv3d, block[n]) for n in (2, 5))
    waiting = Queue(course)
    h = convolve(first, map(waiting.push, slabs), course, fills[0])
    for added in convolve(second, h, course, fills[1]):
        begin = 0
        for part in waiting.take(course.length(added)):
            n = course.length(part)
            course.part(added, begin, n).add_(part)
            begin += n
        total = [added]
        del added, part
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
            yield course.join(waiting.take(ready))


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
        assert self.first == first
        joined = self.course.join(list(self.waiting.slabs))
        self.waiting.slabs = deque([joined])
        return self.course.part(joined, 0, stop - first)

    def _forget(self, first: int) -> None:
        passed = min(first - self.first, len(self.waiting))
        if passed > 0:
            self.waiting.take(passed)
            self.first += passed


def under(context: Callable[[], AbstractContextManager[Any]], items: Iterator[T]) -> Iterator[T]:
    """Make each item inside a context, and leave the context while the item is used."""
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
        del item
