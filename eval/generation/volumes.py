"""The sets that are compared: held-out heads, training heads, rebuilt ones, samples.

All lie on one grid of 2 mm voxels in the box of `medil.diffusion.latents`, and are kept in
files once they are computed. Held-out heads are scanned at 2 mm; training heads, whose voxels
differ in size, are averaged to 2 mm; latents are rendered there, which also averages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.generation.arms import FOLDER, autoencoder, flow_seed
from eval.generation.rulers import VOXEL_MM
from eval.generation.samplers import as_synthetic, pair, render
from eval.generation.sizes import sizes
from eval.rows import digest
from medil.anatomy.classes import SPACING_MM, LabelMap
from medil.diffusion.anatomies import drawn_anatomy
from medil.diffusion.appearance import STEPS, AppearanceFlow, sample_appearance
from medil.diffusion.latents import VERSION, draw_heads, encode_heads, latent_box, read_head
from medil.diffusion.sampling import sample_means
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.regrid import apply_separable, box_weights
from medil.synth.box import box_grid
from medil.system.tensors import read_tensors, write_tensors

KEPT_LATENTS = 4  # of a set, to be rendered on other grids
NOISE_SEEDS = 100_000  # between sets of samples


@dataclass(frozen=True)
class Heads:
    """A set of volumes on one grid."""

    volumes: np.ndarray  # [N, D, H, W] float32, 0 ... 1 scale, on `grid()`
    known: list[dict[str, float]]  # attributes: true ones of a head, requested ones of a sample
    latents: np.ndarray | None = None  # [n, C, d, h, w] of the first few, of samples


def grid() -> Grid:
    """The grid of all sets."""
    return box_grid(VOXEL_MM)


def averaged(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Means of a volume over the voxels of a coarser grid of the same box, [D, H, W]."""
    weights = [box_weights(n, count) for n, count in zip(volume.shape, shape, strict=True)]
    return apply_separable(volume, weights).astype(np.float32)


def held_out(n: int, first: int = 0) -> Heads:
    """Heads from number `first` on, on label maps that no training used, scanned at 2 mm.

    Raises:
        InputError: No label maps.
    """
    paths = draw_heads("test", range(first, first + n), FOLDER / "heads", VOXEL_MM)
    heads = [read_head(path) for path in paths]
    return Heads(np.stack([h.data.numpy() for h in heads]), [h.known for h in heads])


def training(n: int) -> Heads:
    """The first n heads that flows are trained on, averaged to 2 mm.

    Raises:
        InputError: No label maps.
    """

    def make() -> Heads:
        heads = [read_head(p) for p in draw_heads("train", range(n), FOLDER / "heads")]
        volumes = [averaged(h.data.numpy(), grid().shape) for h in heads]
        return Heads(np.stack(volumes), [h.known for h in heads])

    return _kept(["training", n], make)


def rebuilt(arm: str, profile: str, n: int, split: str = "test") -> Heads:
    """The first n held-out heads, encoded and rendered by an arm's autoencoder.

    Those of the split ``train`` show what a copy looks like.
    """
    model = autoencoder(arm, profile)

    def make() -> Heads:
        voxel_mm = VOXEL_MM if split == "test" else None  # training heads have voxels of their own
        paths = draw_heads(split, range(n), FOLDER / "heads", voxel_mm)
        latents = encode_heads(model, paths, FOLDER / "latents")
        volumes = [render(model, z, latents.grid, grid()) for z in latents.latents]
        return Heads(np.stack(volumes), [read_head(p).known for p in paths])

    name = "rebuilt" if split == "test" else "copies"
    return _kept([name, model.weights_id, n], make)


def sampled(
    arm: str,
    profile: str,
    seed: int,
    n: int,
    guidance: float = 1.0,
    requests: Sequence[Mapping[str, float]] | None = None,
) -> Heads:
    """Samples of an arm, rendered at 2 mm; their requests are `known`.

    Sample k of seed s has the same noise, and the same map if it is given one, in every arm.
    Requests are those of `random_requests` when None. The heads that samples are compared with are
    synthetic, so that is what a sampler of both kinds is asked for. `guidance` is of flows without
    a map alone.

    Raises:
        InputError: Weights that are not there or do not belong together, or no label maps.
    """
    model, flow = pair(arm, profile, flow_seed(arm, seed))
    own_seeds = [NOISE_SEEDS * seed + k for k in range(n)]
    if requests is None:
        requests = random_requests(profile, seed, n)
    wanted = [as_synthetic(flow, request) for request in requests]
    if isinstance(flow, AppearanceFlow):
        return of_maps(model, flow, own_seeds, own_seeds, wanted)
    steps = sizes(profile).steps

    def make() -> Heads:
        volumes, latents = [], []
        for own, one in zip(own_seeds, wanted, strict=True):
            z = sample_means(flow, [own], [one], guidance, steps)[0]
            volumes.append(render(model, z, flow.known.grid, grid()))
            latents.append(z.numpy())
        return Heads(np.stack(volumes), wanted, np.stack(latents[:KEPT_LATENTS]))

    about = [model.weights_id, flow.weights_id, seed, guidance, steps, wanted]
    return _kept(["sampled", *about], make)


def of_maps(
    model: LatentAutoencoder, flow: AppearanceFlow, map_seeds: Sequence[int],
    noise_seeds: Sequence[int], wanted: Sequence[dict[str, float]],
) -> Heads:  # fmt: skip
    """Samples of drawn maps as skull-stripped scans at 2 mm: air of the map is air of the scan."""

    def make() -> Heads:
        volumes, latents = [], []
        for map_seed, noise_seed, told in zip(map_seeds, noise_seeds, wanted, strict=True):
            volume, z = scan_of(drawn_map(map_seed), model, flow, noise_seed, told)
            volumes.append(volume)
            latents.append(z.numpy())
        return Heads(np.stack(volumes), list(wanted), np.stack(latents[:KEPT_LATENTS]))

    about = [model.weights_id, flow.weights_id, list(map_seeds), list(noise_seeds), list(wanted)]
    return _kept(["of maps", *about], make)


def scan_of(
    tissues: LabelMap, model: LatentAutoencoder, flow: AppearanceFlow, seed: int,
    told: Mapping[str, float], steps: int = STEPS,
) -> tuple[np.ndarray, torch.Tensor]:  # fmt: skip
    """A sample of a map in the box, skull-stripped at 2 mm [D, H, W], and its latent."""
    z = sample_appearance(flow, tissues.labels, seed, told, steps)
    cells = latent_box(model.config.latent_spacing_mm)
    inside = tissues.resampled(grid()).labels.numpy() > 0
    return np.where(inside, render(model, z, cells, grid()), 0), z


def of_one_map(arm: str, profile: str, n: int) -> Heads:
    """Samples of one drawn map and of what is told of it, by the noise of n seeds.

    Raises:
        InputError: As `sampled`, or an arm without maps.
    """
    model, flow = pair(arm, profile, flow_seed(arm, 0))
    if not isinstance(flow, AppearanceFlow):
        raise InputError(f"{arm} is given no map.")
    told = as_synthetic(flow, random_requests(profile, 0, n)[0])
    return of_maps(model, flow, [0] * n, list(range(n)), [told] * n)


def drawn_map(seed: int) -> LabelMap:
    """The map of `drawn_anatomy`, drawn once."""
    path = FOLDER / "maps" / f"{seed}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = drawn_anatomy(seed).tissues.labels
        write_tensors(path, {"labels": labels.contiguous()}, {}, force=True)
    return LabelMap(read_tensors(path)[0]["labels"], box_grid(SPACING_MM))


def random_requests(profile: str, seed: int, n: int) -> list[dict[str, float]]:
    """Requests for n samples: all attributes of training heads drawn at random."""
    known = training(sizes(profile).training).known
    return [known[k] for k in np.random.default_rng([seed, n]).integers(len(known), size=n)]


def spread_values(profile: str, attribute: str) -> list[float]:
    """Values to request: evenly between an attribute's 5th and 95th percentile in training."""
    size = sizes(profile)
    low, high = np.percentile([k[attribute] for k in training(size.training).known], (5, 95))
    return np.linspace(low, high, size.values).tolist()


def _kept(about: list[Any], make: Callable[[], Heads]) -> Heads:
    """A set from its file, which is made when it is not there."""
    path = (
        FOLDER
        / "sets"
        / f"{about[0].replace(' ', '_')}_{digest([*about, VERSION, VOXEL_MM])[:12]}.safetensors"
    )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(make(), path)
    tensors, meta = read_tensors(path)
    held = {name: value.float().numpy() for name, value in tensors.items()}
    return Heads(held["volumes"], json.loads(meta["known"]), held.get("latents"))


def _write(heads: Heads, path: Path) -> None:
    tensors = {"volumes": torch.from_numpy(heads.volumes).half().contiguous()}
    if heads.latents is not None:
        tensors["latents"] = torch.from_numpy(heads.latents).half().contiguous()
    write_tensors(path, tensors, {"known": json.dumps(heads.known)}, force=True)
