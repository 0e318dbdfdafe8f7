"""Training heads and scored blocks of the ablation, drawn once and kept in a folder.

Training heads come from label maps of the train split, each scanned on one isotropic grid.
Scored are small blocks inside held-out brains, on grids of several voxel sizes, each at a
random phase against the latent grid: voxel centres that coincide with it would flatter
interpolation. The phase belongs to the block, so every arm answers the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval import heads as synthetic
from eval.arms.catalogue import Size
from eval.metrics import brain_mask
from eval.rows import digest
from eval.subjects import template_subject
from medil.data.manifest import Entry, fetch, local_entries
from medil.data.samples import map_sha256
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.system.workers import call_each
from medil.training.patches import Scan, coarser
from medil.volume import load

FOLDER = Path("_build/ablation/data")
VERSION = 1  # part of every hash: raise it when other volumes are drawn
TRAIN_SEED, TEST_SEED = 3000, 4007
TRAIN_MM = (1.0, 0.9, 1.6, 1.1, 1.3, 1.0, 2.0)  # in turn; other sizes are scored unseen
SCORED_MM = {
    "0.8 mm": (0.8, 0.8, 0.8),
    "1 mm": (1.0, 1.0, 1.0),
    "1.5 mm": (1.5, 1.5, 1.5),
    "2 mm": (2.0, 2.0, 2.0),
    "1 x 1 x 3 mm": (1.0, 1.0, 3.0),
}
AVERAGED = {"1 mm": (1, 1, 1), "2 mm": (2, 2, 2), "1 x 1 x 3 mm": (1, 1, 3)}  # of a real 1 mm scan
FINER = "2 mm -> 1 mm"
WHOLE = "whole block"
CONDITIONS = (*SCORED_MM, FINER)
SIDE_MM, WHOLE_MM = 40.0, 56.0
PLACES = 2  # blocks of one subject; averaged before any statistics
N_MADE = 8


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


# Training heads


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted synthetic heads, one voxel size each; existing files are reused."""
    drawn = synthetic.heads("train", TRAIN_SEED, count, synthetic.TRAINING)
    sizes_mm = [TRAIN_MM[head.index % len(TRAIN_MM)] for head in drawn]
    paths = [folder / _head_file(head) for head in drawn]
    return synthetic.training_heads(list(zip(paths, drawn, sizes_mm, strict=True)), workers)


def _head_file(head: synthetic.Head) -> str:
    recipe = [VERSION, head.map_sha256, TRAIN_SEED, head.index, TRAIN_MM, repr(head.style)]
    return synthetic.head_file(head.index, recipe)


# Scored blocks


def questions(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Question]:
    """The blocks of at most `1 + N_MADE` held-out subjects: the real brain, then synthetic heads.

    They are kept in the folder, and drawn by so many workers. Without the published data MNI152
    stands in for the brain, and for the label maps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks: list[tuple[Path, Callable]] = [_real_task(folder)]
    for head in synthetic.heads("test", TEST_SEED, N_MADE, synthetic.TRAINING):
        name = f"made_{head.index}_from_{head.source('mni152')}"
        recipe = digest([*_DEFINITION, head.map_sha256, TEST_SEED, head.index, repr(head.style)])
        path = folder / f"{name}_{recipe[:12]}.safetensors"
        tasks.append((path, partial(_made_blocks, name, recipe, head)))
    tasks = tasks[:count]
    call_each(draw_blocks, [t for t in tasks if not t[0].exists()], workers, "scored blocks")
    return [q for path, _ in tasks for q in read_questions(path)]


_DEFINITION = [VERSION, SCORED_MM, SIDE_MM, WHOLE_MM, PLACES]


def draw_blocks(path: Path, make: Callable[[], list[Question]]) -> None:
    """Draw one subject's blocks into a file."""
    write_questions(path, make())


def _made_blocks(name: str, recipe: str, head: synthetic.Head) -> list[Question]:
    """Blocks without noise: operators are compared, not scanners."""
    subject = head.draw()
    rough_grid = synthetic.overview(subject)
    rough = synthetic.stripped(subject, rough_grid)
    scaling = robust_intensity(rough)
    blocks = []
    for place in range(PLACES):
        rng = np.random.default_rng([TEST_SEED, head.index, place, 9])
        middle_mm = _inside(rough.numpy() > 0, rough_grid, rng)
        for condition, spacing_mm in (*SCORED_MM.items(), (FINER, (1.0,) * 3), (WHOLE, (1.0,) * 3)):
            if condition == WHOLE and place:
                continue
            side_mm = WHOLE_MM if condition == WHOLE else SIDE_MM
            size = np.floor(side_mm / np.array(spacing_mm) + 1e-6)
            jitter = rng.uniform(-0.5, 0.5, size=3)
            first_mm = middle_mm + (jitter - (size - 1) / 2) * spacing_mm
            grid = Grid.from_spacing(size.astype(int).tolist(), spacing_mm, first_mm)
            data = synthetic.stripped(subject, grid)
            blocks.append(_question(name, recipe, condition, data, grid, scaling, rng))
    return blocks


def _real_task(folder: Path) -> tuple[Path, Callable]:
    real = local_entries("open_ms_t1", "test")
    entry = next((e for e in real if "cross_sectional" in e.path), None)
    name = entry.path.rsplit("/", 1)[-1].split(".")[0] if entry else "mni152_template"
    recipe = digest([*_DEFINITION, AVERAGED, map_sha256(entry), TEST_SEED])
    path = folder / f"{name}_{recipe[:12]}.safetensors"
    return path, partial(_real_blocks, name, recipe, entry)


def _real_blocks(name: str, recipe: str, entry: Entry | None) -> list[Question]:
    volume = load(fetch(entry)) if entry else template_subject().load().volume
    scaling = robust_intensity(volume.data)
    local = Grid.from_spacing(volume.grid.shape, volume.grid.spacing_mm)  # axes along the voxels
    blocks = []
    for place in range(PLACES):
        rng = np.random.default_rng([TEST_SEED, 99, place, 9])
        middle = local.ras_to_index(_inside(volume.data.numpy() > 0, local, rng))
        factors = {**AVERAGED, FINER: (1, 1, 1)} | ({} if place else {WHOLE: (1, 1, 1)})
        for condition, factor in factors.items():
            side = int(WHOLE_MM if condition == WHOLE else SIDE_MM)
            size = np.minimum(side, volume.data.shape)
            start = np.clip(np.rint(middle - size / 2), 0, np.array(local.shape) - size).astype(int)
            box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
            data, grid = coarser(volume.data[box][None, None], local.crop(start, size), factor)
            blocks.append(_question(name, recipe, condition, data[0, 0], grid, scaling, rng))
    return blocks


def _question(
    name: str, recipe: str, condition: str, data: Tensor, grid: Grid, scaling: Intensity,
    rng: np.random.Generator,
) -> Question:  # fmt: skip
    mask = torch.from_numpy(brain_mask(data.numpy()))
    truth = scaling.forward(data)
    a, b, c = rng.random(3)
    x, x_grid = truth, grid
    if condition == FINER:
        averaged, x_grid = coarser(truth[None, None], grid, (2, 2, 2))
        x = averaged[0, 0]
    side_mm = WHOLE_MM if condition == WHOLE else SIDE_MM
    return Question(name, recipe, condition, x, x_grid, truth, grid, mask, (a, b, c), side_mm)


def _inside(brain: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
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
