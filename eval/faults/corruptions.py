"""Artefacts of scans at a chosen strength: noise, shading, ghosts, motion, scale, outliers.

Each function takes a magnitude image, [D, H, W], and a physical or stated strength, and gives
the damaged image, float64, as a scanner would have written it. All randomness comes from a
generator; a strength that makes no sense raises `InputError`.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from scipy import fft, ndimage

from medil.box import Triple
from medil.errors import InputError
from medil.synth.cohort import rician

PHASE_AXIS = 1  # along A, where k-space lines are taken one after the other
BIAS_ORDER = 2  # half waves over the field of view, all axes together


def with_noise(
    data: np.ndarray, mask: np.ndarray, snr: float, rng: np.random.Generator
) -> np.ndarray:
    """Rician noise everywhere, air included: sqrt((data + a)^2 + b^2), a and b Gaussian.

    `snr` is the mean in the mask over the standard deviation in each of the two channels.
    """
    _require(snr > 0, f"a signal-to-noise ratio is above zero, not {snr:g}.")
    sigma = float(data[mask].mean()) / snr
    return rician(torch.from_numpy(data).float(), sigma, rng).double().numpy()


def bias_field(mask: np.ndarray, percent: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random gain: from 1 - p / 2 to 1 + p / 2 inside the mask, and not beyond.

    Products of cosines with at most two half waves over the field of view; p is `percent`, peak
    to peak, below 200. Our choice: N4 and its rivals take fields of this smoothness for granted.
    """
    _require(0 <= percent < 200, f"a gain field spans 0 to below 200 %, not {percent:g} %.")
    axes = [
        [np.cos(np.pi * order * (np.arange(n) + 0.5) / n) for order in range(BIAS_ORDER + 1)]
        for n in mask.shape
    ]
    field = np.zeros(mask.shape)
    for i, j, k in product(range(BIAS_ORDER + 1), repeat=3):
        if 0 < i + j + k <= BIAS_ORDER:
            wave = axes[0][i][:, None, None] * axes[1][j][:, None] * axes[2][k]
            field += rng.standard_normal() * wave
    low, high = float(field[mask].min()), float(field[mask].max())
    return 1 + percent / 100 * (np.clip(field, low, high) - (low + high) / 2) / (high - low)


def with_ghosts(data: np.ndarray, percent: float) -> np.ndarray:
    """Two ghosts, a quarter of the field of view to either side, wrapping round.

    The same as k-space lines k of n weighed by 1 + 2 g cos(2 pi k s / n), s the shift in
    voxels and 100 g = `percent`, each ghost's share: a signal that pulses while lines are taken,
    as with breathing.
    """
    _require(percent >= 0, f"ghosts have a share of the signal from 0 %, not {percent:g} %.")
    shift_vox = round(data.shape[PHASE_AXIS] / 4)
    ghosts = sum(np.roll(data, by, PHASE_AXIS) for by in (shift_vox, -shift_vox))
    return np.abs(data + percent / 100 * ghosts)


def with_motion(
    data: np.ndarray, spacing_mm: Triple, shift_mm: float, turn_deg: float, share: float
) -> np.ndarray:
    """The head turns about R and slides along S once, when most k-space lines are in.

    Lines are taken from one end of k-space to the other along the phase axis; the last `share`
    of them see the moved head.
    """
    _require(0 <= share <= 1, f"a share of the lines lies in 0 ... 1, not {share:g}.")
    after = moved(data, spacing_mm, shift_mm, turn_deg)
    lines = fft.fftfreq(data.shape[PHASE_AXIS])
    late = np.argsort(np.argsort(lines)) >= round((1 - share) * lines.size)
    late = np.expand_dims(late, [a for a in range(3) if a != PHASE_AXIS])
    both = [fft.fft(image, axis=PHASE_AXIS) for image in (data, after)]
    return np.abs(fft.ifft(np.where(late, both[1], both[0]), axis=PHASE_AXIS))


def moved(data: np.ndarray, spacing_mm: Triple, shift_mm: float, turn_deg: float) -> np.ndarray:
    """The image nodded about R by an angle and moved along S: cubic splines, air beyond."""
    size, angle = np.asarray(spacing_mm), np.deg2rad(turn_deg)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    back = turn / size[:, None] * size  # from where a voxel is to where it was, in voxels
    middle = (np.asarray(data.shape) - 1) / 2
    shift = np.array([0.0, 0.0, shift_mm / size[2]])
    return ndimage.affine_transform(data, back, middle - back @ (middle + shift), order=3)


def with_hot_voxel(data: np.ndarray, index_vox: tuple[int, int, int], value: float) -> np.ndarray:
    """A copy with one voxel set to a value."""
    copy = np.array(data, dtype=np.float64)
    copy[index_vox] = value
    return copy


def as_int16(data: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """Whole numbers as a file of int16 holds them: round(gain * data + offset), float64.

    Raises:
        InputError: Some value does not fit.
    """
    stored = np.rint(gain * data + offset)
    limits = np.iinfo(np.int16)
    fits = limits.min <= stored.min() and stored.max() <= limits.max
    _require(fits, f"values from {stored.min():g} to {stored.max():g} do not fit into int16.")
    return stored


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)
