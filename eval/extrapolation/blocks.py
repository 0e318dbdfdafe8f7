"""Volumes whose truth is known at several voxel sizes: synthetic heads, phantoms, real brains.

The content of a synthetic block is drawn once on voxels much smaller than a scan's, and every scan
of it is the exact mean of that content over larger cells. So a scan at 1 mm and the truth at 0.8 mm
show one object, and the rendering of the one can be held against the other. Of a real brain the
finest truth is the scan, with its noise: its own voxels, and their exact means over 1 mm.
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
from eval.extrapolation.train import FOLDER
from eval.metrics import brain_mask
from eval.rows import digest
from eval.subjects import held_out_brains, name_of, real
from medil.data.schema import Entry
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
BRAIN_MM = 80.0  # of real ones, whose own voxels need not fill it
HEAD_CONTENT_MM, PHANTOM_CONTENT_MM = 0.25, 0.5
MARGIN_MM = 4.0  # of a block's faces, where nothing is scored: a latent cell
PHANTOM = {
    "radius_mm": 36.0,
    "fold_mm": 6.0,
    "wavelength_mm": 7.0,
    "thickness_mm": 1.5,
    "edge_mm": 0.5,
}
AT_1_MM, NATIVE = "1", "native"  # voxels of 1 mm, and those of a real scan
CONDITIONS = {  # what is encoded and what is rendered, in mm
    "1 -> 1": (AT_1_MM, AT_1_MM),
    "0.8 -> 0.8": ("0.8", "0.8"),
    "0.7 -> 0.7": ("0.7", "0.7"),
    "0.5 -> 0.5": ("0.5", "0.5"),
    "1 -> 0.8": (AT_1_MM, "0.8"),
    "1 -> 0.7": (AT_1_MM, "0.7"),
    "1 -> 0.5": (AT_1_MM, "0.5"),
    "native -> native": (NATIVE, NATIVE),
    "1 -> native": (AT_1_MM, NATIVE),
}
OF_HEADS = tuple(c for c, voxels in CONDITIONS.items() if NATIVE not in voxels)
OF_PHANTOMS = ("1 -> 1", "0.8 -> 0.8", "1 -> 0.8")
OF_BRAINS = ("1 -> 1", "native -> native", "1 -> native")
HEAD, FOLDED, BRAIN = "made_", "cortex_phantom_", "real_"  # begin the names of blocks
Phase = tuple[float, float, float]


@dataclass(frozen=True)
class Block:
    """One test volume on several grids, all in the middle of a box whose first corner is at 0."""

    name: str
    data_sha256: str  # of the recipe that made it
    volumes: dict[str, Volume]  # by voxel size, as in `CONDITIONS`; float32, 0 ... 1
    side_mm: float
    phase: Phase  # where the latent grid begins before the box, in latent cells, 0 ... 1

    def truth(self, voxels: str) -> np.ndarray:
        """[D, H, W] float64, on voxels of one size."""
        return self.volumes[voxels].data.double().numpy()

    def mask(self, voxels: str) -> np.ndarray:
        """[D, H, W] bool: the brain as the 1 mm scan shows it, `MARGIN_MM` from the faces.

        One region of space for every voxel size, but for the voxels that it ends in.
        """
        scan, target = self.volumes[AT_1_MM], self.volumes[voxels].grid
        brain = brain_mask(scan.data.numpy()).astype(float)
        inside = cell_average(brain, scan.grid, target) >= 0.5
        for axis in range(3):
            places_mm = target.axis_offsets_mm(axis, scan.grid) + scan.grid.spacing_mm[axis] / 2
            deep = (places_mm > MARGIN_MM) & (places_mm < self.side_mm - MARGIN_MM)
            inside &= np.moveaxis(deep[:, None, None], 0, axis)
        return inside

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
    return _in_the_middle(side_mm, [count] * 3, [spacing_mm] * 3)


def _in_the_middle(side_mm: float, shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
    """Voxels in the middle of a box whose first corner is at 0."""
    first_mm = (side_mm - (np.array(shape) - 1) * spacing_mm) / 2
    return Grid.from_spacing(shape, spacing_mm, first_mm)


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
        tensors = {voxels: volume.data for voxels, volume in block.volumes.items()}
        spacings_mm = {voxels: volume.grid.spacing_mm for voxels, volume in block.volumes.items()}
        facts = {"side_mm": block.side_mm, "phase": block.phase, "spacing_mm": spacings_mm}
        synthetic.write(path, tensors, facts)
    tensors, facts = synthetic.read(path)
    side_mm, (a, b, c) = facts["side_mm"], facts["phase"]
    volumes = {
        voxels: Volume(data, _in_the_middle(side_mm, data.shape, facts["spacing_mm"][voxels]))
        for voxels, data in tensors.items()
    }
    return Block(source.name, source.data_sha256, volumes, side_mm, (a, b, c))


# Synthetic heads


def _head_source(head: synthetic.Head) -> Source:
    name = f"{HEAD}{head.index:02d}_from_{head.source('mni152')}"
    recipe = [VERSION, head.map_sha256, TEST_SEED, head.index, repr(head.style)]
    sha256 = digest([*recipe, HEAD_MM, HEAD_CONTENT_MM, MARGIN_MM])
    return Source(name, sha256, OF_HEADS, partial(_head_block, name, sha256, head))


def _head_block(name: str, sha256: str, head: synthetic.Head) -> Block:
    subject = head.draw()
    rng = np.random.default_rng([TEST_SEED, head.index, 9])
    overview = synthetic.overview(subject)
    rough = synthetic.stripped(subject, overview)
    middle_mm = synthetic.mostly_brain(rough.numpy() > 0, overview, HEAD_MM, rng, 60, 0.7)
    content_grid = block_grid(HEAD_MM, HEAD_CONTENT_MM)
    content = synthetic.stripped(subject, content_grid.shifted((middle_mm - HEAD_MM / 2).tolist()))
    content = robust_intensity(rough).forward(content)
    return _scans(name, sha256, content, content_grid, HEAD_MM, OF_HEADS, rng)


# Real brains


def _brain_source(entry: Entry) -> Source:
    name = f"{BRAIN}{name_of(entry)}"
    sha256 = digest([VERSION, entry.sha256, TEST_SEED, BRAIN_MM, MARGIN_MM])
    conditions = OF_BRAINS if "1 mm -> native" in real(entry).conditions else OF_BRAINS[:1]

    def draw() -> Block:
        seed = [TEST_SEED, int(entry.sha256[:8], 16), 11]
        return brain_block(name, sha256, real(entry).load().volume, np.random.default_rng(seed))

    return Source(name, sha256, conditions, draw)


def brain_block(name: str, sha256: str, scan: Volume, rng: np.random.Generator) -> Block:
    """A random block, mostly brain, of a stripped scan: its own voxels, and their means at 1 mm."""
    spacing_mm = np.round(scan.grid.spacing_mm, 3)  # the rest is rounding in files
    whole = Grid.from_spacing(scan.grid.shape, spacing_mm.tolist())
    brain = brain_mask(scan.data.numpy())
    middle_mm = synthetic.mostly_brain(brain, whole, BRAIN_MM, rng, 60, 0.7)
    shape = np.floor(BRAIN_MM / spacing_mm + 1e-6).astype(int)
    start = np.rint(whole.ras_to_index(middle_mm) - (shape - 1) / 2).astype(int)
    start = np.clip(start, 0, np.array(whole.shape) - shape)
    native = _in_the_middle(BRAIN_MM, shape.tolist(), spacing_mm.tolist())
    around = whole.shifted(native.centre_mm - whole.crop(start, shape).centre_mm)
    scaled = robust_intensity(scan.data).forward(scan.data).double().numpy()
    grids = {AT_1_MM: block_grid(BRAIN_MM, 1.0), NATIVE: native}
    volumes = {voxels: _means(scaled, around, target) for voxels, target in grids.items()}
    a, b, c = rng.random(3)
    return Block(name, sha256, volumes, BRAIN_MM, (a, b, c))


# Phantoms


def _phantom_source(seed: int) -> Source:
    name = f"{FOLDED}{seed}"
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
    wanted = sorted({voxels for condition in conditions for voxels in CONDITIONS[condition]})
    grids = {voxels: block_grid(side_mm, float(voxels)) for voxels in wanted}
    fine = content.double().numpy()
    volumes = {voxels: _means(fine, grid, target) for voxels, target in grids.items()}
    a, b, c = rng.random(3)
    return Block(name, sha256, volumes, side_mm, (a, b, c))


def _means(data: np.ndarray, grid: Grid, target: Grid) -> Volume:
    return Volume(torch.from_numpy(cell_average(data, grid, target)).float(), target)
