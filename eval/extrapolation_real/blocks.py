"""One block of a test brain, as scanned and averaged to 1 mm, both in one frame.

The 1 mm voxels are exact means over the scan's cells. Latent cells begin at a random phase, as in
training: from the corner, where 1 mm voxels would fill them exactly, a network on a 1 mm grid
would not have to resample at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from eval import heads
from eval.metrics import brain_mask
from eval.rows import digest
from medil.data.manifest import Entry, fetch
from medil.grid import Grid
from medil.regrid import cell_average
from medil.volume import Volume, load, robust_intensity

VERSION = 1  # part of every hash: raise it when other blocks are cut
SEED = 6011
SIDE_MM = 80  # of the 1 mm block
MARGIN_MM = 4.0  # of its faces, where nothing is scored: a latent cell
NATIVE, COARSE = "native", "1 mm"
CONDITIONS = {  # what is encoded, what is rendered
    "1 mm -> native": (COARSE, NATIVE),
    "native -> native": (NATIVE, NATIVE),
    "1 mm -> 1 mm": (COARSE, COARSE),
}


@dataclass(frozen=True)
class Brain:
    """One block at both voxel sizes, on the 0 ... 1 scale."""

    volumes: dict[str, Volume]  # by `NATIVE` and `COARSE`
    phase: tuple[float, float, float]  # where latent cells begin before the block, in cells

    def mask(self, name: str) -> np.ndarray:
        """[D, H, W] bool: the brain, `MARGIN_MM` from the faces of the 1 mm block."""
        volume, box = self.volumes[name], self.volumes[COARSE].grid
        mask = brain_mask(volume.data.numpy())
        for axis in range(3):
            place_mm = volume.grid.axis_offsets_mm(axis, box) + box.spacing_mm[axis] / 2
            inside = (place_mm > MARGIN_MM) & (place_mm < box.extent_mm[axis] - MARGIN_MM)
            mask = mask & np.moveaxis(inside[:, None, None], 0, axis)
        return mask

    def latent_grid(self, pitch_mm: float) -> Grid:
        """Latent cells over the block, at its phase."""
        corner_mm = self.volumes[COARSE].grid.bounds_mm[0]
        return heads.cells_at_phase(corner_mm, SIDE_MM, self.phase, pitch_mm)

    def scan_on(self, grid: Grid) -> np.ndarray:
        """[D, H, W] float64: the block on one of its own grids."""
        (volume,) = (v for v in self.volumes.values() if v.grid.is_close(grid))
        return volume.data.double().numpy()


def block_sha256(entry: Entry) -> str:
    """The hash of a block's recipe."""
    return digest([VERSION, entry.sha256, SEED, SIDE_MM, MARGIN_MM])


def block_of(entry: Entry) -> Brain:
    """The block of a test brain: mostly brain, at a random phase; the same every time."""
    return brain_block(load(fetch(entry)), int(block_sha256(entry)[:8], 16))


def brain_block(volume: Volume, seed: int) -> Brain:
    """A random block, mostly brain, of a stripped scan; axes as those of the voxels."""
    spacing_mm = np.round(volume.grid.spacing_mm, 3)  # the rest is rounding in files
    whole = Grid.from_spacing(volume.grid.shape, spacing_mm.tolist())
    data = robust_intensity(volume.data).forward(volume.data)
    rng = np.random.default_rng([SEED, seed])
    brain = brain_mask(volume.data.numpy())
    middle_mm = heads.mostly_brain(brain, whole, SIDE_MM, rng, 60, 0.7)
    shape = np.floor(SIDE_MM / spacing_mm + 1e-6).astype(int)
    start = np.rint(whole.ras_to_index(middle_mm) - (shape - 1) / 2).astype(int)
    start = np.clip(start, 0, np.array(whole.shape) - shape)
    native = whole.crop(start, shape)
    coarse = Grid.from_spacing([SIDE_MM] * 3, 1.0, native.centre_mm - (SIDE_MM - 1) / 2)
    i, j, k = (slice(a, a + n) for a, n in zip(start.tolist(), shape.tolist(), strict=True))
    means = torch.from_numpy(cell_average(data.double().numpy(), whole, coarse)).float()
    a, b, c = rng.random(3)
    volumes = {NATIVE: Volume(data[i, j, k].clone(), native), COARSE: Volume(means, coarse)}
    return Brain(volumes, (a, b, c))
