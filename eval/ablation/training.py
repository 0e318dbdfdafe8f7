"""What the arms train on: synthetic heads and real scans, drawn or cut once and kept in a folder.

Synthetic heads come from label maps of the train split, each scanned on one isotropic grid. Real
scans are those of the train split of the manifests, on their own grids; where they are not on
this computer, synthetic heads alone remain, and the recipe says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval import heads as synthetic
from eval.ablation.blocks import DECIMALS, FOLDER, VERSION
from eval.rows import digest
from medil.data.manifest import available, entries, fetch
from medil.data.schema import Entry
from medil.grid import Grid
from medil.system.workers import call_each
from medil.training.dataset import REAL, mixed
from medil.training.patches import Scan, prepare_scan
from medil.volume import Volume, load

TRAIN_SEED = 3000
TRAIN_MM = (1.0, 0.9, 1.6, 1.1, 1.3, 1.0, 2.0)  # in turn; other sizes are scored unseen
REAL_SHARE = 0.6  # of the steps, where real scans are at hand
REAL_MIX = {"brain": 3.0, "head": 1.0}  # relative weights of kinds of real scans
MARGIN_MM = 8.0  # of air that is kept around a brain
CUT_VERSION = 1  # part of every cut's name: raise it when other voxels are kept


@dataclass(frozen=True)
class TrainingSet:
    """The scans, by their hashes, and in words."""

    count: int  # of synthetic heads
    real: tuple[Entry, ...]  # the train split, or nothing

    @classmethod
    def at_hand(cls, count: int) -> TrainingSet:
        """So many heads, and the real scans if all of them are on this computer."""
        real = [entry for name in REAL for entry in entries(name, "train")]
        return cls(count, tuple(real) if all(map(available, real)) else ())

    @property
    def recipe(self) -> list:
        """All that the scans depend on: JSON values."""
        drawn = synthetic.heads("train", TRAIN_SEED, self.count, synthetic.TRAINING)
        cuts = [_cut_file(entry) for entry in self.real]
        return [[_head_file(head) for head in drawn], cuts, REAL_SHARE, REAL_MIX]

    def __str__(self) -> str:
        """Such as ``16 heads, 40 real brains, 2 real heads (0.6 of steps)``."""
        if not self.real:
            return f"{self.count} heads, no real scan"
        kinds = Counter(entry.kind for entry in self.real)
        real = ", ".join(f"{n} real {kind}{'s' * (n != 1)}" for kind, n in sorted(kinds.items()))
        return f"{self.count} heads, {real} ({REAL_SHARE} of steps)"

    def scans(self, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
        """Synthetic heads of weight 1 in all, and real scans; existing files are reused."""
        made = training_heads(self.count, folder, workers)
        paths = [folder / _cut_file(entry) for entry in self.real]
        todo = [(p, e) for p, e in zip(paths, self.real, strict=True) if not p.exists()]
        call_each(cut_once, todo, workers, "real scans")
        real = [
            replace(_read(path), kind=e.kind, name=Path(e.path).name)
            for path, e in zip(paths, self.real, strict=True)
        ]
        return [*made, *mixed(real, REAL_MIX, REAL_SHARE / (1 - REAL_SHARE))] if real else made


# Real scans


def cut_once(path: Path, entry: Entry) -> None:
    """Write a real scan into a file, on its own grid; of a brain the box around it alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = load(fetch(entry))
    data = around_brain(volume) if entry.kind == "brain" else volume.data
    synthetic.write(path, {"data": data}, {"spacing_mm": volume.grid.spacing_mm})


def around_brain(volume: Volume) -> Tensor:
    """[D, H, W] voxels of the box around a skull-stripped brain, with `MARGIN_MM` of air."""
    places = torch.nonzero(volume.data > 0).numpy()
    margin = np.ceil(MARGIN_MM / np.array(volume.grid.spacing_mm)).astype(int)
    low = np.maximum(places.min(axis=0) - margin, 0)
    high = places.max(axis=0) + margin + 1
    return volume.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def _cut_file(entry: Entry) -> str:
    name = entry.path.rsplit("/", 1)[-1].split(".")[0]
    return f"real_{name}_{digest([CUT_VERSION, entry.sha256, MARGIN_MM])[:12]}.safetensors"


def _read(path: Path) -> Scan:
    tensors, facts = synthetic.read(path)
    data, mm = tensors["data"], np.round(facts["spacing_mm"], DECIMALS).tolist()
    return replace(
        prepare_scan(Volume(data, Grid.from_spacing(data.shape, mm))), spacing_mm=tuple(mm)
    )


# Synthetic heads


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted synthetic heads, one voxel size each; existing files are reused."""
    drawn = synthetic.heads("train", TRAIN_SEED, count, synthetic.TRAINING)
    sizes_mm = [TRAIN_MM[head.index % len(TRAIN_MM)] for head in drawn]
    paths = [folder / _head_file(head) for head in drawn]
    return synthetic.training_heads(list(zip(paths, drawn, sizes_mm, strict=True)), workers)


def _head_file(head: synthetic.Head) -> str:
    recipe = [VERSION, head.map_sha256, TRAIN_SEED, head.index, TRAIN_MM, repr(head.style)]
    return synthetic.head_file(head.index, recipe)
