"""The networks of `medil.model.autoencoder.MedIL` on whole volumes, a slab at a time.

Convolutions roll along one axis (`medil.model.streaming_conv`), rendering and intake take
the block that each slab depends on (`medil.model.tiles`), so no intermediate array is as
large as the output.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medil.grid import Grid
from medil.layers.bases import cubic_bspline
from medil.layers.blocks import depth_to_space, space_to_depth
from medil.layers.projection import least_squares
from medil.model.base import MIDDLE, RESIDUAL_GAIN, LatentAutoencoder, mix_channels
from medil.model.streaming_conv import Course, Window, convolve, roll, under, whole_cells
from medil.model.tiles import Block, cuts, support
from medil.system.device import network_precision
from medil.system.memory import choose

PLANES = 4  # of the latent grid that the networks take at a time, at most
SLAB_VOXELS = 2**19  # rendered or read at a time, at most
# Bytes alive at once, fitted to the resident memory of whole runs.
VOXEL_BYTES = 32  # a voxel that is rendered or read
CELL_MAPS = 6  # feature maps (4 bytes a channel) in a cell that the networks take
KEPT_PLANES = 4  # planes of a feature map that a rolling residual block keeps
FIXED_BYTES = 220e6  # chunks of the operators, libraries' own buffers, the allocator's holes
Read = Callable[[Block], Tensor]  # a block of an image -> [1, 1, d, h, w], 0 ... 1 scale


def slab_of(grid: Grid, axis: int, start: int, length: int) -> Grid:
    """The grid of some planes of a grid, counted along one axis."""
    first, shape = [0, 0, 0], list(grid.shape)
    first[axis], shape[axis] = start, length
    return grid.crop(first, shape)


def slabs(
    grid: Grid, rows: int, axis: int = 0, descending: bool = False
) -> Iterator[tuple[int, Grid]]:
    """A grid cut across an axis into slabs of so many planes: first index and grid of each."""
    for start, length in cuts(grid.shape[axis], rows, descending):
        yield start, slab_of(grid, axis, start, length)


class Piecewise(LatentAutoencoder, ABC):
    """An autoencoder with MedIL's networks, which a subclass makes."""

    intake: Any  # medil.model.autoencoder.Stem
    encode_fine: nn.Sequential
    encode_down: nn.Conv3d
    encode_latent: nn.Sequential
    to_latent: nn.Module
    from_latent: nn.Conv3d
    decode_latent: nn.Sequential
    decode_up: nn.Conv3d
    decode_fine: nn.Sequential
    render: Any  # a resampling operator, with its reach in feature cells

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.haar.device

    # Encoding

    def encode_slabs(
        self, read: Read, grid: Grid, latent_grid: Grid, planes: int
    ) -> tuple[Tensor, Tensor]:
        """`encode_tensor` of one image, `planes` planes of the latent at a time.

        Args:
            read: Gives a block of the image.
            grid: Of the image.
            latent_grid: Parallel to it.
            planes: At least 1; the result does not depend on it.

        Returns:
            mean and log-variance, [1, C, d, h, w] each.
        """
        factor, course = self.config.fine_per_latent, Course(0)
        projected = None
        if self.config.closed_form:
            projected = self.project_slabs(read, grid, latent_grid)
        take_in = partial(self._take_in, read, grid, latent_grid, projected)
        h = roll(self.encode_fine, map(take_in, cuts(latent_grid.shape[0], planes)), course)
        h = map(
            lambda x: self.encode_down(space_to_depth(x, factor)), whole_cells(h, course, factor)
        )
        h = map(self.to_latent, roll(self.encode_latent, h, course))
        coded = course.join(list(under(lambda: network_precision(self.device), h)))
        mean, log_var = coded.float().chunk(2, dim=1)
        if projected is not None:
            mean = mean + projected
        return mean, (log_var + self.config.log_var_start).clamp(-30, 10)

    def _take_in(
        self,
        read: Read,
        grid: Grid,
        latent_grid: Grid,
        projected: Tensor | None,
        piece: tuple[int, int],
    ) -> Tensor:
        """The intake's features in a piece of the latent's planes: (first, how many)."""
        nodes, dropped, kept = self._nodes(latent_grid, *piece)
        block, voxels = support(grid, nodes, self.intake.reach)
        x = read(block)
        images = x - MIDDLE
        if projected is not None:
            residual = x - self.render_linear_near(projected, latent_grid, voxels)
            images = torch.cat([images, RESIDUAL_GAIN * residual], dim=1)
        return self.intake(images, voxels, nodes).narrow(2, dropped, kept)

    def _nodes(self, latent_grid: Grid, start: int, length: int) -> tuple[Grid, int, int]:
        """Fine nodes in latent planes and the intake's halo; how many to drop, then to keep."""
        fine, factor = self.fine_grid(latent_grid), self.config.fine_per_latent
        first = max(0, factor * start - self.intake.halo_nodes)
        stop = min(fine.shape[0], factor * (start + length) + self.intake.halo_nodes)
        return slab_of(fine, 0, first, stop - first), factor * start - first, factor * length

    def project_slabs(self, read: Read, grid: Grid, latent_grid: Grid) -> Tensor:
        """`project`, which sees the whole image: two axes of every plane, then the first axis."""
        spline, nodes, ridge = cubic_bspline(), self.fine_grid(latent_grid), self.config.ridge
        (depth, height, width), (d, h, w) = grid.shape, nodes.shape
        flat = slab_of(grid, 0, 0, 1), slab_of(nodes, 0, 0, 1)
        planes = []
        for start, n in cuts(depth, max(1, SLAB_VOXELS // (height * width))):
            x = read((slice(start, start + n), slice(None), slice(None))) - MIDDLE
            planes.append(least_squares(x.transpose(0, 2), spline, *flat, ridge)[:, 0, 0])
        columns = torch.cat(planes).reshape(1, depth, h * w).transpose(1, 2)  # [1, h w, D]
        line = grid.crop((0, 0, 0), (depth, 1, 1)), nodes.crop((0, 0, 0), (d, 1, 1))
        whole = least_squares(columns[..., None, None], spline, *line, ridge)  # [1, h w, d, 1, 1]
        # An axis of one voxel and one node multiplies by some number: here three times too many.
        dot = grid.crop((0, 0, 0), (1, 1, 1)), nodes.crop((0, 0, 0), (1, 1, 1))
        idle = least_squares(whole.new_ones(1, 1, 1, 1, 1), spline, *dot, ridge)
        coefficients = whole[..., 0, 0].transpose(1, 2).reshape(1, 1, d, h, w) / idle
        return mix_channels(self.haar, space_to_depth(coefficients, self.config.fine_per_latent))

    def planes_to_encode(self, grid: Grid, latent_grid: Grid, memory_bytes: int | None) -> int:
        """The thickest pieces, in latent cells, that the budget allows.

        Raises:
            InputError: Not even one plane fits.
        """
        c, size = self.config, latent_grid.shape[0]
        functions = self.intake.basis.n_functions**3 * self.channels_in

        def bytes_of(planes: int) -> float:
            nodes, _, _ = self._nodes(latent_grid, (size - planes) // 2, planes)
            _, voxels = support(grid, nodes, self.intake.reach)
            return (
                (VOXEL_BYTES + self.intake.bytes_per_voxel) * voxels.n_voxels
                + VOXEL_BYTES * min(grid.n_voxels, SLAB_VOXELS)  # of the projection
                + 4 * (2 * functions + c.width_encoder) * nodes.n_voxels
                + self._network_bytes(latent_grid, 0, planes, c.width_encoder)
            )

        candidates = _halved(min(PLANES, size))
        return choose(candidates, bytes_of, memory_bytes, "encoding this image")

    # Decoding

    def render_linear_near(self, z: Tensor, latent_grid: Grid, slab: Grid) -> Tensor:
        """`render_linear`, from the cells that a slab depends on."""
        reach_cells = cubic_bspline().radius / self.config.fine_per_latent
        (i, j, k), cells = support(latent_grid, slab, reach_cells)
        return self.render_linear(z[:, :, i, j, k], cells, slab)

    def feature_slabs(
        self, z: Tensor, course: Course, planes: int, precision: str = "auto"
    ) -> Iterator[Tensor]:
        """`decode_features`, slab by slab.

        Args:
            z: [B, C, d, h, w] latents.
            course: Of the slabs.
            planes: Of the latent that are taken at a time.
            precision: Of `medil.system.device.network_precision`.

        Returns:
            [B, width_fine, ...] slabs of the fine grid, in the course's order.
        """
        h = convolve(self.from_latent, course.cut(z * self.latent_gain, planes), course)
        h = roll(self.decode_latent, h, course)
        h = map(lambda x: depth_to_space(self.decode_up(x), self.config.fine_per_latent), h)
        h = roll(self.decode_fine, h, course)
        return under(lambda: network_precision(self.device, precision), h)

    def texture_slabs(
        self,
        z: Tensor,
        latent_grid: Grid,
        target: Grid,
        course: Course,
        planes: int,
        precision: str = "auto",
    ) -> Callable[[Grid], Tensor]:
        """`texture` for slabs of a target that follow each other along a course.

        Args:
            z: [1, C, d, h, w] on `latent_grid`.
            latent_grid: Latent grid.
            target: Holds all slabs.
            course: Of the slabs, as seen from the latent grid.
            planes: Of the latent that the networks take at a time.
            precision: Of `medil.system.device.network_precision`.

        Returns:
            Slab to [1, 1, ...]; to be called for one after the other.
        """
        (i, j, k), cells = support(latent_grid, target, self._reach_cells)
        fine = self.fine_grid(cells)
        features = self.feature_slabs(z[:, :, i, j, k], course, planes, precision)
        window = Window(features, course)
        size = fine.shape[course.axis]

        def texture(slab: Grid) -> Tensor:
            block, nodes = support(fine, slab, self.render.reach)
            first, stop, _ = block[course.axis].indices(size)
            if course.descending:
                first, stop = size - stop, size - first
            inside = list(block)
            inside[course.axis] = slice(None)
            seen = window.view(first, stop)[:, :, inside[0], inside[1], inside[2]]
            return self.render(seen.float(), nodes, slab)

        return texture

    @property
    def _reach_cells(self) -> float:
        """How far a rendered voxel looks, in latent cells."""
        c = self.config
        fine = self.render.reach + 2 * c.depth_fine
        return 1 + 2 * c.depth_latent + math.ceil(fine / c.fine_per_latent)

    def planes_and_rows(
        self, latent_grid: Grid, target: Grid, axis: int, memory_bytes: int | None
    ) -> tuple[int, int]:
        """The thickest pieces that the budget allows.

        Args:
            latent_grid: Latent grid.
            target: To render on.
            axis: Of the target, along which slabs follow each other.
            memory_bytes: Budget of the process; a share of what is free when None.

        Returns:
            Planes of the latent that the networks take at a time, and planes of the target
            that are rendered at a time.

        Raises:
            InputError: Not even one plane of each fits.
        """
        c, size = self.config, target.shape[axis]
        along = course_of(latent_grid, target, axis).axis
        _, cells = support(latent_grid, target, self._reach_cells)
        fine = self.fine_grid(cells)
        channels = c.width_fine + 2 * _widest(self.render)

        def bytes_of(thickness: tuple[int, int]) -> float:
            planes, rows = thickness
            slab = slab_of(target, axis, (size - rows) // 2, rows)
            _, nodes = support(fine, slab, self.render.reach)
            in_window = nodes.shape[along] + planes * c.fine_per_latent
            plane = fine.n_voxels // fine.shape[along]
            return (
                VOXEL_BYTES * slab.n_voxels
                + 4 * channels * nodes.n_voxels
                + 6 * c.width_fine * plane * in_window
                + self._network_bytes(cells, along, planes, c.width_fine)
            )

        most = max(1, min(size, SLAB_VOXELS * size // target.n_voxels))
        pairs = zip(_halved(PLANES, 12), _halved(most, 12), strict=True)
        return choose(list(dict.fromkeys(pairs)), bytes_of, memory_bytes, "this output")

    def _network_bytes(self, cells: Grid, axis: int, planes: int, width: int) -> float:
        """What rolling through both levels of a network keeps alive."""
        c = self.config
        plane = cells.n_voxels // cells.shape[axis]
        inner = CELL_MAPS * planes + KEPT_PLANES * max(c.depth_encoder, c.depth_latent)
        fine = CELL_MAPS * planes * c.fine_per_latent
        fine += KEPT_PLANES * max(c.depth_encoder, c.depth_fine)
        per_plane = c.width_latent * inner + width * c.fine_per_latent**2 * fine
        return 4 * plane * per_plane + FIXED_BYTES


def course_of(latent_grid: Grid, target: Grid, axis: int, descending: bool = False) -> Course:
    """Slabs along an axis of a target, as seen from a latent grid: its axis most along them."""
    along = latent_grid.directions.T @ target.directions[:, axis]
    best = int(np.abs(along).argmax())
    return Course(best, descending != bool(along[best] < 0))


def _halved(most: int, times: int = 12) -> list[int]:
    """`most`, its half, ... down to 1."""
    return [max(1, most >> n) for n in range(times)]


def _widest(operator: nn.Module) -> int:
    """Channels that an operator makes in every feature cell."""
    return sum(m.out_channels for m in operator.modules() if isinstance(m, nn.Conv3d))
