"""Faults of adjustable strength in a volume whose truth is known, to compare metrics.

Each fault has one dial in a physical unit, 0 for none. `at_psnr` turns dials until faults
cost the same PSNR, so that what other metrics add to it can be read off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import fft, ndimage
from scipy.optimize import brentq

from eval import metrics
from eval.metrics import METRICS, Detail, detail_split, peak_intensity, psnr
from eval.subjects import Scan, cut
from medil.box import Triple
from medil.errors import InputError
from medil.grid import Grid

DETAIL_MM = 3.0  # sigma of the local mean; what it leaves is detail
BAND_PER_MM = (0.1, 0.4)  # of the detail split: wavelengths of 10 to 2.5 mm
ASIDE_MM = 15.0  # how far false folds are moved to the right
MARGIN_MM = 6.0  # of the faces of a block, where shifts and waves bring in what is not there
SINC_RADIUS_VOX = 8
SEED = 8
SAME = 0.15  # gaps below it are called none: two faults that a metric minds about alike

Scores = Mapping[str, Mapping[str, float]]  # fault -> metric -> value


@dataclass(frozen=True)
class Block:
    """A block of a scan, what is scored in it, and what faults need besides."""

    truth: np.ndarray  # [D, H, W]
    mask: np.ndarray  # [D, H, W] bool: the brain, away from the faces of the block
    grid: Grid
    peak: float  # `metrics.peak_intensity` of the truth
    # [D, H, W] detail of the same brain turned back to front and moved aside: folds as real
    # as its own, in the wrong places; 0 outside the moved brain.
    elsewhere: np.ndarray

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size."""
        return self.grid.spacing_mm


@dataclass(frozen=True)
class Fault:
    """One way to spoil a volume."""

    title: str  # as in figures
    unit: str  # of the dial
    most: float  # where the dial ends
    apply: Callable[[Block, float], np.ndarray]  # block and dial to [D, H, W]; the truth at 0


def block_of(scan: Scan, centre_mm: np.ndarray, side_mm: float) -> Block:
    """A cube of a scan whose axes run right, forwards and up, with the detail moved onto it.

    Raises:
        InputError: The mask has no voxel away from the cube's faces.
    """
    small = cut(scan, centre_mm, [side_mm] * 3)
    grid, spacing_mm = small.volume.grid, small.volume.grid.spacing_mm
    truth = small.volume.data.double().numpy()
    inner = np.zeros(truth.shape, dtype=bool)
    margin = [math.ceil(MARGIN_MM / s) for s in spacing_mm]
    inner[tuple(slice(m, -m) for m in margin)] = True
    mask = small.mask & inner
    if not mask.any():
        raise InputError(f"no brain lies in the cube of {side_mm:g} mm; choose another place.")
    start = np.rint(scan.volume.grid.ras_to_index(grid.index_to_ras((0, 0, 0))))
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, truth.shape, strict=True))
    detail = _detail(scan.volume.data.double().numpy(), scan.mask, spacing_mm)
    elsewhere = _moved(detail, scan.mask, round(ASIDE_MM / spacing_mm[0]))[box]
    return Block(truth, mask, grid, peak_intensity(truth, mask), elsewhere)


def _detail(volume: np.ndarray, mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """The brain less its local mean; the mean is taken inside the mask, so its rim is none."""
    sigma_vox = [DETAIL_MM / s for s in spacing_mm]
    total = ndimage.gaussian_filter(volume * mask, sigma_vox)
    share = ndimage.gaussian_filter(mask.astype(float), sigma_vox)
    return np.where(mask, volume - total / np.maximum(share, 1e-6), 0.0)


def _moved(values: np.ndarray, mask: np.ndarray, by_vox: int) -> np.ndarray:
    """Back to front about the middle of the mask, and aside; zeros come in.

    Left and right are alike, so a mirror image of them would hardly be false; and a fissure
    that stays in the middle would be a true one.
    """
    along = np.flatnonzero(mask.any(axis=(0, 2)))
    by = (by_vox, int(along[0] + along[-1]) + 1 - mask.shape[1], 0)
    return ndimage.shift(values[:, ::-1], by, order=0, mode="constant")


def blur(block: Block, sigma_mm: float) -> np.ndarray:
    """A Gaussian blur."""
    sigma_vox = [sigma_mm / s for s in block.spacing_mm]
    return ndimage.gaussian_filter(block.truth, sigma_vox, truncate=6.0)


def shift(block: Block, distance_mm: float) -> np.ndarray:
    """Everything moved to the right, forwards and up alike, by a windowed sinc."""
    moved = block.truth
    for axis, spacing in enumerate(block.spacing_mm):
        by_vox = distance_mm / math.sqrt(3) / spacing
        reach = SINC_RADIUS_VOX + math.ceil(by_vox)
        from_vox = np.arange(-reach, reach + 1) + by_vox
        window = np.cos(np.pi / 2 * np.clip(from_vox / SINC_RADIUS_VOX, -1, 1)) ** 2
        kernel = np.sinc(from_vox) * window
        moved = ndimage.correlate1d(moved, kernel / kernel.sum(), axis=axis, mode="mirror")
    return moved


def ringing(block: Block, beyond_mm: float) -> np.ndarray:
    """Cosines cut off sharply: what is finer than the voxel size plus the dial is gone.

    As a scanner does that fills the rest of k-space with zeros; cosines, so that the faces
    of the block make no waves of their own.
    """
    waves = fft.dctn(block.truth, norm="ortho")
    for axis, (n, spacing) in enumerate(zip(block.truth.shape, block.spacing_mm, strict=True)):
        kept = n * spacing / (spacing + beyond_mm)
        passed = np.clip(kept - np.arange(n), 0, 1)  # the last one in part: a smooth dial
        waves *= passed.reshape([-1 if a == axis else 1 for a in range(3)])
    return fft.idctn(waves, norm="ortho")


def noise(block: Block, percent: float) -> np.ndarray:
    """White Gaussian noise; the dial is its standard deviation in % of the peak."""
    drawn = np.random.default_rng(SEED).standard_normal(block.truth.shape)
    return block.truth + percent / 100 * block.peak * drawn


def false_folds(block: Block, percent: float) -> np.ndarray:
    """Detail of other places of the same brain, added: real folds where they do not belong."""
    return block.truth + percent / 100 * block.elsewhere


def bias(block: Block, percent: float) -> np.ndarray:
    """A smooth gain that differs over the block, as from a coil: +-dial % at its extremes."""
    axes = [np.linspace(-1, 1, n) for n in block.truth.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    field = 0.5 * x - 0.3 * y + 0.4 * z + 0.5 * x * y - 0.6 * z**2 + 0.2
    return block.truth * (1 + percent / 100 * field / np.abs(field).max())


FAULTS: dict[str, Fault] = {
    "blur": Fault("blur", "mm (sigma)", 6.0, blur),
    "shift": Fault("shift", "mm", 6.0, shift),
    "ringing": Fault("ringing", "mm", 6.0, ringing),
    "noise": Fault("noise", "% of the peak", 60.0, noise),
    "false_folds": Fault("false folds", "%", 400.0, false_folds),
    "bias": Fault("bias field", "%", 99.0, bias),
}


def at_psnr(block: Block, fault: Fault, psnr_db: float) -> tuple[float, np.ndarray]:
    """The dial at which a fault costs a given PSNR inside the mask, to 0.01 dB, and the result.

    Raises:
        InputError: The fault at its strongest costs less, or at its weakest more.
    """

    def too_good_db(log_dial: float) -> float:
        spoiled = fault.apply(block, math.exp(log_dial))
        return min(psnr(block.truth, spoiled, block.mask, block.peak), 200.0) - psnr_db

    ends = math.log(fault.most / 1e4), math.log(fault.most)
    try:
        dial = math.exp(brentq(too_good_db, *ends, xtol=2e-4))
    except ValueError as error:
        raise InputError(f"no {fault.title} costs exactly {psnr_db:g} dB of PSNR here.") from error
    return dial, fault.apply(block, dial)


def score(block: Block, estimate: np.ndarray) -> dict[str, float]:
    """`metrics.all_metrics` and the detail split between 10 and 2.5 mm, by name."""
    case = (block.truth, estimate, block.mask, block.spacing_mm)
    parts = split(block, estimate)
    detail = {"detail_smoothed": parts.smoothed, "detail_invented": parts.invented}
    return {**metrics.all_metrics(*case), **detail}


def split(block: Block, estimate: np.ndarray) -> Detail:
    """What became of the block's detail between 10 and 2.5 mm."""
    return detail_split(block.truth, estimate, block.mask, block.spacing_mm, BAND_PER_MM)


def worse_by(name: str, value: float, copy: float) -> float:
    """How much worse than an exact copy, in the metric's unit; negative is "better" than it.

    Where the truth's own value is best, more counts as worse.
    """
    higher = METRICS[name].higher_is_better
    return copy - value if higher else value - copy


def harm(scores: Scores, copy: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Metric -> fault -> harm, from -1 to 1: 1 is the fault that lowers the metric most.

    Only metrics that are finite for all faults at equal PSNR. `copy` scores an exact copy.
    """
    harms = {}
    for name in copy:
        worse = {f: worse_by(name, s[name], copy[name]) for f, s in scores.items()}
        most = max(abs(w) for w in worse.values())
        if math.isfinite(most):
            harms[name] = {f: w / most if most else 0.0 for f, w in worse.items()}
    return harms


def told_apart(scores: Scores, copy: Mapping[str, float], pair: tuple[str, str]) -> pd.DataFrame:
    """Which metrics tell two faults of equal PSNR apart, and which of them each minds more.

    A line a metric, the most telling first: its value for an exact copy and for both faults, the
    gap (difference of harms, from -2 to 2; above 0: the second fault is minded more), and the
    fault minded more (for counts, which has more), or "neither" below `SAME`.
    """
    harms = harm({name: scores[name] for name in pair}, copy)
    lines = []
    for name, worse in harms.items():
        gap = worse[pair[1]] - worse[pair[0]]
        more = "more in " if METRICS[name].higher_is_better is None else ""
        minded = more + FAULTS[pair[int(gap > 0)]].title if abs(gap) >= SAME else "neither"
        values = {FAULTS[f].title: scores[f][name] for f in pair}
        lines.append({"metric": name, "a copy": copy[name], **values, "gap": gap, "minds": minded})
    return pd.DataFrame(lines).sort_values("gap", key=np.abs, ascending=False, kind="stable")
