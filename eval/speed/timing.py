"""What a run measures; a measurement of time or memory of one arm, and how it becomes rows.

A condition reads ``kind | sizes | where``: what was timed, how large it was, and on what, such
as ``1 thread`` or a GPU's name. Each metric with rounds comes with its lowest and its highest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eval import rows

NAME = "speed"
LITERAL, INTEGRATED, WHOLE, GROWTH = "literal LTE", "cell-integrated LTE", "whole brain", "growth"
LIVE = "live picture"
PAGE = "page"  # of the book; its name follows
GPU_BRAIN, BUSY = "whole brain on a GPU", "whole brain beside a busy process"
TILES, STORE, TRAINING, CEILING = "tiled encode", "patch store", "training step", "ceiling"
RATIOS = (
    *(f"ratio_to_{peer}" for peer in ("naive", "subpixel", "integrated", "monai", "files")),
    "ratio_to_spinning",
    *(f"peak_ratio_to_{peer}" for peer in ("monai", "1_mm")),
)
UNITS = {
    **dict.fromkeys((*RATIOS, "max_difference", "max_error", "n_voxels"), "1"),
    **dict.fromkeys(("seconds", "cpu_s", "encode_s", "decode_s", "resized_s"), "s"),
    **dict.fromkeys(("copy_share", "arithmetic_share", "ceiling_share", "waiting_share"), "%"),
    **dict.fromkeys(("peak_rss_mb", "peak_cuda_mb"), "MB"),
    "ns_per_voxel": "ns",
    "device_ms": "ms",
    "gb_per_s": "GB/s",
    "gflop_per_s": "GFLOP/s",
    "flop_per_voxel": "FLOP",
    "bytes_per_voxel": "B",
    "patches_per_s": "1/s",
    **dict.fromkeys(("frames_per_s", "frames_per_cpu_s"), "1/s"),
}


@dataclass(frozen=True)
class Plan:
    """What one run measures: of which release, on which device, and how much."""

    release: str = "tiny"
    device: str = "cpu"  # or cuda
    cells: int = 48  # feature cells an axis; twice as many voxels are rendered
    cells_integrated: int = 48  # of the integrated layer and its peers; few take a GPU no time
    rounds_slow: int = 3  # of what takes seconds
    rounds_fast: int = 7  # of what takes milliseconds
    rounds_whole: int = 1  # of whole brains
    spacings_mm: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35)  # that the command line renders
    threads_whole: tuple[int, ...] = (2,)  # of whole brains, one run after another
    tile_mm: float = 62.0  # side of the crop that is encoded in tiles
    rounds_training: int = 5  # steps


PLANS = {
    "quick": Plan(),
    "gpu": Plan(cells_integrated=128, rounds_slow=5, rounds_fast=15, rounds_training=10),
    "paper": Plan(rounds_slow=5, rounds_fast=15, rounds_whole=3, threads_whole=(2, 1)),
}


@dataclass(frozen=True)
class Timing:
    """One arm under one condition."""

    arm: str
    kind: str  # of the condition, such as `LITERAL`
    sizes: str  # of the condition, for people
    values: Mapping[str, float | np.ndarray]  # metric to number, or to one number a round
    n_voxels: int  # rendered, encoded or trained on
    threads: int = 1  # of torch
    device: str = "cpu"  # or the GPU's name
    subject: str = "made features"  # what the arm worked on
    spacing_in_mm: str = "2"  # of the features or the scan
    spacing_out_mm: str = "1"  # of the rendering
    weights_sha256: str = rows.NO_WEIGHTS  # none where the weights were drawn
    config: Mapping[str, Any] = field(default_factory=dict)  # everything else that was chosen

    @property
    def condition(self) -> str:
        """As in the rows."""
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return " | ".join((self.kind, self.sizes, count if self.device == "cpu" else self.device))

    def to_rows(self, provenance: rows.Provenance) -> list[rows.Row]:
        """One row a metric, and three more where rounds were taken."""
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        for name, value in self.values.items():
            parts = {name: float(np.median(value))}
            if isinstance(value, np.ndarray):
                parts |= {f"{name}_low": value.min(), f"{name}_high": value.max()}
                values[f"{name}_rounds"], units[f"{name}_rounds"] = float(value.size), "1"
            values |= parts
            units |= dict.fromkeys(parts, UNITS[name])
        config = rows.digest({"kind": self.kind, "arm": self.arm, **self.config})
        data = rows.digest({"subject": self.subject, "sizes": self.sizes})
        about = rows.Measurement(
            NAME, self.subject, self.arm, self.condition, config, data, self.weights_sha256
        )
        sampling = rows.Sampling(self.spacing_in_mm, self.spacing_out_mm, 0, self.n_voxels)
        where = replace(provenance, threads=self.threads, device=self.device)
        return about.rows(values, units, sampling, _seconds(values), where)


def _seconds(values: Mapping[str, float]) -> float:
    """Seconds that the arm took; 0 if it was not timed."""
    taken = [values[n] for n in ("seconds", "encode_s", "decode_s") if n in values]
    return float(sum(taken)) if all(map(math.isfinite, taken)) else 0.0
