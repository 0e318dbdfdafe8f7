"""A lapped cosine basis: the linear code of audio and image coders, on a 3-D grid.

Cells of 4 bands an axis, of which the lowest 2 are kept, so that 8 products stand for one
cell. Each function is a band-limited prototype (sinc, cos^2 window over two cells to each
side) under a cosine; tails beyond a face are folded back. Coefficients are least squares,
so no other numbers on these functions give a smaller squared error.
"""

from __future__ import annotations

import math

import numpy as np

from medil.grid import Grid
from medil.model.codecs import Coded, checked_codec, coarse_shape, least_squares
from medil.regrid import apply_separable

KEPT = 2  # bands an axis, the lowest of four
REACH = 2.0  # cells to each side
POINTS = 5  # per axis, over which a voxel averages the functions


def lapped(data: np.ndarray, grid: Grid, n_numbers: int) -> Coded:
    """Keep at least `n_numbers` coefficients of the lowest products of a lapped cosine basis.

    Each axis holds an even number of functions, or all its voxels where it has no more of them.
    Arguments, result and errors as for `medil.model.codecs.dct_cube`; `numbers_kept` is the true
    count.

    Source: cosine-modulated lapped transforms (Malvar 1992); the prototype is ours.
    """
    volume = checked_codec(data, grid, n_numbers)
    operators, kept = [], 1
    for n_voxels, wanted in zip(grid.shape, coarse_shape(grid, n_numbers), strict=True):
        n_cells = math.ceil(wanted / KEPT)
        whole = KEPT * n_cells >= n_voxels
        operators.append(np.eye(n_voxels) if whole else least_squares(basis(n_voxels, n_cells)))
        kept *= n_voxels if whole else KEPT * n_cells
    return Coded(apply_separable(volume, operators), kept)


def basis(n_voxels: int, n_cells: int) -> np.ndarray:
    """[n_voxels, KEPT * n_cells]: each function's mean over each voxel of a shared box."""
    inner = (np.arange(POINTS) + 0.5) / POINTS
    position = (np.arange(n_voxels)[:, None] + inner) * n_cells / n_voxels  # in cells, 0 ... n
    columns = []
    for cell in range(n_cells):
        centre = cell + 0.5
        for band in range(KEPT):
            images = (position, -position, 2 * n_cells - position)  # folded at both faces
            columns.append(
                np.sum([_function(x - centre, band) for x in images], axis=0).mean(axis=1)
            )
    return np.stack(columns, axis=1)


def _function(delta: np.ndarray, band: int) -> np.ndarray:
    window = np.where(np.abs(delta) < REACH, np.cos(np.pi * delta / (2 * REACH)) ** 2, 0.0)
    phase = band * np.pi / 2  # a quarter apart: neighbours stay independent where bands meet
    return np.sinc(delta / 2) * window * np.cos(np.pi * (band + 0.5) * delta - phase)
