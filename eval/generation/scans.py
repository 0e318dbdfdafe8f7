"""Scans of drawn tissue maps: does a scan show the map that it was given?

The released segmenter and three classes of intensity read each scan; what they find is compared
with the map. Synthetic heads through the autoencoder alone, whose maps are exact, show how well
one can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from scipy import ndimage

from eval.generation.arms import ANATOMY, FOLDER, TINY
from eval.generation.pieces import Found, Piece, Share
from eval.generation.samplers import render
from eval.generation.sizes import Sizes
from eval.metrics.tissue import TISSUES, dice
from eval.metrics.topology import per_cm3, topology
from eval.segmentation.measure import (
    CLASS,
    INTENSITY,
    PARTS,
    SEGMENTER,
    TISSUE,
    labels_of,
    segmented,
)
from medil.anatomy.classes import BRAIN, CLASSES, SPACING_MM, LabelMap
from medil.anatomy.network import TissueNet
from medil.anatomy.packed import packed_maps
from medil.anatomy.segmenter import load_segmenter_release
from medil.diffusion.anatomy_first import sample
from medil.diffusion.latents import draw_heads, encode_heads, read_head
from medil.model.weights import load_release
from medil.synth.box import box_grid
from medil.volume import Volume

SHOWN = "scan of a map, 1 mm"
FLOOR = "exact map, autoencoder alone, 1 mm"
SOLVED = "ventricles, solved for in the map"
ASKED_ML = (8.0, 60.0)  # volumes of the ventricles, from small to large
SEEDS = 200_000  # of the samples here; sets use smaller ones
CONTROL_SEEDS = 300_000
WHITE = ("white matter", "cerebellar white matter")
LEAST = 1e-3  # of the 0 ... 1 scale: 0 is air
ROOM_VOX = (192, 224, 192)
UNITS = {
    **{f"dice_{name.replace(' ', '_')}": "1" for name in CLASSES[1:]},
    **{f"dice_by_intensity_{name}": "1" for name in TISSUES},
    "handles_per_cm3": "1/cm3", "handles_of_map_per_cm3": "1/cm3",
    "cortex_mm": "mm", "cortex_of_map_mm": "mm",
    "ventricles": "ml", "ventricles_of_map": "ml", "brain_of_map": "ml",
}  # fmt: skip
NEAREST = {"nearest_map": "1", "next_map": "1"}  # overlap of white matter with packed maps


def of_scans(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """Scans of maps, read by a segmenter; first heads of exact maps through the autoencoder."""
    if ANATOMY not in arms:
        return
    for k in range(size.scans):
        name = f"head {k:03d}"
        yield f"{name}, read", [Piece(name, ANATOMY, FLOOR, UNITS)], partial(_floor, k)
    for k in range(size.scans):
        name = f"sample {k:03d}"
        pieces = [Piece(name, ANATOMY, SHOWN, {**UNITS, **NEAREST})]
        yield f"{name}, read", pieces, partial(_shown, SEEDS + k)


def of_asked(size: Sizes, units: Mapping[str, str]) -> Iterator[Share]:
    """Samples of maps with asked ventricles, whose ventricles are measured in the scan."""
    values = np.linspace(*ASKED_ML, size.values).tolist() * size.repeats
    for k, value_ml in enumerate(values):
        name = f"sample {k:03d}"
        work = partial(_asked, CONTROL_SEEDS + k, value_ml)
        yield f"{name}, {value_ml:.0f} ml", [Piece(name, ANATOMY, SOLVED, units)], work


def _floor(index: int) -> Found:
    (path,) = draw_heads("test", [index], FOLDER / "heads", SPACING_MM)
    model, head = load_release(TINY), read_head(path)
    latents = encode_heads(model, [path], FOLDER / "latents")
    data = render(model, latents.latents[0], latents.grid, box_grid(SPACING_MM))
    tissues = LabelMap(head.labels, box_grid(SPACING_MM))
    return [judged(stripped(data, tissues), tissues)]


def _shown(seed: int) -> Found:
    drawn = sample(seed)
    scan = stripped(drawn.volume.data.numpy(), drawn.tissues)
    return [judged(scan, drawn.tissues) | nearest_maps(drawn.tissues)]


def _asked(seed: int, ventricles_ml: float) -> Found:
    drawn = sample(seed, condition={"ventricles": ventricles_ml})
    found, _ = read(stripped(drawn.volume.data.numpy(), drawn.tissues))
    measured = found.volumes_ml()["lateral ventricles"]
    return [{"asked": ventricles_ml, "measured": measured}]


# What a scan shows


def judged(volume: Volume, given: LabelMap) -> dict[str, float]:
    """How well a scan shows a map on its own grid, of 1 mm voxels: the numbers of `UNITS`."""
    found, by_intensity = read(volume)
    exact = labels_of(given)
    classes, tissues = found.labels.numpy(), PARTS[TISSUE]
    dices = {
        f"dice_{name.replace(' ', '_')}": dice(exact[CLASS], classes, number)
        for name, number in PARTS[CLASS].items()
    }
    dices |= {
        f"dice_by_intensity_{name}": dice(exact[TISSUE], by_intensity, number)
        for name, number in tissues.items()
    }
    sizes_ml = given.volumes_ml()
    return dices | {
        "handles_per_cm3": handles(found), "handles_of_map_per_cm3": handles(given),
        "cortex_mm": cortex_mm(found), "cortex_of_map_mm": cortex_mm(given),
        "ventricles": found.volumes_ml()["lateral ventricles"],
        "ventricles_of_map": sizes_ml["lateral ventricles"],
        "brain_of_map": sum(sizes_ml[name] for name in BRAIN),
    }  # fmt: skip


def read(volume: Volume) -> tuple[LabelMap, np.ndarray]:
    """The classes that the released segmenter finds in a scan, and its three tissues."""
    found = segmented(volume, _segmenter())
    grid = volume.grid.covering(SPACING_MM)
    classes = LabelMap(torch.from_numpy(found[SEGMENTER][0][CLASS]), grid)
    return classes, found[INTENSITY][0][TISSUE]


@lru_cache(1)
def _segmenter() -> TissueNet:
    return load_segmenter_release()


def stripped(data: np.ndarray, tissues: LabelMap) -> Volume:
    """A rendering [D, H, W] as a skull-stripped scan: 0 outside the tissue, above it inside."""
    inside = torch.from_numpy(data).clamp(min=LEAST)
    return Volume(torch.where(tissues.labels > 0, inside, 0.0), tissues.grid)


def handles(tissues: LabelMap) -> float:
    """Handles of the white matter's surface, for each cm3 of brain (`eval.metrics.topology`)."""
    brain_cm3 = sum(tissues.volumes_ml()[name] for name in BRAIN)
    surface = topology(tissues.is_class(*WHITE).numpy())
    return per_cm3(surface, brain_cm3)["handles_per_cm3"]


def cortex_mm(tissues: LabelMap) -> float:
    """Mean thickness of the cortex: twice its voxels' mean distance from its inner surface.

    Exact for a layer of one thickness. The inner surface is that of white matter, half a voxel
    before the middle of the first voxel. Our choice: rough beside the thickness of surfaces, and
    the same for a map and for what is found in a scan.
    """
    away_vox = ndimage.distance_transform_edt(~tissues.is_class("white matter").numpy())
    layer_vox = away_vox[tissues.is_class("cortex").numpy()]
    return 2 * SPACING_MM * float(layer_vox.mean() - 0.5)


# Copies of an anatomy


def nearest_maps(given: LabelMap) -> dict[str, float]:
    """Overlap (Dice) of white matter with the nearest packed map, and with the next one.

    Brains are laid on each other by their middles; packed maps are tried as they are and mirrored.
    """
    ours, overlaps = _placed(_white(given)), []
    for packed in packed_maps():
        theirs = _white(packed.tissues)
        pair = (_overlap(ours, _placed(one)) for one in (theirs, theirs[::-1]))
        overlaps.append(max(pair))
    first, second = sorted(overlaps, reverse=True)[:2]
    return {"nearest_map": first, "next_map": second}


def _white(tissues: LabelMap) -> np.ndarray:
    """White matter in the bounding box of the brain."""
    brain = torch.where(tissues.is_class(*BRAIN), tissues.labels, 0)
    return LabelMap(brain, tissues.grid).cropped().is_class(*WHITE).numpy()


def _placed(inner: np.ndarray) -> np.ndarray:
    """The same in the middle of a box of `ROOM_VOX`."""
    starts = [(room - n) // 2 for room, n in zip(ROOM_VOX, inner.shape, strict=True)]
    placed = np.zeros(ROOM_VOX, dtype=bool)
    where = (slice(a, a + n) for a, n in zip(starts, inner.shape, strict=True))
    placed[tuple(where)] = inner
    return placed


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())
