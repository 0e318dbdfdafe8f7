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
from safetensors import safe_open
from safetensors.torch import save_file

from eval.generation.autoencoders import FOLDER, RELEASE, autoencoder
from eval.generation.flows import flow, render
from eval.generation.rulers import VOXEL_MM
from eval.generation.sizes import sizes
from eval.rows import digest
from medil.diffusion.latents import VERSION, box_grid, draw_heads, encode_heads, read_head
from medil.diffusion.sampling import check_pair, sample_means
from medil.grid import Grid
from medil.regrid import apply_separable, box_weights
from medil.system.files import atomic_output

KEPT_LATENTS = 4  # of a set, to be rendered on other grids
NOISE_SEEDS = 100_000  # between sets of samples


@dataclass(frozen=True)
class Heads:
    """A set of volumes on one grid.

    Args:
        name: For rows.
        volumes: [N, D, H, W] float32, 0 ... 1 scale, on `grid()`.
        known: Attributes of each: true ones of a synthetic head, requested ones of a sample.
        latents: [n, C, d, h, w] of the first few, where the set came from latents.
    """

    name: str
    volumes: np.ndarray
    known: list[dict[str, float]]
    latents: np.ndarray | None = None


def grid() -> Grid:
    """The grid of all sets."""
    return box_grid(VOXEL_MM)


def averaged(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Means of a volume over the voxels of a coarser grid of the same box, [D, H, W]."""
    weights = [box_weights(n, count) for n, count in zip(volume.shape, shape, strict=True)]
    return apply_separable(volume, weights).astype(np.float32)


def held_out(n: int, first: int = 0, folder: Path = FOLDER) -> Heads:
    """Heads on label maps that no training used, scanned at 2 mm.

    Args:
        n: How many.
        first: Number of the first; sets that do not overlap are disjoint.
        folder: Of drawn heads; made with its parents.

    Raises:
        InputError: No label maps.
    """
    paths = draw_heads("test", range(first, first + n), folder / "heads", VOXEL_MM)
    heads = [read_head(path) for path in paths]
    return Heads("held-out", np.stack([h.data.numpy() for h in heads]), [h.known for h in heads])


def training(n: int, folder: Path = FOLDER) -> Heads:
    """The first n heads that flows are trained on, averaged to 2 mm.

    Raises:
        InputError: No label maps.
    """

    def make() -> Heads:
        heads = [read_head(p) for p in draw_heads("train", range(n), folder / "heads")]
        volumes = [averaged(h.data.numpy(), grid().shape) for h in heads]
        return Heads("training", np.stack(volumes), [h.known for h in heads])

    return _kept(["training", n], folder, make)


def rebuilt(arm: str, profile: str, n: int, folder: Path = FOLDER) -> Heads:
    """The first n held-out heads, encoded and rendered by an arm's autoencoder.

    Args:
        arm: Whose.
        profile: How long it was trained.
        n: How many.
        folder: Of weights, heads and sets.
    """
    return _recoded("rebuilt", "test", arm, profile, n, folder)


def copies(profile: str, n: int, folder: Path = FOLDER) -> Heads:
    """The first n training heads through the released autoencoder: what a copy looks like."""
    return _recoded("copies", "train", RELEASE, profile, n, folder)


def _recoded(name: str, split: str, arm: str, profile: str, n: int, folder: Path) -> Heads:
    model = autoencoder(arm, profile, folder)

    def make() -> Heads:
        voxel_mm = VOXEL_MM if split == "test" else None  # training heads have voxels of their own
        paths = draw_heads(split, range(n), folder / "heads", voxel_mm)
        latents = encode_heads(model, paths, folder / "latents")
        volumes = [render(model, z, latents.grid, grid()) for z in latents.latents]
        return Heads(name, np.stack(volumes), [read_head(p).known for p in paths])

    return _kept([name, model.weights_id, n], folder, make)


def sampled(
    arm: str,
    profile: str,
    seed: int,
    n: int,
    guidance: float = 1.0,
    requests: Sequence[Mapping[str, float]] | None = None,
    steps: int | None = None,
    folder: Path = FOLDER,
) -> Heads:
    """Samples of an arm's flow, rendered at 2 mm.

    Args:
        arm: Whose flow and autoencoder.
        profile: How long they were trained.
        seed: Of the set; sample k of seed s starts from the same noise in every arm.
        n: How many.
        guidance: Weight of the conditions.
        requests: Conditions of each sample; `random_requests` when None.
        steps: Along the flow; the profile's when None.
        folder: Of weights, heads and sets.

    Returns:
        The samples, with their requests as `known`.

    Raises:
        InputError: Weights that are not there or do not belong together, or no label maps.
    """
    model, sampler = autoencoder(arm, profile, folder), flow(arm, profile, folder)
    check_pair(sampler, model)
    steps = steps or sizes(profile).steps
    if requests is None:
        requests = random_requests(profile, seed, n, folder)
    wanted = [dict(request) for request in requests]

    def make() -> Heads:
        volumes, latents = [], []
        for k, one in enumerate(wanted):
            z = sample_means(sampler, [NOISE_SEEDS * seed + k], [one], guidance, steps)[0]
            volumes.append(render(model, z, sampler.known.grid, grid()))
            latents.append(z.numpy())
        return Heads("sampled", np.stack(volumes), wanted, np.stack(latents[:KEPT_LATENTS]))

    about = [model.weights_id, sampler.weights_id, seed, guidance, steps, wanted]
    return _kept(["sampled", *about], folder, make)


def random_requests(
    profile: str, seed: int, n: int, folder: Path = FOLDER
) -> list[dict[str, float]]:
    """Requests for n samples: all attributes of training heads drawn at random."""
    heads = training(sizes(profile).training, folder)
    rng = np.random.default_rng([seed, n])
    return [heads.known[k] for k in rng.integers(len(heads.known), size=n)]


def spread_values(profile: str, attribute: str, folder: Path = FOLDER) -> list[float]:
    """Values to request: evenly between an attribute's 5th and 95th percentile in training."""
    size = sizes(profile)
    known = [k[attribute] for k in training(size.training, folder).known]
    low, high = np.percentile(known, (5, 95))
    return [float(v) for v in np.linspace(low, high, size.values)]


def _kept(about: list[Any], folder: Path, make: Callable[[], Heads]) -> Heads:
    """A set from its file, which is made when it is not there."""
    path = folder / "sets" / f"{about[0]}_{digest([*about, VERSION, VOXEL_MM])[:12]}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(make(), path)
    return _read(path)


def _write(heads: Heads, path: Path) -> None:
    tensors = {"volumes": torch.from_numpy(heads.volumes).half().contiguous()}
    if heads.latents is not None:
        tensors["latents"] = torch.from_numpy(heads.latents).half().contiguous()
    facts = {"name": heads.name, "known": json.dumps(heads.known)}
    with atomic_output(path, force=True) as temporary:
        save_file(tensors, temporary, facts)


def _read(path: Path) -> Heads:
    with safe_open(path, framework="pt") as file:
        names, facts = file.keys(), file.metadata()
        held = {name: file.get_tensor(name).float().numpy() for name in names}
    known = json.loads(facts["known"])
    return Heads(facts["name"], held["volumes"], known, held.get("latents"))
