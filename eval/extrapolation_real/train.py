"""Training brains: real scans averaged to 1 mm, cropped to the brain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eval import heads
from eval.extrapolation.train import FOLDER, TRAIN_MM, Run
from eval.rows import digest
from eval.subjects import at_1_mm, box_between, cut_box, real
from medil.data.manifest import Entry, entries
from medil.errors import InputError
from medil.system.workers import call_each
from medil.training.patches import Scan

DATA = "ds002748"
VERSION = 1  # part of every hash: raise it when other scans are made
MARGIN_MM = 8  # of background around a brain


@dataclass(frozen=True)
class RealRun(Run):
    """A run on real brains at 1 mm; `heads` counts them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads > (most := len(entries(DATA, "train"))):
            raise InputError(f"{DATA} has {most} training brains, not {self.heads}.")

    @property
    def brains(self) -> list[Entry]:
        """The scans of the train split that it sees."""
        return entries(DATA, "train")[: self.heads]

    @property
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""
        model, settings = asdict(self.config.model), asdict(self.config.train)
        files = [_file(entry) for entry in self.brains]
        return digest([VERSION, model, settings, self.seed, self.steps, files])

    def scans(self, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
        """Equally weighted brains at 1 mm; existing files are reused."""
        files = [(folder / _file(entry), entry) for entry in self.brains]
        call_each(_once, [f for f in files if not f[0].exists()], workers, "brains")
        return [heads.read_scan(path, TRAIN_MM, 1 / len(files)) for path, _ in files]


def _file(entry: Entry) -> str:
    recipe = digest([VERSION, entry.sha256, TRAIN_MM, MARGIN_MM])
    return f"brain_{entry.subject}_{recipe[:12]}.safetensors"


def _once(path: Path, entry: Entry) -> None:
    """Average a scan to 1 mm and keep the brain with its margin."""
    scan = at_1_mm(real(entry).load())
    places = np.argwhere(scan.mask)
    start = np.maximum(places.min(0) - MARGIN_MM, 0)
    stop = np.minimum(places.max(0) + 1 + MARGIN_MM, scan.mask.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cut_box(scan, box_between(start, stop)).volume.data
    heads.write(path, {"data": data}, {"sha256": entry.sha256})
