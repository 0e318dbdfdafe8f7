"""The training set of a latent diffusion model: synthetic heads, drawn and encoded once.

Every head is centred in one box, in voxels that fill the box; so all latents share one
grid, and a sample has a position in mm.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil.config import DataConfig
from medil.data.samples import label_map_paths
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import robust_intensity
from medil.model.base import LatentAutoencoder
from medil.synth.anatomy import label_anatomy
from medil.synth.attributes import ATTRIBUTES, attributes
from medil.synth.box import BOX_UNITS, UNIT_MM, box_grid
from medil.synth.cohort import scan
from medil.synth.subject import CohortConfig, draw_subject
from medil.system.tensors import read_tensors, write_tensors
from medil.system.workers import grouped, share_out

CELLS = 8  # the number of latent cells along each axis is a multiple of this
PARTS = (16, 36)  # voxels per unit, fewest and most: 32/16 = 2 mm to 32/36 = 0.9 mm
NEAR_1MM_SHARE = 0.6  # of heads on voxels of 1 mm
SEEDS = {"train": 5000, "test": 5007}
VERSION = 1  # raise it when other heads are drawn


def latent_box(pitch_mm: float) -> Grid:
    """The latent grid of the box: the smallest around (0, 0, 0) that holds it.

    Its axes are multiples of `CELLS` long, as networks that halve them need, so it reaches
    beyond the box where the pitch does not divide it: 168 x 192 x 168 mm at 3 mm.

    Raises:
        InputError: A pitch that is not above zero, or larger than the box.
    """
    sides_mm = [n * UNIT_MM for n in BOX_UNITS]
    if not 0 < pitch_mm <= min(sides_mm):
        raise InputError(f"latent cells of {pitch_mm:g} mm do not fit the box of the heads.")
    shape = [CELLS * math.ceil(side / (CELLS * pitch_mm) - 1e-9) for side in sides_mm]
    return Grid.from_spacing(shape, pitch_mm, [-0.5 * (n - 1) * pitch_mm for n in shape])


def style() -> CohortConfig:
    """How heads vary: as in the autoencoder's cohort, but aligned, and small enough for the box."""
    data = DataConfig()
    return CohortConfig(
        noise=data.noise, texture=data.texture, rotation_deg=4.0, scale=(0.88, 1.02)
    )


@dataclass(frozen=True)
class Head:
    """One synthetic head: its scan in the box, 0 ... 1 scale, and its attributes."""

    data: Tensor  # [D, H, W] float32
    grid: Grid  # a `box_grid`
    known: dict[str, float]  # values of `ATTRIBUTES`
    source: str  # name of the label map


def head_spacing_mm(seed: int, index: int) -> float:
    """Voxel size of a head's scan: 1 mm, or a random size that fills the box."""
    rng = np.random.default_rng([seed, index, 11])
    if rng.random() < NEAR_1MM_SHARE:
        return 1.0
    return UNIT_MM / int(rng.integers(PARTS[0], PARTS[1] + 1))


def draw_heads(
    split: str,
    numbers: Sequence[int],
    folder: Path,
    spacing_mm: float | None = None,
    processes: int = 1,
) -> list[Path]:
    """Draw and scan heads into files, in the order of `numbers`; files that exist are kept.

    Args:
        split: "train" or "test": which label maps, and which seed.
        numbers: Indices of the heads; head k is drawn on label map k modulo their count.
        folder: Created when missing.
        spacing_mm: Voxel size of all of them; each its own when None.
        processes: Number of processes that draw.

    Raises:
        InputError: No label maps.
    """
    maps = label_map_paths(split)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {k: head_path(folder, split, k, spacing_mm) for k in numbers}
    missing = [k for k, path in paths.items() if not path.exists()]
    draw = functools.partial(_draw_on_one_map, split, folder, spacing_mm)
    share_out(draw, grouped(missing, len(maps), processes), processes, f"{split} heads")
    return [paths[k] for k in numbers]


def head_path(folder: Path, split: str, index: int, spacing_mm: float | None = None) -> Path:
    """The file of a head of `draw_heads`."""
    ending = "" if spacing_mm is None else f"_{spacing_mm:g}mm"
    return folder / f"{split}_v{VERSION}_{index:04d}{ending}.safetensors"


def _draw_on_one_map(
    split: str, folder: Path, spacing_mm: float | None, numbers: Sequence[int]
) -> None:
    """Draw heads that share a label map, which is read once."""
    maps, seed = label_map_paths(split), SEEDS[split]
    anatomy = label_anatomy(maps[numbers[0] % len(maps)])
    for index in numbers:
        head = draw_subject(anatomy, seed, index, style())
        size_mm = spacing_mm or head_spacing_mm(seed, index)
        box = box_grid(size_mm)
        data = scan(head, box.shifted(head.head_mm.mean(0)), seed, index, style())
        data = robust_intensity(data).forward(data)
        facts = {"known": attributes(head, anatomy, size_mm), "source": anatomy.name}
        path = head_path(folder, split, index, spacing_mm)
        write_tensors(path, {"data": data.half()}, {"facts": json.dumps(facts)}, force=True)


def read_head(path: Path) -> Head:
    """The head in a file of `draw_heads`."""
    tensors, meta = read_tensors(path)
    data, facts = tensors["data"].float(), json.loads(meta["facts"])
    return Head(data, box_grid(UNIT_MM * BOX_UNITS[0] / data.shape[0]), **facts)


# Latents


@dataclass(frozen=True)
class LatentSet:
    """Latents of one autoencoder on one grid, and the attributes of their heads."""

    latents: Tensor  # [N, C, d, h, w] float32, the means
    grid: Grid  # of every latent
    known: Tensor  # [N, attributes], in the order of `ATTRIBUTES`
    weights_id: str  # digest of the autoencoder's weights


@torch.inference_mode()
def encode_heads(model: LatentAutoencoder, heads: Sequence[Path], folder: Path) -> LatentSet:
    """Encode files of `draw_heads`, each once; latents are cached in a folder, beside the digest.

    Returns:
        The latents, in the order of the heads.

    Raises:
        InputError: The autoencoder has no trained weights.
    """
    if not model.weights_id:
        raise InputError("latents belong to trained weights; this autoencoder has none.")
    cache = folder / model.weights_id
    cache.mkdir(parents=True, exist_ok=True)
    grid = latent_box(model.config.latent_spacing_mm)
    latents, known = [], []
    for path in tqdm(heads, desc="latents", disable=all((cache / p.name).exists() for p in heads)):
        kept = cache / path.name
        if not kept.exists():
            head = read_head(path)
            data = head.data[None, None].to(model.device)
            mean, _ = model.encode_tensor(data, head.grid, grid)
            facts = {"known": head.known, "source": head.source}
            write_tensors(kept, {"mean": mean[0].half()}, {"facts": json.dumps(facts)}, force=True)
        tensors, meta = read_tensors(kept)
        latents.append(tensors["mean"].float())
        facts = json.loads(meta["facts"])
        known.append([facts["known"][name] for name in ATTRIBUTES])
    return LatentSet(torch.stack(latents), grid, torch.tensor(known), model.weights_id)
