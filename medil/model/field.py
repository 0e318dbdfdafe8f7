"""The continuous image that a latent stands for: the idea of the paper as an object.

A latent has no voxels. What it holds is a function of position in mm, which can be averaged
over the voxels of any grid, or read at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from medil.errors import InputError
from medil.grid import Grid, as_triple, points_to_index
from medil.latent import Latent
from medil.layers.blocks import at_least_float
from medil.model.base import MIDDLE
from medil.model.budget import planes_and_rows
from medil.model.streaming_conv import Course, Window, course_of, under
from medil.model.tiles import block_around, slabs, support
from medil.system.device import network_precision, to_host
from medil.system.memory import require_memory
from medil.volume import Volume

EDGE_CELLS = 1e-6  # rounding that still counts as inside the encoded box


class Field:
    """An image at every point of space; `MedIL.field` makes it.

    Values are in the units of the encoded image. Outside the encoded box nothing is known, and
    they are `latent.intensity.low`. They are NaN where the nearest voxel of the image had no value.

    Args:
        model: The `MedIL` whose decoder renders.
        latent: A latent of the same weights.
        linear_only: Leave the network out and render the closed form's splines alone.
        precision: Precision of the networks, see `medil.system.device.network_precision`.

    Raises:
        InputError: A latent of other weights, no such precision, or no closed form.

    Example:
        >>> from medil.config import preset
        >>> from medil.grid import Grid
        >>> from medil.model.autoencoder import MedIL
        >>> from medil.volume import Intensity
        >>> model = MedIL(preset("test").model).eval()
        >>> cells = Grid.from_spacing((4, 4, 4), 4.0)
        >>> zeros = torch.zeros(8, 4, 4, 4)
        >>> field = model.field(Latent(zeros, zeros, cells, cells, Intensity(0.0, 1.0)))
        >>> field.on(cells.with_spacing(1.6)).data.shape
        torch.Size([10, 10, 10])
        >>> field.at([[0.0, 3.0, 7.5], [1.1, 2.2, 3.3], [99.0, 0.0, 0.0]]).tolist()
        [0.4000000059604645, 0.4000000059604645, 0.0]
    """

    def __init__(
        self, model: Any, latent: Latent, linear_only: bool = False, precision: str = "auto"
    ) -> None:
        if latent.weights_id != model.weights_id:
            raise InputError(
                "this latent was made by other weights; decode it with the weights that made it."
            )
        if linear_only and not model.config.closed_form:
            raise InputError("these weights have no closed form to render; leave linear_only out.")
        network_precision(model.device, precision)  # refuses what it does not know
        self.model, self.latent = model, latent
        self.linear_only, self.precision = linear_only, precision
        # A clone, because tensors from inference mode cannot have gradients.
        self.z = latent.mean[None].clone().to(model.splines.haar)  # [1, C, d, h, w]

    # On grids

    def on(
        self,
        grid: Grid | None = None,
        *,
        progress: bool = False,
        memory_bytes: int | None = None,
    ) -> Volume:
        """The mean over every voxel of a grid.

        Args:
            grid: Target grid, parallel to the latent's or oblique; the native one when None.
            progress: Show a bar; oblique grids take minutes for a whole head.
            memory_bytes: Budget of the process beside the output; a share of what is free
                when None.

        Raises:
            InputError: Not enough memory.

        Example:
            >>> import medil
            >>> scan = medil.Volume(torch.rand(8, 8, 8), Grid.from_spacing((8, 8, 8), 1.0))
            >>> model = medil.MedIL(medil.preset("test").model)
            >>> field = model.field(model.encode(scan))
            >>> field.on(Grid.from_spacing((4, 4, 4), 2.0, (0.5, 0.5, 0.5))).data.shape
            torch.Size([4, 4, 4])
        """
        grid = grid or self.latent.native
        require_memory(grid.n_voxels, 4, "this output")
        out = torch.empty(grid.shape)
        for start, slab in self.slabs(grid, progress=progress, memory_bytes=memory_bytes):
            out[start : start + len(slab)] = slab
        return Volume(out, grid, self.latent.source)

    def slabs(
        self,
        grid: Grid | None = None,
        axis: int = 0,
        descending: bool = False,
        *,
        progress: bool = False,
        memory_bytes: int | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """`on` in slabs, so that memory does not grow with the output.

        Slabs follow each other along an axis of the target, from its end if `descending`; the other
        arguments are those of `on`. `medil.volume.save_slabs` takes them: its `make_slabs` is
        `partial(field.slabs, grid)`.

        Returns:
            Index of each slab's first voxel along `axis`, and the slab: [D, H, W] float32 on
            the CPU.

        Raises:
            InputError: At once: not enough memory.

        Example:
            >>> import medil
            >>> scan = medil.Volume(torch.rand(8, 8, 8), Grid.from_spacing((8, 8, 8), 1.0))
            >>> model = medil.MedIL(medil.preset("test").model)
            >>> field = model.field(model.encode(scan))
            >>> sum(len(slab) for _, slab in field.slabs())
            8
        """
        grid, cells = grid or self.latent.native, self.latent.grid
        planes, rows = planes_and_rows(self.model, cells, grid, axis, memory_bytes)
        course = course_of(cells, grid, axis, descending)
        pieces = slabs(grid, rows, axis, descending)
        return _watched(to_host(self._rendered(grid, pieces, course, planes)), grid, progress)

    @torch.no_grad()
    def _rendered(
        self, grid: Grid, pieces: Iterator[tuple[int, Grid]], course: Course, planes: int
    ) -> Iterator[tuple[int, Tensor]]:
        """Slabs in the units of the image, where the weights are."""
        model, cells = self.model, self.latent.grid
        residual = None if self.linear_only else self._residual(grid, course, planes)
        for start, slab in pieces:
            if residual is None:
                x = model.splines.render(self.z, cells, slab)
            else:
                x = model.compose(residual(slab), self.z, cells, slab)
            yield start, self._in_units(x, slab)
            del x

    def _residual(self, grid: Grid, course: Course, planes: int) -> Callable[[Grid], Tensor]:
        """A function that renders the network's part of consecutive slabs of a grid."""
        model, decoder = self.model, self.model.decoder
        (i, j, k), cells = support(self.latent.grid, grid, decoder.reach_cells)
        z, fine = self.z[:, :, i, j, k] * model.latent_gain, model.fine_grid(cells)
        features = decoder(course.cut(z, planes), course)
        features = under(lambda: network_precision(model.device, self.precision), features)
        window, size = Window(features, course), fine.shape[course.axis]

        def residual(slab: Grid) -> Tensor:
            block, nodes = support(fine, slab, decoder.render.reach)
            first, stop, _ = block[course.axis].indices(size)
            if course.descending:
                first, stop = size - stop, size - first
            inside = list(block)
            inside[course.axis] = slice(None)
            near = window.view(first, stop)[:, :, inside[0], inside[1], inside[2]]
            values: Tensor = decoder.render(at_least_float(near), nodes, slab)
            return values

        return residual

    def _in_units(self, x: Tensor, slab: Grid) -> Tensor:
        """[1, 1, D, H, W], 0 ... 1 scale -> [D, H, W]; beyond the encoded box the background.

        NaN where the image had no value.
        """
        if x.device.type == "mps":
            x = x.cpu()  # it has no float64
        values = self.latent.intensity.inverse(x[0, 0])
        if not is_inside(self.latent.grid, slab):
            outside = ~inside_box(self.latent.grid, slab).to(values.device)
            values.masked_fill_(outside, self.latent.intensity.low)
        if self.latent.missing is not None:
            gone = nearest(self.latent.missing, index_in(self.latent.native, slab))
            values.masked_fill_(gone.to(values.device), torch.nan)
        return values

    # At points

    def at(
        self, points_mm: ArrayLike | Tensor, spacing_mm: float | tuple[float, ...] | None = None
    ) -> Tensor:
        """The image at scattered points.

        Gradients flow to the points, and to a `latent.mean` that asks for them; where an
        operator has kinks (hats at cell centres) they are one-sided there.

        Args:
            points_mm: [..., 3] RAS+ points, in mm; an array or a tensor. Everything between
                them is decoded, so points that lie together are cheapest.
            spacing_mm: Average over voxels of this size around the points, one number or one an
                axis of the latent grid, by quadrature; None: the values at the points. Operators
                that answer at points (`medil.layers.pointwise`) take the size as an input instead.

        Returns:
            [...] values in the units of the encoded image, where the weights are.

        Raises:
            InputError: Points of another shape or not finite, or a size that is not above zero.

        Example:
            >>> import medil
            >>> scan = medil.Volume(torch.rand(8, 8, 8), Grid.from_spacing((8, 8, 8), 1.0))
            >>> model = medil.MedIL(medil.preset("test").model)
            >>> field = model.field(model.encode(scan))
            >>> field.at([[3.5, 3.5, 3.5], [1.0, 2.0, 3.0]], spacing_mm=2.0).shape
            torch.Size([2])
        """
        points = torch.as_tensor(points_mm, dtype=torch.float64).to(self.model.device)
        if points.ndim < 1 or points.shape[-1] != 3 or not points.isfinite().all():
            raise InputError(f"points_mm must be finite and [..., 3], not {list(points.shape)}.")
        edges_mm = None
        if spacing_mm is not None:
            edges_mm = self.latent.grid.directions * as_triple(spacing_mm, "spacing_mm")
        wanted = points.requires_grad or self.z.requires_grad
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            values = self._at(points.reshape(-1, 3), edges_mm)
        return values.reshape(points.shape[:-1])

    def _at(self, points: Tensor, edges_mm: np.ndarray | None) -> Tensor:
        """[Q] values at [Q, 3] points."""
        if not len(points):
            return self.z.new_zeros(0)
        model, grid = self.model, self.latent.grid
        half_cells = 0.0 if edges_mm is None else np.abs(edges_mm).sum() / 2 / min(grid.spacing_mm)
        reach_cells = max(model.splines.reach_cells, model.decoder.reach_cells) + half_cells
        (i, j, k), cells = block_around(grid, points.detach().cpu().numpy(), reach_cells)
        z, x = self.z[:, :, i, j, k], self.z.new_full((1, 1, len(points)), MIDDLE)
        if model.config.closed_form:
            x = model.splines.at(z, cells, points, edges_mm)
        if not self.linear_only:
            with network_precision(model.device, self.precision):
                features = at_least_float(model.decode_features(z))
            x = x + model.decoder.render.at(features, model.fine_grid(cells), points, edges_mm)
        index_vox = points_to_index(grid, points.detach())
        sizes = torch.tensor(grid.shape, device=points.device)
        outside = (index_vox < -0.5 - EDGE_CELLS) | (index_vox > sizes - 0.5 + EDGE_CELLS)
        low, high = self.latent.intensity.low, self.latent.intensity.high
        values = (x[0, 0] * (high - low) + low).masked_fill(outside.any(-1), low)
        if self.latent.missing is None:
            return values
        in_native = points_to_index(self.latent.native, points.detach()).cpu()
        gone = nearest(self.latent.missing, in_native.unbind(-1))
        return values.masked_fill(gone.to(values.device), torch.nan)


def _watched(
    pieces: Iterator[tuple[int, Tensor]], grid: Grid, progress: bool
) -> Iterator[tuple[int, Tensor]]:
    """Pass slabs on, under a progress bar that counts voxels."""
    with tqdm(total=grid.n_voxels, unit="vox", unit_scale=True, disable=not progress) as bar:
        for start, slab in pieces:
            n = slab.numel()
            yield start, slab
            del slab
            bar.update(n)


def is_inside(box: Grid, grid: Grid) -> bool:
    """Whether a grid lies as a whole in the box that another grid fills."""
    corners_vox = box.ras_to_index(grid.corners_mm)
    low, high = corners_vox.min(0), corners_vox.max(0)
    return bool(
        (low > -0.5 - EDGE_CELLS).all() and (high < np.array(box.shape) - 0.5 + EDGE_CELLS).all()
    )


def inside_box(box: Grid, grid: Grid) -> Tensor:
    """Which voxel centres of `grid` lie in the box that another grid fills: [D, H, W] bool."""
    inside = torch.ones(grid.shape, dtype=torch.bool)
    for index_vox, size in zip(index_in(box, grid), box.shape, strict=True):
        inside &= (index_vox > -0.5 - EDGE_CELLS) & (index_vox < size - 0.5 + EDGE_CELLS)
    return inside


def index_in(box: Grid, grid: Grid) -> list[Tensor]:
    """Where the voxels of `grid` lie in another grid: its i, j and k, each [D, H, W] float64."""
    to_box = np.linalg.inv(box.affine_vox2ras) @ grid.affine_vox2ras  # index to index
    depth, height, width = grid.shape
    i, j, k = (torch.from_numpy(n).double() for n in np.ogrid[:depth, :height, :width])
    return [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_box[:3].tolist()]


def nearest(values: Tensor, index_vox: Sequence[Tensor]) -> Tensor:
    """[D, H, W] bool at the voxels nearest to fractional indices i, j, k; False beyond them."""
    inside = torch.ones_like(index_vox[0], dtype=torch.bool)
    flat = torch.zeros_like(index_vox[0], dtype=torch.int64)
    for index, size in zip(index_vox, values.shape, strict=True):
        whole = (index + 0.5 + EDGE_CELLS).floor().long()  # no rounding decides between two
        inside &= (whole >= 0) & (whole < size)
        flat = flat * size + whole.clamp(0, size - 1)
    return values.reshape(-1)[flat] & inside
