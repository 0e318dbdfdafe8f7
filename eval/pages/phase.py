"""How the offset between voxels and feature grid changes the score of an interpolation rule.

No training: the features are the object's own averages around each node, the best that a
perfect encoder could store there, and each rule reads voxels out of them. The object is a
phantom, so the truth is known at every phase.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import spline_filter

from eval.metrics import psnr
from medil.config import ModelConfig
from medil.grid import Grid, centres_mm
from medil.layers import projection as resample
from medil.layers.bases import cubic_bspline, local_fourier
from medil.synth.phantom import Phantom, render

MODEL = ModelConfig()
PITCH_MM = MODEL.latent_spacing_mm / MODEL.fine_per_latent  # of the feature grid
SUPERSAMPLE = 2  # points an axis whose mean stands for a cell
RULES = ("trilinear", "cubic spline")


def voxel_grid(centre_mm: Sequence[float], side_mm: float, spacing_mm: float) -> Grid:
    """Cubic voxels in a box; the first centre lies half a voxel inside its corner."""
    count = int(side_mm / spacing_mm)
    first_mm = np.asarray(centre_mm) - side_mm / 2 + spacing_mm / 2
    return Grid.from_spacing((count,) * 3, spacing_mm, first_mm)


def feature_grid(voxels: Grid, phase: Sequence[float], pitch_mm: float = PITCH_MM) -> Grid:
    """Nodes of one pitch around a box of voxels, two to spare at each end.

    `phase`: cells from the first voxel's centre back to a node, 0 ... 1 per axis.
    """
    first_mm = voxels.affine_vox2ras[:3, 3] - (np.asarray(phase) + 2) * pitch_mm
    shape = np.ceil(np.array(voxels.extent_mm) / pitch_mm).astype(int) + 5
    return Grid.from_spacing(shape.tolist(), pitch_mm, first_mm)


def scores(
    phantom: Phantom,
    voxels: Grid,
    phases: Sequence[Sequence[float]],
    pitch_mm: float = PITCH_MM,
) -> dict[str, np.ndarray]:
    """PSNR in dB of each rule at each phase; infinite for an exact copy.

    The phantom's values span about 0 ... 1; voxels lie inside it.
    """
    truth = render(phantom, voxels, SUPERSAMPLE).double()
    everywhere = np.ones(voxels.shape, dtype=bool)
    scores_db = {rule: np.empty(len(phases)) for rule in RULES}
    for n, phase in enumerate(phases):
        nodes = feature_grid(voxels, phase, pitch_mm)
        features = render(phantom, nodes, SUPERSAMPLE).double()
        for rule in RULES:
            read = read_at_centres(features, nodes, voxels, rule)
            scores_db[rule][n] = psnr(truth.numpy(), read.numpy(), everywhere, peak=1.0)
    return scores_db


def read_at_centres(features: torch.Tensor, nodes: Grid, voxels: Grid, rule: str) -> torch.Tensor:
    """[D, H, W] at voxel centres of the function that passes through every feature [d, h, w]."""
    basis = local_fourier(0)
    if rule != "trilinear":  # beyond the ends the last coefficient goes on
        basis = cubic_bspline()
        features = torch.from_numpy(spline_filter(features.numpy(), order=3, mode="reflect"))
    points = centres_mm(voxels).reshape(-1, 3)
    values = resample.synthesise_points(features[(None,) * 5], basis, nodes, points)
    return values.reshape(voxels.shape)
