"""Phantoms: functions of position in mm that can be rendered on any grid.

A function has no resolution, so one phantom gives the truth for every grid. `render`
averages it over each voxel's cell, which is what a scanner does and what models here do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid, as_triple, centres_mm

Formula = Callable[[Tensor], Tensor]
BLOCK = 24  # voxels along each side of the blocks that `render` works in


@dataclass(frozen=True)
class Phantom:
    """A function of space with known, exact facts: volumes, genus, radii, as plain numbers.

    `near`, for phantoms of many parts, gives for a box (low_mm [3], high_mm [3]) a formula that is
    equal in that box and cheaper.

    Example:
        >>> from medil.synth.phantoms import ball
        >>> ball(radius_mm=5.0)(torch.tensor([[0.0, 0.0, 4.9], [0.0, 0.0, 5.1]])).tolist()
        [1.0, 0.0]
    """

    name: str  # in messages
    formula: Formula  # [..., 3] (R, A, S) mm float64 to [...] float64
    bounds_mm: np.ndarray  # [2, 3] lowest and highest (R, A, S) of the interesting box
    facts: dict[str, Any] = field(default_factory=dict)
    window: tuple[float, float] = (0.0, 1.0)  # (low, high) values to display
    unit: str = "a.u."  # of the values
    near: Callable[[np.ndarray, np.ndarray], Formula] | None = None

    def __call__(self, points_mm: Tensor) -> Tensor:
        """Values [...] float64 at points [..., 3] (R, A, S), in mm."""
        return self.formula(points_mm.to(torch.float64))

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the interesting box along R, A and S, in mm."""
        return tuple((self.bounds_mm[1] - self.bounds_mm[0]).tolist())

    def grid(self, spacing_mm: float | tuple[float, float, float]) -> Grid:
        """A grid of this spacing, RAS+, that covers the interesting box and shares its middle.

        Raises:
            InputError: Spacing not finite and above zero.
        """
        spacing = as_triple(spacing_mm, "spacing_mm")
        shape = [math.ceil(e / s - 1e-6) for e, s in zip(self.extent_mm, spacing, strict=True)]
        first_mm = self.bounds_mm.mean(0) - (np.array(shape) - 1) / 2 * np.array(spacing)
        return Grid.from_spacing(shape, spacing, first_mm.tolist())


def inside_share(signed_mm: Tensor, edge_mm: float = 0.0) -> Tensor:
    """1 where a signed distance [...] to a surface is negative, 0 where positive: [...] float64.

    It falls linearly over `edge_mm`; 0 is a sharp step.
    """
    if edge_mm == 0:
        return (signed_mm <= 0).to(torch.float64)
    return (0.5 - signed_mm / edge_mm).clamp(0, 1)


def render(phantom: Phantom, grid: Grid, supersample: int = 3) -> Tensor:
    """The average of a phantom over every voxel's cell, by midpoint quadrature: [D, H, W] float32.

    A linear function is exact at any `supersample` (points per voxel along each axis); a sharp
    edge is placed to about 1 / (2 supersample) of a voxel. Works in blocks, so memory stays
    bounded. Grids may be oblique.

    Raises:
        InputError: `supersample` below 1.
    """
    if supersample < 1:
        raise InputError(f"supersample must be at least 1, not {supersample}.")
    values = torch.empty(grid.shape)
    for start, shape in _blocks(grid.shape):
        block = grid.crop(start, shape)
        low, high = block.bounds_mm
        formula = phantom.near(low, high) if phantom.near else phantom
        fine = block.resized([supersample * n for n in shape])
        parts = formula(centres_mm(fine)).reshape(
            shape[0], supersample, shape[1], supersample, shape[2], supersample
        )
        where = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        values[where] = parts.mean((1, 3, 5)).float()
    return values


def _blocks(shape: tuple[int, int, int]) -> Iterator[tuple[list[int], list[int]]]:
    """Starts and shapes of the blocks that tile a grid."""
    for start in itertools.product(*(range(0, n, BLOCK) for n in shape)):
        yield list(start), [min(BLOCK, n - a) for n, a in zip(shape, start, strict=True)]
