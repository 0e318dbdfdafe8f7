"""How new are drawn anatomies? The test for copies on maps alone, and what larger bends do to it.

A drawn anatomy is a packed map, bent, and training heads are drawn on the same people's maps. So
some drawn maps lie as near to a training head as training heads lie to each other. Maps are
painted in three greys and compared like scans, which leaves out contrast and noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import numpy as np

from eval.generation import sets
from eval.generation.arms import ANATOMY, FOLDER
from eval.generation.parts import HELD_OUT
from eval.generation.pieces import Found, Piece, Share
from eval.generation.rulers import VOXEL_MM
from eval.generation.scans import cortex_mm
from eval.generation.sizes import Sizes
from eval.generation.volumes import NOISE_SEEDS, averaged, drawn_map, grid
from eval.segmentation.measure import PARTS, TISSUE, labels_of
from medil.anatomy.classes import SPACING_MM, LabelMap
from medil.anatomy.draw import draw_anatomy
from medil.anatomy.shape import BENDS as SAMPLED
from medil.diffusion.latents import draw_heads, read_head
from medil.synth.box import box_grid

MAPS, ANOTHER = "maps alone", "another set"
BENDS = (1.0, SAMPLED)  # factors on the warps of drawn anatomies
GREYS = {"csf": 0.2, "grey": 0.6, "white": 0.9}  # about those of T1w scans
UNITS = {**sets.COPIES, "cortex_mm": "mm"}


def of_novelty(profile: str, size: Sizes, arms: Sequence[str]) -> Iterator[Share]:
    """Maps of other people, then drawn ones by how far they are bent, against training heads."""
    if ANATOMY not in arms:
        return
    name, work = f"set of {size.held_out}", partial(_held_out, size)
    yield f"{MAPS}, held-out", [Piece(name, HELD_OUT, f"{MAPS}, {ANOTHER}", UNITS)], work
    name = f"set of {size.samples * size.seeds}"
    for bends in BENDS:
        piece = Piece(name, ANATOMY, bends_name(bends), UNITS)
        yield f"{MAPS}, bends {bends:g}", [piece], partial(_drawn, size, bends)


def bends_name(bends: float) -> str:
    """The condition of maps that are bent by so much."""
    return f"{MAPS}, bends x {bends:g}"


def _held_out(size: Sizes) -> Found:
    return [_judged(_of_heads("test", size.held_out), size)]


def _drawn(size: Sizes, bends: float) -> Found:
    seeds = [NOISE_SEEDS * seed + k for seed in range(size.seeds) for k in range(size.samples)]
    draw = drawn_map if bends == SAMPLED else partial(_bent, bends=bends)
    return [_judged([draw(seed) for seed in seeds], size)]


def _bent(seed: int, bends: float) -> LabelMap:
    return draw_anatomy(seed, bends=bends).tissues


def _judged(maps: Sequence[LabelMap], size: Sizes) -> dict[str, float]:
    near = sets.memorisation([painted(tissues) for tissues in maps], _training(size.training))
    return near | {"cortex_mm": float(np.mean([cortex_mm(tissues) for tissues in maps]))}


@lru_cache(1)
def _training(n: int) -> np.ndarray:
    return np.stack([painted(tissues) for tissues in _of_heads("train", n)])


def _of_heads(split: str, n: int) -> list[LabelMap]:
    """Exact maps of the first n heads of a split."""
    spacing_mm = None if split == "train" else VOXEL_MM  # as the scans that sets are made of
    paths = draw_heads(split, range(n), FOLDER / "heads", spacing_mm)
    return [LabelMap(read_head(path).labels, box_grid(SPACING_MM)) for path in paths]


def painted(tissues: LabelMap) -> np.ndarray:
    """A map in the box, [D, H, W] at 2 mm, in the greys of its tissues."""
    found, numbers = labels_of(tissues)[TISSUE], PARTS[TISSUE]
    greys = np.zeros(max(numbers.values()) + 1, np.float32)
    for name, number in numbers.items():
        greys[number] = GREYS[name]
    return averaged(greys[found], grid().shape)
