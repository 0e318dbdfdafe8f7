"""Live parts of the pages on sampling.

Every part runs without label maps: heads are drawn on the MNI152 anatomy, or sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import pdist

from eval.generation import sets
from eval.generation.rulers import brain_mask, measure_attributes
from eval.generation.samplers import as_synthetic
from eval.generation.volumes import averaged, scan_of
from eval.heads import Head
from eval.metrics.sets import ms_ssim_diversity, standardised
from medil.diffusion.anatomies import drawn_anatomy
from medil.diffusion.appearance import STEPS, AppearanceFlow
from medil.diffusion.flow import FLOOR, LatentFlow, block_means
from medil.diffusion.latents import LatentSet, style
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.tiles import slabs
from medil.synth.attributes import Spread
from medil.synth.box import box_grid
from medil.system.device import network_precision
from medil.volume import Volume

SEED = 4711  # of the heads drawn here: in no training set
SLAB_VOXELS = 2_000_000


# Heads and latents


def synthetic_head(index: int, grid: Grid) -> Volume:
    """A scan of a head on the MNI152 anatomy, skull-stripped, 0 ... 1 scale, around (0, 0, 0).

    It is drawn as the cohort's heads are, and needs no download.
    """
    head = Head(None, SEED, index, style())
    subject = head.draw()
    data = head.scan(subject, grid.shifted(subject.head_mm.mean(0).tolist()))
    return Volume(robust_intensity(data).forward(data), grid)


def averaged_to(volume: Volume, grid: Grid) -> Volume:
    """Means of a volume over the voxels of a coarser grid of the same box."""
    return Volume(torch.from_numpy(averaged(volume.data.numpy(), grid.shape)), grid)


def as_latent(mean: torch.Tensor, flow: LatentFlow, model: MedIL) -> Latent:
    """[C, d, h, w] numbers in the flow's box as a latent that `model` can render."""
    grid = flow.known.grid
    log_var, unit = torch.full_like(mean, -30.0), Intensity(0.0, 1.0)
    return Latent(mean, log_var, grid, grid.with_spacing(1.0), unit, None, model.weights_id)


@torch.inference_mode()
def rendered(model: MedIL, latent: Latent, grids: Sequence[Grid]) -> list[Volume]:
    """A latent decoded on several grids, for little more than the cost of one.

    The networks run once, in bfloat16 where the machine has it; only the last layer depends on
    the voxel size. Grids are parallel to the latent's grid and inside its box.
    """
    z, volumes = latent.mean[None].to(model.device), []
    with network_precision(z.device):
        features = model.decode_features(z)
    for grid in grids:
        out = torch.empty(grid.shape)
        for start, slab in slabs(grid, max(1, SLAB_VOXELS * grid.shape[0] // grid.n_voxels)):
            learned = model.render_features(features, latent.grid, slab)
            values = model.compose(learned, z, latent.grid, slab)[0, 0]
            out[start : start + slab.shape[0]] = latent.intensity.inverse(values)
        volumes.append(Volume(out, grid))
    return volumes


def blocks_of(latent: Latent, cells: int, reach: int) -> LatentSet:
    """A toy training set: a block of `cells`^3 of a latent, moved by up to `reach` cells.

    Moving a head by whole cells moves its latent by those cells and changes no number, so these
    are exact latents of a head in (2 reach + 1)^3 places. All are stored at the middle place.
    """
    first = [(n - cells) // 2 for n in latent.grid.shape]
    moves = torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 3).tolist()
    blocks = []
    for move in moves:
        parts = [slice(f + m, f + m + cells) for f, m in zip(first, move, strict=True)]
        blocks.append(latent.mean[(slice(None), *parts)])
    grid = latent.grid.crop(first, (cells,) * 3)
    return LatentSet(torch.stack(blocks), grid, torch.zeros(len(blocks), 4), latent.weights_id)


def untrained(share: np.ndarray) -> np.ndarray:
    """The loss of an untrained flow, which estimates each number on its own, at times 0 ... 1.

    For x and n standard normal the best estimate of x from z = (1 - t) x + t n is linear in
    z and off by the variance t^2 / ((1 - t)^2 + t^2); the loss divides it by max(t, FLOOR)^2.
    """
    return share**2 / ((1 - share) ** 2 + share**2) / np.maximum(share, FLOOR) ** 2


def cells(flow: LatentFlow, floor: LatentFlow) -> int:
    """How many cells of `flow` along an axis make one cell of the coarser `floor`."""
    return flow.known.grid.shape[0] // floor.known.grid.shape[0]


def from_mean(flow: LatentFlow, latents: torch.Tensor) -> float:
    """RMS distance of latents [B, C, d, h, w] from the mean map, in standard deviations.

    For a cascade: of the block means that its coarse flow draws, in their deviations.
    """
    floor = flow.coarse or flow
    blocks = block_means(latents, cells(flow, floor))
    return float(floor.centred(blocks).square().mean().sqrt())


def training_set(flow: LatentFlow) -> str:
    """What a released flow was trained on, such as ``64 synthetic heads``."""
    counts = flow.facts["heads"]
    if isinstance(counts, int):  # releases from before real scans were used
        return f"{counts} synthetic heads"
    real = f" and {counts['real']} copies of real scans" if counts["real"] else ""
    return f"{counts['synthetic']} synthetic heads{real}"


# Descriptions of samples


def rms(a: Volume, b: Volume, where: np.ndarray) -> float:
    """Root mean square difference of two volumes on one grid, in a mask.

    Raises:
        InputError: The grids differ.
    """
    if not a.grid.is_close(b.grid):
        raise InputError("volumes are compared on one grid; render both there.")
    difference = (a.data.double() - b.data.double())[torch.from_numpy(where)]
    return difference.square().mean().sqrt().item()


def looks(sample: Volume, reference: Volume, spreads: Mapping[str, Spread]) -> str:
    """Three sentences that describe a sample in numbers: loose pieces, brain size, detail.

    Sample and reference (a head through the same autoencoder) have voxels of 2 mm, 0 ... 1 scale.
    """
    data = sample.data.numpy()
    mask = brain_mask(data)
    whole = mask[data > 0.1].mean()
    brain_ml, spread = measure_attributes(data)["brain"], spreads["brain"]
    within = spread.low <= brain_ml <= spread.high
    power, full = (
        sets.band_power(v, brain_mask(v))[sets.SHARP_BAND] for v in (data, reference.data.numpy())
    )
    share, waves_mm = power / full, sets.BANDS_MM[sets.SHARP_BAND]
    return (
        f"**How it looks, in numbers.** {100 * whole:.1f} % of what is bright is one piece"
        f"{'' if whole > 0.99 else ', so crumbs float around it'}. Its brain measures "
        f"{brain_ml:,.0f} ml, {'inside' if within else 'outside'} the {spread.low:,.0f} to "
        f"{spread.high:,.0f} ml of training. Waves of {waves_mm[1]:g} to {waves_mm[0]:g} mm have "
        f"{share:.2f} of the power that they have in the synthetic head: {_detail(share)}"
    )


def _detail(share: float) -> str:
    if share < 0.5:
        return "the sample is blurred, and folds run together."
    if share < 0.8:
        return "the sample is smoother than a head that went through the same decoder."
    if share > 1.25:
        return "more than a head has, so part of what looks like folds is noise."
    return (
        "about as much detail as a head that went through the same decoder. Power is not "
        "anatomy: texture in the wrong place has it too, so look for folds."
    )


def agreement(one: float, two: float) -> str:
    """How much closer two renderings of one sample are (RMS `one`) than two heads (RMS `two`)."""
    ratio = two / max(one, 1e-12)
    times = f"{ratio:,.0f}" if ratio < 1e4 else "over ten thousand"
    return (
        f"one sample differs from itself by {one:.2g}, from another head by {two:.2g}, "
        f"{times} times as much."
    )


# Requests


def sample_requests(
    flow: LatentFlow,
    model: MedIL,
    requests: Sequence[Mapping[str, float]],
    guidances: Sequence[float],
    seed: int,
    steps: int,
) -> tuple[pd.DataFrame, list[Volume]]:
    """Samples of one noise, one for each guidance weight and request (attribute to value).

    They look like synthetic heads, for which the rulers are made, if the flow knows real ones too.

    Returns a line a sample (``guidance``, ``requested`` and ``measured`` with every attribute's
    value), and the samples on voxels of 2 mm in the same order.
    """
    from medil.diffusion.sampling import sample

    grid, lines, volumes = box_grid(2.0), [], []
    told = [as_synthetic(flow, request) for request in requests]
    for guidance in guidances:
        latents = sample(flow, model, [seed] * len(told), told, guidance, steps)
        for request, latent in zip(requests, latents, strict=True):
            (volume,) = rendered(model, latent, [grid])
            measured = measure_attributes(volume.data.numpy())
            lines.append({"guidance": guidance, "requested": dict(request), "measured": measured})
            volumes.append(volume)
    return pd.DataFrame(lines), volumes


def solve_requests(
    flow: AppearanceFlow,
    model: MedIL,
    requests: Sequence[Mapping[str, float]],
    seed: int,
    steps: int = STEPS,
) -> tuple[pd.DataFrame, list[Volume]]:
    """Scans of one seed's maps in which the requests were solved for, looking like synthetic heads.

    Returns what `sample_requests` does, without guidance.
    """
    grid, lines, volumes = box_grid(2.0), [], []
    for request in requests:
        tissues = drawn_anatomy(seed, request).tissues
        data, _ = scan_of(tissues, model, flow, seed, {"real": 0.0}, steps)
        lines.append({"requested": dict(request), "measured": measure_attributes(data)})
        volumes.append(Volume(torch.from_numpy(data).float(), grid))
    return pd.DataFrame(lines), volumes


def ventricle_level_mm(volume: Volume) -> np.ndarray:
    """[3] (R, A, S) mm: a point in the plane where the lateral ventricles are widest."""
    filled = np.argwhere(brain_mask(volume.data.numpy()))
    low, high = volume.grid.index_to_ras(filled.min(0)), volume.grid.index_to_ras(filled.max(0))
    middle = (low + high) / 2
    length_mm = high[1] - low[1]
    return np.array([middle[0], middle[1], high[2] - 0.33 * length_mm])


# Blur and likeness


def variety(
    volumes: Sequence[np.ndarray], shapes: np.ndarray, mask: np.ndarray
) -> tuple[float, float]:
    """Mean MS-SSIM over pairs, and mean distance between shapes, of two or more 2 mm volumes.

    `shapes` [N, 8] of the reference sets the unit of shape; `mask` bounds the MS-SSIM.
    """
    _, own = standardised(shapes, np.array([sets.shape(v) for v in volumes]))
    return ms_ssim_diversity(volumes, mask), float(pdist(own).mean())


def blur_lines(volumes: Sequence[np.ndarray], sigmas_mm: Sequence[float]) -> pd.DataFrame:
    """`variety` of a set after Gaussian blurs, in its own mask: sigma_mm, ms_ssim, shape."""
    mask, shapes = sets.common_mask(volumes), np.array([sets.shape(v) for v in volumes])
    lines = [(s, *variety(list(sets.blurred(volumes, s)), shapes, mask)) for s in sigmas_mm]
    return pd.DataFrame(lines, columns=["sigma_mm", "ms_ssim", "shape"])
