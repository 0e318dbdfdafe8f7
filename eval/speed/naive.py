"""Literal LTE in 3-D as public LTE code does it in 2-D: the slow one that others are timed by.

Each of the eight neighbours is reached by shifting every query by half a cell, looking the
coefficient and frequency maps up at the nearest cell (`grid_sample`), and sending cosines and
sines through the MLP, a chunk of queries at a time. Written after the description in Lee & Jin
(2022) and the structure of their published 2-D renderer; the code is ours.

Two departures, so that renderers can be compared to the last voxel and digit: the maps are padded
by one cell of their edge, which is what `medil.layers.pointwise` does beyond the outermost
centres; and coordinates are float64 until they are distances from a cell, since in float32
their rounding over 50 cells is what would be compared.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from medil.grid import Grid, centres_mm
from medil.layers.pointwise import LiteralLTE

QUERIES = 30_000  # a chunk: what public code sends through at a time
TINY_AREA = 1e-9  # added to every area, as there
NUDGE = 1e-6  # off the border between two cells, as there


def naive_lte(layer: LiteralLTE, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
    """[1, channels_out, D, H, W] that `layer` renders, by nearest look-ups (LTE Eq. 4-7).

    `features` are [1, C, d, h, w] on `nodes`; `voxels` may be oblique.
    """
    maps = [functional.pad(m(features), [1] * 6, mode="replicate")
            for m in (layer.amplitude, layer.frequency)]  # fmt: skip
    size = torch.tensor([v / p for v, p in zip(voxels.spacing_mm, nodes.spacing_mm, strict=True)])
    phase = layer.phase(size.to(maps[0]))  # [K]
    queries = _coordinates(nodes, voxels).to(features.device)  # [Q, 3]
    parts = [_render(layer, maps, phase, chunk) for chunk in queries.split(QUERIES)]
    return torch.cat(parts).T.reshape(1, -1, *voxels.shape)


def _coordinates(nodes: Grid, voxels: Grid) -> Tensor:
    """Voxel centres in -1 ... 1 over the padded maps, axes in their order: [Q, 3]."""
    index_vox = nodes.ras_to_index(centres_mm(voxels).reshape(-1, 3).numpy())
    sizes = torch.tensor(nodes.shape) + 2
    return (2 * torch.from_numpy(index_vox) + 3) / sizes - 1  # the padding is cell 0


def _render(layer: LiteralLTE, maps: list[Tensor], phase: Tensor, coord: Tensor) -> Tensor:
    """[Q, 3] coordinates to [Q, channels_out]: the local ensemble."""
    sizes = torch.tensor(maps[0].shape[2:], device=coord.device)
    answers, areas = [], []
    for shift in product((-1, 1), repeat=3):
        moved = coord + torch.tensor(shift, device=coord.device) / sizes + NUDGE
        moved = moved.clamp(-1 + NUDGE, 1 - NUDGE)
        coefficient, frequency = (_nearest(m, moved.to(m)) for m in maps)  # [Q, 2K], [Q, 3K]
        cell = ((moved + 1) * sizes / 2).floor()
        delta = (coord * sizes / 2 - (cell + 0.5 - sizes / 2)).to(coefficient)  # [Q, 3] in cells
        angle = (frequency.unflatten(-1, (-1, 3)) * delta[:, None]).sum(-1) + phase  # [Q, K]
        wave = torch.cat([torch.cos(torch.pi * angle), torch.sin(torch.pi * angle)], dim=-1)
        answers.append(layer.mlp(coefficient * wave))
        areas.append(delta.prod(-1).abs() + TINY_AREA)
    whole = torch.stack(areas).sum(0)
    opposite = reversed(areas)  # a neighbour weighs as much as the box to the other corner
    return sum(a * (area / whole)[:, None] for a, area in zip(answers, opposite, strict=True))


def _nearest(values: Tensor, coord: Tensor) -> Tensor:
    """[1, C, d, h, w] at [Q, 3] coordinates: the nearest cell's [Q, C]."""
    place = coord.flip(-1)[None, :, None, None]  # grid_sample wants (x, y, z): last axis first
    cells = functional.grid_sample(values, place, mode="nearest", align_corners=False)
    return cells[0, :, :, 0, 0].T
