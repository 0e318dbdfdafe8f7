"""Rebuild a volume patch by patch, with and without a halo, and compare with the whole.

Every patch lies on the latent cells of the whole block, so the remaining difference comes from
what a patch cannot see: the network's receptive field and the projection's reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from eval.subjects import box_between
from medil.box import Triple
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.volume import robust_intensity

DRIFT_FWHM_MM = 8.0  # a difference that survives this smoothing is drift, not a seam


@torch.inference_mode()
def rebuilt_whole(
    model: LatentAutoencoder, x: Tensor, grid: Grid, linear_only: bool = False
) -> Tensor:
    """Encode and render [D, H, W] (0 ... 1 scale) at once: [D, H, W] float32.

    With `linear_only` the closed form is rendered without the network.
    """
    latent_grid = model.latent_grid(grid)
    mean, _ = model.encode_tensor(x[None, None].to(model.device), grid, latent_grid)
    render = model.splines.render if linear_only else model.decode_tensor
    return render(mean, latent_grid, grid)[0, 0].float().cpu()


def rebuilt_by_patches(
    model: LatentAutoencoder,
    x: Tensor,
    grid: Grid,
    side_mm: float,
    halo_mm: float = 0.0,
    linear_only: bool = False,
    own_scale: bool = False,
) -> Tensor:
    """Encode and render a block [D, H, W] (0 ... 1 scale) patch by patch: [D, H, W] float32.

    The halo is encoded around each patch, inside the block, and then dropped. The last patch along
    an axis may be shorter. With `linear_only` the closed form is rendered without the network; with
    `own_scale` each patch is scaled by its own intensities, as if it were a file of its own.

    Raises:
        InputError: Side, halo or block are no whole number of voxels and latent cells.
    """
    pitch_mm = model.config.latent_spacing_mm
    for name, length_mm in (("block", max(grid.extent_mm)), ("side", side_mm), ("halo", halo_mm)):
        steps = [length_mm / s for s in (pitch_mm, *grid.spacing_mm)]
        if not np.allclose(steps, np.round(steps)):
            raise InputError(f"a {name} of {length_mm:g} mm cuts through latent cells or voxels.")
    rebuild = _on_own_scale if own_scale else rebuilt_whole
    result = torch.empty(x.shape)
    side, halo = (np.rint(mm / np.array(grid.spacing_mm)).astype(int) for mm in (side_mm, halo_mm))
    for low, high in _boxes(grid.shape, side):
        start, stop = np.maximum(low - halo, 0), np.minimum(high + halo, grid.shape)
        around = grid.crop(start, stop - start)
        part = rebuild(model, x[box_between(start, stop)], around, linear_only)
        result[box_between(low, high)] = part[box_between(low - start, high - start)]
    return result


def _on_own_scale(model: LatentAutoencoder, x: Tensor, grid: Grid, linear_only: bool) -> Tensor:
    if x.min() == x.max():  # air alone, which has no scale
        return rebuilt_whole(model, x, grid, linear_only)
    scale = robust_intensity(x)
    return scale.inverse(rebuilt_whole(model, scale.forward(x), grid, linear_only))


def _boxes(shape: tuple[int, ...], side: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First and end index of each patch."""
    corners = [range(0, n, s) for n, s in zip(shape, side, strict=True)]
    for corner in product(*corners):
        low = np.array(corner)
        yield low, np.minimum(low + side, shape)


# Differences


def difference_percent(
    whole: np.ndarray, apart: np.ndarray, mask: np.ndarray, peak: float
) -> float:
    """RMS of the difference inside the mask, in percent of the peak; 0 if they agree."""
    return float(100 * np.sqrt(np.mean((apart - whole)[mask] ** 2)) / peak)


def drift_percent(
    whole: np.ndarray, apart: np.ndarray, mask: np.ndarray, spacing_mm: Triple, peak: float
) -> float:
    """RMS inside the mask of the difference after a Gaussian of `DRIFT_FWHM_MM`, in % of the peak.

    It shows patches that are too bright or too dark as a whole. From 0, lower is better.
    """
    sigma_vox = DRIFT_FWHM_MM / np.sqrt(8 * np.log(2)) / np.asarray(spacing_mm)
    smooth = ndimage.gaussian_filter(apart - whole, sigma_vox, mode="nearest")
    return float(100 * np.sqrt(np.mean(smooth[mask] ** 2)) / peak)


def seam_ratio(
    whole: np.ndarray, apart: np.ndarray, mask: np.ndarray, sides_vox: tuple[int, int, int]
) -> float:
    """Mean absolute step between voxels across patch faces, patches over whole block.

    It is divided by the same ratio away from faces, so that a change everywhere is no seam.
    1 without seams, above 1 with them; NaN where no face (`sides_vox` apart) is in the mask.
    """
    steps = {(what, where): 0.0 for what in ("whole", "apart") for where in (True, False)}
    for axis, side in enumerate(sides_vox):
        n = mask.shape[axis] - 1
        both = mask.take(range(n), axis) & mask.take(range(1, n + 1), axis)
        face = (np.arange(1, n + 1) % side == 0).reshape([-1 if a == axis else 1 for a in range(3)])
        for name, image in (("whole", whole), ("apart", apart)):
            step = np.abs(np.diff(image, axis=axis))
            steps[name, True] += float(step[both & face].sum())
            steps[name, False] += float(step[both & ~face].sum())
    if not (steps["whole", True] > 0 and steps["apart", False] > 0):
        return float("nan")
    at_faces = steps["apart", True] / steps["whole", True]
    return at_faces * steps["whole", False] / steps["apart", False]
