"""Chests whose airways are known, scanned on native grids like those of LIDC-IDRI.

Of each chest three parts are scanned: around a main bronchus, around a middle airway with many
others near it, and where small airways are densest. Test and training chests share no seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from eval import heads
from eval.rows import digest
from eval.thin_structures.tubes import Tube
from medil.box import Triple
from medil.grid import Grid
from medil.synth.chest import chest, draw_body, is_in_lung
from medil.synth.ct import KERNEL_MM, NOISE_HU, WHOLE_EVERY, chest_subject, ct_scan
from medil.synth.phantom import Phantom
from medil.system.workers import call_each
from medil.training.patches import Scan, prepare_scan
from medil.volume import Intensity, Volume

FOLDER = Path("_build/thin_structures")
VERSION = 1  # part of every hash: raise it when other scans are made
TEST_SEEDS = range(100)  # of chests; training has others
TRAIN_SEED = 1000
SCANS: dict[str, Triple] = {  # voxel sizes in mm
    "thin slices": (0.6, 0.6, 0.6),
    "thick slices": (0.7, 0.7, 2.5),
}
WINDOW_HU = (-1000.0, 600.0)  # that became 0 and 1 in training
SIDE_MM, MARGIN_MM = 56.0, 6.0  # of a part, and of its faces, where nothing is scored
SMALL_MM = 1.2  # radius below which an airway is small
BRONCHUS, MIDDLE = 1, 4  # generations around whose ends the first two parts lie
SHAMS = 120  # tubes without an airway, in the part of the small ones
CLEARANCE = 3.5  # radii that a sham keeps from every airway, and so from the artery beside it


@dataclass(frozen=True)
class Part:
    """A part of a chest as scanned, with the airways in it and tubes where none is."""

    volume: Volume  # [D, H, W] int16, HU
    airways: tuple[Tube, ...]
    shams: tuple[Tube, ...]


@dataclass(frozen=True)
class Chest:
    """One chest under one scan (a key of `SCANS`)."""

    seed: int
    scan: str

    @property
    def name(self) -> str:
        """The subject in the rows."""
        return f"chest_{self.seed:02d}"

    @property
    def data_sha256(self) -> str:
        """Of the recipe that makes it."""
        places = [SIDE_MM, MARGIN_MM, SMALL_MM, BRONCHUS, MIDDLE, SHAMS, CLEARANCE]
        return digest([VERSION, self.seed, self.scan, SCANS[self.scan], *places])

    def path(self, folder: Path = FOLDER) -> Path:
        """Where its parts are kept."""
        return folder / f"{self.name}_{self.data_sha256[:12]}.safetensors"

    def parts(self, folder: Path = FOLDER) -> list[Part]:
        """The scanned parts, from their file; scanned first where there is none."""
        if not self.path(folder).exists():
            scan_chest(self, folder)
        tensors, facts = heads.read(self.path(folder))
        return [
            Part(
                Volume(tensors[f"part{k}"], Grid.from_spacing(**fact["grid"])),
                tuple(_tube(line) for line in fact["airways"]),
                tuple(_tube(line) for line in fact["shams"]),
            )
            for k, fact in enumerate(facts)
        ]


def scan_all(chests: Sequence[Chest], folder: Path = FOLDER, workers: int = 1) -> None:
    """Scan the chests that are not in the folder yet."""
    call_each(
        scan_chest, [(c, folder) for c in chests if not c.path(folder).exists()], workers, "chests"
    )


def scan_chest(which: Chest, folder: Path = FOLDER) -> None:
    """Scan the parts of a chest into a file."""
    phantom = grown(which.seed)
    rng = np.random.default_rng([which.seed, list(SCANS).index(which.scan), 43])
    kernel_mm, noise_hu = rng.uniform(*KERNEL_MM), rng.uniform(*NOISE_HU)
    airways = tubes(phantom)
    tensors, facts = {}, []
    for k, middle_mm in enumerate(middles_mm(airways, phantom)):
        grid = part_grid(middle_mm + rng.uniform(-1, 1, 3), SCANS[which.scan])
        inside = [tube for tube in airways if is_scored(tube, grid)]
        sham = shams(rng, which.seed, grid, airways, inside) if k == 2 else []
        tensors[f"part{k}"] = ct_scan(phantom, grid, kernel_mm, noise_hu, rng)
        facts.append({
            "grid": _facts_of(grid),
            "airways": [_line(tube) for tube in inside],
            "shams": [_line(tube) for tube in sham],
        })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    heads.write(which.path(folder), tensors, facts)


@lru_cache(maxsize=1)
def grown(seed: int) -> Phantom:
    """A chest; growing its airways takes some seconds."""
    return chest(seed)


def tubes(phantom: Phantom) -> list[Tube]:
    """The airways of a chest."""
    return [
        Tube(np.array(b["start_mm"]), np.array(b["end_mm"]), b["radius_mm"], b["wall_mm"])
        for b in phantom.facts["branches"]
    ]


def middles_mm(airways: Sequence[Tube], phantom: Phantom) -> list[np.ndarray]:
    """[3] the middle of each part."""
    generations = np.array([b["generation"] for b in phantom.facts["branches"]])
    ends = np.array([tube.end_mm for tube in airways])
    centres = np.array([(tube.start_mm + tube.end_mm) / 2 for tube in airways])
    small = np.array([tube.radius_mm < SMALL_MM for tube in airways])

    def near(point_mm: np.ndarray, which: np.ndarray) -> int:
        return int((np.abs(centres - point_mm) < SIDE_MM / 2 - MARGIN_MM).all(1)[which].sum())

    everything = np.ones(len(airways), dtype=bool)
    return [
        ends[generations == BRONCHUS][0],
        max(ends[generations == MIDDLE], key=lambda point: near(point, everything)),
        max(centres[small], key=lambda point: near(point, small)),
    ]


def part_grid(middle_mm: np.ndarray, spacing_mm: Triple) -> Grid:
    """Voxels of about `SIDE_MM` along each axis around a point."""
    shape = np.ceil(SIDE_MM / np.array(spacing_mm)).astype(int)
    first_mm = middle_mm - (shape - 1) / 2 * np.array(spacing_mm)
    return Grid.from_spacing(shape.tolist(), spacing_mm, first_mm.tolist())


def is_scored(tube: Tube, grid: Grid) -> bool:
    """Whether a tube's middle lies in a grid, `MARGIN_MM` from its faces."""
    low, high = grid.bounds_mm
    middle_mm = (tube.start_mm + tube.end_mm) / 2
    return bool(((middle_mm > low + MARGIN_MM) & (middle_mm < high - MARGIN_MM)).all())


def shams(
    rng: np.random.Generator, seed: int, grid: Grid, airways: Sequence[Tube], like: Sequence[Tube]
) -> list[Tube]:
    """Tubes as long and wide as the small ones of `like`, in lung tissue, clear of all airways."""
    body = draw_body(np.random.default_rng([seed, 31]))
    low, high = grid.bounds_mm + MARGIN_MM * np.array([[1], [-1]])
    steps = np.linspace(0, 1, 9)[:, None, None]
    axes_mm = np.array([tube.start_mm + steps[:, 0] * (tube.end_mm - tube.start_mm)
                        for tube in airways])  # fmt: skip
    radii_mm = np.array([tube.radius_mm for tube in airways])[:, None]
    small = [tube for tube in like if tube.radius_mm < SMALL_MM]
    found: list[Tube] = []
    for _ in range(50 * SHAMS):
        if len(found) == SHAMS or not small:
            break
        model = small[int(rng.integers(len(small)))]
        middle_mm, direction = rng.uniform(low, high), rng.normal(size=3)
        half = np.linalg.norm(model.end_mm - model.start_mm) / 2 * direction
        half /= np.linalg.norm(direction)
        away_mm = np.linalg.norm(axes_mm - middle_mm, axis=-1)
        least_mm = CLEARANCE * radii_mm + np.linalg.norm(half) + model.reach_mm
        if (away_mm > least_mm).all() and is_in_lung(middle_mm, body):
            start_mm, end_mm = middle_mm - half, middle_mm + half
            found.append(Tube(start_mm, end_mm, model.radius_mm, model.wall_mm))
    return found


def _facts_of(grid: Grid) -> dict:
    return {
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": grid.index_to_ras(np.zeros(3)).tolist(),
    }


def _line(tube: Tube) -> list:
    return [tube.start_mm.tolist(), tube.end_mm.tolist(), tube.radius_mm, tube.wall_mm]


def _tube(line: list) -> Tube:
    return Tube(np.array(line[0]), np.array(line[1]), *line[2:])


# Training


def training_scans(
    count: int, focal: bool = False, folder: Path = FOLDER, workers: int = 1
) -> list[Scan]:
    """Scans of training chests as `medil cohort --kind chest` draws them, equally weighted.

    With `focal`, half of the patches lie around small airways.
    """
    files = [(folder / training_file(index), index) for index in range(count)]
    call_each(draw_once, [f for f in files if not f[0].exists()], workers, "training chests")
    return [_read_training(path, 1 / count, focal) for path, _ in files]


def training_file(index: int) -> str:
    """The file of a training scan, named after its recipe."""
    return f"train_{index:02d}_{digest([VERSION, TRAIN_SEED, SMALL_MM])[:12]}.safetensors"


def draw_once(path: Path, index: int, drawn: Volume | None = None) -> None:
    """Write a training scan and where small airways are in it; drawn first when None."""
    volume = drawn or chest_subject(TRAIN_SEED, index)
    airways = tubes(grown(TRAIN_SEED + index // WHOLE_EVERY))
    small = [(t.start_mm + t.end_mm) / 2 for t in airways if t.radius_mm < SMALL_MM]
    places = np.rint(volume.grid.ras_to_index(np.array(small))).astype(int)
    inside = ((places >= 0) & (places < np.array(volume.grid.shape))).all(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"data": volume.data, "small": torch.from_numpy(places[inside]).reshape(-1, 3)}
    heads.write(path, tensors, {"spacing_mm": list(volume.grid.spacing_mm)})


def _read_training(path: Path, weight: float, focal: bool) -> Scan:
    tensors, facts = heads.read(path)
    volume = Volume(tensors["data"], Grid.from_spacing(tensors["data"].shape, facts["spacing_mm"]))
    scan = prepare_scan(volume, weight, path.stem, Intensity(*WINDOW_HU))
    if not (focal and len(tensors["small"])):
        return scan
    often = -(-len(scan.foreground) // len(tensors["small"]))
    around = np.tile(tensors["small"].numpy(), (often, 1))
    everywhere = np.array([scan.foreground[k] for k in range(len(scan.foreground))])
    places = np.concatenate([everywhere, around])
    return Scan(scan.data, scan.spacing_mm, places, weight, scan.name)
