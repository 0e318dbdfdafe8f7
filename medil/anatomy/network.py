"""The segmenter's network: a small U-Net that works at 2 mm and answers at 1 mm.

Blocks of 2 x 2 x 2 voxels are folded into channels, which spares the costly layers at 1 mm.
Norms are over the channels of a voxel, so a patch and the whole brain agree.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.anatomy.classes import CLASSES
from medil.anatomy.config import SegmenterConfig
from medil.layers.blocks import (
    ChannelNorm,
    Conv3d,
    depth_to_space,
    init_weights,
    residual_blocks,
    space_to_depth,
)

FOLD = 2  # voxels per cell of the finest level along each axis
PLACE_MM = 50.0  # positions are in units of this


class TissueNet(nn.Module):
    """Scores of tissue classes from intensities and positions.

    Args:
        config: Widths and depths of the levels; each level halves the one before.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.weights_id = ""  # digest of trained weights
        self.facts: dict[str, Any] = {}  # of the run that trained them
        widths, depths, voxel = config.widths, config.depths, config.width_voxel
        self.unit = FOLD * 2 ** (len(widths) - 1)  # sides must be multiples of it
        self.stem = Conv3d(FOLD**3 + 3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(map(residual_blocks, widths, depths))
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv3d(8 * fine, coarse, 1) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.up_blocks = nn.ModuleList(map(residual_blocks, widths, depths[:-1]))
        self.unfold = nn.Conv3d(widths[0], voxel * FOLD**3, 1)
        self.voxel = Conv3d(1, voxel, 3, padding=1)
        self.head = nn.Sequential(
            ChannelNorm(voxel), nn.SiLU(), Conv3d(voxel, len(CLASSES), 3, padding=1)
        )
        init_weights(self)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """[B, 1, D, H, W] intensities, 0 in air, to [B, classes, D, H, W] scores.

        Args:
            x: Sides are multiples of `unit`.
            place: [B, 3, D/2, H/2, W/2], see `positions`.
        """
        cells = self.stem(torch.cat([space_to_depth(x, FOLD), place], dim=1))
        kept = []
        for blocks, down in zip(self.down_blocks, [*self.down, None], strict=True):
            cells = blocks(cells)
            kept.append(cells)
            if down is not None:
                cells = down(space_to_depth(cells, 2))
        cells = kept.pop()
        for up, blocks in zip(reversed(self.up), reversed(self.up_blocks), strict=True):
            finer = functional.interpolate(up(cells), scale_factor=2, mode="nearest")
            cells = blocks(kept.pop() + finer)
        scores: Tensor = self.head(depth_to_space(self.unfold(cells), FOLD) + self.voxel(x))
        return scores


def positions(shape: tuple[int, ...], offset_mm: Tensor, axes: Tensor) -> Tensor:
    """Positions of the cells of the finest level, in units of `PLACE_MM`: [3, d, h, w].

    Args:
        shape: Voxels of 1 mm along each axis, multiples of `FOLD`.
        offset_mm: [3] (R, A, S) from the middle of the brain to the first voxel's centre.
        axes: [3, 3] steps in (R, A, S) mm from voxel to voxel, one per column.
    """
    steps = [FOLD * torch.arange(n // FOLD) + (FOLD - 1) / 2 for n in shape]
    index_vox = torch.stack(torch.meshgrid(*steps, indexing="ij"))  # [3, d, h, w]
    place_mm = torch.einsum("ij,jdhw->idhw", axes.to(index_vox), index_vox)
    return (place_mm + offset_mm.to(index_vox)[:, None, None, None]) / PLACE_MM
