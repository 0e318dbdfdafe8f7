"""Does a model that sees patches agree with itself on the whole? Patches with and without a halo.

Every patch lies on the whole block's own latent cells, so what is left of the difference is
what a patch cannot see: the network's receptive field and the projection's reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid
from medil.shortcut import LatentAutoencoder


@torch.inference_mode()
def rebuilt_whole(model: LatentAutoencoder, x: Tensor, grid: Grid) -> Tensor:
    """Encode and render a block at once.

    Args:
        model: Any arm.
        x: [D, H, W], 0 ... 1 scale.
        grid: Its grid.

    Returns:
        [D, H, W] float32.
    """
    latent_grid = model.latent_grid(grid)
    mean, _ = model.encode_tensor(x[None, None].to(model.haar), grid, latent_grid)
    return model.decode_tensor(mean, latent_grid, grid)[0, 0].cpu()


def rebuilt_by_patches(
    model: LatentAutoencoder, x: Tensor, grid: Grid, side_mm: float, halo_mm: float = 0.0
) -> Tensor:
    """Encode and render a block patch by patch, each seeing so much of its surroundings.

    Args:
        model: Any arm.
        x: [D, H, W], 0 ... 1 scale.
        grid: Its grid, whose extent is a whole number of latent cells.
        side_mm: Of the patches; the last along an axis may be shorter.
        halo_mm: Seen beyond each face of a patch where the block goes on, and then dropped.

    Returns:
        [D, H, W] float32, without gaps.

    Raises:
        InputError: Side, halo or block are no whole number of voxels and latent cells.
    """
    pitch_mm = model.config.latent_spacing_mm
    for name, length_mm in (("block", max(grid.extent_mm)), ("side", side_mm), ("halo", halo_mm)):
        steps = [length_mm / s for s in (pitch_mm, *grid.spacing_mm)]
        if not np.allclose(steps, np.round(steps)):
            raise InputError(f"a {name} of {length_mm:g} mm cuts through latent cells or voxels.")
    result = torch.empty(x.shape)
    side, halo = (np.rint(mm / np.array(grid.spacing_mm)).astype(int) for mm in (side_mm, halo_mm))
    for low, high in _boxes(grid.shape, side):
        start, stop = np.maximum(low - halo, 0), np.minimum(high + halo, grid.shape)
        part = rebuilt_whole(model, x[_slices(start, stop)], grid.crop(start, stop - start))
        result[_slices(low, high)] = part[_slices(low - start, high - start)]
    return result


def _boxes(shape: tuple[int, ...], side: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First and end index of each patch."""
    corners = [range(0, n, s) for n, s in zip(shape, side, strict=True)]
    for corner in product(*corners):
        low = np.array(corner)
        yield low, np.minimum(low + side, shape)


def _slices(start: np.ndarray, stop: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
