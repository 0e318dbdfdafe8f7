"""Structural similarity inside a mask, at one scale and at several."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from eval.metrics.checks import bounding_box, checked

SSIM_SIGMA_VOX = 1.5  # Wang et al. 2004
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest first
WINDOW_RADIUS_VOX = 5  # 11 voxels wide, as both papers
K1, K2 = 0.01, 0.03  # both papers


def ssim(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, peak: float) -> float:
    """Structural similarity in 3-D, averaged over the mask: -1 to 1, higher is better.

    Gaussian window of 1.5 *voxels* (11 voxels wide), K1 = 0.01, K2 = 0.03, population
    covariance, data range = `peak`, as Wang et al. 2004. The local map is computed first
    and averaged inside the mask after, so windows at the rim see some background. The
    window counts voxels: compare SSIM only on one grid.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    radius = WINDOW_RADIUS_VOX
    box = bounding_box(mask, margin=radius)
    truth, estimate, mask = truth[box], estimate[box], mask[box]
    # skimage refuses axes shorter than its window; mirrored edges are what it filters with.
    pad = [(0, max(0, 2 * radius + 1 - n)) for n in truth.shape]
    _, local = structural_similarity(
        np.pad(truth, pad, mode="symmetric"),
        np.pad(estimate, pad, mode="symmetric"),
        data_range=peak,
        K1=K1,
        K2=K2,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_VOX,
        use_sample_covariance=False,
        full=True,
    )
    return float(local[tuple(slice(n) for n in mask.shape)][mask].mean())


def ms_ssim(truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, peak: float) -> float:
    """Structural similarity at several scales, in 3-D, averaged over the mask.

    Contrast and pattern are compared at every scale, each half as fine as the one before
    (means of 2 x 2 x 2 voxels), brightness at the coarsest alone, and their means over the
    mask are multiplied with the weights of Wang et al. 2003. The window is that of `ssim`,
    and only windows that lie inside the volume count: so does
    `monai.metrics.MultiScaleSSIMMetric`, which this equals on a full mask.

    Our choices: with n scales of those five that still hold a window along the mask's
    shortest side (`n_scales`; five need 176 voxels), the first n weights are divided by
    their sum; MONAI refuses such a volume. A coarse voxel counts when at least half of it is in
    the mask. Windows at the rim see some background. Scales count voxels: compare MS-SSIM
    only on one grid, and only where `n_scales` is equal.

    From 0 (a negative mean counts as 0, as in MONAI) to 1; higher is better.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    scales = n_scales(mask)
    if scales == 0:
        return max(0.0, ssim(truth, estimate, mask, peak))
    box = _whole_blocks_around(mask, 2 ** (scales - 1))
    truth, estimate, share = truth[box], estimate[box], mask[box].astype(float)
    means = []
    for scale in range(scales):
        if scale:
            truth, estimate, share = (_halved(v) for v in (truth, estimate, share))
        pattern, brightness = _windows(truth, estimate, peak)
        inner = share[(slice(WINDOW_RADIUS_VOX, -WINDOW_RADIUS_VOX),) * 3] >= 0.5
        local = pattern * brightness if scale == scales - 1 else pattern
        means.append(max(0.0, float(local[inner].mean())) if inner.any() else 1.0)
    weights = np.array(MS_SSIM_WEIGHTS[:scales])
    return float(np.prod(np.array(means) ** (weights / weights.sum())))


def n_scales(mask: np.ndarray) -> int:
    """How many of the five scales of `ms_ssim` hold a whole window within a mask's box.

    Zero when even the finest does not: `ms_ssim` is then `ssim`, with mirrored faces.
    """
    box = bounding_box(np.asarray(mask, dtype=bool), margin=0)
    shortest = min(s.stop - s.start for s in box)
    width = 2 * WINDOW_RADIUS_VOX + 1
    return sum(shortest >> scale >= width for scale in range(len(MS_SSIM_WEIGHTS)))


def _whole_blocks_around(mask: np.ndarray, block: int) -> tuple[slice, ...]:
    """The mask's box and a margin of a window at the coarsest scale, in whole blocks.

    Blocks start at the mask's own corner, so empty space around it moves none of them.
    """
    margin = WINDOW_RADIUS_VOX * block
    box = bounding_box(mask, margin=0)
    starts = [s.start - min(margin, s.start // block * block) for s in box]
    return tuple(slice(a, s.stop + margin) for a, s in zip(starts, box, strict=True))


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 x 2 voxels; an odd last plane is left out."""
    d, h, w = (n // 2 for n in values.shape)
    blocks = values[: 2 * d, : 2 * h, : 2 * w].reshape(d, 2, h, 2, w, 2)
    return blocks.mean(axis=(1, 3, 5))


def _windows(truth: np.ndarray, estimate: np.ndarray, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-and-pattern and brightness of every window that lies inside the volume."""
    inner = (slice(WINDOW_RADIUS_VOX, -WINDOW_RADIUS_VOX),) * 3

    def mean(values: np.ndarray) -> np.ndarray:
        truncate = WINDOW_RADIUS_VOX / SSIM_SIGMA_VOX
        return ndimage.gaussian_filter(values, SSIM_SIGMA_VOX, truncate=truncate)[inner]

    x, y = mean(truth), mean(estimate)
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    powers = mean(truth**2 + estimate**2) - x**2 - y**2  # variances, summed
    pattern = (2 * (mean(truth * estimate) - x * y) + c2) / (powers + c2)
    return pattern, (2 * x * y + c1) / (x**2 + y**2 + c1)
