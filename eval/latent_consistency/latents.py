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
    """One way from voxels to a latent and back.

    Args:
        name: Arm, as in the rows.
        encode: [1, 1, D, H, W], its grid and a latent grid to [1, C, d, h, w].
        decode: A latent, its grid and a voxel grid to [1, 1, D, H, W].
    """

    name: str
    encode: Callable[[Tensor, Grid, Grid], Tensor]
    decode: Callable[[Tensor, Grid, Grid], Tensor]

    def latent(self, data: np.ndarray, grid: Grid, cells: Grid) -> Tensor:
        """[D, H, W] on a grid to [C, d, h, w] on latent cells."""
        return self.encode(torch.from_numpy(data).float()[None, None], grid, cells)[0]

    def rendering(self, z: Tensor, cells: Grid, grid: Grid) -> np.ndarray:
        """[C, d, h, w] on latent cells to [D, H, W] float64 on a grid."""
        return self.decode(z[None], cells, grid)[0, 0].double().numpy()


def coders(model: LatentAutoencoder, name: str = MEDIL) -> list[Coder]:
    """One for each of the model's `arms` under its name in the rows."""

    def mean(x: Tensor, grid: Grid, cells: Grid) -> Tensor:
        return model.encode_tensor(x, grid, cells)[0]

    ends = [(mean, model.decode_tensor), (model.splines.project, model.splines.render)]
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


# How far two latents of the same cells lie apart


def latent_rms(reference: Tensor, other: Tensor) -> float:
    """Root mean square difference of [C, n] latents, ||a - b|| / sqrt(C n): lower is closer.

    Tables divide it by its mean between heads: 0 where the latent is kept, about 1 where it
    could be another head's.
    """
    return (reference - other).double().square().mean().sqrt().item()


def latent_l2(reference: Tensor, other: Tensor) -> float:
    """Relative L2 distance of [C, n] latents, ||a - b|| / ||a - m||: lower is closer.

    m is the mean of each channel of `reference`; about sqrt 2 for unrelated latents.
    """
    spread = (reference - reference.mean(1, keepdim=True)).double().norm()
    return ((reference - other).double().norm() / spread).item()


def latent_cosine(reference: Tensor, other: Tensor) -> float:
    """Cosine between two centred [C, n] latents, -1 ... 1: higher is closer, 0 if unrelated.

    Both are centred by the channel means of `reference`.
    """
    centre = reference.mean(1, keepdim=True)
    a, b = (reference - centre).double().flatten(), (other - centre).double().flatten()
    return (a @ b / (a.norm() * b.norm())).item()


def differences(reference: Tensor, other: Tensor) -> dict[str, float]:
    """All three by the names they have in rows."""
    return {
        "latent_rms": latent_rms(reference, other),
        "latent_l2": latent_l2(reference, other),
        "latent_cosine": latent_cosine(reference, other),
    }
