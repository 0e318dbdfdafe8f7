"""Scored blocks of the ablation: what a block asks, under which conditions, and its file.

Blocks lie inside brains that nobody trains on, on grids of several voxel sizes, each at a
random phase against the latent grid: voxel centres that coincide with it would flatter
interpolation. The phase belongs to the block, so every arm answers the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval import heads as synthetic
from eval.arms.catalogue import Size
from eval.metrics import brain_mask
from medil.grid import Grid
from medil.io.intensity import Intensity
from medil.training.patches import coarser

FOLDER = Path("_build/ablation/data")
VERSION = 1  # part of every hash: raise it when other volumes are drawn
NATIVE = "0.87 x 0.87 x 1 mm"  # of the brains of ds002748
SCORED_MM = {
    "0.8 mm": (0.8, 0.8, 0.8),
    NATIVE: (0.868, 0.868, 1.0),
    "1 mm": (1.0, 1.0, 1.0),
    "1.5 mm": (1.5, 1.5, 1.5),
    "2 mm": (2.0, 2.0, 2.0),
    "1 x 1 x 3 mm": (1.0, 1.0, 3.0),
}
DECIMALS = 3  # of real voxel sizes in mm: the rest is rounding in files, and would change shapes
FINER = "2 mm -> 1 mm"
WHOLE = "whole block"
CONDITIONS = (*SCORED_MM, FINER)
SIDE_MM, WHOLE_MM = 40.0, 56.0
PLACES = 2  # blocks of one subject; averaged before any statistics


@dataclass(frozen=True)
class Question:
    """Encode `x`, render `target`, compare with `truth` in `mask`."""

    subject: str
    data_sha256: str  # of the recipe that made the block
    condition: str  # one of `CONDITIONS`, or `WHOLE`
    x: Tensor  # [D, H, W] on `grid`, 0 ... 1 scale
    grid: Grid  # axes along RAS+
    truth: Tensor  # [D', H', W'] on `target`
    target: Grid  # parallel to `grid`
    mask: Tensor  # [D', H', W'] bool, the brain
    phase: tuple[float, float, float]  # where latent cells begin before the block, 0 ... 1 cells
    side_mm: float = SIDE_MM  # nominal, sets the number of latent cells

    def latent_grid(self, pitch_mm: float) -> Grid:
        """The latent grid of the block: one cell more an axis than its side, at its phase."""
        corner_mm = self.grid.bounds_mm[0]
        return synthetic.cells_at_phase(corner_mm, self.side_mm, self.phase, pitch_mm)

    def latent_numbers(self, size: Size) -> int:
        """How many numbers a latent of a size keeps of the block."""
        return size[1] * self.latent_grid(size[0]).n_voxels


def question_of(
    name: str, recipe: str, condition: str, data: Tensor, grid: Grid, scaling: Intensity,
    rng: np.random.Generator,
) -> Question:  # fmt: skip
    """The question that one block of unscaled data asks, at a random phase."""
    mask = torch.from_numpy(brain_mask(data.numpy()))
    truth = scaling.forward(data)
    a, b, c = rng.random(3)
    x, x_grid = truth, grid
    if condition == FINER:
        averaged, x_grid = coarser(truth[None, None], grid, (2, 2, 2))
        x = averaged[0, 0]
    side_mm = WHOLE_MM if condition == WHOLE else SIDE_MM
    return Question(name, recipe, condition, x, x_grid, truth, grid, mask, (a, b, c), side_mm)


def inside(brain: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """[3] middle, in mm, of a random block that is mostly brain."""
    return synthetic.mostly_brain(brain, grid, SIDE_MM, rng, 40, 0.8)


# Files


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Keep questions of one subject in a safetensors file."""
    tensors: dict[str, Tensor] = {}
    facts = []
    for i, q in enumerate(questions):
        tensors |= {f"{i}.truth": q.truth, f"{i}.mask": q.mask}
        if q.x is not q.truth:
            tensors[f"{i}.x"] = q.x
        grids = [[g.shape, g.affine_vox2ras.tolist()] for g in (q.grid, q.target)]
        facts.append([q.subject, q.data_sha256, q.condition, grids, q.phase, q.side_mm])
    synthetic.write(path, tensors, facts)


def read_questions(path: Path) -> list[Question]:
    """What `write_questions` wrote."""
    (tensors, facts), questions = synthetic.read(path), []
    for i, (subject, sha256, condition, grids, phase, side_mm) in enumerate(facts):
        grid, target = (Grid(tuple(shape), np.array(affine)) for shape, affine in grids)
        truth, mask = tensors[f"{i}.truth"], tensors[f"{i}.mask"]
        x = tensors.get(f"{i}.x", truth)
        about = subject, sha256, condition, x, grid, truth, target, mask
        questions.append(Question(*about, tuple(phase), side_mm))
    return questions
