"""How far an estimate is from the truth, inside a mask: one function per number.

Every function takes the truth first, works in float64, and says in its docstring the
unit, the range and which way is better. Intensities may be in any unit, because each
number is relative to the truth's peak or norm.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from medil.errors import InputError
from medil.grid import Triple

PEAK_PERCENTILE = 99.5
SSIM_SIGMA_VOX = 1.5  # Wang et al. 2004
HFEN_SIGMA_MM = 1.5  # Ravishankar and Bresler 2011, at 1 mm voxels

UNITS = {"psnr": "dB", "ssim": "1", "nrmse": "1", "hfen": "1", "gradient_error": "1"}
HIGHER_IS_BETTER = {
    "psnr": True,
    "ssim": True,
    "nrmse": False,
    "hfen": False,
    "gradient_error": False,
}


def peak_intensity(truth: np.ndarray, mask: np.ndarray) -> float:
    """The 99.5th percentile of the truth inside the mask: the peak of PSNR and SSIM.

    Our choice: the maximum of a scan is one bright vessel, this is stable. In the
    truth's intensity unit.
    """
    return float(np.percentile(_inside(truth, mask), PEAK_PERCENTILE))


def psnr(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio inside the mask.

    Args:
        truth: [D, H, W].
        estimate: [D, H, W], same unit.
        mask: [D, H, W] bool; only True voxels count.
        peak: What counts as full signal, normally `peak_intensity`.

    Returns:
        ``20 log10(peak / RMSE)`` in dB; higher is better, infinite for no error.

    Raises:
        InputError: Shapes differ, the mask is empty, or the peak is not above zero.
    """
    truth, estimate, mask = _checked(truth, estimate, mask)
    if not peak > 0:
        raise InputError(f"the peak must be above zero, not {peak}.")
    rmse = np.sqrt(np.mean((truth[mask] - estimate[mask]) ** 2))
    return float(20 * np.log10(peak / rmse)) if rmse > 0 else float("inf")


def nrmse(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray) -> float:
    """Euclidean norm of the error over that of the truth, inside the mask.

    Dimensionless, from 0; lower is better (0 exact, 1 as bad as all zeros). Source:
    `skimage.metrics.normalized_root_mse(normalization="euclidean")`.
    """
    truth, estimate, mask = _checked(truth, estimate, mask)
    return _relative(truth[mask] - estimate[mask], truth[mask])


def ssim(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, peak: float) -> float:
    """Structural similarity in 3-D, averaged over the mask.

    Gaussian window of 1.5 *voxels* (11 voxels wide), K1 = 0.01, K2 = 0.03, population
    covariance, data range = peak, as Wang et al. 2004. The local map is computed first
    and averaged inside the mask after, so windows at the rim see some background. The
    window counts voxels: compare SSIM only on one grid.

    Args:
        truth: [D, H, W].
        estimate: [D, H, W], same unit.
        mask: [D, H, W] bool.
        peak: Data range, normally `peak_intensity`.

    Returns:
        From -1 to 1, dimensionless; higher is better.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    truth, estimate, mask = _checked(truth, estimate, mask)
    radius = int(3.5 * SSIM_SIGMA_VOX + 0.5)
    box = _bounding_box(mask, margin=radius)
    truth, estimate, mask = truth[box], estimate[box], mask[box]
    # skimage refuses axes shorter than its window; mirrored edges are what it filters with.
    pad = [(0, max(0, 2 * radius + 1 - n)) for n in truth.shape]
    _, local = structural_similarity(
        np.pad(truth, pad, mode="symmetric"),
        np.pad(estimate, pad, mode="symmetric"),
        data_range=peak,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_VOX,
        use_sample_covariance=False,
        full=True,
    )
    return float(local[tuple(slice(n) for n in mask.shape)][mask].mean())


def hfen(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple) -> float:
    """High-frequency error norm: error of the Laplacian of Gaussian over its norm.

    Kernel of sigma 1.5 mm along every axis (not voxels), so that edges of one physical
    size count alike on every grid; along an axis with voxels above 3 mm the kernel is
    held at half a voxel, below which it cannot be sampled. It passes wavelengths near
    7 mm best, so it says little about the very finest detail: `gradient_error` does.

    Args:
        truth: [D, H, W].
        estimate: [D, H, W], same unit.
        mask: [D, H, W] bool, applied after the filter.
        spacing_mm: Voxel size along D, H, W, in mm.

    Returns:
        Dimensionless, from 0; lower is better. Source: Ravishankar and Bresler 2011.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    truth, estimate, mask = _checked(truth, estimate, mask)
    sigma_vox = [max(HFEN_SIGMA_MM / s, 0.5) for s in spacing_mm]
    box = _bounding_box(mask, margin=int(6 * max(sigma_vox) + 2))
    truth, estimate, mask = truth[box], estimate[box], mask[box]
    edges = _laplacian_of_gaussian(truth, sigma_vox, spacing_mm)
    error = _laplacian_of_gaussian(estimate - truth, sigma_vox, spacing_mm)
    return _relative(error[mask], edges[mask])


def gradient_error(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> float:
    """Error of the gradient magnitude over its norm, inside the mask.

    Central differences per mm (one-sided at the faces of the volume). Dimensionless,
    from 0; lower is better. A blurred estimate scores badly even where its mean is right.

    Args:
        truth: [D, H, W].
        estimate: [D, H, W], same unit.
        mask: [D, H, W] bool.
        spacing_mm: Voxel size along D, H, W, in mm.

    Returns:
        Relative root-mean-square error of |gradient|.

    Raises:
        InputError: Shapes differ or the mask is empty.
    """
    truth, estimate, mask = _checked(truth, estimate, mask)
    steep = _gradient_magnitude(truth, spacing_mm)[mask]
    return _relative(steep - _gradient_magnitude(estimate, spacing_mm)[mask], steep)


def all_metrics(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> dict[str, float]:
    """Every metric of this module by name; units in `UNITS`, peak by `peak_intensity`."""
    peak = peak_intensity(truth, mask)
    return {
        "psnr": psnr(truth, estimate, mask, peak),
        "ssim": ssim(truth, estimate, mask, peak),
        "nrmse": nrmse(truth, estimate, mask),
        "hfen": hfen(truth, estimate, mask, spacing_mm),
        "gradient_error": gradient_error(truth, estimate, mask, spacing_mm),
    }


def brain_mask(data: np.ndarray) -> np.ndarray:
    """The brain of a skull-stripped volume: above zero, largest piece, holes filled.

    Args:
        data: [D, H, W] with a background of exactly zero.

    Returns:
        [D, H, W] bool.

    Raises:
        InputError: Nothing is above zero.
    """
    return ndimage.binary_fill_holes(_largest_piece(np.asarray(data) > 0))


def head_mask(data: np.ndarray) -> np.ndarray:
    """The head of a raw scan with skull, for scoring; not a segmentation.

    Half of Otsu's threshold (intensities clipped at the 99.5th percentile, smoothed by
    one voxel, so that fat does not set it and skin is not lost), the largest piece,
    closed by two voxels, holes filled in 3-D and then slice by slice along the last
    axis, since a neck that leaves the field of view opens the cavities of the head.

    Args:
        data: [D, H, W], background near zero, last axis up.

    Returns:
        [D, H, W] bool.

    Raises:
        InputError: The volume is constant.
    """
    volume = np.asarray(data, dtype=np.float64)
    smooth = ndimage.gaussian_filter(np.minimum(volume, np.percentile(volume, 99.5)), 1.0)
    if not np.ptp(smooth) > 0:
        raise InputError("a constant volume has no head to find.")
    head = _largest_piece(smooth > threshold_otsu(smooth) / 2)
    padded = ndimage.binary_closing(np.pad(head, 2), iterations=2)
    head = ndimage.binary_fill_holes(padded)[2:-2, 2:-2, 2:-2]
    planes = [ndimage.binary_fill_holes(head[..., k]) for k in range(head.shape[-1])]
    return np.stack(planes, axis=-1)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    labels, n_pieces = ndimage.label(mask)
    if n_pieces == 0:
        raise InputError("nothing in this volume is above the threshold, so there is no mask.")
    sizes = np.bincount(labels.ravel())
    return labels == 1 + int(np.argmax(sizes[1:]))


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


def _gradient_magnitude(volume: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    axes = [a for a in range(3) if volume.shape[a] > 1]
    slopes = [np.gradient(volume, spacing_mm[a], axis=a) for a in axes]
    return np.sqrt(sum(s**2 for s in slopes))


def _relative(error: np.ndarray, reference: np.ndarray) -> float:
    size = float(np.linalg.norm(reference))
    wrong = float(np.linalg.norm(error))
    if size == 0:
        return 0.0 if wrong == 0 else float("inf")
    return wrong / size


def _bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in found)


def _inside(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    values, mask = np.asarray(values, dtype=np.float64), np.asarray(mask, dtype=bool)
    if values.shape != mask.shape:
        raise InputError(f"the volume has shape {values.shape} but its mask {mask.shape}.")
    if not mask.any():
        raise InputError("the mask is empty, so there is nothing to score.")
    return values[mask]


def _checked(truth, estimate, mask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, estimate = (np.asarray(v, dtype=np.float64) for v in (truth, estimate))
    if truth.shape != estimate.shape:
        raise InputError(f"truth and estimate differ in shape: {truth.shape}, {estimate.shape}.")
    _inside(truth, mask)
    return truth, estimate, np.asarray(mask, dtype=bool)
