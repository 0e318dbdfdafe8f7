"""The brains that are segmented: painted heads with exact maps, and real brains without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eval.rows import digest
from eval.subjects import MADE_VERSION, held_out_brains, name_of
from medil.anatomy.classes import LabelMap
from medil.anatomy.painted import (
    ROOM_MM,
    SEEDS,
    STYLE,
    VERSION,
    PaintedHead,
    draw_painted_heads,
    read_painted_head,
)
from medil.data.manifest import fetch, local_entries
from medil.data.samples import LABEL_MAPS
from medil.data.schema import Entry
from medil.errors import InputError
from medil.grid import Grid
from medil.synth.cohort import rician
from medil.volume import Volume, load

PAINTED = Path("_build/painted")  # where painted heads are kept
SIGMA = 0.02  # Rician noise of painted heads; white matter is near 0.9
LEVEL = 0.6  # of `PaintedHead.inside` where their outline is cut: some CSF stays


@dataclass(frozen=True)
class Brain:
    """A skull-stripped T1w brain, and a function that loads it with its exact map or None."""

    name: str
    data_sha256: str
    is_painted: bool
    load: Callable[[], tuple[Volume, LabelMap | None]]


def brains(profile: str) -> list[Brain]:
    """Painted heads on the label maps of the test split, and its real brains.

    Args:
        profile: ``quick`` (the first of each), ``gpu`` or ``paper`` (all).

    Raises:
        InputError: None of their files is on this computer.
    """
    most = 1 if profile == "quick" else None
    maps = local_entries(LABEL_MAPS, "test")[:most]
    found = [_painted(index, label_map) for index, label_map in enumerate(maps)]
    found += [_real(entry) for entry in held_out_brains()[:most]]
    if not found:
        raise InputError(
            "no label map and no brain of the test split is on this computer; set "
            "MEDIL_DATA_MIRROR to a folder that holds them."
        )
    return found


def _real(entry: Entry) -> Brain:
    return Brain(name_of(entry), entry.sha256, False, lambda: (load(fetch(entry)), None))


def _painted(index: int, label_map: Entry) -> Brain:
    drawn = VERSION, MADE_VERSION, label_map.sha256, SEEDS["test"], index, repr(STYLE), ROOM_MM
    recipe = digest([*drawn, SIGMA, LEVEL])
    name = f"painted_{index:02d}_from_map_{label_map.subject}"
    return Brain(name, recipe, True, partial(_drawn, index))


def _drawn(index: int) -> tuple[Volume, LabelMap]:
    (path,) = draw_painted_heads("test", [index], PAINTED)
    return stripped(read_painted_head(path), index)


def stripped(head: PaintedHead, seed: int) -> tuple[Volume, LabelMap]:
    """A painted head with noise, cut at `LEVEL`, and its exact map."""
    grid = Grid.from_spacing(head.size_vox, 1.0)
    kept = (head.inside > 255 * LEVEL) & (head.labels > 0)
    noisy = rician(head.data.float(), SIGMA, np.random.default_rng(seed))
    data = torch.where(kept, noisy.clamp(min=1e-3), 0.0)
    return Volume(data, grid), LabelMap(torch.where(kept, head.labels, 0), grid)
