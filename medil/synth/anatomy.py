"""Anatomies: tissue labels at half a millimetre, from MNI152 or from a segmentation.

A voxel is an average over its cell, so a subject must be defined *inside* its voxels.
An `Anatomy` therefore holds its labels at half a millimetre: each label's 1 mm indicator
is smoothed a little, interpolated, and the largest one wins, which turns the blocks of a
segmentation into boundaries that run between voxels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from medil.errors import InputError, needs
from medil.grid import Grid, centres_mm
from medil.volume import load

FINE = 2  # label voxels per millimetre along each axis
MARGIN_MM = 6  # air kept around the brain
BLUR_VOX = 0.6  # blur of each label's indicator
CLOSING_MM = 3  # half-width of the gaps that the outline closes
LABEL_MM = (0.4, 2.5)  # voxel sizes that a label map may have

# T1w means, white matter near 0.9, and their spread over people: our choice, ordered as
# in 3 T MPRAGE; the spread covers the contrast of other T1w sequences.
TISSUES: dict[str, tuple[float, float]] = {
    "air": (0.0, 0.0),
    "csf": (0.16, 0.05),
    "cortex": (0.63, 0.05),
    "cerebellar cortex": (0.64, 0.05),
    "hippocampus": (0.63, 0.04),
    "amygdala": (0.62, 0.04),
    "caudate": (0.65, 0.04),
    "accumbens": (0.64, 0.04),
    "putamen": (0.69, 0.04),
    "thalamus": (0.76, 0.03),
    "pallidum": (0.82, 0.03),
    "ventral diencephalon": (0.81, 0.03),
    "brainstem": (0.83, 0.03),
    "white matter": (0.90, 0.03),
    "white matter lesion": (0.66, 0.08),
    "vessel": (0.35, 0.15),
    "head": (0.45, 0.25),
}

# FreeSurferColorLUT numbers; the 500s of SynthSeg's maps lie outside the brain.
FREESURFER: dict[str, tuple[int, ...]] = {
    "csf": (4, 5, 14, 15, 24, 31, 43, 44, 63, 72),
    "cortex": (3, 42),
    "cerebellar cortex": (8, 47),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "caudate": (11, 50),
    "accumbens": (26, 58),
    "putamen": (12, 51),
    "thalamus": (9, 10, 48, 49),
    "pallidum": (13, 52),
    "ventral diencephalon": (28, 60),
    "brainstem": (16,),
    "white matter": (2, 7, 41, 46, 85, 136, 137, 163, 164, 251, 252, 253, 254, 255),
    "white matter lesion": (25, 57, 77, 78, 79),
    "vessel": (30, 62),
}
WHITE_PARCELS = (range(3000, 5000), (5001, 5002), range(13100, 13200), range(14100, 14200))
TISSUE_OF = {label: tissue for tissue, labels in FREESURFER.items() for label in labels}
OUTER_CSF = 24
VENTRICLES = (4, 5, 43, 44)


@dataclass(frozen=True)
class Anatomy:
    """The tissue labels of one head at half a millimetre.

    Args:
        name: Name in metadata.
        grid: The 1 mm grid of the coarse maps below, RAS+.
        labels: [2D, 2H, 2W] uint8, index into `tissues`, on `grid.resized` to twice the
            shape (the same box).
        tissues: Name of each index's tissue, a key of `TISSUES`; index 0 is air.
        inside: [D, H, W] float32 in 0 ... 1, smooth; 0.5 on the brain's filled outline.
        ventricles: [D, H, W] float32, a blurred indicator of the ventricles.
        offset: [D, H, W] float32 added to the means, or None.
        shares: [len(tissues), D, H, W] float32 tissue probabilities, or None: an average
            brain, whose folds `CohortConfig.folding` draws anew for each subject.
        numbers: FreeSurfer number of each index, where it came from a segmentation.
    """

    name: str
    grid: Grid
    labels: Tensor
    tissues: tuple[str, ...]
    inside: Tensor
    ventricles: Tensor
    offset: Tensor | None = None
    shares: Tensor | None = None
    numbers: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> Anatomy:
        """The same anatomy on a device, where heads are then drawn."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            values[name] = value.to(device) if isinstance(value, Tensor) else value
        return Anatomy(**values)


def gaussian(values: Tensor, sigma_vox: float) -> Tensor:
    """[D, H, W] blurred by a Gaussian, edges repeated; sigma in voxels."""
    radius = max(1, round(3 * sigma_vox))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_vox) ** 2)
    kernel = (kernel / kernel.sum()).to(values)
    for axis, n in enumerate(values.shape):
        index = torch.arange(-radius, n + radius, device=values.device).clamp(0, n - 1)
        rows = values.index_select(axis, index)
        values, weighted = rows.narrow(axis, 0, n) * kernel[0], torch.empty_like(values)
        for i, weight in enumerate(kernel[1:], 1):  # in place: fresh memory is slow
            values += torch.mul(rows.narrow(axis, i, n), weight, out=weighted)
    return values.contiguous()


def finer(values: Tensor) -> Tensor:
    """[D, H, W] to [2D, 2H, 2W] over the same box, trilinear."""
    return functional.interpolate(values[None, None], scale_factor=FINE, mode="trilinear")[0, 0]


def refine_labels(labels: np.ndarray) -> Tensor:
    """Labels [D, H, W] 0 ... 255 on a grid twice as fine: the largest smoothed indicator wins.

    Each indicator is blurred by `BLUR_VOX`. The result is [2D, 2H, 2W] uint8.
    """
    padded = np.pad(labels, 3)  # so that every label's box can grow by the kernel
    fine_shape = [FINE * n for n in padded.shape]
    most, winner = torch.zeros(fine_shape), torch.zeros(fine_shape, dtype=torch.uint8)
    boxes = ndimage.find_objects(padded + 1)  # air too: find_objects counts from 1
    for label, box in enumerate(boxes):
        if box is None:
            continue
        grown = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in box)
        indicator = torch.from_numpy((padded[grown] == label).astype(np.float32))
        share = finer(gaussian(indicator, BLUR_VOX))
        fine = tuple(
            slice(FINE * s.start, FINE * min(s.stop, n))
            for s, n in zip(grown, padded.shape, strict=True)
        )
        better = share > most[fine]
        most[fine] = torch.where(better, share, most[fine])
        winner[fine] = torch.where(better, torch.tensor(label, dtype=torch.uint8), winner[fine])
    keep = slice(3 * FINE, -3 * FINE)
    return winner[keep, keep, keep].contiguous()


def largest(shares: Iterable[Tensor]) -> Tensor:
    """Index of the largest of several [D, H, W] maps, at twice their resolution: uint8."""
    most, winner = torch.zeros(0), torch.zeros(0, dtype=torch.uint8)
    for index, share in enumerate(shares):  # one after the other: fine maps are large
        fine = finer(share)
        if index == 0:
            most, winner = fine, torch.zeros_like(fine, dtype=torch.uint8)
            continue
        winner = torch.where(fine > most, winner.new_tensor(index), winner)
        torch.maximum(most, fine, out=most)
    return winner


def outline(brain: np.ndarray) -> Tensor:
    """A smooth map [D, H, W] float32 that is 0.5 on the filled outline of a brain mask at 1 mm.

    The mask has open sulci; gaps of up to twice `CLOSING_MM` are closed.
    """
    mask = torch.from_numpy(brain.astype(np.float32))
    for sign in (1.0, -1.0):  # grow, then shrink, along each axis
        for axis in range(3):
            row = (sign * mask).movedim(axis, -1)
            grown = functional.max_pool1d(row, 2 * CLOSING_MM + 1, 1, CLOSING_MM)
            mask = sign * grown.movedim(-1, axis)
    filled = ndimage.binary_fill_holes((mask > 0.5).numpy())
    return open_faces(gaussian(torch.from_numpy(filled.astype(np.float32)), 2.0))


def open_faces(values: Tensor) -> Tensor:
    """[D, H, W] with zeros on the outer faces, so that what leaves the box ends there."""
    inner = functional.pad(torch.ones([n - 2 for n in values.shape]), (1,) * 6)
    return values * inner


def crop_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box of a mask with a margin in voxels, inside the array."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(box, mask.shape, strict=True)
    )


def label_anatomy(path: str | Path, skull_stripped: bool = True) -> Anatomy:
    """The anatomy of a FreeSurfer-numbered label map, such as SynthSeg's training maps.

    Args:
        path: A label map of about 1 mm, in any format and orientation that `medil.load` reads.
        skull_stripped: Leave out the extra-cerebral labels (500 and above).

    Raises:
        InputError: What `load_labels` refuses, or no brain label.
    """
    labels, whole = load_labels(path)
    tissue = (labels > 0) & (labels < 500)
    brain = tissue & (labels != OUTER_CSF)
    if not brain.any():
        raise InputError(f"{path} holds no FreeSurfer brain label (1 to 499); give a label map.")
    kept = brain if skull_stripped else labels > 0
    box = crop_box(kept, MARGIN_MM)
    labels = np.where(tissue | (not skull_stripped), labels, 0)[box]
    grid = whole.crop([s.start for s in box], labels.shape)
    numbers = np.unique(np.append(labels, 0))
    tissues = tuple(tissue_of(int(n)) for n in numbers)
    outer = outline(brain[box]) if skull_stripped else open_faces(torch.ones(labels.shape))
    ventricles = torch.from_numpy(np.isin(labels, VENTRICLES).astype(np.float32))
    return Anatomy(
        Path(path).name.split(".")[0],
        grid,
        refine_labels(np.searchsorted(numbers, labels)),
        tissues,
        outer,
        gaussian(ventricles, 6.0),
        numbers=tuple(int(n) for n in numbers),
    )


def load_labels(path: str | Path) -> tuple[np.ndarray, Grid]:
    """Read the labels of a segmentation, an image of whole numbers: [D, H, W] int32 and its grid.

    Raises:
        InputError: What `medil.load` refuses, values that are not labels, or voxels far from
            1 mm, as a header in the wrong unit makes them.
    """
    volume = load(path)
    values, spacing_mm = volume.data.numpy(), volume.grid.spacing_mm
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or Inf; a label map holds whole numbers.")
    labels = values.astype(np.int32)
    if not (labels == values).all() or labels.min() < 0:
        raise InputError(f"{path} is not a label map: it holds other values than 0, 1, 2, ...")
    if min(spacing_mm) < LABEL_MM[0] or max(spacing_mm) > LABEL_MM[1]:
        sizes = " x ".join(f"{s:.5g}" for s in spacing_mm)
        raise InputError(
            f"{path} has voxels of {sizes} mm, but label maps have about 1 mm; "
            "see whether its header names the right unit."
        )
    return labels, volume.grid


def tissue_of(label: int) -> str:
    """The tissue of a FreeSurfer number: parcels from 1000, unknown ones as cortex."""
    if label == 0:
        return "air"
    if 500 <= label < 1000:
        return "head"
    if any(label in parcels for parcels in WHITE_PARCELS):
        return "white matter"
    return TISSUE_OF.get(label, "cortex")


def mni152_datasets() -> ModuleType:
    """The loaders of the MNI152 template and its maps, which come inside nilearn.

    Raises:
        InputError: nilearn is not installed.
    """
    with needs("data", "MNI152 comes with nilearn"):
        from nilearn import datasets
    loaders: ModuleType = datasets
    return loaders


@functools.cache  # reading it takes some ten seconds
def tissue_anatomy() -> Anatomy:
    """The anatomy of the MNI152 average brain, cropped to it: nilearn's bundled maps, no download.

    Grey matter, white matter and CSF are where their 1 mm probability maps win; what the
    average T1w image says beyond that (deep nuclei, brainstem) becomes `Anatomy.offset`.

    Raises:
        InputError: nilearn is not installed.
    """
    datasets = mni152_datasets()
    template = datasets.load_mni152_template(resolution=1)
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
    brain = grey + white > 0.35
    box = crop_box(brain, MARGIN_MM)
    grid = Grid(brain.shape, template.affine).crop([s.start for s in box], brain[box].shape)
    inside = outline(brain[box])
    csf = np.clip((inside.numpy() > 0.1) - grey[box] - white[box], 0, 1)
    air = 1 - csf - grey[box] - white[box]
    low = _cerebellum(grid)
    cortices = [grey[box] * ~low, grey[box] * low]
    shares = torch.from_numpy(np.stack([air, csf, *cortices, white[box]]))  # [5, D, H, W]
    middle = np.zeros_like(csf)
    middle[tuple(slice(n // 3, 2 * n // 3) for n in csf.shape)] = 1
    ventricles = gaussian(torch.from_numpy(csf * middle), 6.0)
    t1 = torch.from_numpy(template.get_fdata(dtype=np.float32)[box])
    tissues = ("air", "csf", "cortex", "cerebellar cortex", "white matter")
    labels, offset = largest(shares), _offset(t1, shares)
    return Anatomy("mni152", grid, labels, tissues, inside, ventricles, offset, shares)


def _cerebellum(grid: Grid) -> np.ndarray:
    """[D, H, W] bool: below a plane along MNI152's tentorium (read off the template)."""
    _, anterior_mm, superior_mm = centres_mm(grid).numpy().transpose(3, 0, 1, 2)
    low: np.ndarray = (anterior_mm < -45) & (superior_mm < 0.3 * anterior_mm + 2)
    return low


def _offset(t1: Tensor, shares: Tensor) -> Tensor:
    """The part of an average T1w image that tissue shares do not explain: [D, H, W], smooth."""
    means = [float((t1 * share).sum() / share.sum()) for share in shares]
    mixed = sum(mean * share for mean, share in zip(means, shares, strict=True))
    return gaussian((t1 - mixed) * shares[2:].sum(0), 1.0)
