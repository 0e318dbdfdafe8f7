"""A linear decoder that sees its neighbours: B-splines, and what nearby cells say of their error.

    python -m eval.coders.neighbours     # fit it again: minutes on one thread

Kept are the least-squares cubic B-splines of a latent's size, 8 numbers a cell of 4 mm. A ridge
regression from the coefficients of the 27 cells around a cell adds 64 numbers a cell: a 3x3x3
convolution without bias whose output is the splines of a 1 mm grid. So both ends are linear, and
a model must beat what linear context alone can do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from eval import heads
from eval.metrics import brain_mask, peak_intensity
from medil.data.manifest import entries, fetch
from medil.grid import Grid
from medil.layers.bases import cubic_bspline
from medil.layers.blocks import depth_to_space, space_to_depth
from medil.layers.projection import least_squares, synthesise
from medil.regrid import cell_average
from medil.system.checkout import commit
from medil.system.tensors import tensors_sha256
from medil.volume import Volume, load

NAME = "bspline_neighbours"  # the arm
PITCH_MM, CHANNELS = 4.0, 8  # of the latent that it is fitted for
KEPT, ADDED = 2, 4  # splines a cell and axis: those that are kept, those that are added
ROUGHNESS = 1e-4  # penalty on second differences: joins voxels coarser than the splines
SIZE = (PITCH_MM, CHANNELS)
RIDGE = 1e-6  # of the mean diagonal; the regression has far more cells than numbers
DATA = "ds002748"
FILE = Path(__file__).with_suffix(".safetensors")


def cells_of(grid: Grid) -> Grid:
    """As many latent cells as a model lays over a volume, from the same corner, that just fill it.

    They are at most a little smaller than a model's, whose last cells reach beyond the box. The
    codecs of `medil.model.codecs` spread their numbers over the box alone as well.
    """
    return grid.resized(grid.covering(PITCH_MM).shape)


def coefficients(data: np.ndarray, grid: Grid, cells: Grid) -> Tensor:
    """[1, 8, d, h, w] float64: the least-squares splines of a volume, folded cell by cell."""
    return space_to_depth(_fitted(data, grid, _inner(cells, KEPT)), KEPT)


def render(kept: Tensor, cells: Grid, weight: Tensor, grid: Grid) -> np.ndarray:
    """[D, H, W] float64 on any grid: the splines that are kept, and those that are added.

    Args:
        kept: [1, 8, d, h, w] on `cells`.
        cells: Latent cells.
        weight: [64, 8, 3, 3, 3]; zeros leave the splines alone.
        grid: To render on; each voxel is a mean over its cell.
    """
    padded = functional.pad(kept, (1,) * 6, mode="replicate")
    added = functional.conv3d(padded, weight.to(kept))
    parts = (_rendered(kept, cells, KEPT, grid), _rendered(added, cells, ADDED, grid))
    return parts[0] + parts[1]


def _inner(cells: Grid, factor: int) -> Grid:
    return cells.resized([factor * n for n in cells.shape])


def _fitted(data: np.ndarray, grid: Grid, nodes: Grid) -> Tensor:
    values = torch.from_numpy(np.asarray(data, dtype=np.float64))[None, None]
    return least_squares(values, cubic_bspline(), grid, nodes, ROUGHNESS)


def _rendered(folded: Tensor, cells: Grid, factor: int, grid: Grid) -> np.ndarray:
    spline = depth_to_space(folded, factor)[:, :, None, None, None]
    return synthesise(spline, cubic_bspline(), _inner(cells, factor), grid)[0, 0].numpy()


# The fit


def fit(volumes: Iterable[Volume]) -> Tensor:
    """[64, 8, 3, 3, 3] float32: the regression over every cell that holds some brain.

    Each volume is averaged onto the grid of 1 mm or a little less inside its own latent cells, so
    that its voxel size does not matter, and scaled by its peak. Coefficients enter less the mean
    of their cell's own: of a constant volume the regression adds nothing.
    """
    gram = targets = torch.zeros(())
    for volume in volumes:
        x, y = _equations(volume)
        gram, targets = gram + x.T @ x, targets + x.T @ y
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram + ridge, targets).T  # [64, 216]
    solved = solved - solved.sum(1, keepdim=True) * _own_mean()  # now it takes whole coefficients
    return solved.unflatten(1, (CHANNELS, 3, 3, 3)).float().contiguous()


def _equations(volume: Volume) -> tuple[Tensor, Tensor]:
    """[cells, 216] neighbouring coefficients, and the [cells, 64] that they should add."""
    data = volume.data.double().numpy()
    brain = brain_mask(data)
    cells = cells_of(volume.grid)
    inner = _inner(cells, ADDED)
    scaled = cell_average(data / peak_intensity(data, brain), volume.grid, inner)
    kept = coefficients(scaled, inner, cells)
    missing = _fitted(scaled - _rendered(kept, cells, KEPT, inner), inner, inner)
    used = torch.from_numpy(cell_average(brain.astype(float), volume.grid, cells) > 0)
    near = functional.pad(kept, (1,) * 6, mode="replicate")[0]
    near = near.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # [8, d, h, w, 3, 3, 3]
    x = near.movedim(0, 3)[used].flatten(1)  # [cells, 8 27]
    x = x - (x @ _own_mean())[:, None]
    return x, space_to_depth(missing, ADDED)[0].movedim(0, -1)[used]


def _own_mean() -> Tensor:
    """[216] weights that take the mean of the middle cell's own coefficients."""
    weights = torch.zeros(CHANNELS, 27, dtype=torch.float64)
    weights[:, 13] = 1 / CHANNELS
    return weights.flatten()


# The fit that comes with the repository


@lru_cache(maxsize=1)
def fitted() -> Tensor:
    """[64, 8, 3, 3, 3] float32, fitted on the people of `DATA` that may be trained on."""
    return heads.read(FILE)[0]["weight"]


def fitted_sha256() -> str:
    """The digest of those numbers."""
    return tensors_sha256({"weight": fitted()})


def main() -> None:
    """Fit on every training brain, and write the numbers with their facts."""
    argparse.ArgumentParser(
        prog="python -m eval.coders.neighbours", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()  # fmt: skip
    torch.set_num_threads(1)  # sums in one order
    people = entries(DATA, "train")
    weight = fit(load(fetch(entry)) for entry in tqdm(people, unit="brain"))
    facts = {"data": [entry.sha256 for entry in people], "commit": commit(), "ridge": RIDGE}
    heads.write(FILE, {"weight": weight}, facts | {"roughness": ROUGHNESS})


if __name__ == "__main__":
    main()
