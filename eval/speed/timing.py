"""A measurement of time or memory of one arm, and how it becomes rows.

A condition reads ``kind | sizes | where``: what was timed, how large it was, and on what, such
as ``1 thread`` or a GPU's name. Each metric with rounds comes with its lowest and its highest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from eval import rows
from eval.speed.clock import Spread

NAME = "speed"
LITERAL, INTEGRATED, WHOLE, GROWTH = "literal LTE", "cell-integrated LTE", "whole brain", "growth"
GPU_BRAIN = "whole brain on a GPU"
TILES, STORE, TRAINING, CEILING = "tiled encode", "patch store", "training step", "ceiling"
UNITS = {
    "ns_per_voxel": "ns",
    "seconds": "s",
    "device_ms": "ms",
    "encode_s": "s",
    "decode_s": "s",
    "resized_s": "s",
    "ratio_to_naive": "1",
    "ratio_to_naive_maps_given": "1",
    "ratio_to_subpixel": "1",
    "ratio_to_monai": "1",
    "ratio_to_integrated": "1",
    "ratio_to_files": "1",
    "peak_ratio_to_monai": "1",
    "peak_above_baseline_ratio_to_monai": "1",
    "peak_ratio_to_1_mm": "1",
    "max_difference": "1",
    "max_error": "1",
    "peak_rss_mb": "MB",
    "peak_cuda_mb": "MB",
    "gb_per_s": "GB/s",
    "gflop_per_s": "GFLOP/s",
    "flop_per_voxel": "FLOP",
    "bytes_per_voxel": "B",
    "copy_share": "%",
    "arithmetic_share": "%",
    "ceiling_share": "%",
    "patches_per_s": "1/s",
    "waiting_share": "%",
    "drawing_share": "%",
    "n_voxels": "1",
}
ENDS = ("low", "high")


@dataclass(frozen=True)
class Timing:
    """One arm under one condition.

    Args:
        arm: What was timed.
        kind: Of the condition, such as `LITERAL`.
        sizes: Of the condition, for people.
        values: Metric to number, or to its spread over rounds.
        n_voxels: Rendered, encoded or trained on.
        threads: Of torch.
        device: ``cpu``, or the GPU's name.
        subject: What the arm worked on.
        spacing_in_mm: Of the features or the scan.
        spacing_out_mm: Of the rendering.
        weights_sha256: Empty where the weights were drawn.
        config: Everything else that was chosen.
    """

    arm: str
    kind: str
    sizes: str
    values: Mapping[str, float | Spread]
    n_voxels: int
    threads: int = 1
    device: str = "cpu"
    subject: str = "made features"
    spacing_in_mm: str = "2"
    spacing_out_mm: str = "1"
    weights_sha256: str = rows.NO_WEIGHTS
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def condition(self) -> str:
        """As in the rows."""
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return " | ".join((self.kind, self.sizes, count if self.device == "cpu" else self.device))

    def rounds(self, name: str) -> Spread:
        """A value over its rounds; a plain number stands for one."""
        value = self.values[name]
        return value if isinstance(value, Spread) else Spread(value, value, value, 1)

    def to_rows(self, provenance: rows.Provenance) -> list[rows.Row]:
        """One row a metric, and two more where rounds were taken."""
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        for name, value in self.values.items():
            if isinstance(value, Spread):
                parts = {name: value.median, f"{name}_low": value.low, f"{name}_high": value.high}
                values[f"{name}_rounds"], units[f"{name}_rounds"] = float(value.n), "1"
            else:
                parts = {name: value}
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


def device_name(device: str) -> str:
    """The device as rows name it: ``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"
