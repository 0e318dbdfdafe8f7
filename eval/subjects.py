"""The volumes that experiments score, and the conditions under which they do.

All subjects are held out: the `test` split of the manifests, and heads generated from
label maps of that split. Nothing here downloads; a data set that is not available is left
out, and the MNI152 template stands in when none is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike

from eval import heads
from eval.metrics import brain_mask, head_mask
from eval.rows import array_digest, digest
from medil.data.manifest import entries, fetch, local_entries, reachable
from medil.data.samples import LABEL_MAPS, mni152_template
from medil.data.schema import Entry
from medil.errors import InputError
from medil.grid import Grid
from medil.regrid import cell_average
from medil.synth.cohort import native_grid
from medil.volume import Volume, load

REAL = ("open_ms_t1", "ds002748")  # manifests of scans
COHORT_SEED = 7  # of the evaluation; training uses another one
MARGIN_MM = 8  # of air around a brain that is cropped
Box = tuple[slice, slice, slice]
MADE_VERSION = 1  # part of a synthetic volume's hash: raise it when `medil.synth.cohort` changes


@dataclass(frozen=True)
class Scan:
    """One loaded subject."""

    volume: Volume  # as scanned, on its native grid
    mask: np.ndarray  # [D, H, W] bool on that grid: the brain, or the head of a raw scan
    ideal: Callable[[Grid], np.ndarray] | None = None  # noise-free, of synthetic heads only


@dataclass(frozen=True)
class Subject:
    """Name, hash and conditions of a subject, and a function that loads it."""

    name: str
    data_sha256: str
    conditions: tuple[str, ...]
    load: Callable[[], Scan]
    kind: str = ""  # of a real scan: brain (skull-stripped) or head; empty for others


@dataclass(frozen=True)
class Case:
    """One question: encode `volume`, render `target`, compare with `truth` in `mask`."""

    volume: Volume
    target: Grid
    truth: np.ndarray  # [D, H, W] float64 on `seen_on`
    seen_on: Grid  # the rendering is averaged onto it where it differs from `target`
    mask: np.ndarray  # [D, H, W] bool on `seen_on`


def whole_blocks(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    """The coarser grid whose voxels are whole blocks of this grid's voxels.

    Planes that do not fill a block are left out, half at each end; so the mean over a
    coarse cell is exactly the mean of its voxels.

    Example:
        >>> whole_blocks(Grid.from_spacing((9, 8, 7), 1.0), (2, 2, 3)).extent_mm
        (8.0, 8.0, 6.0)
    """
    shape = [n // f for n, f in zip(grid.shape, factors, strict=True)]
    kept = [n * f for n, f in zip(shape, factors, strict=True)]
    start = [(n - k) // 2 for n, k in zip(grid.shape, kept, strict=True)]
    return grid.crop(start, kept).resized(shape)


def same(scan: Scan) -> Case:
    """Encode the scan, render its own grid; the scan is the truth."""
    grid = scan.volume.grid
    return Case(scan.volume, grid, _numbers(scan.volume), grid, scan.mask)


def coarser(scan: Scan, factors: tuple[int, int, int]) -> Case:
    """Encode the scan, render whole blocks of its voxels; their mean is the truth."""
    target = whole_blocks(scan.volume.grid, factors)
    truth, mask = averaged(scan, target)
    return Case(scan.volume, target, truth, target, mask)


def from_coarser(scan: Scan, factors: tuple[int, int, int]) -> Case:
    """Encode the scan averaged over whole blocks of its voxels, render its own voxels again."""
    coarse = whole_blocks(scan.volume.grid, factors)
    data, _ = averaged(scan, coarse)
    shape = [n * f for n, f in zip(coarse.shape, factors, strict=True)]
    target = coarse.resized(shape)  # the native voxels, minus planes that fill no block
    truth, mask = averaged(scan, target)
    volume = Volume(torch.from_numpy(data).float(), coarse)
    return Case(volume, target, truth, target, mask)


def _to_2_mm(scan: Scan) -> Case:
    """Blocks of 1 mm voxels; of other voxels, cell averages over the same box."""
    grid = scan.volume.grid
    if np.allclose(grid.spacing_mm, 1.0, atol=1e-3):
        return coarser(scan, (2, 2, 2))
    target = grid.with_spacing(2.0)
    truth, mask = averaged(scan, target)
    return Case(scan.volume, target, truth, target, mask)


def _from_1_mm(scan: Scan) -> Case:
    grid = scan.volume.grid
    return Case(at_1_mm(scan).volume, grid, _numbers(scan.volume), grid, scan.mask)


def at_1_mm(scan: Scan) -> Scan:
    """The scan's cell averages on 1 mm voxels over the same box; itself where it has such voxels.

    Its mask holds the cells that are at least half in the scan's.
    """
    grid = scan.volume.grid
    if np.allclose(grid.spacing_mm, 1.0, atol=1e-3):
        return scan
    target = grid.with_spacing(1.0)
    data, mask = averaged(scan, target)
    return Scan(Volume(torch.from_numpy(data).float(), target), mask)


def _thin_slices(scan: Scan, parts: int) -> Case:
    grid = scan.volume.grid
    thick = int(np.argmax(grid.spacing_mm))
    shape = [n * parts if axis == thick else n for axis, n in enumerate(grid.shape)]
    return Case(scan.volume, grid.resized(shape), _numbers(scan.volume), grid, scan.mask)


def _to_ideal(scan: Scan, spacing_mm: float) -> Case:
    if scan.ideal is None:
        raise InputError("only synthetic heads have a truth on other grids than their own.")
    target = scan.volume.grid.with_spacing(spacing_mm)
    truth = scan.ideal(target)
    return Case(scan.volume, target, truth, target, brain_mask(truth))


CONDITIONS: dict[str, Callable[[Scan], Case]] = {
    "native -> native": same,
    "native -> 2 mm": _to_2_mm,
    "native -> 1 x 1 x 3 mm": lambda s: coarser(s, (1, 1, 3)),
    "2 mm -> 1 mm": lambda s: from_coarser(s, (2, 2, 2)),
    "native -> in-plane x 2": lambda s: coarser(s, (2, 2, 1)),  # of thick slices along S
    "native -> thin slices -> native": lambda s: _thin_slices(s, 3),
    "native -> 1 mm": lambda s: _to_ideal(s, 1.0),
    "1 mm -> native": _from_1_mm,  # of smaller voxels
}
# Where interpolating every voxel of the scan is a rival (elsewhere it copies the truth).
INTERPOLATED: tuple[str, ...] = (
    "2 mm -> 1 mm",
    "native -> thin slices -> native",
    "native -> 1 mm",
    "1 mm -> native",
)
OF_1_MM = tuple(CONDITIONS)[:4]
OF_THICK_SLICES = ("native -> native", *tuple(CONDITIONS)[4:6])
OF_MADE = ("native -> native", "native -> 1 mm")
OF_BRAINS = {  # by data set
    "open_ms_t1": OF_1_MM,
    "ds002748": ("native -> native", "native -> 2 mm", "1 mm -> native"),
}


def subjects(profile: str) -> list[Subject]:
    """The held-out subjects of a profile whose data is available, real ones first.

    Args:
        profile: ``quick`` (one brain of each data set, one raw scan, one synthetic head),
            ``gpu`` (all scans of the test split, four synthetic heads) or ``paper`` (twenty
            synthetic heads). MNI152 stands in when no manifest data is available.
    """
    n_made = {"quick": 1, "gpu": 4, "paper": 20}
    if profile not in n_made:
        raise InputError(f"a profile is quick, gpu or paper, not {profile!r}.")
    scans = held_out_scans()
    if profile == "quick":
        scans = _one_of_each(scans)
    n_drawn = n_made[profile] if local_entries(LABEL_MAPS, "test") else 0
    made = [_made(head) for head in heads.heads("test", COHORT_SEED, n_drawn)]
    return [*map(real, scans), *made] or [template_subject()]


def held_out_scans() -> list[Entry]:
    """The real scans of the test split that are on this computer."""
    return [entry for name in REAL for entry in local_entries(name, "test")]


def held_out_brains() -> list[Entry]:
    """The skull-stripped ones; the 1 mm brain of the tables comes first."""
    return [entry for entry in held_out_scans() if entry.kind == "brain"]


def _one_of_each(scans: Sequence[Entry]) -> list[Entry]:
    """The first scan of each data set and kind."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in scans:
        first.setdefault((entry.dataset, entry.kind), entry)
    return list(first.values())


def name_of(entry: Entry) -> str:
    """The public name of a scan: its file's, without folders and suffixes."""
    return entry.path.rsplit("/", 1)[-1].split(".")[0]


def real(entry: Entry) -> Subject:
    """A scan of a manifest."""
    stripped = entry.kind == "brain"
    find_mask = brain_mask if stripped else head_mask

    def read() -> Scan:
        volume = load(fetch(entry))
        return Scan(volume, find_mask(_numbers(volume)))

    conditions = OF_BRAINS[entry.dataset] if stripped else OF_THICK_SLICES
    return Subject(name_of(entry), entry.sha256, conditions, read, entry.kind)


def _made(head: heads.Head) -> Subject:
    recipe = digest([MADE_VERSION, head.map_sha256, COHORT_SEED, head.index, repr(head.style)])

    def make() -> Scan:
        subject = head.draw()
        grid = native_grid(subject, COHORT_SEED, head.index, head.style)
        data = head.scan(subject, grid)

        def ideal(target: Grid) -> np.ndarray:
            return heads.stripped(subject, target).double().numpy()  # stripped as the scan is

        return Scan(Volume(data, grid), brain_mask(data.numpy()), ideal)

    return Subject(f"made_{head.index:02d}_from_{head.source()}", recipe, OF_MADE, make)


def brain_entry() -> Entry:
    """The real 1 mm brain of the tables, in its manifest."""
    return next(e for e in entries("open_ms_t1", "test") if e.kind == "brain")


def brain_at_1_mm() -> tuple[Scan, str]:
    """The real 1 mm brain of the tables, and one sentence that describes it.

    It comes from the mirror, the cache or its published address; where none has it, the
    MNI152 average stands in, and the sentence says so.

    Raises:
        InputError: A local copy does not hold the published bytes, or nilearn is missing.
    """
    entry = brain_entry()
    if not reachable(entry):
        return _template(), (
            "The real brain is not at hand, so the MNI152 template stands in: an average of "
            "many heads, smoother than any scan, which flatters every code."
        )
    name = entry.path.rsplit("/", 1)[-1]
    return real(entry).load(), (
        "A skull-stripped T1-weighted brain at 1 mm that training never saw: "
        f"{name} of {entry.dataset} ({entry.licence})."
    )


def cut(scan: Scan, centre_mm: ArrayLike, sides_mm: Sequence[float]) -> Scan:
    """The part of a scan in a box along its axes, moved to whole voxels.

    Args:
        scan: The scan.
        centre_mm: [3] middle of the box, (R, A, S) in mm.
        sides_mm: [3] sides along the voxel axes; clipped to the scan where the box is larger.
    """
    grid = scan.volume.grid
    shape = np.minimum(np.rint(np.asarray(sides_mm) / grid.spacing_mm), grid.shape).astype(int)
    start = np.rint(grid.ras_to_index(np.asarray(centre_mm)) - (shape - 1) / 2).astype(int)
    start = np.clip(start, 0, np.asarray(grid.shape) - shape)
    return cut_box(scan, box_between(start, start + shape))


def trimmed(scan: Scan) -> Scan:
    """A scan cropped to its mask and, where the scan is large enough, `MARGIN_MM` around it."""
    grid = scan.volume.grid
    margin = np.rint(MARGIN_MM / np.asarray(grid.spacing_mm)).astype(int)
    where = np.argwhere(scan.mask)
    low = np.maximum(where.min(0) - margin, 0)
    high = np.minimum(where.max(0) + 1 + margin, grid.shape)
    return cut_box(scan, box_between(low, high))


def cut_box(scan: Scan, box: Box) -> Scan:
    """The scan inside a box of whole voxels."""
    start, shape = [s.start for s in box], [s.stop - s.start for s in box]
    volume = Volume(scan.volume.data[box].clone(), scan.volume.grid.crop(start, shape))
    return Scan(volume, scan.mask[box].copy())


def box_between(start: ArrayLike, stop: ArrayLike) -> Box:
    """The box from the voxel `start` to the voxel before `stop`."""
    i, j, k = map(slice, np.asarray(start).tolist(), np.asarray(stop).tolist())
    return i, j, k


def template_subject() -> Subject:
    """The MNI152 T1 average at 1 mm, which comes with nilearn: a stand-in for a real scan.

    Raises:
        InputError: nilearn is not installed.
    """
    volume = _template().volume
    sha256 = array_digest(_numbers(volume), volume.grid.affine_vox2ras)
    return Subject("mni152_template", sha256, OF_1_MM, _template)


@lru_cache(maxsize=1)
def _template() -> Scan:
    volume = mni152_template()
    return Scan(volume, brain_mask(volume.data.numpy()))


def _numbers(volume: Volume) -> np.ndarray:
    return volume.data.double().numpy()


def averaged(scan: Scan, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The scan's cell averages on a parallel grid, and the cells at least half in its mask."""
    grid = scan.volume.grid
    mask = cell_average(scan.mask.astype(float), grid, target) >= 0.5
    return cell_average(_numbers(scan.volume), grid, target), mask
