"""Sample latents: integrate the flow from noise to data, with or without a scan to agree with.

A sample that must agree with a scan is corrected after every step:
z <- z + A+ (scan - A z), with A the rendering and A+ the least-squares projection of the
closed form. This is the null-space step of Wang et al. 2022 (DDNM); it needs no training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil.diffusion.appearance import AppearanceFlow, Correct
from medil.diffusion.flow import TIMES, LatentFlow, block_means, repeat_cells, scheduler, shifted
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.base import MIDDLE, LatentAutoencoder
from medil.system.device import network_precision
from medil.volume import Volume, replace_nonfinite

STEPS = 30  # from noise to data, by default
SHIFT = 3.0  # how much finer the steps are near noise, where anatomy is decided
LAST_STEPS = 3  # most corrections of a finished sample by the whole decoder
HEAD_SHARE = 0.1  # intensity on the 0 ... 1 scale above which voxels belong to the head


def check_pair(flow: LatentFlow | AppearanceFlow, model: LatentAutoencoder) -> None:
    """Refuse a flow and an autoencoder that do not belong together.

    Raises:
        InputError: The flow was trained on latents of other weights.
    """
    if flow.known.autoencoder_id != model.weights_id:
        raise InputError(
            "this flow samples latents of another autoencoder; use weights that belong together."
        )


def line(steps: int, shift: float = SHIFT) -> list[int]:
    """The times of a sampler: whole numbers from `TIMES` (noise) to 0 (data), in `steps` steps.

    Raises:
        InputError: `steps` is below 1 or above `TIMES`.
    """
    if not 1 <= steps <= TIMES:
        raise InputError(f"a sample takes 1 to {TIMES} steps, not {steps}.")
    shares = shifted(np.linspace(1, 0, steps + 1), shift)
    times = [int(t) for t in np.rint(TIMES * np.asarray(shares))]
    return sorted(set(times), reverse=True)


@torch.inference_mode()
def sample_means(
    flow: LatentFlow,
    seeds: Sequence[int],
    requested: Sequence[Mapping[str, float]],
    guidance: float = 1.0,
    steps: int = STEPS,
    correct: Correct | None = None,
    progress: bool = False,
) -> Tensor:
    """Sample latents by integrating the flow with Euler's method.

    Args:
        flow: The trained flow.
        seeds: Seed of each sample's noise; a sample does not depend on the others.
        requested: Conditions of each sample, attribute to value.
        guidance: Weight of classifier-free guidance (Ho & Salimans 2022): 1 follows the
            conditions as learned, more exaggerates them, at twice the cost.
        steps: Integration steps from noise to data.
        correct: Applied to the estimated latents in every step.
        progress: Show a bar over steps.

    Returns:
        [B, C, d, h, w] on `flow.known.grid`.

    Raises:
        InputError: An unknown condition, no sample, or a number of steps out of range.
    """
    if not seeds or len(seeds) != len(requested):
        raise InputError("name at least one sample, and conditions for each.")
    if not 0 <= guidance < math.inf:
        raise InputError(f"guidance must be zero or above, not {guidance:g}.")
    conditions, times, coarse = flow.embed_conditions(requested), line(steps), None
    if flow.coarse is not None:
        first = coarsely(correct, flow.config.block) if correct else None
        blocks = sample_means(flow.coarse, seeds, requested, guidance, steps, first, progress)
        coarse = flow.coarse.centred(blocks)
    channels = len(flow.std) * flow.config.fold**3
    shape = (channels, *flow.inner_shape)
    z = torch.stack([_noise(shape, seed) for seed in seeds]).to(flow.mean)
    solver = scheduler()
    solver.set_timesteps(len(times) - 1)
    pairs = list(itertools.pairwise(times))
    weight = guidance if conditions.any() else 1.0
    for now, then in tqdm(pairs, desc="sampling", unit="step", disable=not progress):
        velocity = _guided(flow, z, now, conditions, coarse, weight)
        if correct is not None:
            share = now / TIMES
            x, noise = z + share * velocity, z - (1 - share) * velocity
            velocity = flow.normalise(correct(flow.denormalise(x))) - noise
        z, _ = solver.step(velocity, now, z, then)
    return flow.denormalise(z)


def coarsely(correct: Correct, factor: int) -> Correct:
    """A correction of latents, applied to their block means."""

    def corrected(blocks: Tensor) -> Tensor:
        return block_means(correct(repeat_cells(blocks, factor)), factor)

    return corrected


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    """Normal noise of a seed; noise of another shape is independent."""
    own = np.random.SeedSequence([seed, *shape]).generate_state(1)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(own[0])))


def _guided(
    flow: LatentFlow,
    z: Tensor,
    now: int,
    conditions: Tensor,
    coarse: Tensor | None,
    guidance: float,
) -> Tensor:
    """The velocity with classifier-free guidance."""
    times = torch.full((len(z),), float(now), device=z.device)
    with network_precision(z.device):
        velocity = flow.velocity(z, times, conditions, coarse)
        if guidance == 1:
            return velocity
        plain = flow.velocity(z, times, torch.zeros_like(conditions), coarse)
    return plain + guidance * (velocity - plain)


# Samples that agree with a scan


@dataclass(frozen=True)
class Observation:
    """A scan that samples agree with: its voxels inside the flow's box around the head."""

    x: Tensor  # [1, 1, D, H, W], 0 ... 1 scale
    grid: Grid  # of `x`, parallel to `latent_grid`
    latent_grid: Grid  # around the scan's head, along the scan's axes
    cover: Tensor  # [1, 1, d, h, w] share of each latent cell that the scan fills, 0 ... 1
    intensity: Intensity  # scaling of the scan


def observe(
    volume: Volume, flow: LatentFlow, centre_mm: Sequence[float] | None = None
) -> Observation:
    """Cut a skull-stripped scan to the flow's box around its head, along the scan's axes.

    `centre_mm` is the middle of the head, RAS mm; that of the bright voxels when None. Name it
    for a scan of a part of the head.

    Raises:
        InputError: A constant scan, or no voxel inside the box.
    """
    x, _ = _scaled(volume)
    grid = volume.grid
    middle_mm = head_middle_mm(x, grid) if centre_mm is None else np.asarray(centre_mm, float)
    return observe_in(volume, _box_along(flow.known.grid, grid, middle_mm))


def observe_in(volume: Volume, box: Grid) -> Observation:
    """Cut a skull-stripped scan to the box of a latent grid that is parallel to it.

    Raises:
        InputError: A constant scan, or no voxel inside the box.
    """
    x, intensity = _scaled(volume)
    grid = volume.grid
    start, stop = _inside(box, grid)
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        raise InputError("no voxel of the scan lies in the box around its head's middle.")
    inside = x[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    crop = grid.crop(start, inside.shape)
    return Observation(inside[None, None], crop, box, _cover(box, crop), intensity)


def _scaled(volume: Volume) -> tuple[Tensor, Intensity]:
    """[D, H, W] intensities, 0 ... 1 scale and background where they were not finite."""
    intensity = robust_intensity(volume.data)
    data, _ = replace_nonfinite(volume.data, background=intensity.low)
    return intensity.forward(data), intensity


def head_middle_mm(x: Tensor, grid: Grid) -> np.ndarray:
    """[3] RAS mm: the middle of the bounding box of the bright voxels of [D, H, W], 0 ... 1."""
    bright = np.argwhere((x > HEAD_SHARE).numpy())
    return grid.index_to_ras((bright.min(0) + bright.max(0)) / 2)


def _box_along(box: Grid, grid: Grid, centre_mm: np.ndarray) -> Grid:
    """The flow's grid with the directions of a scan's axes, its middle at a point."""
    affine = np.eye(4)
    affine[:3, :3] = grid.directions * box.spacing_mm
    turned = Grid(box.shape, affine)
    return turned.shifted((centre_mm - turned.centre_mm).tolist())


def _inside(box: Grid, grid: Grid) -> tuple[list[int], list[int]]:
    """First and last + 1 voxel of `grid` inside `box`, along each axis; axes are parallel."""
    corners_vox = grid.ras_to_index(box.corners_mm)
    low, high = corners_vox.min(0), corners_vox.max(0)
    start = np.clip(np.ceil(low + 0.5 - 1e-6), 0, grid.shape).astype(int)
    stop = np.clip(np.floor(high - 0.5 + 1e-6) + 1, 0, grid.shape).astype(int)
    return start.tolist(), stop.tolist()


def _cover(box: Grid, crop: Grid) -> Tensor:
    """[1, 1, d, h, w]: the share of each cell of `box` that lies inside `crop`'s voxels."""
    corners_vox = box.ras_to_index(crop.corners_mm)
    shares = []
    for n, low, high in zip(box.shape, corners_vox.min(0), corners_vox.max(0), strict=True):
        edges = np.arange(n) - 0.5
        inside = np.minimum(edges + 1, high) - np.maximum(edges, low)
        shares.append(torch.from_numpy(np.clip(inside, 0, 1)).float())
    return torch.einsum("i,j,k->ijk", *shares)[None, None]


def check_closed_form(model: LatentAutoencoder) -> None:
    """Refuse an autoencoder through which no sample can be made to agree with a scan.

    Raises:
        InputError: The model has no closed form.
    """
    if not model.config.closed_form:
        raise InputError(
            "samples agree with a scan only through an autoencoder with the closed form."
        )


def data_consistency(
    observation: Observation, model: LatentAutoencoder, whole: bool = False
) -> Correct:
    """The correction of latents by a scan: z + A+ (scan - A z), in the cells that it covers.

    A+ is the model's closed form. A is its rendering, or `whole` the decoder's: exact, and slower.

    Raises:
        InputError: The model has no closed form.
    """
    check_closed_form(model)
    x, cover = observation.x.to(model.device), observation.cover.to(model.device)

    def correct(z: Tensor) -> Tensor:
        render = model.decode_tensor if whole else model.splines.render
        missing = x - render(z, observation.latent_grid, observation.grid)
        added = model.splines.project(missing + MIDDLE, observation.grid, observation.latent_grid)
        return z + cover * added

    return correct


def last_steps(steps: int) -> int:
    """How often a finished sample is corrected: once for two steps, at most `LAST_STEPS`."""
    return max(1, min(LAST_STEPS, steps // 2))


# Whole samples


@torch.inference_mode()
def sample(
    flow: LatentFlow,
    model: MedIL,
    seeds: Sequence[int],
    requested: Sequence[Mapping[str, float]] | None = None,
    guidance: float = 1.0,
    steps: int = STEPS,
    like: Observation | None = None,
    progress: bool = False,
) -> list[Latent]:
    """Sample latents, placed in mm, for `model.decode` on any grid.

    The flow was trained on latents of the model. Every sample agrees with the scan `like`, if
    any; the other arguments are those of `sample_means`, without conditions when None.

    Returns:
        Latents; with `like` their native grid and intensities are the scan's, otherwise 1 mm
        voxels and 0 ... 1.

    Raises:
        InputError: Weights that do not belong together, and as `sample_means`.
    """
    check_pair(flow, model)
    correct = data_consistency(like, model) if like else None
    requested = requested if requested is not None else [{}] * len(seeds)
    means = sample_means(flow, seeds, requested, guidance, steps, correct, progress)
    if like:
        exact = data_consistency(like, model, whole=True)
        for _ in range(last_steps(steps)):
            means = torch.cat([exact(z[None]) for z in means])
    grid = like.latent_grid if like else flow.known.grid
    native = like.grid if like else grid.with_spacing(1.0)
    intensity = like.intensity if like else Intensity(0.0, 1.0)
    means = means.cpu()
    log_var = torch.full_like(means[0], -30.0)  # a sample is a point, not a Gaussian
    return [Latent(z, log_var, grid, native, intensity, None, model.weights_id) for z in means]
