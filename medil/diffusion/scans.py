"""Real scans as a training set: segmented and encoded in the box of the synthetic heads.

Every copy of a scan lies in the middle of the box, along the scan's own axes; nothing is turned
or resampled before it is encoded.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medil.anatomy.classes import BRAIN, LabelMap
from medil.anatomy.network import TissueNet
from medil.anatomy.segmenter import segment
from medil.data.manifest import fetch, local_entries
from medil.data.schema import Entry
from medil.diffusion.latents import Encoded, LatentSet, cache_of, latent_box, latents_in
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import robust_intensity
from medil.model.base import LatentAutoencoder
from medil.regrid import cell_average
from medil.synth.box import box_grid
from medil.system.tensors import read_tensors
from medil.volume import Volume, load

REAL = "ds002748"  # manifest of the real brains
COPIES = 2  # of each: as scanned and mirrored, each at a phase of its own
SEED, VERSION = 9000, 2  # raise the version when other copies or maps are made


def encode_scans(
    model: LatentAutoencoder, network: TissueNet, folder: Path, copies: int = COPIES
) -> LatentSet:
    """Segment and encode the real train scans that are on this computer, each once.

    Odd copies are mirrored; each copy has a phase of its own between voxels and latent cells.

    Raises:
        InputError: The autoencoder has no trained weights, or there is no scan.
    """
    entries = local_entries(REAL, "train")
    if not entries:
        raise InputError(
            f"no real scan of {REAL} is on this computer; set MEDIL_DATA_MIRROR to a folder that "
            "holds them, or set real_share=0."
        )
    cache = cache_of(model, folder)
    todo = [(entry, k) for entry in entries for k in range(copies)]
    stem = f"real_v{VERSION}_{network.weights_id[:12]}"
    made = []
    for entry, k in todo:
        make = functools.partial(_copy, model, network, entry, k)
        made.append((cache / f"{stem}_{entry.subject}_{k}.safetensors", make))
    latents, known = latents_in(made, keep_maps=True)
    return LatentSet(
        latents, latent_box(model.config.latent_spacing_mm), known, model.weights_id,
        tuple(read_tensors(path)[0]["labels"] for path, _ in made),
        tuple(entry.age for entry, _ in todo), len(todo),
    )  # fmt: skip


def _copy(model: LatentAutoencoder, network: TissueNet, entry: Entry, copy: int) -> Encoded:
    """One copy of a real scan, mirrored if odd, in the middle of the box but for its phase."""
    volume = load(fetch(entry))
    if copy % 2:
        volume = replace(volume, data=volume.data.flip(0))
    rng = np.random.default_rng([SEED, int(entry.sha256[:8], 16), copy])
    half_mm = model.config.latent_spacing_mm / 2
    box = box_around(volume.grid, brain_middle_mm(volume) + rng.uniform(-half_mm, half_mm, 3))
    return encode_scan(model, network, volume, box)


@torch.inference_mode()
def encode_scan(model: LatentAutoencoder, network: TissueNet, volume: Volume, box: Grid) -> Encoded:
    """Segment a skull-stripped scan in a box of `box_around`, and encode it there.

    The map is made of the scan's averages over the voxels of the box; the latent of the scan's own
    voxels.
    """
    at_1_mm = cell_average(volume.data.double().numpy(), volume.grid, box)
    tissues = segment(Volume(torch.from_numpy(at_1_mm).float(), box), network)
    grid, x = padded_to(volume, box)
    latent_grid = box.resized(latent_box(model.config.latent_spacing_mm).shape)
    mean, _ = model.encode_tensor(x[None, None].to(model.device), grid, latent_grid)
    return Encoded(mean[0], known_of(volume, tissues, at_1_mm), tissues.labels)


def known_of(volume: Volume, tissues: LabelMap, at_map: np.ndarray) -> dict[str, float]:
    """The `ATTRIBUTES` of a scan, from its tissue map and its intensities there [D, H, W]."""
    sizes_ml, values = tissues.volumes_ml(), torch.from_numpy(at_map)
    white, cortex = (values[tissues.is_class(n)].mean() for n in ("white matter", "cortex"))
    return {
        "ventricles": sizes_ml["lateral ventricles"],
        "brain": sum(sizes_ml[name] for name in BRAIN),
        "contrast": float(white / cortex),
        "spacing": float(np.prod(volume.grid.spacing_mm)) ** (1 / 3),
    }


def padded_to(volume: Volume, box: Grid) -> tuple[Grid, Tensor]:
    """The scan's voxels inside a box along its axes, 0 ... 1 scale, and air where it ends.

    Returns:
        Their grid, made of the scan's own voxels, and [D, H, W] float32.
    """
    grid, x = volume.grid, robust_intensity(volume.data).forward(volume.data)
    corners_vox = grid.ras_to_index(box.corners_mm)
    start = np.ceil(corners_vox.min(0) + 0.5 - 1e-6).astype(int)
    stop = np.floor(corners_vox.max(0) - 0.5 + 1e-6).astype(int) + 1
    ends = [(max(0, -a), max(0, b - n)) for a, b, n in zip(start, stop, grid.shape, strict=True)]
    inside = tuple(slice(max(0, a), max(0, b)) for a, b in zip(start, stop, strict=True))
    pads = [p for pair in reversed(ends) for p in pair]
    return grid.crop(start.tolist(), (stop - start).tolist()), functional.pad(x[inside], pads)


def box_around(grid: Grid, middle_mm: np.ndarray) -> Grid:
    """`box_grid(1.0)` along the axes of a grid, its middle at a point."""
    box, affine = box_grid(1.0), np.eye(4)
    affine[:3, :3] = grid.directions
    turned = Grid(box.shape, affine)
    return turned.shifted((middle_mm - turned.centre_mm).tolist())


def brain_middle_mm(volume: Volume) -> np.ndarray:
    """[3] (R, A, S) mm: the middle of the bounding box of what is above zero."""
    brain = np.argwhere(volume.data.numpy() > 0)
    return volume.grid.index_to_ras((brain.min(0) + brain.max(0)) / 2)
