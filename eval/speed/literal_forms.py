"""The forms of literal LTE that are timed against the naive one: same weights, same answer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from medil.grid import Grid
from medil.layers.blocks import at_least_float
from medil.layers.pointwise import LiteralLTE, PointOperator

Form = Callable[[Tensor, Grid, Grid], Tensor]
PLAIN, EAGER = "neighbours", "separable, eager"


def forms(layer: LiteralLTE) -> dict[str, Form]:
    """Name to renderer, all of one layer: from features to voxels, coefficients included.

    A GPU has the plain form alone; the other one works row by row.
    """

    def plain(features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        return PointOperator.forward(layer, features, nodes, voxels)

    return {PLAIN: plain} if layer.amplitude.weight.is_cuda else {PLAIN: plain, EAGER: layer}


def coefficients(layer: LiteralLTE, features: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes and frequencies of every cell: what all forms begin with."""
    return at_least_float(layer.amplitude(features)), at_least_float(layer.frequency(features))
