"""The training set of a latent diffusion model: heads, drawn or scanned, encoded once.

Every head is centred in one box; so all latents share one grid, and a sample has a position in
mm. Its tissue map has voxels of 1 mm in the same box: exact for synthetic heads, the segmenter's
for real scans.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil.anatomy.painted import tissues_at
from medil.config import DataConfig
from medil.data.samples import label_map_paths
from medil.errors import InputError, shown
from medil.grid import Grid
from medil.io.intensity import robust_intensity
from medil.model.base import LatentAutoencoder
from medil.regrid import cell_average
from medil.synth.anatomy import label_anatomy
from medil.synth.attributes import ATTRIBUTES, Spread, attributes
from medil.synth.box import BOX_UNITS, UNIT_MM, box_grid
from medil.synth.cohort import scan
from medil.synth.subject import CohortConfig, Subject, draw_subject
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
    labels: Tensor  # [160, 192, 160] uint8 tissue classes, on `box_grid(1.0)`
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
    return folder / f"{split}_v{VERSION}_{index:04d}{ending}_mapped.safetensors"


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
        labels = stripped_as(data, box, tissues_at(head, anatomy, around(head)))
        facts = {"known": attributes(head, anatomy, size_mm), "source": anatomy.name}
        tensors = {"data": data.half(), "labels": labels}
        path = head_path(folder, split, index, spacing_mm)
        write_tensors(path, tensors, {"facts": json.dumps(facts)}, force=True)


def around(head: Subject) -> Grid:
    """`box_grid(1.0)` around the middle of a head."""
    return box_grid(1.0).shifted(head.head_mm.mean(0).tolist())


def stripped_as(data: Tensor, box: Grid, labels: Tensor) -> Tensor:
    """Labels on `box_grid(1.0)`, air where a scan on another grid of the box is air."""
    kept = cell_average((data > 0).double().numpy(), box, box_grid(1.0)) >= 0.5
    return torch.where(torch.from_numpy(kept), labels, 0)


def read_head(path: Path) -> Head:
    """The head in a file of `draw_heads`."""
    tensors, meta = read_tensors(path)
    data, facts = tensors["data"].float(), json.loads(meta["facts"])
    grid = box_grid(UNIT_MM * BOX_UNITS[0] / data.shape[0])
    return Head(data, grid, tensors["labels"], **facts)


# Latents


@dataclass(frozen=True)
class LatentSet:
    """Latents of one autoencoder on one grid, and what is known of their heads."""

    latents: Tensor  # [N, C, d, h, w] float32, the means
    grid: Grid  # of every latent
    known: Tensor  # [N, attributes], in the order of `ATTRIBUTES`
    weights_id: str  # digest of the autoencoder's weights
    labels: tuple[Tensor, ...] = ()  # N of [160, 192, 160] uint8, on `box_grid(1.0)`
    ages: tuple[float | None, ...] = ()  # N, years; None of synthetic heads
    real: int = 0  # how many are real scans: the last ones

    def with_scans(self, scans: LatentSet) -> LatentSet:
        """This set of synthetic heads, followed by real scans.

        Raises:
            InputError: The latents are of different autoencoders.
        """
        if scans.weights_id != self.weights_id:
            raise InputError("latents of different autoencoders cannot be one training set.")
        return LatentSet(
            torch.cat([self.latents, scans.latents]), self.grid,
            torch.cat([self.known, scans.known]), self.weights_id,
            self.labels + scans.labels, self.ages + scans.ages, len(scans.latents),
        )  # fmt: skip

    @property
    def counts(self) -> dict[str, int]:
        """How many are synthetic heads, and how many real scans."""
        return {"synthetic": len(self.latents) - self.real, "real": self.real}

    def known_of(self, index: int) -> dict[str, float]:
        """What is known of a head, by the names of `COVARIATES`; its age where it has one."""
        known = dict(zip(ATTRIBUTES, self.known[index].tolist(), strict=True))
        known["real"] = float(index >= len(self.latents) - self.real)
        age = self.ages[index] if self.ages else None
        return known if age is None else {**known, "age": float(age)}

    def spreads(self, names: Sequence[str]) -> dict[str, Spread]:
        """Mean, standard deviation and range of covariates, over the heads that have them.

        Raises:
            InputError: A covariate that no head has.
        """
        told, spreads = [self.known_of(k) for k in range(len(self.latents))], {}
        for name in names:
            values = [known[name] for known in told if name in known]
            if not values:
                raise InputError(f"no head of the training set has the covariate {shown(name)}.")
            mean, std = float(np.mean(values)), float(np.std(values))
            spreads[name] = Spread(mean, std, min(values), max(values))
        return spreads

    def draw(self, real_share: float, rng: np.random.Generator) -> int:
        """The index of a random head: a real scan in `real_share` of all draws.

        One of all where the share is 0, or where all are of one kind.
        """
        count = len(self.latents)
        first_real = count - self.real
        if not real_share or first_real in (0, count):
            return int(rng.integers(count))
        low, high = (first_real, count) if rng.random() < real_share else (0, first_real)
        return int(rng.integers(low, high))


@dataclass(frozen=True)
class Encoded:
    """One latent and what is known of its head."""

    mean: Tensor  # [C, d, h, w]
    known: dict[str, float]
    labels: Tensor


def encode_heads(
    model: LatentAutoencoder, heads: Sequence[Path], folder: Path, with_maps: bool = False
) -> LatentSet:
    """Encode files of `draw_heads`, each once; latents are cached in a folder, beside the digest.

    Args:
        model: The autoencoder.
        heads: The files.
        folder: Of the cached latents.
        with_maps: Read the tissue maps too: 5 MB a head.

    Returns:
        The latents, in the order of the heads.

    Raises:
        InputError: The autoencoder has no trained weights.
    """
    cache = cache_of(model, folder)
    grid = latent_box(model.config.latent_spacing_mm)

    def encoded(path: Path) -> Encoded:
        head = read_head(path)
        with torch.inference_mode():
            mean, _ = model.encode_tensor(head.data[None, None].to(model.device), head.grid, grid)
        return Encoded(mean[0], head.known, head.labels)

    made = [(cache / path.name, functools.partial(encoded, path)) for path in heads]
    latents, known = latents_in(made, keep_maps=False)
    labels = tuple(read_head(path).labels for path in heads) if with_maps else ()
    return LatentSet(latents, grid, known, model.weights_id, labels, (None,) * len(heads))


def cache_of(model: LatentAutoencoder, folder: Path) -> Path:
    """The folder of an autoencoder's latents.

    Raises:
        InputError: It has no trained weights.
    """
    if not model.weights_id:
        raise InputError("latents belong to trained weights; this autoencoder has none.")
    cache = folder / model.weights_id
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def latents_in(
    made: Sequence[tuple[Path, Callable[[], Encoded]]], keep_maps: bool
) -> tuple[Tensor, Tensor]:
    """Latents [N, C, d, h, w] and attributes [N, attributes] of files; missing ones are made."""
    latents, known = [], []
    for path, make in tqdm(made, desc="latents", disable=all(p.exists() for p, _ in made)):
        if not path.exists():
            one = make()
            tensors = {"mean": one.mean.half()} | ({"labels": one.labels} if keep_maps else {})
            write_tensors(path, tensors, {"facts": json.dumps({"known": one.known})}, force=True)
        tensors, meta = read_tensors(path)
        latents.append(tensors["mean"].float())
        facts = json.loads(meta["facts"])
        known.append([facts["known"][name] for name in ATTRIBUTES])
    return torch.stack(latents), torch.tensor(known)
