"""What the machine can do and what renderers need: the roofline, measured in the same rounds.

A renderer that makes so many operations and moves so many bytes a voxel cannot take less than
the longer of the two times. Its share of the ceiling is that time over its own. Work is counted
from definitions: operations and bytes a voxel, each byte read or written once by each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from eval.speed.renderers import Scene
from medil.layers import projection
from medil.layers.operators import IntegratedLTE
from medil.layers.pointwise import LiteralLTE

COPIED = 2**26  # numbers: far more than any cache holds
SIDE = 1536  # of the matrices that are multiplied
SIDE_CUDA = 8192
FLOAT_BYTES = 4
Work = tuple[float, float]  # operations and bytes a voxel


def jobs(device: str) -> dict[str, Callable[[], Tensor]]:
    """A copy of a large tensor and a product of two matrices, to be timed beside renderers."""
    source = torch.ones(COPIED, device=device)
    target = torch.empty_like(source)
    a, b = (torch.rand(_side(device), _side(device), device=device) for _ in range(2))
    out = torch.empty_like(a)
    return {"copy": lambda: target.copy_(source), "multiply": lambda: torch.mm(a, b, out=out)}


def rates(times: Mapping[str, np.ndarray], device: str) -> tuple[np.ndarray, np.ndarray]:
    """[rounds] operations and [rounds] bytes a second, from the seconds that `jobs` took."""
    flop_per_s = 2 * _side(device) ** 3 / times["multiply"]
    return flop_per_s, 2 * COPIED * FLOAT_BYTES / times["copy"]


def _side(device: str) -> int:
    return SIDE if device == "cpu" else SIDE_CUDA


def shares(
    work: Work, ns_per_voxel: np.ndarray, flop_per_s: np.ndarray, bytes_per_s: np.ndarray
) -> dict[str, np.ndarray]:
    """[rounds] arithmetic, copying and the larger of the two, in percent of the time taken."""
    flop, moved = work
    arithmetic = 100 * 1e9 * flop / flop_per_s / ns_per_voxel
    copying = 100 * 1e9 * moved / bytes_per_s / ns_per_voxel
    return {
        "arithmetic_share": arithmetic,
        "copy_share": copying,
        "ceiling_share": np.maximum(arithmetic, copying),
    }


def integrated_work(scene: Scene, operator: IntegratedLTE) -> Work:
    """`medil.layers.projection.work` of a layer with one channel out, on a scene."""
    channels = scene.features.shape[1]
    return projection.work(operator.basis, scene.nodes, scene.voxels, channels)


def literal_work(scene: Scene, layer: LiteralLTE) -> Work:
    """A voxel's share of the coefficient maps, and eight neighbours' waves and MLPs.

    Any renderer that keeps the definition pays for the MLPs; the waves are counted as one
    product of two complex phasors a frequency, which is what separability leaves. Bytes: the
    features are read, the maps written and read, the voxels written, once each, in float32.
    """
    maps = (layer.amplitude, layer.frequency)
    weights = sum(m.weight.numel() for m in maps)
    rows = sum(m.out_channels for m in maps)
    linear = [m for m in layer.mlp if isinstance(m, nn.Linear)]
    waves = 3 * linear[0].in_features  # a complex product: 6 operations for a cosine and a sine
    each = 2 * sum(m.weight.numel() for m in linear) + waves
    share = scene.nodes.n_voxels / scene.voxels.n_voxels
    numbers = share * (scene.features.shape[1] + 2 * rows) + 1
    return 2.0 * weights * share + 8 * each, FLOAT_BYTES * numbers
