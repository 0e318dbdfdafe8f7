"""The training volumes of each kind, and the segmenter that is trained on them.

Volumes are made once and kept in files. All have voxels of 1 mm and pass through the same
variation in training (`medil.anatomy.painted.vary`); only painted heads have a rim of CSF for it
to cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from eval.arms.learners import train_once
from eval.rows import digest
from medil.anatomy.classes import LabelMap
from medil.anatomy.config import SegmenterConfig, SegmenterRun, SegmenterTraining
from medil.anatomy.network import TissueNet
from medil.anatomy.painted import VERSION as PAINTED_VERSION
from medil.anatomy.painted import PaintedHead, draw_painted_heads, read_painted_head
from medil.anatomy.segmenter import (
    at_one_mm,
    load_segmenter,
    load_segmenter_release,
    segment,
)
from medil.anatomy.training import SegmenterLearner
from medil.data.manifest import entries, fetch
from medil.data.schema import Entry
from medil.diffusion.anatomy_first import sample
from medil.diffusion.appearance_training import load_appearance_release
from medil.diffusion.scans import REAL as DATA
from medil.errors import InputError
from medil.system.tensors import write_tensors
from medil.volume import load

FOLDER = Path("_build/downstream")
VERSION = 1  # raise it when other volumes are made
SEED = 500_000  # of the first sample: in no recorded set
SAMPLES, PAINTED, REAL = "samples", "painted", "real"
TITLES = {
    SAMPLES: "labelled samples",
    PAINTED: "painted heads",
    REAL: "real brains, maps of the release",
}
MODEL = SegmenterConfig(widths=(16, 24, 32), depths=(1, 1, 1), width_voxel=8)


@dataclass(frozen=True)
class Size:
    """Sizes of a profile."""

    volumes: int  # of each kind
    steps: int
    seeds: int


SIZES = {"quick": Size(2, 20, 1), "gpu": Size(24, 500, 3), "paper": Size(40, 20000, 5)}


@cache
def network(kind: str, profile: str, seed: int) -> TissueNet:
    """The segmenter of one kind of training volumes and one seed, trained if it is missing.

    Raises:
        InputError: No label maps or no real scans on this computer.
    """
    size = SIZES[profile]
    settings = SegmenterTraining(steps=size.steps, side_vox=64)
    config = SegmenterRun("downstream", MODEL, settings, heads=size.volumes)
    about = [asdict(MODEL), asdict(settings), source_id(kind), size.volumes, seed]
    path = FOLDER / f"{kind}_seed{seed}_{digest(about)[:8]}.safetensors"
    make = partial(_learner, config, kind)
    return load_segmenter(train_once(path, make, seed))


def _learner(config: SegmenterRun, kind: str) -> SegmenterLearner:
    return SegmenterLearner(config, volumes(kind, config.heads))


# Training volumes


def source_id(kind: str) -> str:
    """Digest of the weights and versions that the volumes of a kind depend on."""
    if kind == PAINTED:
        return digest([PAINTED_VERSION])
    if kind == REAL:
        return digest([VERSION, load_segmenter_release().weights_id])
    flow = load_appearance_release()
    return digest([VERSION, SEED, flow.weights_id, flow.known.autoencoder_id])


def volumes(kind: str, count: int) -> list[PaintedHead]:
    """The first training volumes of a kind.

    Raises:
        InputError: No label maps, or fewer real scans.
    """
    folder = FOLDER / "volumes"
    if kind == PAINTED:
        paths = draw_painted_heads("train", range(count), folder)
        return [read_painted_head(path) for path in paths]
    make: list[Callable[[], tuple[Tensor, LabelMap]]]
    if kind == SAMPLES:
        make = [partial(_sampled, SEED + k) for k in range(count)]
    else:
        make = [partial(_segmented, entry) for entry in _people(count)]
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{kind}_{source_id(kind)[:8]}"
    return [_kept(folder / f"{stem}_{k:03d}.safetensors", one) for k, one in enumerate(make)]


def _people(count: int) -> list[Entry]:
    people = entries(DATA, "train")
    if count > len(people):
        raise InputError(f"{DATA} has {len(people)} training brains, not {count}.")
    return people[:count]


def _sampled(seed: int) -> tuple[Tensor, LabelMap]:
    drawn = sample(seed)
    return drawn.volume.data, drawn.tissues


def _segmented(entry: Entry) -> tuple[Tensor, LabelMap]:
    volume = load(fetch(entry))
    return at_one_mm(volume)[0], segment(volume)


def _kept(path: Path, make: Callable[[], tuple[Tensor, LabelMap]]) -> PaintedHead:
    """A volume from its file, which is made when it is not there."""
    if not path.exists():
        head = as_head(*make(), source=path.stem)
        tensors = {"data": head.data, "labels": head.labels, "inside": head.inside}
        write_tensors(path, tensors, {"source": head.source})
    return read_painted_head(path)


def as_head(data: Tensor, tissues: LabelMap, source: str) -> PaintedHead:
    """A labelled scan at 1 mm, cropped to its tissue, as training takes heads; nothing is cut."""
    inner = tissues.cropped()
    start = torch.nonzero(tissues.labels).amin(0).tolist()
    box = tuple(slice(a, a + n) for a, n in zip(start, inner.grid.shape, strict=True))
    inside = inner.labels > 0
    scan = torch.where(inside, data[box].clamp(min=1e-3), 0.0)
    whole = (255 * inside).to(torch.uint8)
    return PaintedHead(scan.half(), inner.labels.contiguous(), whole, source)
