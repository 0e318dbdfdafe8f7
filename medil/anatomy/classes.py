"""Tissue maps: one class a voxel, from any numbering that segmentations use.

The classes are the tissues that a T1w scan tells apart, by their brightness or by their place.
Lesions count as white matter, vessels as CSF, and what lies outside the brain as air.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel import orientations
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.io.nifti import nifti_image, place_of
from medil.io.source import Source, written_suffix
from medil.regrid import cell_average, sample_trilinear
from medil.synth.anatomy import BLUR_VOX, gaussian, load_labels, tissue_of
from medil.system.files import atomic_output
from medil.volume import Volume, as_in_file, save

CLASSES = (
    "air",
    "csf",  # outside the brain: sulci, cisterns
    "cortex",
    "white matter",
    "deep grey",  # caudate, putamen, accumbens, hippocampus, amygdala
    "bright deep grey",  # thalamus, pallidum, ventral diencephalon
    "cerebellar cortex",
    "cerebellar white matter",
    "brainstem",
    "lateral ventricles",
    "third and fourth ventricle",
)
NUMBER = {name: number for number, name in enumerate(CLASSES)}
VENTRICLES = ("lateral ventricles", "third and fourth ventricle")
BRAIN = tuple(name for name in CLASSES if name not in ("air", "csf"))

OF_TISSUE = {  # tissue of `medil.synth.anatomy.TISSUES` to class
    "hippocampus": "deep grey",
    "amygdala": "deep grey",
    "caudate": "deep grey",
    "accumbens": "deep grey",
    "putamen": "deep grey",
    "thalamus": "bright deep grey",
    "pallidum": "bright deep grey",
    "ventral diencephalon": "bright deep grey",
    "white matter lesion": "white matter",
    "vessel": "csf",
    "head": "air",
}
OF_FREESURFER = {  # numbers that their tissue does not decide
    **dict.fromkeys((4, 5, 31, 43, 44, 63), "lateral ventricles"),  # with the choroid plexus
    **dict.fromkeys((14, 15, 72), "third and fourth ventricle"),
    **dict.fromkeys((7, 46), "cerebellar white matter"),
}
# Three tissues by the number of white matter: FSL's order, then that of SPM and BIDS.
THREE_TISSUES = {3: ("csf", "cortex", "white matter"), 2: ("cortex", "white matter", "csf")}
NEAR_AIR_VOX = 3  # where little of the white matter lies
CLEARLY_LESS = 0.5  # the most of it, as a share of that of the next class
SPACING_MM = 1.0  # voxel size of tissue maps
INTENT_LABEL = 1002  # NIFTI_INTENT_LABEL
COMMENT = 6  # code of a NIfTI header extension that is plain text


@dataclass(frozen=True)
class LabelMap:
    """The tissue class of each voxel.

    Args:
        labels: [D, H, W] uint8, index into `CLASSES`.
        grid: Where the voxels lie, RAS+.

    Raises:
        InputError: Labels and grid differ in shape, or a label is no class.
    """

    labels: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != self.grid.shape:
            shape = tuple(self.labels.shape)
            raise InputError(f"labels of shape {shape} cannot lie on a grid of {self.grid.shape}.")
        if self.labels.dtype != torch.uint8 or int(self.labels.max()) >= len(CLASSES):
            raise InputError(
                f"a tissue map holds uint8 numbers from 0 to {len(CLASSES) - 1}, not "
                f"{self.labels.dtype} up to {self.labels.max()}."
            )

    def is_class(self, *names: str) -> Tensor:
        """[D, H, W] bool: the voxels of some classes."""
        numbers = [NUMBER[name] for name in names]
        return torch.isin(self.labels, torch.tensor(numbers, dtype=torch.uint8))

    def volumes_ml(self) -> dict[str, float]:
        """The volume of each class but air, in ml."""
        counts = torch.bincount(self.labels.flatten().int(), minlength=len(CLASSES)).tolist()
        voxel_ml = float(np.prod(self.grid.spacing_mm)) / 1000
        return {name: counts[number] * voxel_ml for name, number in NUMBER.items() if number}

    def resampled(self, target: Grid) -> LabelMap:
        """The map on any grid, also an oblique one.

        Voxels that are those of the map keep their class. On a parallel grid with larger voxels
        along any axis, the class that fills most of a voxel wins. Otherwise each class's indicator
        is smoothed a little, and the largest at a voxel's centre wins.
        """
        grid = self.grid
        if target == grid:
            return self
        first, last = (np.array(target.shape) - 1) * [[0], [1]]
        ends_vox = grid.ras_to_index(target.index_to_ras(np.stack([first, last])))
        start = np.rint(ends_vox[0])
        if target.is_parallel_to(grid) and np.abs(ends_vox - start - [first, last]).max() < 1e-2:
            return self._cut(target, start.astype(int).tolist())
        sizes = zip(target.spacing_mm, grid.spacing_mm, strict=True)
        if target.is_parallel_to(grid) and any(new > 1.05 * old for new, old in sizes):
            return averaged(self, target)
        labels = torch.zeros(target.shape, dtype=torch.uint8)
        box, soft = self._tissue_on(target), SoftLabels(self)
        if min(s.stop - s.start for s in box) == 0:
            return LabelMap(labels, target)
        for i in range(box[0].start, box[0].stop):  # points of a whole grid need much memory
            plane = (slice(i, i + 1), *box[1:])
            place = target.crop([s.start for s in plane], [s.stop - s.start for s in plane])
            labels[plane] = soft.at(centres_mm(place))
        return LabelMap(labels, target)

    def _cut(self, target: Grid, start: list[int]) -> LabelMap:
        """The map on a block of its own voxels, which may reach outside."""
        sizes = zip(start, target.shape, self.grid.shape, strict=True)
        ends = [(-a, a + n - whole) for a, n, whole in sizes]
        pads = [p for pair in reversed(ends) for p in pair]  # negative ones cut off
        return LabelMap(functional.pad(self.labels, pads), target)

    def _tissue_on(self, target: Grid) -> tuple[slice, ...]:
        """The block of voxels of another grid that the box of all tissue reaches."""
        corners_vox = target.ras_to_index(self.cropped(margin_vox=1).grid.corners_mm)
        low = np.floor(corners_vox.min(0)).astype(int).clip(0, target.shape)
        high = np.ceil(corners_vox.max(0) + 1).astype(int).clip(0, target.shape)
        return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))

    def cropped(self, margin_vox: int = 0) -> LabelMap:
        """The box of all that is not air, with a margin where the map has one.

        Raises:
            InputError: The map is all air.
        """
        box = ndimage.find_objects((self.labels > 0).numpy().astype(np.uint8))
        if not box:
            raise InputError("the tissue map is all air.")
        ends = [(s.start - margin_vox, s.stop + margin_vox) for s in box[0]]
        inside = tuple(
            slice(max(0, a), min(n, b)) for (a, b), n in zip(ends, self.grid.shape, strict=True)
        )
        labels = self.labels[inside].contiguous()
        return LabelMap(labels, self.grid.crop([s.start for s in inside], labels.shape))

    def save(self, path: str | Path, force: bool = False, like: Source | None = None) -> Path:
        """Write uint8 labels; a NIfTI header says that they are labels, and names the classes.

        Args:
            path: As `medil.save`; `load_map` reads it again.
            force: Replace a file that exists.
            like: The file whose orientation and codes it takes; RAS+ when None.

        Raises:
            InputError: As `medil.save`.
        """
        path, place = Path(path), like and replace(place_of(like), tail=())
        if not written_suffix(path).startswith(".nii"):
            return save(Volume(self.labels, self.grid), path, like=place, force=force)
        grid, transform = as_in_file(self.grid, place)
        stored = orientations.apply_orientation(self.labels.numpy(), transform)
        image = nifti_image(stored, grid, place)
        image.header["intent_code"] = INTENT_LABEL
        image.header["descrip"] = f"tissue classes 0 to {len(CLASSES) - 1}".encode()
        names = "\n".join(f"{number} {name}" for number, name in enumerate(CLASSES))
        image.header.extensions.append(nib.nifti1.Nifti1Extension(COMMENT, names.encode()))
        with atomic_output(path, force) as temporary:
            nib.save(image, temporary)
        return path


class SoftLabels:
    """A tissue map as a function of space: the class whose smoothed indicator is largest.

    Trilinear interpolation of each indicator, blurred by `BLUR_VOX`, gives boundaries that run
    between voxels.

    Args:
        tissue_map: The map.
        names: Classes that can win, air among them; all when None.
    """

    def __init__(self, tissue_map: LabelMap) -> None:
        self.shares: list[tuple[int, Tensor, Grid]] = []  # class, [1, 1, ...] share, its grid
        labels, grid = tissue_map.labels, tissue_map.grid
        reach = 3  # voxels that the blur and the interpolation spread an indicator by
        boxes = ndimage.find_objects(labels.numpy())
        padded = functional.pad(labels, (reach,) * 6)
        for number, box in enumerate(boxes, start=1):
            if box is None:
                continue
            grown = tuple(slice(s.start, s.stop + 2 * reach) for s in box)
            share = gaussian((padded[grown] == number).float(), BLUR_VOX)
            start = [s.start - reach for s in box]
            self.shares.append((number, share[None, None], grid.crop(start, share.shape)))

    def at(self, points_mm: Tensor) -> Tensor:
        """Classes at points [..., 3] (R, A, S) mm: [...] uint8."""
        points = points_mm.reshape(-1, 3)
        most = points.new_zeros(len(points), dtype=torch.float32)
        total, winner = torch.zeros_like(most), torch.zeros_like(most, dtype=torch.uint8)
        for number, share, grid in self.shares:
            near = inside_box(points, grid)
            value = sample_trilinear(share, grid, points[near])[0, 0]
            total[near] += value
            better = value > most[near]
            most[near] = torch.where(better, value, most[near])
            winner[near] = torch.where(better, winner.new_tensor(number), winner[near])
        winner[1 - total > most] = 0  # what no class claims is air
        return winner.reshape(points_mm.shape[:-1])


def inside_box(points_mm: Tensor, grid: Grid) -> Tensor:
    """[Q] indices of the points [Q, 3] mm that lie in a grid's box."""
    index = torch.from_numpy(grid.ras_to_index(points_mm.numpy()))
    ends = torch.tensor(grid.shape) - 0.5
    return torch.nonzero(((index > -0.5) & (index < ends)).all(-1))[:, 0]


# Numberings


def classes_of(numbers: np.ndarray) -> np.ndarray:
    """The classes of a segmentation's numbers, as uint8 of the same shape.

    Three numberings are known: FreeSurfer's (`aseg`, `aparc+aseg`, `wmparc`, SynthSeg), ours
    (`CLASSES`), and three tissues: those of FSL are ours, while the order of SPM and BIDS is
    recognised by white matter, little of which lies near air.

    Args:
        numbers: [D, H, W] whole numbers from 0.

    Raises:
        InputError: No tissue, or three tissues in an order that cannot be told.
    """
    present = np.unique(numbers)
    if not (present > 0).any():
        raise InputError("the label map is empty: it holds 0 alone.")
    if present.max() >= len(CLASSES):
        return from_freesurfer(numbers)
    if present.max() <= 3:
        return from_three_tissues(numbers)
    return numbers.astype(np.uint8)


def from_freesurfer(numbers: np.ndarray) -> np.ndarray:
    """The classes of FreeSurfer numbers, as uint8 of the same shape."""
    table = np.zeros(int(numbers.max()) + 1, dtype=np.uint8)
    for number in np.unique(numbers):
        table[number] = NUMBER[freesurfer_class(int(number))]
    classes: np.ndarray = table[numbers]
    return classes


def freesurfer_class(number: int) -> str:
    """The class of one FreeSurfer number; unknown ones of the brain count as cortex."""
    if number in OF_FREESURFER:
        return OF_FREESURFER[number]
    tissue = tissue_of(number)
    return OF_TISSUE.get(tissue, tissue)


def from_three_tissues(numbers: np.ndarray) -> np.ndarray:
    """The classes of a map of CSF, grey and white matter (1 to 3), as uint8 of the same shape.

    Raises:
        InputError: The order of the tissues cannot be told.
    """
    if set(np.unique(numbers)) < {1, 2, 3}:
        return numbers.astype(np.uint8)  # ours, where a tissue is missing
    near_air = ndimage.binary_dilation(numbers == 0, iterations=NEAR_AIR_VOX)
    near = {k: near_air[numbers == k].mean() for k in (1, 2, 3)}
    white, second = sorted(near, key=near.__getitem__)[:2]
    if white not in THREE_TISSUES or near[white] > CLEARLY_LESS * near[second]:
        raise InputError(
            "the order of the three tissues cannot be told; number them 1 CSF, 2 grey matter "
            "and 3 white matter."
        )
    table = [0, *(NUMBER[name] for name in THREE_TISSUES[white])]
    classes: np.ndarray = np.array(table, dtype=np.uint8)[numbers]
    return classes


# Files


def load_map(path: str | Path) -> LabelMap:
    """Read a segmentation and give its tissue map at 1 mm, along its own axes, cropped to it.

    Args:
        path: In any format and orientation that `medil.load` reads, numbered as `classes_of`
            knows, with voxels of about 1 mm.

    Raises:
        InputError: What `medil.synth.anatomy.load_labels` or `classes_of` refuses.
    """
    numbers, grid = load_labels(path)
    try:
        classes = classes_of(numbers)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return at_one_mm(LabelMap(torch.from_numpy(classes), grid).cropped(margin_vox=1))


def at_one_mm(tissue_map: LabelMap) -> LabelMap:
    """The map in voxels of 1 mm along its axes: the class that fills most of a voxel."""
    grid = tissue_map.grid
    if np.abs(np.array(grid.spacing_mm) - SPACING_MM).max() < 1e-4:
        return tissue_map
    return averaged(tissue_map, grid.covering(SPACING_MM))


def averaged(tissue_map: LabelMap, target: Grid) -> LabelMap:
    """The map on a parallel grid: the class that fills most of each voxel."""
    labels, grid = tissue_map.labels.numpy(), tissue_map.grid
    winner = largest_share(lambda k: cell_average(labels == k, grid, target), target.shape)
    return LabelMap(torch.from_numpy(winner), target)


def largest_share(share_of: Callable[[int], np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """[D, H, W] uint8: the class with the largest of the shares that a function gives."""
    most, winner = np.full(shape, -1.0), np.zeros(shape, dtype=np.uint8)
    for number in range(len(CLASSES)):
        share = share_of(number)
        better = share > most
        most[better], winner[better] = share[better], number
    return winner
