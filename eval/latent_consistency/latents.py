"""Latents on cells of known place: encoding onto them, bringing them there, comparing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eval.coders.base import MEDIL
from eval.latent_consistency.conditions import MARGIN_CELLS, PHASE_MM, arms
from medil.grid import Grid, centres_mm
from medil.model.base import LatentAutoencoder


@dataclass(frozen=True)
class Coder:
    """One way from voxels to a latent and back."""

    name: str  # the arm, as in the rows
    encode: Callable[[Tensor, Grid, Grid], Tensor]  # voxels, their grid, cells -> [1, C, d, h, w]
    decode: Callable[[Tensor, Grid, Grid], Tensor]  # latent, its cells, a grid -> [1, 1, D, H, W]

    def latent(self, data: np.ndarray, grid: Grid, cells: Grid) -> Tensor:
        """[D, H, W] on a grid to [C, d, h, w] on latent cells."""
        return self.encode(torch.from_numpy(data).float()[None, None], grid, cells)[0]

    def rendering(self, z: Tensor, cells: Grid, grid: Grid) -> np.ndarray:
        """[C, d, h, w] on latent cells to [D, H, W] float64 on a grid."""
        return self.decode(z[None], cells, grid)[0, 0].double().numpy()


def coders(model: LatentAutoencoder, name: str = MEDIL) -> list[Coder]:
    """One for each of the model's `arms` under its name in the rows."""
    ends = [
        (lambda *scan: model.encode_tensor(*scan)[0], model.decode_tensor),
        (model.splines.project, model.splines.render),
    ]
    return [Coder(arm, *both) for arm, both in zip(arms(model, name), ends, strict=False)]


def latent_grid(block: Grid, pitch_mm: float) -> Grid:
    """Latent cells over the block and one more an axis, at an odd phase to its voxels."""
    covering = block.covering(pitch_mm)
    wider = covering.crop((0, 0, 0), [n + 1 for n in covering.shape])
    return wider.shifted(block.directions @ (np.asarray(PHASE_MM) - pitch_mm / 2))


def transport(
    model: LatentAutoencoder, z: Tensor, cells: Grid, common: Grid, voxels: Grid
) -> Tensor:
    """Resample a latent [C, d, h, w] from `cells` onto `common`, in closed form.

    Its splines are rendered on `voxels` (parallel to `common`), then projected.
    """
    return model.splines.project(model.splines.render(z[None], cells, voxels), voxels, common)[0]


def turned_with(cells: Grid, block: Grid, header: Grid) -> Grid:
    """Latent cells that follow a header when it moves the block rigidly."""
    motion = header.affine_vox2ras @ np.linalg.inv(block.affine_vox2ras)
    return Grid(cells.shape, motion @ cells.affine_vox2ras)


def counted(cells: Grid, boxes: Sequence[Grid]) -> Tensor:
    """[d, h, w] bool: cells whose centres lie `MARGIN_CELLS` inside the box of every scan."""
    centres = centres_mm(cells).numpy()
    inside = np.ones(cells.shape, dtype=bool)
    for box in boxes:
        index = box.ras_to_index(centres)
        to_face_vox = np.minimum(index + 0.5, np.asarray(box.shape) - 0.5 - index)
        to_face_mm = to_face_vox * box.spacing_mm
        inside &= (to_face_mm >= MARGIN_CELLS * max(cells.spacing_mm)).all(-1)
    return torch.from_numpy(inside)


def differences(reference: Tensor, other: Tensor) -> dict[str, float]:
    """How far two latents a and b, [C, n] on the same cells, lie apart; m is a's channel means.

    - `latent_rms`: ||a - b|| / sqrt(C n). Tables divide it by its mean between heads: 0 where the
      latent is kept, about 1 where it could be another head's.
    - `latent_l2`: ||a - b|| / ||a - m||, about sqrt 2 for unrelated latents.
    - `latent_cosine`: between a - m and b - m, -1 ... 1; higher is closer, 0 if unrelated.
    """
    centre = reference.mean(1, keepdim=True)
    a, b = ((z - centre).double().flatten() for z in (reference, other))
    apart = (reference - other).double()
    return {
        "latent_rms": apart.square().mean().sqrt().item(),
        "latent_l2": (apart.norm() / a.norm()).item(),
        "latent_cosine": (a @ b / (a.norm() * b.norm())).item(),
    }
