"""The appearance of a synthetic T1w head: contrast, texture, shading, folds, outline.

Everything is painted on the anatomy's half-millimetre labels, before the head is bent and
scanned, so that texture belongs to the tissue and not to the voxels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medil.grid import Grid
from medil.synth.anatomy import FINE, TISSUES, Anatomy, finer, gaussian, largest

Range = tuple[float, float]
LATTICE_MM = 4.0  # slow variation is linear between points this far apart
LEANING = {"csf": 0.7, "white matter": -0.7}  # weight of the noise that folds an average brain
FOLIA = 3.5  # factor on texture in cerebellar cortex: its folds are finer than its labels


def smooth_noise(
    shape: tuple[int, ...],
    sigma_vox: float,
    rng: np.random.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """[D, H, W] Gaussian noise with standard deviation 1, blurred by `sigma_vox`.

    It is drawn by numpy and blurred on the device: the same noise everywhere, to rounding.
    """
    pad = math.ceil(3 * sigma_vox)  # so that the edge varies as much as the middle
    white = rng.standard_normal([n + 2 * pad for n in shape], dtype=np.float32)
    kernel = np.exp(-0.5 * (np.arange(-pad, pad + 1) / sigma_vox) ** 2)
    gain = float(np.linalg.norm(kernel / kernel.sum())) ** 3
    inner = tuple(slice(pad, pad + n) for n in shape)
    return gaussian(torch.from_numpy(white).to(device), sigma_vox)[inner] / gain


def paint(
    anatomy: Anatomy, rng: np.random.Generator, folding: Range, texture: Range, shading: Range
) -> tuple[Tensor, float]:
    """Draw the appearance of one head: means, texture, shading, and the cut of its outline.

    `folding`, `texture` and `shading` are ranges of `CohortConfig`.

    Returns:
        [2D, 2H, 2W] float32 intensity on the anatomy's fine grid (and device), and the
        darkest tissue's mean.
    """
    device = anatomy.labels.device
    means = draw_means(anatomy.tissues, rng)
    labels = _draw_labels(anatomy, rng.uniform(*folding), rng)
    painted = means.to(device).index_select(0, labels.flatten().int()).reshape(labels.shape)
    fine_std, smooth_std = rng.uniform(*texture), rng.uniform(*shading)
    coarse = fine_std * smooth_noise(anatomy.grid.shape, 0.6, rng, device)
    coarse += smooth_std * smooth_noise(anatomy.grid.shape, 2.0, rng, device)
    folia = [FOLIA if name == "cerebellar cortex" else 1.0 for name in anatomy.tissues]
    gains = torch.tensor(folia, device=device)
    coarse *= gains[labels[::FINE, ::FINE, ::FINE].int()]
    coarse += smooth_std * _slow_noise(anatomy.grid, 7.0, rng, device)
    if anatomy.offset is not None:
        coarse += rng.uniform(0.5, 1.0) * anatomy.offset
    rim = rng.uniform(0.3, 0.6) + 0.08 * _slow_noise(anatomy.grid, 6.0, rng, device)
    painted += finer(coarse)
    painted *= finer(anatomy.inside - rim) > 0
    painted *= labels != 0
    return painted.clamp_(min=0.0), float(means[means > 0].min())


def _draw_labels(anatomy: Anatomy, folding: float, rng: np.random.Generator) -> Tensor:
    """[2D, 2H, 2W] uint8: the anatomy's labels, or new folds where it has only shares.

    In an average brain a narrow sulcus is a slight dip; noise of a sulcus' size, positive
    for CSF where it is negative for white matter, makes some dips deep and closes others.
    """
    if anatomy.shares is None:
        return anatomy.labels
    shape, device = anatomy.grid.shape, anatomy.labels.device
    narrow, wide = (smooth_noise(shape, sigma, rng, device) for sigma in (1.8, 3.5))
    noise = folding * (0.8 * narrow + 0.6 * wide)
    shares = zip(anatomy.tissues, anatomy.shares, strict=True)
    return largest(
        share * (1.3 if name == "csf" else 1.0) + (share > 0.02) * LEANING.get(name, 0.0) * noise
        for name, share in shares
    )


def _slow_noise(
    grid: Grid, sigma_mm: float, rng: np.random.Generator, device: torch.device
) -> Tensor:
    """`smooth_noise` of several mm, drawn on a lattice and interpolated: [D, H, W]."""
    lattice_shape = tuple(math.ceil(n / LATTICE_MM) + 1 for n in grid.shape)
    noise = smooth_noise(lattice_shape, sigma_mm / LATTICE_MM, rng, device)
    return functional.interpolate(noise[None, None], grid.shape, mode="trilinear")[0, 0]


def draw_means(tissues: tuple[str, ...], rng: np.random.Generator) -> Tensor:
    """[len(tissues)] one mean per label: the draw of its tissue plus a small one of its own.

    Grey matter shares one draw, since a sequence's contrast moves all of it together.
    """
    shared, drawn = rng.normal(), {name: rng.normal() for name in TISSUES}
    means = []
    for name in tissues:
        mean, spread = TISSUES[name]
        common = shared if 0.5 < mean < 0.88 else drawn[name]
        deviation = 0.9 * common + 0.3 * drawn[name] + 0.1 * rng.normal()
        if name == "head":  # skin, fat, bone and muscle share nothing
            deviation = rng.normal()
        means.append(max(mean + spread * deviation, 0.04 if mean else 0.0))
    return torch.tensor(means, dtype=torch.float32)
