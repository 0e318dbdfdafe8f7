"""Who is scored: real people of the test split and made heads, as blocks that are drawn once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval import heads as synthetic
from eval.ablation.blocks import (
    DECIMALS,
    FINER,
    FOLDER,
    NATIVE,
    PLACES,
    SCORED_MM,
    SIDE_MM,
    VERSION,
    WHOLE,
    WHOLE_MM,
    Question,
    inside,
    question_of,
    read_questions,
    write_questions,
)
from eval.rows import digest
from eval.subjects import held_out_brains, name_of, template_subject
from medil.data.manifest import fetch
from medil.data.samples import map_sha256
from medil.data.schema import Entry
from medil.grid import Grid
from medil.io.intensity import robust_intensity
from medil.regrid import cell_average
from medil.system.workers import call_each
from medil.training.patches import coarser
from medil.volume import Volume, load

TEST_SEED = 4007
N_MADE = 8
BRAINS = "ds002748"
AVERAGED = {"1 mm": (1, 1, 1), "2 mm": (2, 2, 2), "1 x 1 x 3 mm": (1, 1, 3)}  # of a real 1 mm scan
OF_BRAINS = (NATIVE, *AVERAGED, FINER, WHOLE)  # native voxels, and averages over larger cells
_DEFINITION = [VERSION, SCORED_MM, SIDE_MM, WHOLE_MM, PLACES]

Task = tuple[Path, Callable[[], list[Question]]]  # a subject's file and how it is drawn
Block = tuple[str, Tensor, Grid]  # its condition, [D, H, W] unscaled voxels and their grid


def questions(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Question]:
    """The blocks of at most `count` held-out subjects, drawn by so many workers and kept.

    The real 1 mm brain comes first, then the other real brains and made heads in turn. Without
    the published data MNI152 stands in for the first, and for the label maps of made heads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = subject_tasks(folder)[:count]
    call_each(draw_blocks, [t for t in tasks if not t[0].exists()], workers, "scored blocks")
    return [q for path, _ in tasks for q in read_questions(path)]


def subject_count() -> int:
    """How many subjects can be scored with the data on this computer."""
    return len(subject_tasks(FOLDER))


def subject_tasks(folder: Path) -> list[Task]:
    """Every subject's file in a folder, and the function that draws it."""
    people = held_out_brains()
    first = next((entry for entry in people if entry.dataset != BRAINS), None)
    real = [_brain_task(folder, entry) for entry in people if entry.dataset == BRAINS]
    heads = synthetic.heads("test", TEST_SEED, N_MADE, synthetic.TRAINING)
    made = [_made_task(folder, head) for head in heads]
    in_turn = chain.from_iterable(zip_longest(real, made))
    return [_first_task(folder, first), *(task for task in in_turn if task)]


def draw_blocks(path: Path, make: Callable[[], list[Question]]) -> None:
    """Draw one subject's blocks into a file."""
    write_questions(path, make())


# Made heads


def _made_task(folder: Path, head: synthetic.Head) -> Task:
    name = f"made_{head.index}_from_{head.source('mni152')}"
    recipe = digest([*_DEFINITION, head.map_sha256, TEST_SEED, head.index, repr(head.style)])
    path = folder / f"{name}_{recipe[:12]}.safetensors"
    return path, partial(_made_blocks, name, recipe, head)


def _made_blocks(name: str, recipe: str, head: synthetic.Head) -> list[Question]:
    """Blocks without noise: operators are compared, not scanners."""
    subject = head.draw()
    rough_grid = synthetic.overview(subject)
    rough = synthetic.stripped(subject, rough_grid)
    scaling = robust_intensity(rough)
    blocks = []
    for place in range(PLACES):
        rng = np.random.default_rng([TEST_SEED, head.index, place, 9])
        middle_mm = inside(rough.numpy() > 0, rough_grid, rng)
        for condition, spacing_mm in (*SCORED_MM.items(), (FINER, (1.0,) * 3), (WHOLE, (1.0,) * 3)):
            if condition == WHOLE and place:
                continue
            size = np.floor(_side_mm(condition) / np.array(spacing_mm) + 1e-6)
            jitter = rng.uniform(-0.5, 0.5, size=3)
            first_mm = middle_mm + (jitter - (size - 1) / 2) * spacing_mm
            grid = Grid.from_spacing(size.astype(int).tolist(), spacing_mm, first_mm)
            data = synthetic.stripped(subject, grid)
            blocks.append(question_of(name, recipe, condition, data, grid, scaling, rng))
    return blocks


def _side_mm(condition: str) -> float:
    return WHOLE_MM if condition == WHOLE else SIDE_MM


# Real people


def _first_task(folder: Path, entry: Entry | None) -> Task:
    """The real brain at 1 mm."""
    name = name_of(entry) if entry else "mni152_template"
    recipe = digest([*_DEFINITION, AVERAGED, map_sha256(entry), TEST_SEED])
    path = folder / f"{name}_{recipe[:12]}.safetensors"
    return path, partial(_real_blocks, name, recipe, entry, whole_voxels, 99)


def _brain_task(folder: Path, entry: Entry) -> Task:
    name = name_of(entry)
    recipe = digest([*_DEFINITION, OF_BRAINS, DECIMALS, entry.sha256, TEST_SEED])
    path = folder / f"{name}_{recipe[:12]}.safetensors"
    return path, partial(_real_blocks, name, recipe, entry, larger_cells, int(entry.subject) + 1000)


Cut = Callable[[Volume, np.ndarray, bool], Iterator[Block]]


def _real_blocks(
    name: str, recipe: str, entry: Entry | None, cut: Cut, number: int
) -> list[Question]:
    volume = load(fetch(entry)) if entry else template_subject().load().volume
    scaling = robust_intensity(volume.data)
    # Axes along the voxels.
    spacing_mm = np.round(volume.grid.spacing_mm, DECIMALS).tolist()
    local = Volume(volume.data, Grid.from_spacing(volume.grid.shape, spacing_mm))
    blocks = []
    for place in range(PLACES):
        rng = np.random.default_rng([TEST_SEED, number, place, 9])
        middle_mm = inside(volume.data.numpy() > 0, local.grid, rng)
        for condition, data, grid in cut(local, middle_mm, place == 0):
            blocks.append(question_of(name, recipe, condition, data, grid, scaling, rng))
    return blocks


def whole_voxels(volume: Volume, middle_mm: np.ndarray, first: bool) -> Iterator[Block]:
    """Blocks of a 1 mm scan: its own voxels, or averages of whole ones."""
    middle = volume.grid.ras_to_index(middle_mm)
    factors = {**AVERAGED, FINER: (1, 1, 1)} | ({WHOLE: (1, 1, 1)} if first else {})
    for condition, factor in factors.items():
        size = np.minimum(int(_side_mm(condition)), volume.data.shape)
        start = np.clip(np.rint(middle - size / 2), 0, np.array(volume.grid.shape) - size)
        data, grid = _cropped(volume, start.astype(int), size)
        data, grid = coarser(data[None, None], grid, factor)
        yield condition, data[0, 0], grid


def larger_cells(volume: Volume, middle_mm: np.ndarray, first: bool) -> Iterator[Block]:
    """Blocks of a scan of finer voxels: its own, or exact averages over larger cells.

    The cells begin at a voxel's face, so that slices of 1 mm stay what they are.
    """
    own_mm, middle = np.array(volume.grid.spacing_mm), volume.grid.ras_to_index(middle_mm)
    for condition in OF_BRAINS if first else OF_BRAINS[:-1]:
        side_mm = _side_mm(condition)
        size = np.minimum(np.ceil(side_mm / own_mm).astype(int), volume.grid.shape)
        start = np.clip(np.rint(middle - size / 2), 0, np.array(volume.grid.shape) - size)
        data, grid = _cropped(volume, start.astype(int), size)
        mm = own_mm if condition == NATIVE else SCORED_MM.get(condition, (1.0,) * 3)
        spacing_mm = np.array(mm)
        count = np.floor(np.minimum(side_mm, grid.extent_mm) / spacing_mm + 1e-6).astype(int)
        if condition == NATIVE:
            yield condition, *_cropped(Volume(data, grid), np.zeros(3, dtype=int), count)
            continue
        first_mm = grid.bounds_mm[0] + spacing_mm / 2
        target = Grid.from_spacing(count.tolist(), spacing_mm.tolist(), first_mm)
        averaged = cell_average(data.double().numpy(), grid, target)
        yield condition, torch.from_numpy(averaged).float(), target


def _cropped(volume: Volume, start: np.ndarray, size: np.ndarray) -> tuple[Tensor, Grid]:
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    return volume.data[box], volume.grid.crop(start.tolist(), size.tolist())
