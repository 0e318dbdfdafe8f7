"""Twelve pictures of one block, eleven with one fault each, and a rule that names the fault.

The block is cut from a synthetic head, so the truth is known. `signs` measures what each fault
leaves behind, and `diagnose` names the fault from these numbers alone. `eval.pages.failures` makes
a page of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from eval.faults import distortions as faults
from eval.faults.distortions import Block, block_of
from eval.generation.page import synthetic_head
from eval.metrics import brain_mask, detail_split, psnr
from eval.patch_vs_whole.patches import seam_ratio
from eval.subjects import Scan
from medil.plots import radial_power
from medil.regrid import resample
from medil.synth.box import box_grid
from medil.volume import Volume

SLAB_MM, SIDE_MM = 48, 96.0  # height of the part of the head that is drawn; side of the block
MIDDLE_MM = (0.0, -6.0, 12.0)
TILE_VOX = 32
COARSE = 3  # voxels along a side that aliasing skips
STRETCH = 0.06
WINDOW = (0.45, 0.8)  # of the peak
LONG, SHORT = (0.05, 0.15), (0.3, 0.45)  # cycles per mm: waves of 20 to 6.7 and 3.3 to 2.2 mm
FINEST, MIDDLING = (0.4, 0.5), (0.1, 0.2)
SMOOTH_MM, SHADE_MM = 3.0, 10.0  # sigmas for displacement and for shading


@lru_cache(maxsize=1)
def clinic_block() -> Block:
    """The block, from a synthetic head on the MNI152 anatomy: no download."""
    whole = box_grid(1.0)
    low = round(whole.ras_to_index(MIDDLE_MM)[2]) - SLAB_MM // 2
    volume = synthetic_head(0, whole.crop((0, 0, low), (*whole.shape[:2], SLAB_MM)))
    scan = Scan(volume, brain_mask(volume.data.numpy()))
    return block_of(scan, np.array(MIDDLE_MM), SIDE_MM)


# Faults that page 08 has no dial for


def half_a_voxel(block: Block) -> np.ndarray:
    """The block where a header says that it lies that takes a voxel's corner for its centre."""
    return faults.shift(block, float(np.linalg.norm(block.spacing_mm)) / 2)


def wrong_voxel_size(block: Block) -> np.ndarray:
    """The block under a header whose voxels are too long along A: stretched about its middle."""
    middle = (np.array(block.truth.shape) - 1) / 2
    back = np.diag([1.0, 1 / (1 + STRETCH), 1.0])
    return ndimage.affine_transform(block.truth, back, middle - back @ middle, mode="nearest")


def wrong_window(block: Block) -> np.ndarray:
    """Values beyond a narrow window are gone; the rest fills the range."""
    low, high = WINDOW
    return block.peak * np.clip((block.truth / block.peak - low) / (high - low), 0, 1)


def flipped(block: Block) -> np.ndarray:
    """Left and right exchanged."""
    return block.truth[::-1].copy()


def aliased(block: Block) -> np.ndarray:
    """Read at the middle of every third voxel, without averaging, and interpolated."""
    coarse = block.grid.resized([n // COARSE for n in block.truth.shape])
    middles = tuple(slice(COARSE // 2, COARSE * n, COARSE) for n in coarse.shape)
    return resample(block.truth[middles], coarse, block.grid)


def seams(block: Block) -> np.ndarray:
    """Tiles, each scaled to the range of its own values, as if it were the whole volume."""
    made, (low, high) = np.empty_like(block.truth), np.percentile(block.truth, (1, 99))
    starts = [range(0, n, TILE_VOX) for n in block.truth.shape]
    for start in np.array(np.meshgrid(*starts)).reshape(3, -1).T:
        box = tuple(slice(a, a + TILE_VOX) for a in start)
        own_low, own_high = np.percentile(block.truth[box], (1, 99))
        made[box] = low + (block.truth[box] - own_low) * (high - low) / (own_high - own_low)
    return made


MAKE: dict[str, Callable[[Block], np.ndarray]] = {
    "scan": lambda block: block.truth.copy(),
    "blur": lambda block: faults.blur(block, 1.0),
    "false_folds": lambda block: faults.false_folds(block, 50),
    "shift": half_a_voxel,
    "voxel_size": wrong_voxel_size,
    "window": wrong_window,
    "flip": flipped,
    "aliasing": aliased,
    "ringing": lambda block: faults.ringing(block, 1.5),
    "noise": lambda block: faults.noise(block, 8),
    "bias": lambda block: faults.bias(block, 25),
    "seams": seams,
}


# Signs


@dataclass(frozen=True)
class Signs:
    """What is measured of a picture against the truth, inside the mask."""

    psnr_db: float
    clipped: float  # share of voxels at the least or the largest value
    mirrored: float  # correlation with the mirrored truth, less that with the truth
    seam: float  # step across the faces of tiles, over that elsewhere
    stretch: float  # per mm, along the axis where it is largest
    shift_mm: float
    shading: float  # standard deviation of a smooth gain
    invented: float  # long waves that the truth has not, over those that it has
    long_kept: float  # gain of long waves
    short_kept: float
    grain: float  # power of the error, finest over middling waves; 1 for white noise


def signs(block: Block, picture: np.ndarray) -> Signs:
    """Measure a picture."""
    truth, mask, spacing_mm = block.truth, block.mask, block.spacing_mm
    long, short = (detail_split(truth, picture, mask, spacing_mm, band) for band in (LONG, SHORT))
    inside = picture[mask]
    ends = np.isclose(inside, inside.min()) | np.isclose(inside, inside.max())
    straight, mirrored = (np.corrcoef(inside, x[mask])[0, 1] for x in (truth, truth[::-1]))
    shift_mm, stretch = misplaced(block, picture)
    return Signs(
        psnr_db=psnr(truth, picture, mask, block.peak),
        clipped=float(ends.mean()),
        mirrored=float(mirrored - straight),
        seam=seam_ratio(truth, picture, mask, (TILE_VOX,) * 3),
        stretch=float(max(stretch, key=abs)),
        shift_mm=float(np.linalg.norm(shift_mm)),
        shading=shading(block, picture),
        invented=long.invented,
        long_kept=long.kept,
        short_kept=short.kept,
        grain=grain(block, picture),
    )


def misplaced(block: Block, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[3] shift in mm and [3] stretch per mm that fit a picture best, along the block's axes.

    One step of registration by least squares: without their finest detail, the picture is taken
    for gain T + offset - sum of (shift + stretch x) dT/dx, with T the truth and x from the middle
    of the block. Good for a few mm.
    """
    sigma_vox = [SMOOTH_MM / s for s in block.spacing_mm]
    truth, seen = (ndimage.gaussian_filter(x, sigma_vox) for x in (block.truth, picture))
    slopes = np.gradient(truth, *block.spacing_mm)
    sizes = zip(truth.shape, block.spacing_mm, strict=True)
    axes = [mm * (np.arange(n) - (n - 1) / 2) for n, mm in sizes]
    places = np.meshgrid(*axes, indexing="ij", sparse=True)
    moved = [-slope for slope in slopes]
    grown = [-x * slope for x, slope in zip(places, slopes, strict=True)]
    columns = [truth, np.ones_like(truth), *moved, *grown]
    fit = np.linalg.lstsq(
        np.stack([column[block.mask] for column in columns], axis=1), seen[block.mask], rcond=None
    )[0]
    return fit[2:5], fit[5:8]


def shading(block: Block, picture: np.ndarray) -> float:
    """Standard deviation of the smooth gain from truth to picture, over its mean."""
    sigma_vox = [SHADE_MM / s for s in block.spacing_mm]
    seen, true = (
        ndimage.gaussian_filter(x * block.mask, sigma_vox) for x in (picture, block.truth)
    )
    gain = seen[block.mask] / true[block.mask]
    return float(gain.std() / gain.mean())


def grain(block: Block, picture: np.ndarray) -> float:
    """Power of the error at the finest waves over that at middling ones; 0 without error."""
    error = torch.from_numpy(np.where(block.mask, picture - block.truth, 0.0))
    frequency, power = radial_power(Volume(error, block.grid))
    fine, middling = (
        power[(frequency >= low) & (frequency < high)].mean() for low, high in (FINEST, MIDDLING)
    )
    return float(fine / middling) if middling > 0 else 0.0


# The rule


@dataclass(frozen=True)
class Step:
    """A question; a picture that answers yes has this fault."""

    fault: str
    sign: str
    above: bool
    limit: float

    def holds(self, measured: Signs) -> bool:
        """Whether the size of the sign is above, or below, the limit."""
        return (operator.gt if self.above else operator.lt)(self.of(measured), self.limit)

    def of(self, measured: Signs) -> float:
        """The sign that is asked for; of a stretch its size."""
        value = getattr(measured, self.sign)
        return abs(value) if self.sign == "stretch" else value


RULE = (
    Step("scan", "psnr_db", True, 60.0),
    Step("window", "clipped", True, 0.1),
    Step("flip", "mirrored", True, 0.0),
    Step("seams", "seam", True, 1.2),
    Step("voxel_size", "stretch", True, 0.03),
    Step("shift", "shift_mm", True, 0.3),
    Step("bias", "shading", True, 0.015),
    Step("false_folds", "invented", True, 0.25),
    Step("aliasing", "invented", True, 0.12),
    Step("noise", "short_kept", True, 0.5),
    Step("ringing", "long_kept", True, 0.95),
    Step("blur", "short_kept", False, 0.5),
)


def diagnose(measured: Signs) -> str:
    """The fault of the first step that holds; empty if none does."""
    return next((step.fault for step in RULE if step.holds(measured)), "")


def nearest(step: Step, all_signs: Mapping[str, Signs]) -> float:
    """Of the pictures that no earlier step has named: the next value of a step's sign.

    NaN where no other picture is left.
    """
    named = [earlier.fault for earlier in RULE[: RULE.index(step) + 1]]
    rest = [step.of(measured) for fault, measured in all_signs.items() if fault not in named]
    return (max if step.above else min)(rest, default=float("nan"))
