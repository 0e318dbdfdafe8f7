"""Tissue classes of a T1w brain: the segmenter, and its weights in and out.

It was trained on painted heads alone, whose tissue maps are exact. A scan is averaged to 1 mm
along its axes; the network gives every voxel of the brain shares of the classes, and intensities
sharpen them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from medil.anatomy.classes import SPACING_MM, LabelMap
from medil.anatomy.config import SegmenterRun, segmenter_preset
from medil.anatomy.intensities import ROUNDS, sharpened
from medil.anatomy.network import TissueNet, positions
from medil.data.releases import release_path
from medil.errors import InputError
from medil.formats import SEGMENTER
from medil.grid import Grid
from medil.io.intensity import replace_nonfinite, robust_intensity
from medil.model.weights import readable, with_weights, write_weights
from medil.regrid import cell_average, resample
from medil.system.tensors import read_tensors
from medil.volume import Volume

RELEASE_NAME = "{}-segmenter"  # name of a preset's released weights
MARGIN_VOX = 4  # air around the brain that the network sees


def segment(volume: Volume, network: TissueNet | None = None) -> LabelMap:
    """The tissue map of a skull-stripped T1w brain.

    Args:
        volume: Intensities of any scale. Air is 0, or where some are negative the commonest value,
            or NaN.
        network: The released one when None.

    Returns:
        The map in voxels of 1 mm over the scan's box, along its axes. Air is air of the scan.

    Raises:
        InputError: The scan is constant, not finite, or has no air, as a raw head that fills
            its box has not.
    """
    return brain_shares(volume, network or load_segmenter_release()).tissue_map()


@dataclass(frozen=True)
class BrainShares:
    """What a network says of a brain, in a box of voxels of 1 mm around it.

    Args:
        shares: [classes without air, D, H, W] float32; they sum to 1.
        data: [D, H, W] float32, 0 ... 1.
        brain: [D, H, W] bool.
        pads: What `functional.pad` was given to cut the box out of `grid`.
        grid: The scan's box in voxels of 1 mm.
    """

    shares: Tensor
    data: Tensor
    brain: Tensor
    pads: tuple[int, ...]
    grid: Grid

    def tissue_map(self, rounds: int = ROUNDS) -> LabelMap:
        """The map on `grid`, sharpened by intensities; 0 rounds leave the network's own."""
        shares = sharpened(self.shares, self.data, self.brain, rounds)
        labels = torch.where(self.brain, shares.argmax(0).to(torch.uint8) + 1, 0)
        return LabelMap(functional.pad(labels, [-p for p in self.pads]), self.grid)


@torch.inference_mode()
def brain_shares(volume: Volume, network: TissueNet) -> BrainShares:
    """Ask a network for the shares of the classes.

    Raises:
        InputError: As `segment`.
    """
    data, grid, brain = at_one_mm(volume)
    box = ndimage.find_objects(brain.numpy().astype(np.uint8))[0]
    start = [s.start - MARGIN_VOX for s in box]
    unit = network.unit
    shape = [-(-(s.stop - s.start + 2 * MARGIN_VOX) // unit) * unit for s in box]
    pads = [(-a, a + n - whole) for a, n, whole in zip(start, shape, grid.shape, strict=True)]
    flat = tuple(p for pair in reversed(pads) for p in pair)  # negative ones cut off
    data, inside = functional.pad(data, flat), functional.pad(brain, flat)
    scores = _scores(network, data, inside, grid)
    return BrainShares(functional.softmax(scores[1:], dim=0), data, inside, flat, grid)


def _scores(network: TissueNet, data: Tensor, brain: Tensor, grid: Grid) -> Tensor:
    """[classes, D, H, W] of a box whose voxels have 1 mm."""
    middle = torch.from_numpy(np.array(ndimage.center_of_mass(brain.numpy())))
    axes = torch.from_numpy(grid.directions.copy())
    place = positions(tuple(data.shape), -(axes @ middle), axes)
    scores: Tensor = network(data[None, None], place[None])
    return scores[0]


def at_one_mm(volume: Volume) -> tuple[Tensor, Grid, Tensor]:
    """A scan in voxels of 1 mm along its axes, 0 ... 1, and where it is not air.

    Returns:
        [D, H, W] float32, its grid, and [D, H, W] bool.

    Raises:
        InputError: As `segment`.
    """
    data = volume.data.float()
    finite = data[torch.isfinite(data)]
    is_magnitude = not len(finite) or float(finite.min()) >= 0
    air = 0.0 if is_magnitude else float(finite.mode().values)
    data, _ = replace_nonfinite(data, background=air)
    is_brain = data != air
    if bool(is_brain.all()):
        raise InputError("the scan has no air of one value; give a skull-stripped brain.")
    scaled = robust_intensity(data - air).forward(data - air) * is_brain
    grid = volume.grid.covering(SPACING_MM)
    if volume.grid.is_close(grid):
        return scaled, volume.grid, is_brain
    share = torch.from_numpy(cell_average(is_brain.numpy(), volume.grid, grid))
    mean = torch.from_numpy(resample(scaled.numpy(), volume.grid, grid))
    brain = share > 0.5
    return torch.where(brain, mean.clamp(min=1e-3), 0.0).float(), grid, brain


# Weights in and out


def save_segmenter(
    network: TissueNet, config: SegmenterRun, path: Path, facts: dict[str, Any]
) -> Path:
    """Write weights in half precision, with configuration and facts; replaces what is there."""
    return write_weights(path, network, SEGMENTER, config, facts)


def load_segmenter(path: str | Path) -> TissueNet:
    """The network of a file of `save_segmenter`, in evaluation mode.

    Raises:
        InputError: Unreadable, of another format, or not fitting its own configuration.
    """
    tensors, meta = read_tensors(path, SEGMENTER)
    with readable(path):
        config = SegmenterRun.from_json(meta["config"])
    return with_weights(partial(TissueNet, config.model), tensors, meta, path)


def load_segmenter_release(name: str = "tiny") -> TissueNet:
    """A released segmenter by the name of its preset; see `medil.data.releases.release_path`.

    Raises:
        InputError: No such preset, one that has not been trained yet, or no copy of its weights.
    """
    segmenter_preset(name)
    return load_segmenter(release_path(RELEASE_NAME.format(name)))
