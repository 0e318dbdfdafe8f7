"""Varied synthetic T1w heads, each scanned on a native grid of its own.

`subject` draws a head, chooses its grid and scans it. To scan one head several times, call
`draw_subject` once and `scan` for each grid. All draws follow from (seed, index); those of a
head and those of its scan are independent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medil.grid import Grid
from medil.synth.anatomy import Anatomy
from medil.synth.appearance import Range
from medil.synth.subject import DEFAULT, CohortConfig, Subject, draw_subject
from medil.volume import Volume


def native_grid(subject: Subject, seed: int, index: int, config: CohortConfig = DEFAULT) -> Grid:
    """A random native grid, RAS+, around a head: random spacing, phase and tilt.

    It has `margin_mm` of air around the head and is tilted by at most `max_tilt_deg`.
    """
    rng = np.random.default_rng([seed, index, 3])

    def log_uniform(bounds: Range) -> float:
        return float(np.exp(rng.uniform(*np.log(bounds))))

    if rng.uniform() < config.isotropic_share:
        spacing_mm = np.full(3, log_uniform(config.spacing_mm))
    else:
        spacing_mm = np.full(3, log_uniform(config.in_plane_mm))
        spacing_mm[rng.integers(3)] = log_uniform(config.slice_mm)
    low, high = subject.head_mm[0] - config.margin_mm, subject.head_mm[1] + config.margin_mm
    phase_mm = rng.uniform(size=3) * spacing_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int) + 1
    grid = Grid.from_spacing(shape.tolist(), spacing_mm.tolist(), low - spacing_mm / 2 + phase_mm)
    if config.max_tilt_deg > 0:
        grid = grid.rotated(rng.normal(size=3).tolist(), rng.uniform(0, config.max_tilt_deg))
    return grid


def rician(signal: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """The magnitude of a complex signal with Gaussian noise of `sigma` in each channel."""
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    real, imaginary = torch.from_numpy(noise).to(signal.device)
    return torch.hypot(signal + sigma * real, sigma * imaginary)


def scan(
    subject: Subject, grid: Grid, seed: int, index: int, config: CohortConfig = DEFAULT
) -> Tensor:
    """Scan a subject: point spread, Rician noise, and (by default) skull stripping.

    Returns:
        [D, H, W] float32, about 0 ... 1, exactly 0 outside the head unless
        `config.background_noise`. Two grids of one shape get the same noise.
    """
    rng = np.random.default_rng([seed, index, 4])
    cell, sigma = rng.uniform(*config.cell), rng.uniform(*config.noise)
    signal = subject.render(grid, cell)
    noisy = rician(signal, sigma, rng)
    if config.background_noise:
        return noisy
    return torch.where(signal > 0.5 * subject.darkest, noisy, signal.new_zeros(()))


def subject(
    anatomy: Anatomy,
    seed: int,
    index: int,
    config: CohortConfig = DEFAULT,
    grid: Grid | None = None,
) -> Volume:
    """One synthetic T1w scan, of head `index` of the cohort `seed`: the same bits every time.

    It is scanned on a random native grid when `grid` is None.
    """
    drawn = draw_subject(anatomy, seed, index, config)
    grid = grid or native_grid(drawn, seed, index, config)
    return Volume(scan(drawn, grid, seed, index, config), grid)
