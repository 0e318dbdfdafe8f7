"""Volumes whose truth is known at every voxel size: synthetic heads, and a folded phantom.

A block's content is drawn once on voxels much smaller than a scan's, and every scan of it is
the exact mean of that content over larger cells. So a scan at 1 mm and the truth at 0.8 mm
show one object, and the rendering of the one can be held against the other. Of real brains
no such content is known: they answer at 1 mm alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval import heads as synthetic
from eval.extrapolation.train import FOLDER
from eval.metrics import brain_mask
from eval.rows import digest
from eval.subjects import at_1_mm, cut, held_out_brains, real
from medil.data.manifest import Entry
from medil.errors import InputError
from medil.grid import Grid
from medil.regrid import cell_average
from medil.synth.cortex import cortex
from medil.synth.phantom import render
from medil.system.workers import call_each
from medil.volume import Volume, robust_intensity

VERSION = 1  # part of every hash: raise it when other blocks are drawn
TEST_SEED = 6007
HEAD_MM, PHANTOM_MM = 56.0, 104.0  # sides of the blocks: whole numbers of voxels of each size
HEAD_CONTENT_MM, PHANTOM_CONTENT_MM = 0.25, 0.5
MARGIN_MM = 4.0  # of a block's faces, where nothing is scored: a latent cell
PHANTOM = {
    "radius_mm": 36.0,
    "fold_mm": 6.0,
    "wavelength_mm": 7.0,
    "thickness_mm": 1.5,
    "edge_mm": 0.5,
}
CONDITIONS = {  # what is encoded -> what is rendered, in mm
    "1 -> 1": (1.0, 1.0),
    "0.8 -> 0.8": (0.8, 0.8),
    "0.7 -> 0.7": (0.7, 0.7),
    "0.5 -> 0.5": (0.5, 0.5),
    "1 -> 0.8": (1.0, 0.8),
    "1 -> 0.7": (1.0, 0.7),
    "1 -> 0.5": (1.0, 0.5),
}
OF_PHANTOMS = ("1 -> 1", "0.8 -> 0.8", "1 -> 0.8")
OF_BRAINS = ("1 -> 1",)
Phase = tuple[float, float, float]


@dataclass(frozen=True)
class Block:
    """One test volume at several voxel sizes, all over one box whose first corner is at 0."""

    name: str
    data_sha256: str  # of the recipe that made it
    volumes: dict[float, Tensor]  # voxel size in mm -> [D, H, W] float32, 0 ... 1
    side_mm: float
    phase: Phase  # where the latent grid begins before the box, in latent cells, 0 ... 1

    def grid(self, spacing_mm: float) -> Grid:
        """The grid of one voxel size."""
        return block_grid(self.side_mm, spacing_mm)

    def volume(self, spacing_mm: float) -> Volume:
        """The block as a scanner without noise sees it."""
        return Volume(self.volumes[spacing_mm], self.grid(spacing_mm))

    def mask(self, spacing_mm: float) -> np.ndarray:
        """[D, H, W] bool: the brain as the 1 mm scan shows it, `MARGIN_MM` from the faces.

        One region of space for every voxel size, but for the voxels that it ends in.
        """
        coarse, target = self.grid(1.0), self.grid(spacing_mm)
        brain = brain_mask(self.volumes[1.0].numpy()).astype(float)
        inside = cell_average(brain, coarse, target) >= 0.5
        centres_mm = (np.arange(target.shape[0]) + 0.5) * spacing_mm
        axis = (centres_mm > MARGIN_MM) & (centres_mm < self.side_mm - MARGIN_MM)
        return inside & axis[:, None, None] & axis[:, None] & axis

    def latent_grid(self, pitch_mm: float) -> Grid:
        """Latent cells over the box, at the block's phase: one more an axis than fill it."""
        return synthetic.cells_at_phase(np.zeros(3), self.side_mm, self.phase, pitch_mm)


@dataclass(frozen=True)
class Source:
    """A block that can be drawn: its name, what it depends on, its conditions, and how."""

    name: str
    data_sha256: str
    conditions: tuple[str, ...]
    draw: Callable[[], Block]

    def path(self, folder: Path = FOLDER) -> Path:
        """Where the block is kept."""
        return folder / f"{self.name}_{self.data_sha256[:12]}.safetensors"


def block_grid(side_mm: float, spacing_mm: float) -> Grid:
    """Voxels that fill a box from its first corner, at 0."""
    count = round(side_mm / spacing_mm)
    if abs(count * spacing_mm - side_mm) > 1e-6:
        raise InputError(f"voxels of {spacing_mm} mm do not fill a box of {side_mm} mm.")
    return Grid.from_spacing([count] * 3, spacing_mm, [spacing_mm / 2] * 3)


def sources(heads: int, phantoms: int, brains: int = 0) -> list[Source]:
    """Synthetic heads from label maps of the test split, then folded phantoms, then real brains.

    MNI152's tissue maps stand in where no label map is available; nothing does for real brains.
    """
    drawn = synthetic.heads("test", TEST_SEED, heads, synthetic.TRAINING)
    made = [*map(_head_source, drawn), *map(_phantom_source, range(phantoms))]
    return made + [_brain_source(entry) for entry in held_out_brains()[:brains]]


def draw_all(blocks: list[Source], folder: Path = FOLDER, workers: int = 1) -> None:
    """Draw the blocks that are not in the folder yet."""
    missing = [(s, folder) for s in blocks if not s.path(folder).exists()]
    call_each(load_block, missing, workers, "blocks")


def load_block(source: Source, folder: Path = FOLDER) -> Block:
    """A block from its file, drawn first where there is none."""
    path = source.path(folder)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        block = source.draw()
        tensors = {str(mm): data for mm, data in block.volumes.items()}
        synthetic.write(path, tensors, {"side_mm": block.side_mm, "phase": block.phase})
    tensors, facts = synthetic.read(path)
    volumes = {float(name): data for name, data in tensors.items()}
    a, b, c = facts["phase"]
    return Block(source.name, source.data_sha256, volumes, facts["side_mm"], (a, b, c))


# Synthetic heads


def _head_source(head: synthetic.Head) -> Source:
    name = f"made_{head.index:02d}_from_{head.source('mni152')}"
    recipe = [VERSION, head.map_sha256, TEST_SEED, head.index, repr(head.style)]
    sha256 = digest([*recipe, HEAD_MM, HEAD_CONTENT_MM, MARGIN_MM])
    return Source(name, sha256, tuple(CONDITIONS), partial(_head_block, name, sha256, head))


def _head_block(name: str, sha256: str, head: synthetic.Head) -> Block:
    subject = head.draw()
    rng = np.random.default_rng([TEST_SEED, head.index, 9])
    overview = synthetic.overview(subject)
    rough = synthetic.stripped(subject, overview)
    middle_mm = synthetic.mostly_brain(rough.numpy() > 0, overview, HEAD_MM, rng, 60, 0.7)
    content_grid = block_grid(HEAD_MM, HEAD_CONTENT_MM)
    content = synthetic.stripped(subject, content_grid.shifted((middle_mm - HEAD_MM / 2).tolist()))
    content = robust_intensity(rough).forward(content)
    return _scans(name, sha256, content, content_grid, HEAD_MM, tuple(CONDITIONS), rng)


# Real brains


def _brain_source(entry: Entry) -> Source:
    name = f"real_{real(entry).name}"
    sha256 = digest([VERSION, entry.sha256, TEST_SEED, HEAD_MM, MARGIN_MM])
    return Source(name, sha256, OF_BRAINS, partial(_brain_block, name, sha256, entry))


def _brain_block(name: str, sha256: str, entry: Entry) -> Block:
    """A block of a scan that is averaged to 1 mm."""
    scan = at_1_mm(real(entry).load())
    rng = np.random.default_rng([TEST_SEED, int(entry.sha256[:8], 16), 11])
    middle_mm = synthetic.mostly_brain(scan.mask, scan.volume.grid, HEAD_MM, rng, 60, 0.7)
    part = cut(scan, middle_mm, [HEAD_MM] * 3).volume.data
    scaled = robust_intensity(scan.volume.data).forward(part).float()
    a, b, c = rng.random(3)
    return Block(name, sha256, {1.0: scaled}, HEAD_MM, (a, b, c))


# Phantoms


def _phantom_source(seed: int) -> Source:
    name = f"cortex_phantom_{seed}"
    sha256 = digest([VERSION, name, PHANTOM, PHANTOM_MM, PHANTOM_CONTENT_MM, MARGIN_MM])
    return Source(name, sha256, OF_PHANTOMS, partial(_phantom_block, name, sha256, seed))


def _phantom_block(name: str, sha256: str, seed: int) -> Block:
    """The whole folded ball in the middle of its box; its white matter has no handle."""
    grid = block_grid(PHANTOM_MM, PHANTOM_CONTENT_MM)
    content = render(cortex(seed, 0, **PHANTOM), grid.shifted([-PHANTOM_MM / 2] * 3), 1)
    rng = np.random.default_rng([TEST_SEED, seed, 10])
    return _scans(name, sha256, content, grid, PHANTOM_MM, OF_PHANTOMS, rng)


def _scans(
    name: str, sha256: str, content: Tensor, grid: Grid, side_mm: float,
    conditions: tuple[str, ...], rng: np.random.Generator,
) -> Block:  # fmt: skip
    wanted = sorted({mm for condition in conditions for mm in CONDITIONS[condition]})
    fine = content.double().numpy()
    volumes = {
        mm: torch.from_numpy(cell_average(fine, grid, block_grid(side_mm, mm))).float()
        for mm in wanted
    }
    a, b, c = rng.random(3)
    return Block(name, sha256, volumes, side_mm, (a, b, c))
