"""From volumes to training steps: a random block of native voxels under a random latent grid.

Every step has its own generator from (seed, step), so a resumed run sees the same data. The
phase between voxels and latent cells is random: centres that coincide would flatter interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity, replace_nonfinite, robust_intensity
from medil.regrid import box_average
from medil.volume import Volume

FOREGROUND = 0.02  # intensity on the 0 ... 1 scale below which a voxel is air
THICK_MM = 1.5  # voxels of this size are not averaged to larger ones
MOST_PLACES = 20_000  # voxels that are not air, kept of each scan
FINER = 2  # a small copy must have this many times the voxels along each axis
CUBIC_SHARE = 0.5  # share of coarser voxels that grow along every axis; the rest are slices


class Voxels(Protocol):
    """A tensor, or an object whose slices are tensors (`medil.training.store`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W)."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Float32."""


class Places(Protocol):
    """An array [n, 3], or an object with such rows."""

    def __len__(self) -> int:
        """The number of places."""

    def __getitem__(self, index: Any, /) -> Any:
        """The indices of a voxel, [3]."""


@dataclass(frozen=True)
class Scan:
    """One training volume, from which blocks are cut."""

    data: Voxels  # [D, H, W] float32 on the 0 ... 1 scale
    spacing_mm: tuple[float, float, float]
    foreground: Places  # [n, 3] indices of some voxels that are not air
    weight: float  # how often it is drawn, relative to the others
    name: str = ""  # in messages
    small: Voxels | None = None  # on larger voxels, where reading the whole would take long
    kind: str = ""  # what it shows, such as "brain" or "head"; see `DataConfig.mix`


@dataclass(frozen=True)
class Step:
    """The data of one training step: a batch on one grid, and the latent grid to use."""

    x: Tensor  # [B, 1, D, H, W] to encode, on `grid`
    grid: Grid  # in the batch's own frame (mm)
    latent_grid: Grid  # parallel to `grid`, at a random phase
    target: Tensor  # [B, 1, D', H', W'] to render, on `target_grid`
    target_grid: Grid  # finer than `grid` in steps that teach one resolution from another
    name: str = ""  # of the scan

    def part(self, index: int, count: int) -> Step:
        """Part `index` of `count` equal parts of the batch, for a process or for accumulation.

        Raises:
            InputError: The batch does not split into `count` equal parts.
        """
        size, rest = divmod(len(self.x), count)
        if rest:
            raise InputError(f"a batch of {len(self.x)} does not fall into {count} equal parts.")
        mine = slice(index * size, (index + 1) * size)
        return replace(self, x=self.x[mine], target=self.target[mine])


def prepare_scan(
    volume: Volume,
    weight: float = 1.0,
    name: str = "",
    intensity: Intensity | None = None,
) -> Scan:
    """Scale a volume and list voxels that are not air; voxels of NaN and Inf become air.

    Args:
        volume: Native voxels.
        weight: How often it is drawn, relative to other scans.
        name: Name in messages.
        intensity: Intensities that become 0 and 1; percentiles when None.

    Raises:
        InputError: A constant image, or one that lies below `intensity` everywhere.
    """
    scale = intensity or robust_intensity(volume.data)
    data, _ = replace_nonfinite(volume.data, background=scale.low)
    data = scale.forward(data)
    places = torch.nonzero(data > FOREGROUND).numpy()
    if not len(places):
        raise InputError("no voxel lies above the low end of the intensity window.")
    kept = places[:: math.ceil(len(places) / MOST_PLACES)].copy()  # a view would keep all
    return Scan(data, volume.grid.spacing_mm, kept, weight, name)


def pick(scans: Sequence[Scan], rng: np.random.Generator) -> Scan:
    """One scan, by weight."""
    weights = np.array([scan.weight for scan in scans])
    return scans[int(rng.choice(len(scans), p=weights / weights.sum()))]


def random_block(scan: Scan, side_mm: float, rng: np.random.Generator) -> Tensor:
    """[D, H, W] native voxels around a random place that is not air, randomly mirrored."""
    shape = np.array(scan.data.shape)
    size = np.clip((side_mm / np.array(scan.spacing_mm)).astype(int), 1, shape)
    middle = scan.foreground[rng.integers(len(scan.foreground))]
    start = np.clip(middle - rng.integers(0, size), 0, shape - size)
    block = scan.data[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]
    return block.flip(random_axes(rng))


def random_axes(rng: np.random.Generator) -> list[int]:
    """A random subset of the three axes, each with probability one half."""
    return [axis for axis in range(3) if rng.random() < 0.5]


def random_phase(
    grid: Grid,
    pitch_mm: float,
    extent_mm: Sequence[float],
    rng: np.random.Generator,
    anchored_share: float = 0.0,
) -> Grid:
    """A latent grid over a block's box, its cells' phase drawn uniformly.

    Args:
        grid: Grid of the block; its box is no larger than `extent_mm`.
        pitch_mm: Latent pitch.
        extent_mm: Sets the number of cells; kept to a few values, because a convolution of
            a new shape costs a CPU more to prepare than to run.
        rng: Generator of this step.
        anchored_share: Probability that the grid starts at the block's corner instead, as
            that of `LatentAutoencoder.latent_grid` does.
    """
    shape = [math.ceil(e / pitch_mm - 1e-6) + 1 for e in extent_mm]
    offset_mm = rng.random(3) * pitch_mm
    if anchored_share and rng.random() < anchored_share:
        offset_mm = np.zeros(3)
    low_mm = grid.bounds_mm[0] - offset_mm
    return Grid.from_spacing(shape, pitch_mm, low_mm + pitch_mm / 2)


def patch_step(
    scans: Sequence[Scan],
    pitch_mm: float,
    patch_mm: float,
    batch: int,
    coarser_share: float,
    rng: np.random.Generator,
    anchored_share: float = 0.0,
    thick_share: float = 0.0,
    thick_mm: tuple[float, float] = (2.0, 6.0),
) -> Step:
    """A stage-two step: blocks of one scan at its native resolution (paper).

    Args:
        scans: The training set.
        pitch_mm: Latent pitch.
        patch_mm: Side of a block.
        batch: Number of blocks.
        coarser_share: Share of steps that encode larger voxels than they render
            (ours: so that the decoder does not ring where a coarse scan lacks detail).
        rng: Generator of this step.
        anchored_share: See `random_phase`.
        thick_share: Share of steps on scans of thin voxels whose blocks are averaged to thick
            slices first (ours: scans of thick slices are few, and look like these).
        thick_mm: Thickness of these slices, drawn evenly.
    """
    scan = pick(scans, rng)
    blocks = torch.stack([random_block(scan, patch_mm, rng) for _ in range(batch)])
    gain = torch.from_numpy(rng.uniform(0.8, 1.15, size=(batch, 1, 1, 1))).float()
    target = (blocks * gain)[:, None]  # [B, 1, D, H, W]
    target_grid = Grid.from_spacing(target.shape[2:], scan.spacing_mm)
    thin = max(scan.spacing_mm) < THICK_MM
    if thin and thick_share and rng.random() < thick_share:
        target, target_grid = coarser(target, target_grid, slice_factor(target_grid, thick_mm, rng))
        thin = False
    x, grid = target, target_grid
    if rng.random() < coarser_share and thin:
        x, grid = coarser(target, target_grid, random_factor(rng))
    latent_grid = random_phase(target_grid, pitch_mm, [patch_mm] * 3, rng, anchored_share)
    return Step(x, grid, latent_grid, target, target_grid, scan.name)


def random_factor(rng: np.random.Generator) -> list[int]:
    """Enlargement of voxels along each axis: 2 along all, or 3 along one."""
    return [2, 2, 2] if rng.random() < CUBIC_SHARE else rng.permutation([1, 1, 3]).tolist()


def slice_factor(grid: Grid, thick_mm: tuple[float, float], rng: np.random.Generator) -> list[int]:
    """Voxels along each axis that form a thick slice: 1 but along a random axis."""
    factor, axis = [1, 1, 1], int(rng.integers(3))
    wanted = round(float(rng.uniform(*thick_mm)) / grid.spacing_mm[axis])
    factor[axis] = min(max(2, wanted), grid.shape[axis])
    return factor


def coarser(x: Tensor, grid: Grid, factor: Sequence[int]) -> tuple[Tensor, Grid]:
    """Average whole blocks of voxels; a last incomplete block is left out."""
    x = functional.avg_pool3d(x, tuple(factor))
    scale = np.diag([*factor, 1.0])
    scale[:3, 3] = (np.array(factor) - 1) / 2
    depth, height, width = x.shape[2:]
    return x, Grid((depth, height, width), grid.affine_vox2ras @ scale)


def shrunk(scan: Scan, shape: tuple[int, int, int]) -> Tensor:
    """[1, d, h, w]: a whole scan averaged to fewer voxels, from its small copy if fine enough.

    Pooling averages whole voxels: accurate enough for native ones, too coarse for those of a
    small copy, which are averaged exactly.
    """
    if scan.small is not None:
        sizes = zip(scan.small.shape, scan.data.shape, shape, strict=True)
        if all(n >= FINER * wanted or n == native for n, native, wanted in sizes):
            return box_average(scan.small[...], shape)[None]
    return functional.adaptive_avg_pool3d(scan.data[...][None], shape)


def global_step(
    scans: Sequence[Scan],
    pitch_mm: float,
    patch_mm: float,
    rng: np.random.Generator,
    batch: int = 1,
) -> Step:
    """A stage-one step: one whole volume, averaged to large voxels (paper).

    Our choice: the latent pitch grows with the voxels, so that a whole head fills as many
    latent cells as one patch and costs as little; a fixed pitch would make a low-resolution
    head as expensive as a native one, since the network's cost grows with latent cells.

    Args:
        scans: The training set.
        pitch_mm: Latent pitch at native resolution.
        patch_mm: Side of a stage-two patch; its number of latent cells is used here too.
        rng: Generator of this step.
        batch: Copies of the volume, each mirrored at random.
    """
    scan = pick(scans, rng)
    native = Grid.from_spacing(scan.data.shape, scan.spacing_mm)
    enlarge = max(native.extent_mm) / patch_mm
    extent_mm = zip(native.shape, native.extent_mm, strict=True)
    depth, height, width = (max(1, min(n, int(e / enlarge))) for n, e in extent_mm)
    small = shrunk(scan, (depth, height, width))
    x = torch.stack([small.flip([a + 1 for a in random_axes(rng)]) for _ in range(batch)])
    grid = native.resized((depth, height, width))
    latent_grid = random_phase(grid, pitch_mm * enlarge, [patch_mm * enlarge] * 3, rng)
    return Step(x, grid, latent_grid, x, grid, scan.name)
