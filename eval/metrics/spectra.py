"""Which detail survives, by its size: the Fourier shell correlation and what follows from it.

A volume is cut into shells of equal spatial frequency |f|, in cycles per mm along physical
axes, so that grids of any voxel size are compared on one scale. Both volumes are first
multiplied by one soft mask, which is smooth enough not to be detail itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from eval.metrics.checks import bounding_box, checked, depth_mm
from medil.box import Triple
from medil.errors import InputError

SHELL_WIDTH_PER_MM = 0.01
RIM_MM = 4.0  # by which the mask is eroded, then blurred outwards again


@dataclass(frozen=True)
class Shells:
    """Fourier shell correlation."""

    frequency_per_mm: np.ndarray  # [n] mean |f| of the modes in each shell, in cycles per mm
    correlation: np.ndarray  # [n] from -1 to 1
    n_modes: np.ndarray  # [n] complex modes in each shell, f and -f counted once
    limit_per_mm: float  # where the coarsest axis stops sampling: 1 / (2 x largest voxel)


@dataclass(frozen=True)
class Detail:
    """What became of the truth's detail in one band; amplitudes relative to the truth's."""

    kept: float  # gain, the power-weighted mean over shells: 1 untouched, 0 gone
    smoothed: float  # root mean square of 1 - gain over shells; a gain above 1 counts as well
    invented: float  # what is not in the truth at all, over the truth
    error: float  # the whole error over the truth


@dataclass(frozen=True)
class _Sums:
    """Per shell: mean |f|, modes, and sums of |T|^2, |E|^2 and Re(T conj E) over its modes."""

    frequency_per_mm: np.ndarray
    n_modes: np.ndarray
    of_truth: np.ndarray
    of_estimate: np.ndarray
    of_both: np.ndarray
    limit_per_mm: float


def fsc(
    truth: np.ndarray,
    estimate: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Triple,
    beyond_coarsest: bool = False,
) -> Shells:
    """Fourier shell correlation: normalised correlation of two volumes, shell by shell.

    ``FSC(f) = Re sum T conj(E) / sqrt(sum |T|^2 sum |E|^2)`` over the modes of a shell
    (van Heel 1986; Harauz and van Heel 1986). It does not see a gain per shell: a blur
    without noise leaves it at 1 (`detail_split` sees it), until so little is left in a
    shell that what leaks into it from stronger shells counts for more. White noise of
    power N against a blurred signal of power g^2 S gives ``1 / sqrt(1 + N / (g^2 S))``.

    Our choices: each volume loses its mean under the mask, and the mask is soft (`soft_mask`), at
    the faces of the volume too. Without the first, two unrelated noises with one offset correlate
    by more than 0.9 in the lowest shells. Without the second, all volumes share the detail
    of the mask: its rim follows voxels, so codes without detail below 3.2 mm would correlate with
    a brain to the limit of 1 mm voxels. Two brains do share more than a mask: dark fluid near its
    rim correlates in the lowest shells, and should. Shells are 0.01 per mm wide, or one over the
    longest side of small boxes.

    Returns:
        Shells of rising frequency, empty ones left out; a shell in which either volume is zero
        correlates by 0. With `beyond_coarsest` also shells that the axis with the largest voxels
        does not sample; they average over the other directions.
    """
    sums = _shell_sums(truth, estimate, mask, spacing_mm)
    size = np.sqrt(sums.of_truth * sums.of_estimate)
    correlation = np.divide(sums.of_both, size, out=np.zeros_like(size), where=size > 0)
    kept = np.full(len(size), True)
    if not beyond_coarsest:
        kept = sums.frequency_per_mm <= sums.limit_per_mm
    return Shells(
        sums.frequency_per_mm[kept], correlation[kept], sums.n_modes[kept], sums.limit_per_mm
    )


def effective_resolution_mm(shells: Shells, threshold: float = 0.5) -> float:
    """One over the frequency at which the shell correlation first falls below a threshold.

    Against a truth without noise, the noise of the estimate at 0.5 has 3 times the power of its
    signal. Our choice: no score uses the 0.143 of electron microscopy (Rosenthal and Henderson
    2003), which belongs to two noisy halves of the data. Linear between shells, starting from 1 at
    frequency 0. In mm, lower is better; never below twice the largest voxel, which is also the
    value where no shell falls below.

    Raises:
        InputError: The threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"the threshold lies between 0 and 1, not at {threshold}.")
    inside = shells.frequency_per_mm <= shells.limit_per_mm
    frequency = np.concatenate(([0.0], shells.frequency_per_mm[inside]))
    correlation = np.concatenate(([1.0], shells.correlation[inside]))
    below = np.flatnonzero(correlation < threshold)
    if len(below) == 0:
        return 1 / shells.limit_per_mm
    last, first = below[0] - 1, below[0]
    share = (correlation[last] - threshold) / (correlation[last] - correlation[first])
    crossing = frequency[last] + share * (frequency[first] - frequency[last])
    return float(1 / min(crossing, shells.limit_per_mm))


def detail_split(
    truth: np.ndarray,
    estimate: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Triple,
    band_per_mm: tuple[float, float],
) -> Detail:
    """Detail of one band of frequencies: kept, smoothed away, or invented.

    Shell by shell, the estimate is ``E = gain T + R`` with R orthogonal to the truth T:
    gain is the least-squares fit, R is what no gain explains: noise, ghosts, folds that are
    not there, and true detail in the wrong place. A gain that differs by direction within
    a shell counts as R too. The mask is soft, as in `fsc`; each shell belongs to the
    band (cycles per mm) in which its mean frequency lies. Amplitudes are pooled over shells by
    the truth's power, so that ``error**2 = smoothed**2 + invented**2`` exactly.

    Raises:
        InputError: The truth has no power in the band.
    """
    low, high = band_per_mm
    sums = _shell_sums(truth, estimate, mask, spacing_mm)
    in_band = (sums.frequency_per_mm >= low) & (sums.frequency_per_mm < high) & (sums.of_truth > 0)
    if not in_band.any():
        raise InputError(f"the truth has no detail from {low} to {high} cycles per mm.")
    power, of_estimate, both = (
        values[in_band] for values in (sums.of_truth, sums.of_estimate, sums.of_both)
    )
    gain = both / power
    smoothed_2 = float(np.average((1 - gain) ** 2, weights=power))
    invented_2 = float(np.maximum(of_estimate - gain * both, 0).sum() / power.sum())
    return Detail(
        kept=float(np.average(gain, weights=power)),
        smoothed=smoothed_2**0.5,
        invented=invented_2**0.5,
        error=(smoothed_2 + invented_2) ** 0.5,
    )


def soft_mask(mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[D, H, W] weights from 0 to 1: the mask, eroded by its rim and blurred by a Gaussian.

    The rim is 4 mm, along an axis of larger voxels two voxels, and less in a mask that is nowhere
    so deep. The Gaussian ends at the rim, at its third sigma, so nothing lies outside the mask.
    Its width, in mm and not in voxels, decides how little detail the weights have: a rim that
    follows the mask's voxels instead (a function of the depth, say) gives both volumes the same
    detail, down to the grid's limit.
    """
    rim_vox = np.maximum(RIM_MM / np.array(spacing_mm), 2)
    depth = depth_mm(mask, 1 / rim_vox)  # in rims
    reach = min(1, depth.max())
    core = (depth >= reach - 1e-9) & mask
    blurred = ndimage.gaussian_filter(
        core.astype(float), reach * rim_vox / 3, mode="constant", truncate=3
    )
    return blurred * mask


def _shell_sums(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> _Sums:
    truth, estimate, mask = checked(truth, estimate, mask)
    box = bounding_box(mask, margin=0)
    weights = soft_mask(mask[box], spacing_mm)
    shape = tuple(fft.next_fast_len(n, real=True) for n in weights.shape)

    def spectrum(volume: np.ndarray) -> np.ndarray:
        faded = np.where(weights > 0, volume[box], 0.0)
        faded = weights * (faded - np.average(faded, weights=weights))
        if np.abs(faded).max() <= 1e-12 * np.abs(volume[box][weights > 0]).max():
            faded[:] = 0.0  # a constant: what is left of it is rounding
        return fft.rfftn(faded, shape).ravel()

    index, frequency, modes = _shells(shape, tuple(spacing_mm))
    a, b = spectrum(truth), spectrum(estimate)
    used = modes > 0

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, _counted(values, shape), minlength=len(modes))[used]

    return _Sums(
        frequency[used],
        modes[used],
        summed(a.real**2 + a.imag**2),
        summed(b.real**2 + b.imag**2),
        summed(a.real * b.real + a.imag * b.imag),
        0.5 / max(spacing_mm),
    )


@lru_cache(maxsize=1)
def _shells(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shell of every mode of a half spectrum; mean |f| and count of modes of every shell."""
    *rest, last = zip(shape, spacing_mm, strict=True)
    axes = [fft.fftfreq(n, mm) for n, mm in rest] + [fft.rfftfreq(*last)]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij", sparse=True))).ravel()
    longest_mm = max(n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    index = np.rint(radius / max(SHELL_WIDTH_PER_MM, 1 / longest_mm)).astype(np.int32)
    index[0] = index.max() + 1  # the mean is no detail: in a shell of its own, thrown away
    once = _counted(np.ones(len(radius)), shape)
    modes = np.bincount(index, once)
    frequency = np.bincount(index, once * radius) / np.maximum(modes, 1e-300)
    modes[-1] = 0
    return index, frequency, modes


def _counted(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Half weight where a half spectrum holds both f and -f: the first and the last plane."""
    planes = values.reshape(-1, shape[-1] // 2 + 1)
    planes[:, 0] *= 0.5
    if shape[-1] % 2 == 0:
        planes[:, -1] *= 0.5
    return planes.ravel()
