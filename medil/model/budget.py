"""The thickest slabs that a memory budget allows, for encoding and for rendering."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid
from medil.model.streaming_conv import course_of
from medil.model.tiles import slab_of, support
from medil.system.memory import choose

PLANES = 2  # most planes of the latent grid that the networks take at a time
STEPS = 512  # pieces of a long axis: its planes are small, and more are taken at a time
MOST_NODES = 2**14  # voxels, and cells of the fine grid, along an axis
MOST_ROWS = 2048  # rendered at a time, since maps along an axis grow with its square
SLAB_VOXELS = 2**19  # most voxels that are rendered or read at a time
# Bytes alive at once, fitted to the resident memory of whole runs.
VOXEL_BYTES = 32  # for each voxel that is rendered or read
CELL_MAPS = 6  # feature maps (4 bytes a channel) in a cell that the networks take
KEPT_PLANES = 4  # planes of a feature map that a rolling residual block keeps
FIXED_BYTES = 220e6  # chunks of the operators, libraries' own buffers, the allocator's holes


def check_axes(grid: Grid, nodes: Grid) -> None:
    """Refuse an image along whose axis no volume extends, such as a surface overlay.

    Raises:
        InputError: States the longest axis.
    """
    if max(*grid.shape, *nodes.shape) > MOST_NODES:
        axis = int(np.argmax(nodes.shape))
        raise InputError(
            f"the image has {max(grid.shape):,} voxels along an axis and is "
            f"{nodes.extent_mm[axis]:,.0f} mm long, which is no volume; medil takes up to "
            f"{MOST_NODES:,} voxels an axis, and {MOST_NODES * nodes.spacing_mm[0]:,.0f} mm."
        )


def stem_nodes(model: Any, latent_grid: Grid, start: int, length: int) -> tuple[Grid, int, int]:
    """Fine nodes in latent planes and the stem's halo; how many to drop, then to keep."""
    fine, factor = model.fine_grid(latent_grid), model.config.fine_per_latent
    first = max(0, factor * start - model.encoder.stem.halo_nodes)
    stop = min(fine.shape[0], factor * (start + length) + model.encoder.stem.halo_nodes)
    return slab_of(fine, 0, first, stop - first), factor * start - first, factor * length


def planes_to_encode(model: Any, grid: Grid, latent_grid: Grid, memory_bytes: int | None) -> int:
    """The thickest pieces, in latent cells, that the budget allows.

    Raises:
        InputError: Not even one plane fits.
    """
    c, size = model.config, latent_grid.shape[0]
    functions = model.encoder.stem.basis.n_functions**3 * model.channels_in

    def bytes_of(planes: int) -> float:
        nodes, _, _ = stem_nodes(model, latent_grid, (size - planes) // 2, planes)
        _, voxels = support(grid, nodes, model.encoder.stem.reach)
        n_bytes: float = (
            (VOXEL_BYTES + model.encoder.stem.bytes_per_voxel) * voxels.n_voxels
            + VOXEL_BYTES * min(grid.n_voxels, SLAB_VOXELS)  # of the projection
            + 4 * (2 * functions + c.width_encoder) * nodes.n_voxels
            + _network_bytes(c, latent_grid, 0, planes, c.width_encoder)
        )
        return n_bytes

    candidates = _halved(min(_most_planes(size), size))
    return choose(candidates, bytes_of, memory_bytes, "encoding this image")


def planes_and_rows(
    model: Any, latent_grid: Grid, target: Grid, axis: int, memory_bytes: int | None
) -> tuple[int, int]:
    """The thickest pieces that the budget allows, for slabs that follow each other along an axis.

    Returns:
        Planes of the latent that the networks take at a time, and planes of the target
        that are rendered at a time.

    Raises:
        InputError: Not even one plane of each fits.
    """
    c, size = model.config, target.shape[axis]
    along = course_of(latent_grid, target, axis).axis
    _, cells = support(latent_grid, target, model.decoder.reach_cells)
    fine = model.fine_grid(cells)
    channels = c.width_fine + 2 * _widest(model.decoder.render)

    def bytes_of(thickness: tuple[int, int]) -> float:
        planes, rows = thickness
        slab = slab_of(target, axis, (size - rows) // 2, rows)
        _, nodes = support(fine, slab, model.decoder.render.reach)
        in_window = nodes.shape[along] + planes * c.fine_per_latent
        plane = fine.n_voxels // fine.shape[along]
        n_bytes: float = (
            VOXEL_BYTES * slab.n_voxels
            + 4 * channels * nodes.n_voxels
            + 6 * c.width_fine * plane * in_window
            + _network_bytes(c, cells, along, planes, c.width_fine)
        )
        return n_bytes

    most = max(1, min(size, SLAB_VOXELS * size // target.n_voxels, MOST_ROWS))
    pairs = zip(_halved(_most_planes(cells.shape[along])), _halved(most), strict=True)
    return choose(list(dict.fromkeys(pairs)), bytes_of, memory_bytes, "this output")


def _most_planes(size: int) -> int:
    """Planes that the networks take at a time, of an axis of `size` latent cells."""
    return max(PLANES, size // STEPS)


def _network_bytes(c: ModelConfig, cells: Grid, axis: int, planes: int, width: int) -> float:
    """Bytes that both levels of a network need for slabs of this thickness."""
    plane = cells.n_voxels // cells.shape[axis]
    inner = CELL_MAPS * planes + KEPT_PLANES * max(c.depth_encoder, c.depth_latent)
    fine = CELL_MAPS * planes * c.fine_per_latent
    fine += KEPT_PLANES * max(c.depth_encoder, c.depth_fine)
    per_plane = c.width_latent * inner + width * c.fine_per_latent**2 * fine
    return 4 * plane * per_plane + FIXED_BYTES


def _halved(most: int) -> list[int]:
    """`most`, its half, ... down to 1."""
    return [max(1, most >> n) for n in range(12)]


def _widest(operator: nn.Module) -> int:
    """Channels that an operator makes in every feature cell."""
    return sum(m.out_channels for m in operator.modules() if isinstance(m, nn.Conv3d))
