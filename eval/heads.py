"""Synthetic heads: drawn on a published label map, rendered without noise or scanned.

Each experiment chooses a split of label maps, a seed and a style, and what part of a head it
shows on which grid; how a head is drawn, stripped of its skull and scanned is written here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.rows import digest
from medil.config import DataConfig
from medil.data.samples import anatomy_of, label_maps, map_sha256
from medil.data.schema import Entry
from medil.grid import Grid
from medil.synth.cohort import scan
from medil.synth.subject import CohortConfig, Subject, draw_subject
from medil.system.tensors import read_tensors, write_tensors
from medil.system.workers import call_each
from medil.training.patches import Scan, prepare_scan
from medil.volume import Volume

PLAIN = CohortConfig()
OVERVIEW_MM = 3.0  # voxels of a first look at a whole head
TRAINING = CohortConfig(noise=DataConfig().noise, texture=DataConfig().texture)  # a release's style


@dataclass(frozen=True)
class Head:
    """One synthetic head of a cohort, drawn when needed."""

    label_map: Entry | None  # its anatomy; None stands for the tissue maps of MNI152
    seed: int  # of the cohort
    index: int  # in the cohort
    style: CohortConfig = PLAIN

    @property
    def map_sha256(self) -> str:
        """The hash of its label map, for recipes."""
        return map_sha256(self.label_map)

    def source(self, stand_in: str = "tissue_maps") -> str:
        """Name of its anatomy, such as ``map_17``."""
        return f"map_{self.label_map.subject}" if self.label_map else stand_in

    def draw(self) -> Subject:
        """Its anatomy and appearance, to be rendered on any grid."""
        return draw_subject(anatomy_of(self.label_map), self.seed, self.index, self.style)

    def scan(self, subject: Subject, grid: Grid) -> Tensor:
        """[D, H, W] as a scanner sees it, with this head's noise."""
        return scan(subject, grid, self.seed, self.index, self.style)


def heads(split: str, seed: int, count: int, style: CohortConfig = PLAIN) -> list[Head]:
    """The first `count` heads of a cohort; its label maps are those of a split, in turn."""
    maps = label_maps(split)
    return [Head(maps[index % len(maps)], seed, index, style) for index in range(count)]


def stripped(subject: Subject, grid: Grid, quadrature_mm: float = 0.75) -> Tensor:
    """[D, H, W] without noise and skull: voxels below half the darkest tissue are set to 0."""
    clean = subject.render(grid, quadrature_mm=quadrature_mm)
    return torch.where(clean > 0.5 * subject.darkest, clean, torch.zeros(()))


def overview(subject: Subject) -> Grid:
    """A grid of `OVERVIEW_MM` voxels over the whole head."""
    shape = np.ceil(np.ptp(subject.head_mm, axis=0) / OVERVIEW_MM).astype(int)
    return Grid.from_spacing(shape.tolist(), OVERVIEW_MM, subject.head_mm[0] + OVERVIEW_MM / 2)


def mostly_brain(
    brain: np.ndarray, grid: Grid, side_mm: float, rng: np.random.Generator, tries: int,
    enough: float,
) -> np.ndarray:  # fmt: skip
    """[3] middle, in mm, of a random block that is mostly brain ([D, H, W] bool on `grid`).

    At most `tries` voxels of the brain are drawn as middles. The first block with a share of
    brain above `enough` counts, else the fullest.
    """
    places = np.argwhere(brain)
    half = np.rint(side_mm / 2 / np.array(grid.spacing_mm)).astype(int)
    best, best_share = places[0], -1.0
    for _ in range(tries):
        middle = places[rng.integers(len(places))]
        low, high = np.maximum(middle - half, 0), middle + half
        inside = brain[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        share = float(inside.sum() / np.prod(2 * half))
        if share > best_share:
            best, best_share = middle, share
        if share > enough:
            break
    return grid.index_to_ras(best)


def cells_at_phase(
    corner_mm: np.ndarray, side_mm: float, phase: Sequence[float], pitch_mm: float
) -> Grid:
    """Latent cells over a cube, one per axis more than fill it, so that any phase covers it.

    `phase` says where the cells begin before the first corner, in cells, 0 ... 1.
    """
    count = int(np.ceil(side_mm / pitch_mm - 1e-6)) + 1
    return Grid.from_spacing([count] * 3, pitch_mm, corner_mm + (0.5 - np.array(phase)) * pitch_mm)


# Training heads


def training_heads(files: Sequence[tuple[Path, Head, float]], workers: int = 1) -> list[Scan]:
    """Equally weighted training scans, of a file, a head and an isotropic voxel size in mm each.

    Existing files are reused, so a file's name changes with anything that the scan depends on.
    """
    call_each(_scan_once, [f for f in files if not f[0].exists()], workers, "training heads")
    return [read_scan(path, mm, 1 / len(files)) for path, _, mm in files]


def head_file(index: int, recipe: Sequence) -> str:
    """The file of a training head, named after its recipe."""
    return f"head_{index:02d}_{digest(list(recipe))[:12]}.safetensors"


def _scan_once(path: Path, head: Head, spacing_mm: float) -> None:
    """Scan a head at a random phase into a file."""
    subject = head.draw()
    rng = np.random.default_rng([head.seed, head.index, 9])
    low, high = subject.head_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int) + 1
    grid = Grid.from_spacing(shape.tolist(), spacing_mm, low - rng.random(3) * spacing_mm / 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {"data": head.scan(subject, grid)}, {"spacing_mm": spacing_mm})


def read_scan(path: Path, spacing_mm: float, weight: float) -> Scan:
    """A training scan from a file that holds its voxels as ``data``."""
    data = read(path)[0]["data"]
    volume = Volume(data, Grid.from_spacing(data.shape, spacing_mm))
    prepared = prepare_scan(volume, weight, name=path.stem)
    return replace(prepared, spacing_mm=(spacing_mm,) * 3)  # exact: patch sizes are cut by it


# Files


def write(path: Path, tensors: dict[str, Tensor], facts: object) -> None:
    """Write tensors and facts that JSON can hold, as one whole file."""
    write_tensors(path, tensors, {"facts": json.dumps(facts)}, force=True)


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors and facts of a file that `write` wrote."""
    tensors, meta = read_tensors(path)
    return tensors, json.loads(meta["facts"])
