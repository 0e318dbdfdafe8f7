"""A small appearance flow with random weights, and a scan's label map to sample."""

from __future__ import annotations

import numpy as np
import torch

from medil.diffusion.appearance import AppearanceFlow, AppearanceStatistics
from medil.diffusion.config import APPEARANCE_PRESETS
from medil.grid import Grid
from medil.synth.attributes import Spread
from tests.images import LABELS_ORIGIN_MM, LABELS_SHAPE, toy_labels, write_nifti

SPREADS = {"contrast": Spread(1.4, 0.1, 1.2, 1.6), "real": Spread(0.7, 0.4, 0.0, 1.0)}


def random_flow(autoencoder_id: str = "") -> AppearanceFlow:
    """A flow of 8 channels, whose random weights make all that it sees matter."""
    air = torch.zeros(8)
    air[0] = -1.1
    known = AppearanceStatistics(
        torch.zeros(8), torch.full((8,), 0.2), air, 4.0, SPREADS, autoencoder_id
    )
    torch.manual_seed(0)
    flow = AppearanceFlow(APPEARANCE_PRESETS["test"].model, known).eval()
    with torch.no_grad():
        for weights in flow.parameters():
            weights += 0.1 * torch.randn_like(weights)
    return flow


def labels_file(folder, name: str = "aseg.nii.gz"):
    """A map in FreeSurfer's numbers on an oblique LPS grid."""
    grid = Grid.from_spacing(LABELS_SHAPE, 1.0, LABELS_ORIGIN_MM).rotated((1, 2, -0.5), 17.0)
    placed, _ = grid.reoriented("LPS")
    stored = np.ascontiguousarray(toy_labels(np.array([4.0, 2, 1]), 6.0)[::-1, ::-1])
    return write_nifti(folder / name, stored, placed.affine_vox2ras)
