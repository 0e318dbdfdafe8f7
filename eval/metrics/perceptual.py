"""LPIPS over three stacks of slices; nothing, and a warning, where its weights cannot be had.

The distance was learned from people who compared photographs. A trunk with random weights
would give numbers as well, of another metric: there is no such fallback here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from eval.metrics.checks import bounding_box, checked
from medil.data.perceptual import PUBLISHED, alexnet_lpips
from medil.errors import InputError

Network = Callable[[Tensor, Tensor], Tensor]

N_SLICES = 8  # along each axis
LEAST_SIDE = 64  # pixels, what AlexNet's strides need
TRUNK = PUBLISHED.path.rsplit("/", 1)[-1]


def lpips_25d(
    truth: np.ndarray,
    estimate: np.ndarray,
    mask: np.ndarray,
    peak: float,
    network: Network | None = None,
) -> float | None:
    """Learned perceptual distance, averaged over slices along three axes ("2.5-D").

    Both volumes are set to 0 outside the mask and cropped to its bounding box; 8 slices
    along each axis, at the middles of 8 equal parts of the box, are mapped from 0...`peak`
    to -1...1 (clipped), repeated as red, green and blue, filled up with black to 64 pixels
    where a side is shorter, and compared by AlexNet's LPIPS. Slices count voxels: compare LPIPS
    only on one grid. The network has seen photographs, not scans.

    From 0, lower is better; None when the weights are not available. `network` takes two
    [B, 3, h, w] and gives [B, ...] distances; AlexNet's LPIPS when None.

    Source: Zhang et al. 2018.

    Raises:
        InputError: The peak is not above zero.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    if not peak > 0:
        raise InputError(f"the peak must be above zero, not {peak}.")
    network = network or network_or_none()
    if network is None:
        return None
    box = bounding_box(mask, margin=0)
    pair = [_shown(np.where(mask, v, 0.0)[box], peak) for v in (truth, estimate)]
    distances: list[float] = []
    with torch.no_grad():
        for axis in range(3):
            first, second = (_slices(v, axis) for v in pair)
            distances += network(first, second).reshape(len(first), -1).mean(dim=1).tolist()
    return float(np.mean(distances))


def trunk_features(volume: np.ndarray, mask: np.ndarray, peak: float) -> np.ndarray | None:
    """[1152] numbers of a volume from the trunk of LPIPS, for distances between sets.

    Slices as for `lpips_25d`; the mean over slices and places of each of the five layers' features,
    which LPIPS scales to unit length at every place. None when the weights are not available.

    Raises:
        InputError: The peak is not above zero.
    """
    volume, mask = np.asarray(volume), np.asarray(mask, dtype=bool)
    if not peak > 0:
        raise InputError(f"the peak must be above zero, not {peak}.")
    network: Any = network_or_none()
    if network is None:
        return None
    shown = _shown(np.where(mask, volume, 0.0)[bounding_box(mask, margin=0)], peak)
    with torch.no_grad():
        axes = [network.net(network.scaling_layer(_slices(shown, axis))) for axis in range(3)]
    means = [torch.cat([_unit(h).mean((2, 3)) for h in layers], dim=1) for layers in axes]
    return torch.cat(means).mean(0).double().numpy()


def _unit(features: Tensor) -> Tensor:
    """[B, C, ...] features over their length along C."""
    return features / features.square().sum(1, keepdim=True).sqrt().clamp(min=1e-10)


@lru_cache(maxsize=1)
def network_or_none() -> Network | None:
    """AlexNet's LPIPS; None, after a warning that says why, where it cannot be had."""
    try:
        return alexnet_lpips()
    except InputError as error:
        warnings.warn(f"LPIPS is left out: {error}", stacklevel=2)
        return None


def _shown(volume: np.ndarray, peak: float) -> Tensor:
    return torch.from_numpy(np.clip(volume / peak, 0.0, 1.0) * 2 - 1).float()


def _slices(volume: Tensor, axis: int) -> Tensor:
    """[B, 3, h, w]: evenly spaced slices along one axis, fewer where it is short."""
    n = volume.shape[axis]
    count = min(N_SLICES, n)
    places = ((torch.arange(count) + 0.5) * n / count).long()
    images = volume.movedim(axis, 0)[places][:, None].expand(-1, 3, -1, -1)  # [B, 3, h, w]
    down, across = (max(0, LEAST_SIDE - side) for side in images.shape[2:])
    return pad(images, (0, across, 0, down), value=-1.0)
