"""The kinds of damage, their strengths, and the regions in which they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from eval.faults import corruptions
from eval.metrics import peak_intensity
from eval.robustness.heads import block_of
from eval.rows import digest
from eval.subjects import Box, Scan, box_between, cut_box
from medil.volume import Volume

BLOCK_MM = (80.0, 80.0, 80.0)
NEAR_MM = 10.0  # of a cut or of a hot voxel
MOVE_MM, TURN_DEG = 2.0, 2.0  # of the one move; its strength is how many lines come after it
BRAIN, NEAR, FAR = "brain", "within 10 mm of it", "farther than 10 mm"
NONE, NOISE, BIAS, GHOSTS, MOTION, SCALE, OUTLIER, CROP = (
    "none", "noise", "bias field", "ghosts", "motion", "intensity scale", "hot voxel", "crop",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One kind of damage at one strength."""

    kind: str  # such as ``noise``
    level: str  # its strength with the unit, such as ``SNR 20``
    value: float  # the same as a number

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions in which it is scored, all inside the brain."""
        return (NEAR, FAR) if self.kind in (OUTLIER, CROP) else (BRAIN,)

    @property
    def changes_input(self) -> bool:
        """Whether the damaged block differs from the clean one apart from its intensity scale."""
        return self.kind not in (NONE, SCALE, CROP)


DAMAGES = (
    Damage(NONE, "as it is", 0),
    *(Damage(NOISE, f"SNR {snr}", snr) for snr in (40, 20, 10, 5)),
    *(Damage(BIAS, f"{p} % peak to peak", p) for p in (20, 40, 80)),
    *(Damage(GHOSTS, f"{p} % of the signal", p) for p in (2, 5, 10)),
    *(Damage(MOTION, f"last {p} % of the lines", p) for p in (10, 25, 40)),
    Damage(SCALE, "x 0.1", 0.1),
    Damage(SCALE, "x 1000", 1000),
    Damage(SCALE, "int16, air at -1024", -1024),
    Damage(SCALE, "air raised to the peak", 1),
    *(Damage(OUTLIER, f"{n} x the peak", n) for n in (10, 100)),
    *(Damage(CROP, f"{d} mm cut off", d) for d in (5, 15, 30)),
)


@dataclass(frozen=True)
class Damaged:
    """A damaged block, whose intensities are `gain` times the clean ones, plus `offset`."""

    volume: Volume  # the input of a coder
    box: Box  # its place in the clean block
    regions: dict[str, np.ndarray]  # name to [D, H, W] bool on the volume's grid
    gain: float = 1.0
    offset: float = 0.0  # in its own intensity unit

    def undone(self, data: np.ndarray) -> np.ndarray:
        """Intensities brought back to the clean block's scale."""
        return (data - self.offset) / self.gain


def apply(damage: Damage, scan: Scan, data_sha256: str) -> Damaged:
    """Damage a clean, trimmed head and cut the block out of it; deterministic.

    `data_sha256` of the head seeds the random numbers, together with the damage.
    """
    rng = np.random.default_rng(int(digest([data_sha256, damage.kind, damage.level])[:16], 16))
    box = block_of(scan, BLOCK_MM)
    if damage.kind in OF_THE_HEAD:
        data = OF_THE_HEAD[damage.kind](scan, damage.value, rng)
        scan = Scan(scan.volume.with_data(torch.from_numpy(data).float()), scan.mask)
    block = cut_box(scan, box)
    if damage.kind in OF_THE_BLOCK:
        return OF_THE_BLOCK[damage.kind](block, damage, rng)
    return Damaged(block.volume, _everything(block), {BRAIN: block.mask})


# To the whole head


def _numbers(scan: Scan) -> np.ndarray:
    return scan.volume.data.double().numpy()


OF_THE_HEAD: dict[str, Callable[[Scan, float, np.random.Generator], np.ndarray]] = {
    NOISE: lambda s, v, rng: corruptions.with_noise(_numbers(s), s.mask, v, rng),
    BIAS: lambda s, v, rng: _numbers(s) * corruptions.bias_field(s.mask, v, rng),
    GHOSTS: lambda s, v, rng: corruptions.with_ghosts(_numbers(s), v),
    MOTION: lambda s, v, rng: corruptions.with_motion(
        _numbers(s), s.volume.grid.spacing_mm, MOVE_MM, TURN_DEG, v / 100
    ),
}


# To the block


def _rescaled(block: Scan, damage: Damage, rng: np.random.Generator) -> Damaged:
    data = _numbers(block)
    peak = peak_intensity(data, block.mask)
    gain, offset = damage.value, 0.0
    if damage.level.startswith("int16"):
        gain, offset = 1000 / peak, damage.value
        stored = corruptions.as_int16(data, gain, offset)
    elif damage.level.startswith("air"):
        gain, offset = 1.0, damage.value * peak
        stored = data + offset
    else:
        stored = gain * data
    volume = block.volume.with_data(torch.from_numpy(stored).float())
    return Damaged(volume, _everything(block), {BRAIN: block.mask}, gain, offset)


def _with_outlier(block: Scan, damage: Damage, rng: np.random.Generator) -> Damaged:
    inner = np.zeros_like(block.mask)
    middle = tuple(slice(n // 4, n - n // 4) for n in block.mask.shape)
    inner[middle] = block.mask[middle]
    places = np.argwhere(inner)
    i, j, k = (int(n) for n in places[rng.integers(len(places))])
    data = _numbers(block)
    value = damage.value * peak_intensity(data, block.mask)
    hot = corruptions.with_hot_voxel(data, (i, j, k), value)
    elsewhere = np.ones_like(block.mask)
    elsewhere[i, j, k] = False
    distance_mm = ndimage.distance_transform_edt(elsewhere, block.volume.grid.spacing_mm)
    volume = block.volume.with_data(torch.from_numpy(hot).float())
    return Damaged(volume, _everything(block), _near_and_far(block.mask, distance_mm))


def _cropped(block: Scan, damage: Damage, rng: np.random.Generator) -> Damaged:
    """Cut at the right, through tissue: the latent's cells stay where they were."""
    grid = block.volume.grid
    kept = grid.shape[0] - round(damage.value / grid.spacing_mm[0])
    box = (slice(0, kept), *_everything(block)[1:])
    left = cut_box(block, box)
    distance_mm = (kept - 0.5 - np.arange(kept)) * grid.spacing_mm[0]
    everywhere = np.broadcast_to(distance_mm[:, None, None], left.mask.shape)
    return Damaged(left.volume, box, _near_and_far(left.mask, everywhere))


OF_THE_BLOCK: dict[str, Callable[[Scan, Damage, np.random.Generator], Damaged]] = {
    SCALE: _rescaled,
    OUTLIER: _with_outlier,
    CROP: _cropped,
}


def _everything(block: Scan) -> Box:
    return box_between((0, 0, 0), block.mask.shape)


def _near_and_far(mask: np.ndarray, distance_mm: np.ndarray) -> dict[str, np.ndarray]:
    return {NEAR: mask & (distance_mm <= NEAR_MM), FAR: mask & (distance_mm > NEAR_MM)}
