"""What the models of this experiment are trained on: made heads, every one scanned at 1 mm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from eval.rows import digest
from medil.config import DataConfig
from medil.data.manifest import Entry
from medil.data.samples import anatomy_of, bytes_of, label_maps
from medil.grid import Grid
from medil.synth.cohort import scan
from medil.synth.subject import CohortConfig, draw_subject
from medil.system.files import atomic_output
from medil.system.workers import call_each
from medil.training.patches import Scan, prepare_scan
from medil.volume import Volume

FOLDER = Path("_build/extrapolation")
VERSION = 1  # part of every hash: raise it when other heads are drawn
TRAIN_SEED = 5000
TRAIN_MM = 1.0  # the only voxel size that training ever sees


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Made heads of the train split at 1 mm; those in the folder are not drawn again.

    Args:
        count: How many.
        folder: Where they are kept; made with its parents.
        workers: Processes that draw.

    Returns:
        The scans, equally weighted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [_source(index) for index in range(count)]
    paths = [folder / head_name(source, i) for i, source in enumerate(sources)]
    tasks = [
        (path, source, i)
        for i, (path, source) in enumerate(zip(paths, sources, strict=True))
        if not path.exists()
    ]
    call_each(draw_head, tasks, workers, "heads at 1 mm")
    return [read_head(path, 1 / count) for path in paths]


def heads_digest(count: int) -> str:
    """SHA-256 of the recipe of the first `count` training heads."""
    return digest([head_name(_source(index), index) for index in range(count)])


def draw_head(path: Path, source: Entry | None, index: int) -> None:
    """Draw one training head and scan it at 1 mm, at a random phase, into a file."""
    config = style()
    head = draw_subject(anatomy_of(source), TRAIN_SEED, index, config)
    rng = np.random.default_rng([TRAIN_SEED, index, 9])
    low, high = head.head_mm
    shape = np.ceil((high - low) / TRAIN_MM).astype(int) + 1
    grid = Grid.from_spacing(shape.tolist(), TRAIN_MM, low - rng.random(3) * TRAIN_MM / 2)
    with atomic_output(path, force=True) as temporary:
        data = scan(head, grid, TRAIN_SEED, index, config)
        save_file({"data": data}, temporary, {"spacing_mm": json.dumps(TRAIN_MM)})


def read_head(path: Path, weight: float) -> Scan:
    """A training head from its file, ready to be cut."""
    with safe_open(path, framework="pt") as file:
        data = file.get_tensor("data")
        spacing_mm = json.loads(file.metadata()["spacing_mm"])
    return prepare_scan(
        Volume(data, Grid.from_spacing(data.shape, spacing_mm)), weight, name=path.stem
    )


def head_name(source: Entry | None, index: int) -> str:
    """The file of a training head; it changes with anything the head depends on."""
    recipe = [VERSION, bytes_of(source), TRAIN_SEED, TRAIN_MM, index, repr(style())]
    return f"head_{index:02d}_{digest(recipe)[:12]}.safetensors"


def style() -> CohortConfig:
    """How made heads look: as those that the release was trained on."""
    data = DataConfig()
    return CohortConfig(noise=data.noise, texture=data.texture)


def _source(index: int) -> Entry | None:
    maps = label_maps("train")
    return maps[index % len(maps)]
