"""Painted heads with exact tissue maps, and the variation that a segmenter is trained on.

Heads of the cohort are drawn at 1 mm with a generous rim of CSF and kept in a folder. A step
cuts patches out of them and varies what differs between real scans: the cut of the skull
stripping, contrast, shading, blur, slice thickness and noise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from medil.anatomy.classes import NUMBER, freesurfer_class
from medil.data.samples import label_map_paths
from medil.grid import Grid, centres_mm
from medil.io.intensity import robust_intensity
from medil.regrid import box_average, sample_nearest, sample_trilinear
from medil.synth.anatomy import Anatomy, gaussian, label_anatomy, outline
from medil.synth.appearance import Range, smooth_noise
from medil.synth.subject import CohortConfig, Subject, draw_subject
from medil.system.tensors import read_tensors, write_tensors
from medil.system.workers import grouped, share_out

VERSION = 1  # raise it when other heads are drawn
SEEDS = {"train": 6000, "test": 6007}
ROOM_MM = 3  # CSF kept beyond the brain's outline, for `vary` to cut
STYLE = CohortConfig(texture=(0.003, 0.045), rotation_deg=10.0, scale=(0.85, 1.1))

CUT: Range = (0.3, 0.97)  # level of the outline that is cut: 3 mm outside to at the brain
CUT_NOISE = 0.15  # standard deviation of that level over the surface
GAMMA = 0.25  # standard deviation of the logarithm of the contrast's exponent
GAIN: Range = (0.85, 1.15)  # factor on intensities
SHADING: Range = (0.0, 0.15)  # standard deviation of the logarithm of slow shading
SHADING_POINTS = 4  # of a patch along each axis, between which the shading is linear
NOISE: Range = (0.003, 0.06)  # Rician sigma; white matter is near 0.9
THICK_MM: Range = (1.2, 3.0)  # slices
THICK_SHARE = 0.4  # of patches with thick slices
BLUR_SHARE, BLUR_MM = 0.3, (0.3, 0.9)  # patches that are blurred, by this sigma
DEBRIS_SHARE = 0.3  # of patches with bright vessels, fat or dura left in the outer CSF


@dataclass(frozen=True)
class PaintedHead:
    """A painted head at 1 mm, without noise.

    Args:
        data: [D, H, W] float16, about 0 ... 1; 0 is air.
        labels: [D, H, W] uint8 classes.
        inside: [D, H, W] uint8, 255 times a smooth map that is 0.5 at `ROOM_MM` outside the
            brain's outline.
        source: Name of the label map.
    """

    data: Tensor
    labels: Tensor
    inside: Tensor
    source: str

    @functools.cached_property
    def centre_vox(self) -> np.ndarray:
        """[3] mean index of all voxels that are not air."""
        return np.array(ndimage.center_of_mass(self.labels.numpy() > 0))

    @functools.cached_property
    def size_vox(self) -> tuple[int, int, int]:
        """Shape of the head."""
        depth, height, width = self.data.shape
        return depth, height, width


def draw_painted_heads(
    split: str, numbers: Sequence[int], folder: Path, processes: int = 1
) -> list[Path]:
    """Draw heads into files, in the order of `numbers`; files that exist are kept.

    Args:
        split: "train" or "test": which label maps, and which seed.
        numbers: Indices; head k is drawn on label map k modulo their count.
        folder: Created when missing.
        processes: Number of processes that draw.

    Raises:
        InputError: No label maps.
    """
    maps = label_map_paths(split)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {k: folder / f"{split}_v{VERSION}_{k:04d}.safetensors" for k in numbers}
    missing = [k for k, path in paths.items() if not path.exists()]
    draw = functools.partial(_draw_on_one_map, split, paths)
    share_out(draw, grouped(missing, len(maps), processes), processes, f"{split} heads")
    return [paths[k] for k in numbers]


def _draw_on_one_map(split: str, paths: dict[int, Path], numbers: Sequence[int]) -> None:
    maps = label_map_paths(split)
    anatomy = roomy(label_anatomy(maps[numbers[0] % len(maps)]))
    for index in numbers:
        head = painted_head(draw_subject(anatomy, SEEDS[split], index, STYLE), anatomy)
        tensors = {"data": head.data, "labels": head.labels, "inside": head.inside}
        write_tensors(paths[index], tensors, {"source": head.source}, force=True)


def read_painted_head(path: Path) -> PaintedHead:
    """The head in a file of `draw_painted_heads`."""
    tensors, meta = read_tensors(path)
    return PaintedHead(**tensors, source=meta["source"])


def roomy(anatomy: Anatomy) -> Anatomy:
    """The anatomy with its outline moved `ROOM_MM` outwards, so that CSF is kept there."""
    wider = ndimage.binary_dilation(anatomy.inside.numpy() > 0.5, iterations=ROOM_MM)
    return replace(anatomy, inside=outline(wider))


def painted_head(head: Subject, anatomy: Anatomy) -> PaintedHead:
    """Average a head over voxels of 1 mm, and look up the tissue at their centres.

    Voxels that `medil.synth.cohort.scan` would strip are air, in the data and in the map.
    """
    low, high = head.head_mm
    grid = Grid.from_spacing([math.ceil(n) for n in high - low], 1.0, low + 0.5)
    signal = head.render(grid)
    classes = tissues_at(head, anatomy, grid)
    inside = sample_trilinear(head.fields[:, 4:], head.lattice, centres_mm(grid))[0, 0]
    is_head = signal > 0.5 * head.darkest
    data = torch.where(is_head, signal, 0.0)
    return PaintedHead(
        robust_intensity(data).forward(data).half(),
        torch.where(is_head, classes, 0),
        (255 * inside).clamp(0, 255).round().to(torch.uint8),
        anatomy.name,
    )


def tissues_at(head: Subject, anatomy: Anatomy, grid: Grid) -> Tensor:
    """[D, H, W] uint8: the class at each voxel's centre, CSF wherever the anatomy has air."""
    source_mm = sample_trilinear(head.fields[:, :3], head.lattice, centres_mm(grid))[0]
    labels = sample_nearest(anatomy.labels, head.painted_grid, source_mm.movedim(0, -1))
    table = torch.tensor([NUMBER[freesurfer_class(n)] for n in anatomy.numbers])
    return table[labels.int()].clamp(min=NUMBER["csf"]).to(torch.uint8)


# Variation


@dataclass(frozen=True)
class Patch:
    """What a segmenter sees of a head, and what it should say.

    Args:
        data: [S, S, S] float32; 0 is air.
        labels: [S, S, S] uint8 classes.
        offset_mm: [3] (R, A, S) from the middle of the brain to the first voxel.
    """

    data: Tensor
    labels: Tensor
    offset_mm: np.ndarray


def draw_patch(head: PaintedHead, side: int, rng: np.random.Generator) -> Patch:
    """A random patch of a head, varied, mirrored half of the time."""
    start = [int(rng.integers(-side // 4, max(1, n - 3 * side // 4))) for n in head.size_vox]
    parts = [_cut_out(t, start, side) for t in (head.data, head.labels, head.inside)]
    data, labels, inside = parts[0].float(), parts[1], parts[2].float() / 255
    offset_mm = np.array(start) - head.centre_vox
    if rng.random() < 0.5:
        data, labels, inside = (t.flip(0) for t in (data, labels, inside))
        offset_mm[0] = -offset_mm[0] - (side - 1)
    data, labels = vary(data, labels, inside, rng)
    return Patch(data, labels, offset_mm)


def _cut_out(values: Tensor, start: Sequence[int], side: int) -> Tensor:
    """[S, S, S] from an index on, which may lie outside: zeros there."""
    ends = [(max(0, -a), max(0, a + side - n)) for a, n in zip(start, values.shape, strict=True)]
    within = tuple(
        slice(max(0, a), min(n, a + side)) for a, n in zip(start, values.shape, strict=True)
    )
    pads = [p for pair in reversed(ends) for p in pair]
    return functional.pad(values[within], pads)


def vary(
    data: Tensor, labels: Tensor, inside: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Vary a patch as real scans vary; gives new data and labels, whose air is 0 in both."""
    level = rng.uniform(*CUT) + CUT_NOISE * _slow(data.shape, 2 * SHADING_POINTS, rng)
    kept = (inside > level.clamp(max=CUT[1])) & (labels > 0)
    if rng.random() < DEBRIS_SHARE:
        data = _with_debris(data, labels, rng)
    data = data.clamp(min=0) ** math.exp(GAMMA * rng.normal()) * rng.uniform(*GAIN)
    data = data * (rng.uniform(*SHADING) * _slow(data.shape, SHADING_POINTS, rng)).exp()
    data = torch.where(kept, data, 0.0)
    if rng.random() < THICK_SHARE:
        data = _thick(data, int(rng.integers(3)), rng.uniform(*THICK_MM))
    if rng.random() < BLUR_SHARE:
        data = gaussian(data, rng.uniform(*BLUR_MM))
    data = _rician(data, rng.uniform(*NOISE), rng)
    return torch.where(kept, data.clamp(min=1e-3), 0.0), torch.where(kept, labels, 0)


def _with_debris(data: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Bright spots of about 4 mm in the outer CSF."""
    coarse = smooth_noise(tuple(-(-n // 2) for n in data.shape), 1.0, rng)
    spots = functional.interpolate(coarse[None, None], data.shape, mode="trilinear")[0, 0]
    where = (labels == NUMBER["csf"]) & (spots > rng.uniform(0.8, 2.0))
    return torch.where(where, rng.uniform(0.2, 1.2) + 0.1 * spots, data)


def _slow(shape: Sequence[int], points: int, rng: np.random.Generator) -> Tensor:
    """Normal noise at a few points along each axis, trilinear between them."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *[points] * 3), dtype=np.float32))
    return functional.interpolate(coarse, tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def _thick(data: Tensor, axis: int, thickness: float) -> Tensor:
    """Averages over slices along an axis, linear between their middles."""
    shape = list(data.shape)
    shape[axis] = max(2, round(shape[axis] / thickness))
    slices = box_average(data, shape)
    return functional.interpolate(slices[None, None], data.shape, mode="trilinear")[0, 0]


def _rician(data: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    real, imaginary = torch.randn((2, *data.shape), generator=generator)
    return torch.hypot(data + sigma * real, sigma * imaginary)
