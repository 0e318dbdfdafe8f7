"""Sample latents: follow the flow from noise to data, and keep to a scan on the way.

A sample that shall agree with a scan is corrected after every step by what the scan says of
it: z <- z + A+ (scan - A z), with A the rendering and A+ the least-squares projection of the
closed form. That is the null-space step of Wang et al. 2022 (DDNM); it needs no training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from medil.diffusion.flow import TIMES, LatentFlow, block_means, scheduler, shifted
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.base import MIDDLE, LatentAutoencoder
from medil.volume import Volume, replace_nonfinite

STEPS = 30  # along the line, for a usual sample
SHIFT = 3.0  # how much finer the steps are near noise, where anatomy is decided
LAST_STEPS = 3  # corrections of a finished sample by the whole decoder
HEAD_SHARE = 0.1  # of the 0 ... 1 scale: what is brighter belongs to the head
Correct = Callable[[Tensor], Tensor]  # [B, C, d, h, w] latents -> latents that agree with a scan


def check_pair(flow: LatentFlow, model: LatentAutoencoder) -> None:
    """Refuse a flow and an autoencoder that do not belong together.

    Raises:
        InputError: The flow was trained on latents of other weights.
    """
    if flow.known.autoencoder_id != model.weights_id:
        raise InputError(
            f"this flow samples latents of the autoencoder {flow.known.autoencoder_id}, "
            f"not of {model.weights_id or 'one without weights'}; use those that belong together."
        )


def line(steps: int, shift: float = SHIFT) -> list[int]:
    """Whole times from `TIMES` (noise) down to 0 (data), `steps` of them apart.

    Raises:
        InputError: No step, or more than there are times.
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
    asked: Sequence[Mapping[str, float]],
    guidance: float = 1.0,
    steps: int = STEPS,
    correct: Correct | None = None,
    progress: bool = False,
) -> Tensor:
    """Latents along the flow, by Euler's method.

    Args:
        flow: Trained.
        seeds: Of each sample's noise; a sample does not depend on the others.
        asked: Its conditions, attribute to value.
        guidance: 1 samples what was learned; above it, conditions are exaggerated (Ho &
            Salimans 2022), at twice the cost.
        steps: Along the line.
        correct: Moves estimated latents to what else is known of them.
        progress: Show a bar over steps.

    Returns:
        [B, C, d, h, w] on `flow.known.grid`.

    Raises:
        InputError: An unknown condition, no sample, or a senseless number of steps.
    """
    if not seeds or len(seeds) != len(asked):
        raise InputError("name at least one sample, and conditions for each.")
    if not 0 <= guidance < math.inf:
        raise InputError(f"guidance must be zero or above, not {guidance:g}.")
    told, times, given = flow.tell(asked), line(steps), None
    if flow.coarse is not None:
        first = coarsely(correct, flow.config.block) if correct else None
        blocks = sample_means(flow.coarse, seeds, asked, guidance, steps, first, progress)
        given = flow.coarse.centred(blocks)
    channels = len(flow.std) * flow.config.fold**3
    shape = (channels, *flow.inner_shape)
    z = torch.stack([_noise(shape, seed) for seed in seeds]).to(flow.mean)
    solver = scheduler()
    solver.set_timesteps(len(times) - 1)
    pairs = list(itertools.pairwise(times))
    weight = guidance if told.any() else 1.0
    for now, then in tqdm(pairs, desc="sampling", unit="step", disable=not progress):
        velocity = _guided(flow, z, now, told, given, weight)
        if correct is not None:
            share = now / TIMES
            x, noise = z + share * velocity, z - (1 - share) * velocity
            velocity = flow.inwards(correct(flow.outwards(x))) - noise
        z, _ = solver.step(velocity, now, z, then)
    return flow.outwards(z)


def coarsely(correct: Correct, factor: int) -> Correct:
    """A correction of latents as one of their block means."""

    def corrected(blocks: Tensor) -> Tensor:
        whole = functional.interpolate(blocks, scale_factor=factor, mode="nearest")
        return block_means(correct(whole), factor)

    return corrected


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    """Of a seed; numbers of one shape have nothing in common with those of another."""
    own = np.random.SeedSequence([seed, *shape]).generate_state(1)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(own[0])))


def _guided(
    flow: LatentFlow, z: Tensor, now: int, told: Tensor, given: Tensor | None, guidance: float
) -> Tensor:
    """The velocity, moved away from that of no condition where guidance asks for it."""
    times = torch.full((len(z),), float(now), device=z.device)
    with torch.autocast(z.device.type, torch.bfloat16):
        velocity = flow.velocity(z, times, told, given)
        if guidance == 1:
            return velocity
        plain = flow.velocity(z, times, torch.zeros_like(told), given)
    return plain + guidance * (velocity - plain)


# Samples that keep to a scan


@dataclass(frozen=True)
class Seen:
    """What a scan says: its voxels inside the box, placed where the flow expects a head.

    Args:
        x: [1, 1, D, H, W], 0 ... 1 scale.
        grid: Of `x`, parallel to `latent_grid`.
        latent_grid: The flow's grid, put around the scan's head along the scan's axes.
        cover: [1, 1, d, h, w] share of each latent cell that the scan fills, 0 ... 1.
        intensity: Of the scan.
    """

    x: Tensor
    grid: Grid
    latent_grid: Grid
    cover: Tensor
    intensity: Intensity


def look_at(volume: Volume, flow: LatentFlow, centre_mm: Sequence[float] | None = None) -> Seen:
    """A scan as the flow needs it: in a box around its head, along its own axes.

    Args:
        volume: A skull-stripped scan, any grid; its axes stay.
        flow: Whose box.
        centre_mm: Middle of the head, RAS mm; that of what is bright in the scan when None.
            Name it for a scan of a part of the head.

    Returns:
        What is inside the box.

    Raises:
        InputError: A constant scan, or no voxel inside the box.
    """
    data, _ = replace_nonfinite(volume.data)
    intensity = robust_intensity(data)
    x = intensity.forward(data)
    grid = volume.grid
    middle_mm = head_middle_mm(x, grid) if centre_mm is None else np.asarray(centre_mm, float)
    box = _box_along(flow.known.grid, grid, middle_mm)
    start, stop = _inside(box, grid)
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        raise InputError("no voxel of the scan lies in the box around its head's middle.")
    inside = x[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    crop = grid.crop(start, inside.shape)
    return Seen(inside[None, None], crop, box, _cover(box, crop), intensity)


def head_middle_mm(x: Tensor, grid: Grid) -> np.ndarray:
    """[3] RAS mm: the middle of the box around what is bright in [D, H, W], 0 ... 1 scale."""
    bright = np.argwhere((x > HEAD_SHARE).numpy())
    return grid.index_to_ras((bright.min(0) + bright.max(0)) / 2)


def _box_along(box: Grid, grid: Grid, centre_mm: np.ndarray) -> Grid:
    """The flow's grid with the directions of a scan's axes, its middle at a point."""
    affine = np.eye(4)
    affine[:3, :3] = grid.directions * box.spacing_mm
    turned = Grid(box.shape, affine)
    return turned.shifted((centre_mm - turned.centre_mm).tolist())


def _inside(box: Grid, grid: Grid) -> tuple[list[int], list[int]]:
    """First and last + 1 voxel of `grid`, an axis, whose cell lies in `box`; axes are parallel."""
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


def keep_to(seen: Seen, model: LatentAutoencoder, whole: bool = False) -> Correct:
    """The correction of latents by a scan: z + A+ (scan - A z), where the scan lies.

    Args:
        seen: The scan.
        model: Whose closed form is A+.
        whole: Let A be the whole decoder, not its closed form: exact, and slower.

    Raises:
        InputError: A model without the closed form.
    """
    if not model.config.closed_form:
        raise InputError("only an autoencoder with the closed form can keep a sample to a scan.")

    x, cover = seen.x.to(model.haar), seen.cover.to(model.haar)

    def correct(z: Tensor) -> Tensor:
        render = model.decode_tensor if whole else model.render_linear
        missing = x - render(z, seen.latent_grid, seen.grid)
        added = model.project(missing + MIDDLE, seen.grid, seen.latent_grid)
        return z + cover * added

    return correct


# Whole samples


@torch.inference_mode()
def sample(
    flow: LatentFlow,
    model: MedIL,
    seeds: Sequence[int],
    asked: Sequence[Mapping[str, float]] | None = None,
    guidance: float = 1.0,
    steps: int = STEPS,
    like: Seen | None = None,
    progress: bool = False,
) -> list[Latent]:
    """Sampled latents that know where they lie, ready for `model.decode` on any grid.

    Args:
        flow: Trained on latents of `model`.
        model: The autoencoder.
        seeds: One for each sample.
        asked: Conditions of each sample; none when None.
        guidance: How much they are exaggerated.
        steps: Along the flow.
        like: A scan that every sample keeps to.
        progress: Show bars.

    Returns:
        Latents; their native grid has 1 mm voxels (the scan's, under `like`), their
        intensities are 0 ... 1, or the scan's.

    Raises:
        InputError: Weights that do not belong together, and as `sample_means`.
    """
    check_pair(flow, model)
    correct = keep_to(like, model) if like else None
    asked = asked if asked is not None else [{}] * len(seeds)
    means = sample_means(flow, seeds, asked, guidance, steps, correct, progress)
    if like:
        exact = keep_to(like, model, whole=True)
        for _ in range(LAST_STEPS):
            means = torch.cat([exact(z[None]) for z in means])
    grid = like.latent_grid if like else flow.known.grid
    native = like.grid if like else grid.with_spacing(1.0)
    intensity = like.intensity if like else Intensity(0.0, 1.0)
    means = means.cpu()
    log_var = torch.full_like(means[0], -30.0)  # a sample is a point, not a Gaussian
    return [Latent(z, log_var, grid, native, intensity, None, model.weights_id) for z in means]
