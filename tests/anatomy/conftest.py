"""Toy brains: a ball of white matter in cortex, with two lateral ventricles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medil.anatomy.classes import NUMBER, LabelMap
from medil.anatomy.packed import PackedMap
from medil.grid import Grid, centres_mm


def toy_packed(width_mm: float = 5.0, name: str = "toy") -> PackedMap:
    """A brain of 26 mm radius around (3, -2, 5) mm; ventricles of 14 mm length each side."""
    middle = np.array([3.0, -2.0, 5.0])
    grid = Grid.from_spacing((60, 60, 60), 1.0, middle - 29.5)
    points = centres_mm(grid) - torch.from_numpy(middle)
    distance = points.norm(dim=-1)
    labels = torch.zeros(grid.shape, dtype=torch.uint8)
    labels[distance < 26] = NUMBER["cortex"]
    labels[distance < 22] = NUMBER["white matter"]
    for side in (-9.0, 9.0):
        from_middle = (points - torch.tensor([side, 0.0, 0.0])) / torch.tensor([width_mm, 14, 8])
        labels[from_middle.norm(dim=-1) < 1] = NUMBER["lateral ventricles"]
    return PackedMap(name, LabelMap(labels, grid), (1.0, 0.0, 0.0, -3.0))


@pytest.fixture(scope="session")
def packed() -> PackedMap:
    return toy_packed()
