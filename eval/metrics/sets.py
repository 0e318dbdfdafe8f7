"""Is one set of volumes distributed like another, and how varied is it?

Distances work on two tables of features, [volumes, features], of equal width; too few rows
raise `InputError`. The usual features come from networks trained on medical images, whose
weights do not come with this repository; `features` needs none, so distances on it are not
comparable with published ones on RadImageNet, MedicalNet or Inception.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import fft, ndimage
from scipy.spatial.distance import cdist, pdist

from eval.metrics.checks import bounding_box, inside
from eval.metrics.errors import gradient_magnitude, peak_intensity
from eval.metrics.structure import ms_ssim
from eval.metrics.tissue import segment
from medil.box import Triple
from medil.errors import InputError

QUANTILES = (5, 25, 50, 75, 95)
WAVELENGTHS_MM = (48, 24, 12, 6)
GRADIENT_SIGMA_MM = 2.0
FEATURES = (
    *(f"share of {name}" for name in ("CSF", "grey", "white")),
    *(f"intensity, {q} % (of the peak)" for q in QUANTILES),
    *(f"log power around {w} mm" for w in WAVELENGTHS_MM),
    "gradient, mean (peak/mm)",
    "gradient, 90 % (peak/mm)",
    "log volume (cm3)",
    *(f"log axis {n} of the shape (mm)" for n in (1, 2, 3)),
)


def features(volume: np.ndarray, mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[18] numbers (`FEATURES`) that describe one brain, nearly the same on every voxel grid.

    Shares of three tissues (`tissue.segment`), quantiles of intensity relative to the 99.5th
    percentile, logarithm of the share of power around four wavelengths (weights fall to
    zero one octave away), gradient magnitude after a Gaussian of 2 mm (narrowed by the
    variance of a voxel, which has blurred already), volume and principal axes of the mask.
    Our choice. With voxels up to 1.5 mm all wavelengths that count can be seen.

    Raises:
        InputError: Intensities are not finite, or none is above zero.
    """
    inside(volume, mask)
    box = bounding_box(np.asarray(mask, dtype=bool), 0)
    volume, mask = np.asarray(volume, dtype=np.float64)[box], np.asarray(mask, dtype=bool)[box]
    peak = peak_intensity(volume, mask)
    if not peak > 0:
        raise InputError("the volume has no intensity above zero inside its mask.")
    scaled = np.where(mask, volume / peak, 0.0)
    labels = segment(scaled, mask)[mask]
    return np.concatenate(
        [
            np.bincount(labels, minlength=4)[1:] / labels.size,
            np.percentile(scaled[mask], QUANTILES),
            _log_band_power(np.where(mask, scaled - scaled[mask].mean(), 0.0), spacing_mm),
            _gradients(scaled, mask, spacing_mm),
            _shape(mask, spacing_mm),
        ]
    )


def _log_band_power(centred: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[4] natural logarithm of the share of power around each of `WAVELENGTHS_MM`."""
    size = [fft.next_fast_len(n, real=True) for n in centred.shape]
    power = np.abs(fft.rfftn(centred.astype(np.float32), size)) ** 2
    power[..., 1 : (size[2] + 1) // 2] *= 2  # the half that a real transform leaves out
    square = np.zeros((1, 1, 1), dtype=np.float32)
    for axis, (n, step) in enumerate(zip(size, spacing_mm, strict=True)):
        per_mm = (fft.rfftfreq if axis == 2 else fft.fftfreq)(n, step)
        others = [a for a in range(3) if a != axis]
        square = square + np.expand_dims(per_mm.astype(np.float32) ** 2, others)
    square[0, 0, 0] = 1e-12  # the mean, far below every band
    octave = np.log2(np.sqrt(square) * WAVELENGTHS_MM[0])  # 0, 1, 2, 3 at the wavelengths
    weights = (np.maximum(0, 1 - np.abs(octave - k)) for k in range(len(WAVELENGTHS_MM)))
    shares = np.array([float(np.vdot(w, power)) for w in weights])
    return np.log(shares / max(shares.sum(), 1e-300) + 1e-6)


def _gradients(scaled: np.ndarray, mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[2] mean and 90th percentile of the gradient magnitude in the mask, per mm."""
    step = np.asarray(spacing_mm)
    sigma_vox = np.sqrt(np.maximum(GRADIENT_SIGMA_MM**2 - step**2 / 12, 0.25 * step**2)) / step
    smooth = ndimage.gaussian_filter(scaled.astype(np.float32), sigma_vox, truncate=3.0)
    steepness = gradient_magnitude(smooth, spacing_mm)[mask]
    return np.array([steepness.mean(), np.percentile(steepness, 90)])


def _shape(mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[4] log of the volume in cm3 and of the mask's three principal deviations in mm."""
    n_voxels, off_mm = int(mask.sum()), []
    spread = np.diag(np.square(spacing_mm)) / 12  # a voxel is a box, not a point
    for axis, step in enumerate(spacing_mm):
        weights = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        place_mm = np.arange(weights.size) * step
        off_mm.append(place_mm - weights @ place_mm / n_voxels)
        spread[axis, axis] += weights @ off_mm[axis] ** 2 / n_voxels
    for i, j in itertools.combinations(range(3), 2):
        together = mask.sum(axis=3 - i - j)
        spread[i, j] = spread[j, i] = off_mm[i] @ together @ off_mm[j] / n_voxels
    volume_cm3 = n_voxels * np.prod(spacing_mm) / 1000
    axes_mm = np.sqrt(np.linalg.eigvalsh(spread)[::-1])
    return np.log(np.concatenate([[volume_cm3], axes_mm]))


def standardised(real: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets, [volumes, features], in units of the real set's spread, feature by feature.

    Minus the real mean, over the real standard deviation (n - 1). Features that do not vary in
    the real set are only centred.
    """
    real, made = _tables(real, made, 2)
    spread = real.std(axis=0, ddof=1)
    spread[spread == 0] = 1.0
    return (real - real.mean(0)) / spread, (made - real.mean(0)) / spread


def mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy between two sets of features, unbiased.

    Kernel: exp(-d^2 / (2 s^2)) with s the median distance within both sets together. 0 expected
    for sets of one distribution (so it may come out negative), at most 2; lower is better.

    Source: Gretton and colleagues 2012, eq. 3.
    """
    a, b = _tables(a, b, 2)
    both = np.concatenate([a, b])
    width = np.median(pdist(both)) or 1.0
    gram = np.exp(-cdist(both, both, "sqeuclidean") / (2 * width**2))
    n, m = len(a), len(b)
    own, other, cross = gram[:n, :n], gram[n:, n:], gram[:n, n:]
    within = [(g.sum() - np.trace(g)) / (k * (k - 1)) for g, k in ((own, n), (other, m))]
    return float(sum(within) - 2 * cross.mean())


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two sets of features.

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)), covariances with n - 1. The trace of
    the root is the nuclear norm of the product of the centred tables, so that sets smaller
    than the number of features need no root of a singular matrix. It is biased upwards in
    small sets: compare equal n only. In the square of the features' unit, from 0; lower is
    better.

    Source: Dowson and Landau 1982; Heusel and colleagues 2017.
    """
    a, b = _tables(a, b, 2)
    x, y = ((t - t.mean(0)) / np.sqrt(len(t) - 1) for t in (a, b))
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    common = np.linalg.norm(x @ y.T, "nuc")
    return float(max(0.0, apart + np.sum(x**2) + np.sum(y**2) - 2 * common))


def prdc(real: np.ndarray, made: np.ndarray, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of made volumes against real ones.

    Around each volume lies a ball that reaches its k-th nearest neighbour of the same set.
    Precision: made volumes inside some real ball; recall: real volumes inside some made
    ball; density: real balls around a made volume, over k; coverage: real balls with a
    made volume inside. Higher is better; density is about 1 for equal distributions, and above
    it where made volumes crowd.

    Source: Naeem and colleagues 2020; precision and recall: Kynkäänniemi and colleagues 2019.

    Raises:
        InputError: k is below 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}.")
    real, made = _tables(real, made, k + 1)
    real_reach, made_reach = (np.sort(cdist(t, t), axis=1)[:, k] for t in (real, made))
    apart = cdist(real, made)  # [n, m]
    in_real, in_made = apart < real_reach[:, None], apart < made_reach[None, :]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float(in_made.any(axis=1).mean()),
        "density": float(in_real.sum(axis=0).mean() / k),
        "coverage": float((apart.min(axis=1) < real_reach).mean()),
    }


def ms_ssim_diversity(
    volumes: Sequence[np.ndarray],
    mask: np.ndarray | None = None,
    most_pairs: int = 100,
    seed: int = 0,
) -> float:
    """Mean multi-scale SSIM over pairs of a set: how alike its volumes are, 1 for copies.

    Volumes lie on one grid, in one place, and are compared in the mask (everywhere by default);
    the mean of their 99.5th percentiles there is the data range of all pairs. Where there are
    more pairs than `most_pairs`, so many are drawn with `seed`. Only its distance from the value
    of real volumes says something: blur raises it and noise lowers it.

    Source: Odena, Olah and Shlens 2017.

    Raises:
        InputError: Fewer than two volumes.
    """
    if len(volumes) < 2:
        raise InputError(f"diversity needs two volumes or more, not {len(volumes)}.")
    if mask is None:
        mask = np.ones(np.shape(volumes[0]), dtype=bool)
    peak = float(np.mean([peak_intensity(v, mask) for v in volumes]))
    pairs = np.array(list(itertools.combinations(range(len(volumes)), 2)))
    if len(pairs) > most_pairs:
        pairs = np.random.default_rng(seed).choice(pairs, most_pairs, replace=False)
    return float(np.mean([ms_ssim(volumes[i], volumes[j], mask, peak) for i, j in pairs]))


def _tables(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise InputError(
            f"two tables of features of equal width with {least} rows or more are needed, "
            f"not shapes {a.shape} and {b.shape}."
        )
    return a, b
