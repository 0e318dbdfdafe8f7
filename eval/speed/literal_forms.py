"""The forms of literal LTE that are timed against the naive one: same weights, same answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medil.grid import Grid
from medil.layers.blocks import at_least_float
from medil.layers.literal_fast import compiler
from medil.layers.pointwise import LiteralLTE, cell_size

Form = Callable[[Tensor, Grid, Grid], Tensor]
PLAIN, EAGER = "neighbours", "separable, eager"
COMPILED, REDUCED = "separable, compiled", "separable, bf16"
EXACT = (PLAIN, EAGER, COMPILED)  # float32 throughout


def forms(layer: LiteralLTE) -> dict[str, Form]:
    """Name to renderer, all of one layer: from features to voxels, coefficients included.

    A card has the plain form alone; the others go row by row.
    """

    def plain(features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        amplitude, frequency = coefficients(layer, features)
        phase = at_least_float(layer.phase(cell_size(nodes, voxels, features)))
        return layer.plain(amplitude, frequency, phase, nodes, voxels)

    def eager(features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        layer.compiled = False
        return layer(features, nodes, voxels)

    def compiled(features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        layer.compiled = True
        return layer(features, nodes, voxels)

    def reduced(features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        with torch.autocast(features.device.type, dtype=torch.bfloat16):
            return compiled(features, nodes, voxels)

    if layer.amplitude.weight.is_cuda:
        return {PLAIN: plain}
    return {PLAIN: plain, EAGER: eager, COMPILED: compiled, REDUCED: reduced}


def coefficients(layer: LiteralLTE, features: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes and frequencies of every cell: what all forms begin with."""
    return at_least_float(layer.amplitude(features)), at_least_float(layer.frequency(features))


def compiles() -> bool:
    """Whether the compiled form, which has run, found a compiler or fell back without one."""
    return compiler().works
