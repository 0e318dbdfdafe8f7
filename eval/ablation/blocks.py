"""What the ablation trains on and is scored on: made heads, drawn once and kept in a folder.

Training heads come from label maps of the train split, each scanned on one isotropic grid.
Scored are small blocks inside held-out brains, on grids of several voxel sizes, each at a
random phase against the latent grid: voxel centres that coincide with it would flatter
interpolation. The phase belongs to the block, so every arm answers the same questions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eval.metrics import brain_mask
from eval.rows import digest
from eval.subjects import template_subject
from medil.config import DataConfig
from medil.data.manifest import Entry, fetch, local_entries
from medil.data.samples import anatomy_of, bytes_of, label_maps
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.synth.cohort import scan
from medil.synth.subject import CohortConfig, draw_subject
from medil.system.files import atomic_output
from medil.system.workers import call_each
from medil.training.patches import Scan, coarser, prepare_scan
from medil.volume import Volume, load

FOLDER = Path("_build/ablation/data")
VERSION = 1  # part of every hash: raise it when other volumes are drawn
TRAIN_SEED, TEST_SEED = 3000, 4007
TRAIN_MM = (
    1.0,
    0.9,
    1.6,
    1.1,
    1.3,
    1.0,
    2.0,
)  # in turn; sizes that are scored but not here: unseen
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
    """Encode `x`, render `target`, compare with `truth` in `mask`.

    Args:
        subject: Whose brain.
        data_sha256: Of the recipe that made the block.
        condition: One of `CONDITIONS`, or `WHOLE`.
        x: [D, H, W] on `grid`, 0 ... 1 scale.
        grid: Axes along RAS+.
        truth: [D', H', W'] on `target`.
        target: Parallel to `grid`.
        mask: [D', H', W'] bool, the brain.
        phase: Where the latent grid begins before the block, in latent cells, 0 ... 1.
        side_mm: The block's nominal side, which sets the number of latent cells.
    """

    subject: str
    data_sha256: str
    condition: str
    x: Tensor
    grid: Grid
    truth: Tensor
    target: Grid
    mask: Tensor
    phase: tuple[float, float, float]
    side_mm: float = SIDE_MM

    def latent_grid(self, pitch_mm: float) -> Grid:
        """The latent grid of the block: one cell more an axis than its side, at its phase."""
        count = math.ceil(self.side_mm / pitch_mm - 1e-6) + 1
        first_mm = self.grid.bounds_mm[0] + (0.5 - np.array(self.phase)) * pitch_mm
        return Grid.from_spacing([count] * 3, pitch_mm, first_mm)


# Training heads


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """The training set: made heads, one voxel size each; those in the folder are not redrawn.

    Args:
        count: How many.
        folder: Where they are kept; made with its parents.
        workers: Processes that draw.

    Returns:
        The scans, equally weighted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps = label_maps("train")
    sources = [maps[i % len(maps)] for i in range(count)]
    tasks = [(folder / _head_name(source, i), source, i) for i, source in enumerate(sources)]
    call_each(draw_head, [t for t in tasks if not t[0].exists()], workers, "training heads")
    return [_head(path, 1 / count) for path, _, _ in tasks]


def head_spacing_mm(index: int) -> float:
    """Voxel size of a training head."""
    return TRAIN_MM[index % len(TRAIN_MM)]


def draw_head(path: Path, source: Entry | None, index: int) -> None:
    """Draw and scan one training head into a file."""
    config = _style()
    head = draw_subject(anatomy_of(source), TRAIN_SEED, index, config)
    rng = np.random.default_rng([TRAIN_SEED, index, 9])
    spacing_mm = head_spacing_mm(index)
    low, high = head.head_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int) + 1
    grid = Grid.from_spacing(shape.tolist(), spacing_mm, low - rng.random(3) * spacing_mm / 2)
    _write(path, {"data": scan(head, grid, TRAIN_SEED, index, config)}, [spacing_mm])


def _head(path: Path, weight: float) -> Scan:
    with safe_open(path, framework="pt") as file:
        data, [spacing_mm] = file.get_tensor("data"), json.loads(file.metadata()["facts"])
    prepared = prepare_scan(Volume(data, Grid.from_spacing(data.shape, spacing_mm)), weight)
    return replace(prepared, spacing_mm=(spacing_mm,) * 3)  # exact: patch sizes are cut by it


def _head_name(source: Entry | None, index: int) -> str:
    recipe = [VERSION, bytes_of(source), TRAIN_SEED, index, TRAIN_MM, repr(_style())]
    return f"head_{index:02d}_{digest(recipe)[:12]}.safetensors"


def _style() -> CohortConfig:
    data = DataConfig()
    return CohortConfig(noise=data.noise, texture=data.texture)


# Scored blocks


def questions(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Question]:
    """The blocks of the first `count` held-out subjects: the real brain at 1 mm, then made heads.

    Without the published data MNI152 stands in for the brain, and for the label maps.

    Args:
        count: Subjects, at most `1 + N_MADE`.
        folder: Where the blocks are kept; made with its parents.
        workers: Processes that draw.

    Returns:
        Every question, by subject, place and condition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps = label_maps("test")
    tasks: list[tuple[Path, Callable]] = [_real_task(folder)]
    for index in range(N_MADE):
        source = maps[index % len(maps)]
        name = f"made_{index}_from_{'map_' + source.subject if source else 'mni152'}"
        recipe = digest([*_DEFINITION, bytes_of(source), TEST_SEED, index, repr(_style())])
        path = folder / f"{name}_{recipe[:12]}.safetensors"
        tasks.append((path, partial(_made_blocks, name, recipe, source, index)))
    tasks = tasks[:count]
    call_each(draw_blocks, [t for t in tasks if not t[0].exists()], workers, "scored blocks")
    return [q for path, _ in tasks for q in read_questions(path)]


_DEFINITION = [VERSION, SCORED_MM, SIDE_MM, WHOLE_MM, PLACES]


def draw_blocks(path: Path, make: Callable[[], list[Question]]) -> None:
    """Draw one subject's blocks into a file."""
    write_questions(path, make())


def _made_blocks(name: str, recipe: str, source: Entry | None, index: int) -> list[Question]:
    head = draw_subject(anatomy_of(source), TEST_SEED, index, _style())

    def render(grid: Grid) -> Tensor:
        clean = head.render(grid)  # without noise: the operators are asked, not the scanner
        return torch.where(clean > 0.5 * head.darkest, clean, torch.zeros(()))

    shape = np.ceil((head.head_mm[1] - head.head_mm[0]) / 3).astype(int)
    rough_grid = Grid.from_spacing(shape.tolist(), 3.0, head.head_mm[0] + 1.5)
    rough = render(rough_grid)
    scaling = robust_intensity(rough)
    found = []
    for place in range(PLACES):
        rng = np.random.default_rng([TEST_SEED, index, place, 9])
        middle_mm = _inside(rough.numpy() > 0, rough_grid, rng)
        for condition, spacing_mm in (*SCORED_MM.items(), (FINER, (1.0,) * 3), (WHOLE, (1.0,) * 3)):
            if condition == WHOLE and place:
                continue
            side_mm = WHOLE_MM if condition == WHOLE else SIDE_MM
            size = np.floor(side_mm / np.array(spacing_mm) + 1e-6)
            jitter = rng.uniform(-0.5, 0.5, size=3)
            first_mm = middle_mm + (jitter - (size - 1) / 2) * spacing_mm
            grid = Grid.from_spacing(size.astype(int).tolist(), spacing_mm, first_mm)
            found.append(_question(name, recipe, condition, render(grid), grid, scaling, rng))
    return found


def _real_task(folder: Path) -> tuple[Path, Callable]:
    real = local_entries("open_ms_t1", "test")
    entry = next((e for e in real if "cross_sectional" in e.path), None)
    name = entry.path.rsplit("/", 1)[-1].split(".")[0] if entry else "mni152_template"
    recipe = digest([*_DEFINITION, AVERAGED, bytes_of(entry), TEST_SEED])
    path = folder / f"{name}_{recipe[:12]}.safetensors"
    return path, partial(_real_blocks, name, recipe, entry)


def _real_blocks(name: str, recipe: str, entry: Entry | None) -> list[Question]:
    volume = load(fetch(entry)) if entry else template_subject().load().volume
    scaling = robust_intensity(volume.data)
    local = Grid.from_spacing(volume.grid.shape, volume.grid.spacing_mm)  # axes along the voxels
    found = []
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
            found.append(_question(name, recipe, condition, data[0, 0], grid, scaling, rng))
    return found


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
    places = np.argwhere(brain)
    half = np.rint(SIDE_MM / 2 / np.array(grid.spacing_mm)).astype(int)
    best, best_share = places[0], -1.0
    for _ in range(40):
        middle = places[rng.integers(len(places))]
        low, high = middle - half, middle + half
        inside = brain[tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))]
        share = float(inside.sum() / np.prod(high - low))
        if share > best_share:
            best, best_share = middle, share
        if share > 0.8:
            break
    return grid.index_to_ras(best)


# Files


def write_questions(path: Path, found: Sequence[Question]) -> None:
    """Keep questions of one subject in a safetensors file."""
    tensors: dict[str, Tensor] = {}
    facts = []
    for i, q in enumerate(found):
        tensors |= {f"{i}.truth": q.truth.contiguous(), f"{i}.mask": q.mask.contiguous()}
        if q.x is not q.truth:
            tensors[f"{i}.x"] = q.x.contiguous()
        grids = [[g.shape, g.affine_vox2ras.tolist()] for g in (q.grid, q.target)]
        facts.append([q.subject, q.data_sha256, q.condition, grids, q.phase, q.side_mm])
    _write(path, tensors, facts)


def read_questions(path: Path) -> list[Question]:
    """What `write_questions` wrote."""
    found = []
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for i, facts in enumerate(json.loads(file.metadata()["facts"])):
            subject, sha256, condition, grids, phase, side_mm = facts
            grid, target = (Grid(tuple(shape), np.array(affine)) for shape, affine in grids)
            truth = file.get_tensor(f"{i}.truth")
            x = file.get_tensor(f"{i}.x") if f"{i}.x" in names else truth
            mask = file.get_tensor(f"{i}.mask")
            found.append(
                Question(
                    subject, sha256, condition, x, grid, truth, target, mask, tuple(phase), side_mm
                )
            )
    return found


def _write(path: Path, tensors: dict[str, Tensor], facts: list) -> None:
    with atomic_output(path, force=True) as temporary:
        save_file(tensors, temporary, {"facts": json.dumps(facts)})
