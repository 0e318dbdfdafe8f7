"""How far an estimate is from the truth, voxel by voxel or after a filter, inside a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from eval.metrics.checks import bounding_box, checked, inside, relative
from medil.box import Triple
from medil.errors import InputError

PEAK_PERCENTILE = 99.5
HFEN_SIGMA_MM = 1.5  # Ravishankar and Bresler 2011, at 1 mm voxels


def peak_intensity(truth: np.ndarray, mask: np.ndarray) -> float:
    """The 99.5th percentile of the truth inside the mask: the peak of PSNR and SSIM.

    Our choice: the maximum of a scan is one bright vessel, this is stable. In the
    truth's intensity unit.
    """
    return float(np.percentile(inside(truth, mask), PEAK_PERCENTILE))


def psnr(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio inside the mask: ``20 log10(peak / RMSE)`` in dB.

    `peak` counts as full signal, normally `peak_intensity`. Higher is better, infinite for no
    error.

    Raises:
        InputError: The peak is not above zero.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    if not peak > 0:
        raise InputError(f"the peak must be above zero, not {peak}.")
    rmse = np.sqrt(np.mean((truth[mask] - estimate[mask]) ** 2))
    return float(20 * np.log10(peak / rmse)) if rmse > 0 else float("inf")


def nrmse(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray) -> float:
    """Euclidean norm of the error over that of the truth, inside the mask.

    Dimensionless, from 0; lower is better (0 exact, 1 as bad as all zeros). Source:
    `skimage.metrics.normalized_root_mse(normalization="euclidean")`.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    return relative(truth[mask] - estimate[mask], truth[mask])


def hfen(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple) -> float:
    """High-frequency error norm: error of the Laplacian of Gaussian over its norm.

    Kernel of sigma 1.5 mm along every axis (not voxels), so that edges of one physical
    size count alike on every grid; along an axis with voxels above 3 mm the kernel is
    held at half a voxel, below which it cannot be sampled. The mask is applied after the
    filter. It passes wavelengths near 7 mm best, so it says little about the very finest
    detail: `gradient_error` does. Dimensionless, from 0; lower is better.

    Source: Ravishankar and Bresler 2011.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    sigma_vox = [max(HFEN_SIGMA_MM / s, 0.5) for s in spacing_mm]
    box = bounding_box(mask, margin=int(6 * max(sigma_vox) + 2))
    truth, estimate, mask = truth[box], estimate[box], mask[box]
    edges = _laplacian_of_gaussian(truth, sigma_vox, spacing_mm)
    error = _laplacian_of_gaussian(estimate - truth, sigma_vox, spacing_mm)
    return relative(error[mask], edges[mask])


def gradient_error(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> float:
    """Relative root-mean-square error of the gradient's magnitude, inside the mask.

    Central differences per mm (one-sided at the faces of the volume). Dimensionless, from 0;
    lower is better. A blurred estimate scores badly even where its mean is right.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    steep = gradient_magnitude(truth, spacing_mm)[mask]
    return relative(steep - gradient_magnitude(estimate, spacing_mm)[mask], steep)


def _laplacian_of_gaussian(
    volume: np.ndarray, sigma_vox: list[float], spacing_mm: Triple
) -> np.ndarray:
    """[D, H, W] Laplacian of the smoothed volume, per mm^2."""
    # Along each axis in turn: what is smoothed so far, and the sum of what is curved so far.
    plain, curved = volume, np.zeros_like(volume)
    for axis in range(3):
        smooth, second = _gaussian_kernels(sigma_vox[axis])

        def along(values: np.ndarray, kernel: np.ndarray, axis: int = axis) -> np.ndarray:
            return ndimage.correlate1d(values, kernel, axis=axis, mode="reflect")

        curved = along(curved, smooth) if axis else curved
        curved = curved + along(plain, second) / spacing_mm[axis] ** 2
        plain = along(plain, smooth) if axis < 2 else plain
    return curved


def _gaussian_kernels(sigma_vox: float) -> tuple[np.ndarray, np.ndarray]:
    """Sampled Gaussian and its second derivative, exact on constants and parabolas.

    Without the two corrections a plain offset leaks through the truncated tails, and a
    narrow kernel is short of curvature.
    """
    x = np.arange(-np.ceil(6 * sigma_vox), np.ceil(6 * sigma_vox) + 1)
    smooth = np.exp(-(x**2) / (2 * sigma_vox**2))
    smooth /= smooth.sum()
    second = (x**2 - (smooth * x**2).sum()) * smooth
    return smooth, second * 2 / (second * x**2).sum()


def gradient_magnitude(volume: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """[D, H, W] per mm; an axis of one voxel has no slope."""
    slopes = [
        np.gradient(volume, s, axis=a) for a, s in enumerate(spacing_mm) if volume.shape[a] > 1
    ]
    return np.sqrt(sum((s**2 for s in slopes), np.zeros(volume.shape)))
