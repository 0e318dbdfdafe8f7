"""A set of volumes in numbers, and how one set compares with another.

Two tables describe a set: the features of `eval.metrics.sets`, which see intensities and
detail, and numbers of shape. Distances are taken on both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from scipy.spatial.distance import cdist, pdist

from eval.generation.rulers import VOXEL_ML, VOXEL_MM, brain_mask, brain_ml, ventricles_ml
from eval.metrics.errors import peak_intensity
from eval.metrics.sets import (
    FEATURES,
    features,
    frechet,
    mmd,
    ms_ssim_diversity,
    prdc,
    standardised,
)
from eval.metrics.tissue import segment
from eval.metrics.topology import per_cm3, topology, white_surface

COPIES = {
    "nearest": "1", "nearest_in_training": "1", "bar": "1", "flagged_percent": "%",
    "copies_percent": "%",
}  # fmt: skip
FLAGGED_PERCENT = 5.0
SPACING_MM = (VOXEL_MM,) * 3
Volumes = Sequence[np.ndarray] | np.ndarray  # a set, each [D, H, W]
BANDS_MM = ((32.0, 16.0), (16.0, 8.0), (8.0, 4.0))  # octaves of wavelength
SHARP_BAND = 2  # of BANDS_MM: what sharpness is matched on
TISSUE = ("csf", "grey", "white")
SHAPE = (
    *(f"{name} (share)" for name in TISSUE),
    "ventricles (ml)",
    "brain (ml)",
    *(f"log axis {n} of the brain (mm)" for n in (1, 2, 3)),
)
MOST_PAIRS = 60  # of MS-SSIM
SHAPE_BLUR_MM = 2.0  # Gaussian before shapes are measured: what is blurred less looks the same
GRADIENT = FEATURES.index("gradient, mean (peak/mm)")
UNITS = {
    "frechet": "1", "mmd": "1", "precision": "1", "recall": "1", "density": "1",
    "coverage": "1", "ms_ssim": "1", "gradient": "1/mm", "power_16_32_db": "dB",
    "power_8_16_db": "dB", "power_4_8_db": "dB", "handles_per_cm3": "1/cm3",
    "csf_percent": "%", "grey_percent": "%", "white_percent": "%", "tissue_distance": "%",
    "shape_spread": "1", "shape_coverage": "1", "shape_recall": "1",
}  # fmt: skip


class Description(NamedTuple):
    """A set in numbers, one row a volume."""

    features: np.ndarray  # [N, 18], of `eval.metrics.sets`
    shape: np.ndarray  # [N, 8], named by `SHAPE`
    power: np.ndarray  # [N, 3] mean power in each of `BANDS_MM`, of intensities over their peak
    handles: np.ndarray  # [N] per cm3, of the white matter's surface


def describe(volumes: Volumes) -> Description:
    """Describe each volume [D, H, W] (0 ... 1, skull-stripped) of a set in numbers, one row each.

    Raises:
        InputError: A volume without a brain.
    """
    tables: list[tuple] = []
    for volume in volumes:
        data = np.asarray(volume, dtype=np.float64)
        mask = brain_mask(data)
        surface = topology(white_surface(data, mask, SPACING_MM))
        handles = per_cm3(surface, mask.sum() * VOXEL_ML)["handles_per_cm3"]
        numbers = features(data, mask, SPACING_MM)
        tables.append((numbers, shape(data), band_power(data, mask), handles))
    return Description(*(np.array(column) for column in zip(*tables, strict=True)))


def shape(volume: np.ndarray) -> np.ndarray:
    """[8] numbers of a brain's shape, after a Gaussian of `SHAPE_BLUR_MM`; `SHAPE` names them.

    Shares of three tissues, ventricles and brain in ml, and the brain mask's principal axes.
    The Gaussian makes blurs that are smaller than it nearly invisible.
    """
    smooth = blurred([volume], SHAPE_BLUR_MM)[0]
    mask = brain_mask(smooth)
    labels = segment(smooth, mask)[mask]
    shares = np.bincount(labels, minlength=4)[1:] / labels.size
    places_mm = VOXEL_MM * np.argwhere(mask)
    axes_mm = np.sqrt(np.linalg.eigvalsh(np.cov(places_mm.T))[::-1])
    volumes_ml = ventricles_ml(smooth, mask), brain_ml(smooth, mask)
    return np.array([*shares, *volumes_ml, *np.log(axes_mm)])


def band_power(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[3] mean power of a brain in each octave of `BANDS_MM`: peak squared, per mask voxel.

    Intensities over their peak, minus their mean, inside a mask whose edge falls off over about
    8 mm, so that the rim of the brain does not count as detail.
    """
    depth_mm = ndimage.distance_transform_edt(mask, SPACING_MM)
    soft = ndimage.gaussian_filter(depth_mm.clip(0, 8) / 8, 2 / VOXEL_MM)
    scaled = volume / peak_intensity(volume, mask)
    centred = (scaled - np.average(scaled, weights=soft)) * soft
    spectrum = np.abs(fft.fftn(centred.astype(np.float32))) ** 2
    axes = [fft.fftfreq(n, VOXEL_MM) for n in volume.shape]
    per_mm = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    total = volume.size * np.square(soft).sum()
    bands = [(per_mm >= 1 / long) & (per_mm < 1 / short) for long, short in BANDS_MM]
    return np.array([spectrum[band].sum() / total for band in bands])


def blurred(volumes: Volumes, sigma_mm: float) -> np.ndarray:
    """[N, D, H, W] float32: volumes after a Gaussian, exact for any width (in Fourier space)."""
    if sigma_mm == 0:
        return np.asarray(volumes, dtype=np.float32)
    width = sigma_mm / VOXEL_MM
    spectra = (ndimage.fourier_gaussian(fft.fftn(np.asarray(v)), width) for v in volumes)
    return np.stack([fft.ifftn(s).real.astype(np.float32) for s in spectra])


def common_mask(volumes: Volumes) -> np.ndarray:
    """The brain mask of a set's mean volume, used for every MS-SSIM: [D, H, W] bool."""
    return brain_mask(np.mean(np.asarray(volumes), axis=0))


def compare(
    reference: Description, ours: Description, volumes: Volumes, mask: np.ndarray
) -> dict[str, float]:
    """How a set and its volumes compare with the reference (`UNITS`); MS-SSIM is taken in a mask.

    `tissue_distance` is the mean over tissues of the difference in mean share; `shape_spread` the
    mean distance between two heads of the set in standardised shape, over that of the reference.

    Raises:
        InputError: Sets too small for neighbours (six or more are needed).
    """
    real, own = standardised(reference.features, ours.features)
    shape_real, shape_own = standardised(reference.shape, ours.shape)
    near, shapes = prdc(real, own), prdc(shape_real, shape_own)
    shares = [100 * d.features[:, :3].mean(0) for d in (ours, reference)]
    values = [
        frechet(real, own),
        mmd(real, own),
        *(near[name] for name in ("precision", "recall", "density", "coverage")),
        ms_ssim_diversity(list(volumes), mask, MOST_PAIRS),
        ours.features[:, GRADIENT].mean(),
        *(10 * np.log10(ours.power.mean(0) / reference.power.mean(0))),
        ours.handles.mean(),
        *shares[0],
        np.abs(shares[0] - shares[1]).mean(),
        pdist(shape_own).mean() / pdist(shape_real).mean(),
        shapes["coverage"],
        shapes["recall"],
    ]
    return {name: float(value) for name, value in zip(UNITS, values, strict=True)}


def blur_to_match(volumes: Volumes, power: float, most_mm: float = 4.0, rounds: int = 12) -> float:
    """Sigma in mm of the Gaussian that lowers a set to a given power in the 4-8 mm band.

    Bisection up to `most_mm`; 0 where the set is no sharper. Volumes have voxels of 2 mm.
    """
    masks = [brain_mask(v) for v in volumes]

    def sharper(sigma_mm: float) -> bool:
        soft = blurred(volumes, sigma_mm)
        found = [band_power(v, m)[SHARP_BAND] for v, m in zip(soft, masks, strict=True)]
        return bool(np.mean(found) > power)

    if not sharper(0.0):
        return 0.0
    low, high = 0.0, most_mm
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if sharper(middle) else (low, middle)
    return (low + high) / 2


# Copies


def memorisation(volumes: Volumes, training: Volumes) -> dict[str, float]:
    """Is a sample a copy? How near volumes (0 ... 1) come to two or more training heads.

    The distance is that of `distances`. A volume is flagged if its nearest training head is nearer
    than the 5th percentile of the distances between training heads and their nearest other one.
    Heads drawn on one label map count as neighbours too, so near ones exist and the bar is low.
    A dull sample is near to everybody without being a copy, so nearness is also taken relative to
    the sample's distance from all training heads.

    Returns:
        `nearest` and `nearest_in_training` (medians), `bar` (that percentile),
        `flagged_percent`, and `copies_percent`, flagged by the nearest distance over the median
        one; units in `COPIES`.
    """
    among = distances(training, training)
    np.fill_diagonal(among, np.nan)
    theirs, away = np.nanmin(among, axis=1), np.nanmedian(among, axis=1)
    bar, bar_ratio = (np.percentile(d, FLAGGED_PERCENT) for d in (theirs, theirs / away))
    apart = distances(volumes, training)
    nearest = apart.min(axis=1)
    return {
        "nearest": float(np.median(nearest)),
        "nearest_in_training": float(np.median(theirs)),
        "bar": float(bar),
        "flagged_percent": 100 * float((nearest < bar).mean()),
        "copies_percent": 100 * float((nearest / np.median(apart, axis=1) < bar_ratio).mean()),
    }


def distances(volumes: Volumes, others: Volumes) -> np.ndarray:
    """[n, m] RMS difference of intensities in the box, over blocks of 4 mm."""
    here, there = (np.stack([_coarse(v) for v in s]) for s in (volumes, others))
    return cdist(here, there) / math.sqrt(here.shape[1])


def _coarse(volume: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 x 2 voxels as one line."""
    d, h, w = (n // 2 for n in volume.shape)
    return volume.reshape(d, 2, h, 2, w, 2).mean(axis=(1, 3, 5)).ravel()
