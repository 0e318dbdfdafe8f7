"""A branching airway tree with known radii, in Hounsfield units.

Every branch is a capsule: a straight tube of one radius with round ends. Radii follow
Murray's law (parent radius cubed = sum of the children's cubed), lengths are about three
diameters as in Weibel's model, and a branch that would run into another is not grown, so
the lumen is a tree: one piece, no loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.synth.phantom import Formula, Phantom, inside_share

LUMEN_HU, WALL_HU, PARENCHYMA_HU = -1000.0, 40.0, -850.0
LENGTH_PER_RADIUS = 6.0  # three diameters (Weibel 1963, Morphometry of the Human Lung)
GAP_MM = 1.0  # between the outer walls of branches that do not meet
STEPS = np.linspace(0, 1, 25)[:, None]  # along a branch, at which its clearance is measured


@dataclass(frozen=True)
class Branch:
    """One tube of the tree."""

    generation: int  # 0 is the trachea
    parent: int  # index of the branch it leaves, -1 for the trachea
    start_mm: np.ndarray  # [3] (R, A, S) of the middle of the first end
    end_mm: np.ndarray  # likewise of the other end
    radius_mm: float  # of the lumen
    wall_mm: float  # thickness of the wall

    @property
    def outer_mm(self) -> float:
        """Radius of the outer wall, in mm."""
        return self.radius_mm + self.wall_mm

    @property
    def direction(self) -> np.ndarray:
        """[3] unit vector from start to end."""
        along_mm = self.end_mm - self.start_mm
        unit: np.ndarray = along_mm / np.linalg.norm(along_mm)
        return unit

    def facts(self) -> dict[str, Any]:
        """The branch as plain numbers."""
        return {
            "generation": self.generation,
            "parent": self.parent,
            "radius_mm": self.radius_mm,
            "wall_mm": self.wall_mm,
            "length_mm": float(np.linalg.norm(self.end_mm - self.start_mm)),
            "start_mm": self.start_mm.tolist(),
            "end_mm": self.end_mm.tolist(),
        }


def airway(seed: int = 0, generations: int = 6, trachea_radius_mm: float = 8.0) -> Phantom:
    """An airway tree: lumen -1000 HU, wall 40 HU, parenchyma -850 HU.

    Args:
        seed: Seeds angles and asymmetry.
        generations: Generations of branches below the trachea, 0 to 9.
        trachea_radius_mm: Radius of the trachea's lumen.

    Returns:
        The phantom; facts: branches (generation, parent, radius_mm, wall_mm, length_mm,
        start_mm, end_mm), lumen_loops (0), values_hu.

    Raises:
        InputError: Generations or radius out of range.
    """
    if not 0 <= generations <= 9:
        raise InputError(f"an airway has 0 to 9 generations, not {generations}.")
    if not 1 <= trachea_radius_mm <= 30:
        raise InputError(f"trachea_radius_mm lies in 1 to 30, not {trachea_radius_mm}.")
    tree = grow(np.random.default_rng(seed), generations, trachea_radius_mm)
    ends = np.array([[b.start_mm, b.end_mm] for b in tree])
    outer = np.array([b.outer_mm for b in tree])[:, None]
    bounds_mm = np.stack([
        (ends.min(1) - outer).min(0) - 6.0, (ends.max(1) + outer).max(0) + 6.0
    ])  # fmt: skip

    def near(low_mm: np.ndarray, high_mm: np.ndarray) -> Formula:
        touching = (ends.min(1) - outer <= high_mm) & (ends.max(1) + outer >= low_mm)
        return _formula([b for b, t in zip(tree, touching.all(1), strict=True) if t])

    facts = {
        "branches": [branch.facts() for branch in tree],
        "lumen_loops": 0,
        "values_hu": {"lumen": LUMEN_HU, "wall": WALL_HU, "parenchyma": PARENCHYMA_HU},
    }
    return Phantom("airway", _formula(tree), bounds_mm, facts, (-1100.0, 150.0), "HU", near)


def _formula(branches: list[Branch]) -> Formula:
    """Hounsfield units from the nearest lumen and the nearest outer wall."""

    def formula(points_mm: Tensor) -> Tensor:
        lumen = torch.full(points_mm.shape[:-1], math.inf, dtype=torch.float64)
        wall = lumen.clone()
        for branch in branches:
            axis_mm = distance_to_segment(points_mm, branch.start_mm, branch.end_mm)
            lumen = torch.minimum(lumen, axis_mm - branch.radius_mm)
            wall = torch.minimum(wall, axis_mm - branch.outer_mm)
        tissue = PARENCHYMA_HU + (WALL_HU - PARENCHYMA_HU) * inside_share(wall)
        return tissue + (LUMEN_HU - tissue) * inside_share(lumen)

    return formula


def distance_to_segment(points_mm: Tensor, start_mm: np.ndarray, end_mm: np.ndarray) -> Tensor:
    """[..., 3] points to their distance [...] from a segment, in mm."""
    start = torch.from_numpy(start_mm)
    along = torch.from_numpy(end_mm) - start
    offset = points_mm - start
    share = (offset @ along / along.dot(along)).clamp(0, 1)
    distance_mm: Tensor = torch.linalg.vector_norm(offset - share[..., None] * along, dim=-1)
    return distance_mm


def wall_mm(radius_mm: float) -> float:
    """Wall thickness: thick for small airways, relative to their radius (ours)."""
    return 0.4 + 0.12 * radius_mm


def grow(
    rng: np.random.Generator,
    generations: int,
    trachea_radius_mm: float,
    fits: Callable[[Branch], bool] = lambda branch: True,
    ends: Callable[[Branch], bool] = lambda branch: False,
    tries: int = 10,
    gap_mm: float = GAP_MM,
    wall: Callable[[float], float] = wall_mm,
) -> list[Branch]:
    """The tree, trachea first, each generation before the next.

    Only branches that fit are grown, and one that ends has no children. A branch that comes
    nearer to another than `gap_mm`, or does not fit, is tried again in another direction.
    """
    length_mm = 1.6 * LENGTH_PER_RADIUS * trachea_radius_mm  # the trachea is longer
    top_mm = np.array([0.0, 0.0, length_mm])
    tree = [Branch(0, -1, top_mm, np.zeros(3), trachea_radius_mm, wall(trachea_radius_mm))]
    space = _Space()
    space.add(tree[0])
    planes = {0: np.array([1.0, 0.0, 0.0])}  # the first fork opens left and right
    first = 0
    for generation in range(1, generations + 1):
        last = len(tree)
        for parent in (k for k in range(first, last) if not ends(tree[k])):
            for side, radius_mm, angle in _fork(rng, tree[parent].radius_mm):
                branch = _try_branch(
                    rng, tree, space, parent, generation, side * planes[parent], radius_mm, angle,
                    fits, tries, gap_mm, wall,
                )  # fmt: skip
                if branch is not None:
                    planes[len(tree)] = np.cross(branch.direction, planes[parent])
                    planes[len(tree)] /= np.linalg.norm(planes[len(tree)])
                    tree.append(branch)
                    space.add(branch)
        first = last
    return tree


def _fork(rng: np.random.Generator, radius_mm: float) -> list[tuple[float, float, float]]:
    """(side, radius_mm, angle in radians) of two children that obey Murray's law."""
    share = rng.uniform(0.4, 0.6)  # of the flow, which goes as the radius cubed
    angle = np.radians(rng.uniform(65, 85))  # between the children
    return [
        (1.0, radius_mm * share ** (1 / 3), angle * (1 - share)),  # the larger bends less
        (-1.0, radius_mm * (1 - share) ** (1 / 3), angle * share),
    ]


def _try_branch(
    rng: np.random.Generator,
    tree: list[Branch],
    space: _Space,
    parent: int,
    generation: int,
    sideways: np.ndarray,
    radius_mm: float,
    angle: float,
    fits: Callable[[Branch], bool],
    tries: int,
    gap_mm: float,
    wall: Callable[[float], float],
) -> Branch | None:
    """A child that fits and keeps clear of the rest of the tree, or None when all tries fail."""
    trunk = tree[parent]
    for attempt in range(tries):
        turned = sideways + 0.15 * (1 + attempt) * rng.normal(size=3)
        turned -= turned.dot(trunk.direction) * trunk.direction
        turned /= np.linalg.norm(turned)
        direction = math.cos(angle) * trunk.direction + math.sin(angle) * turned
        length_mm = LENGTH_PER_RADIUS * radius_mm * rng.uniform(0.85, 1.15)
        end_mm = trunk.end_mm + length_mm * direction
        branch = Branch(generation, parent, trunk.end_mm, end_mm, radius_mm, wall(radius_mm))
        if fits(branch) and space.is_clear(branch, gap_mm):
            return branch
    return None


class _Space:
    """The room that the branches of a tree take."""

    def __init__(self) -> None:
        self.count, self.numbers = 0, np.empty((64, 9))  # start, end - start, outer, half, parent

    def add(self, branch: Branch) -> None:
        """Take in the next branch of the tree."""
        if self.count == len(self.numbers):
            self.numbers = np.concatenate([self.numbers, np.empty_like(self.numbers)])
        along = branch.end_mm - branch.start_mm
        half = np.linalg.norm(along) / 2
        self.numbers[self.count] = [*branch.start_mm, *along, branch.outer_mm, half, branch.parent]
        self.count += 1

    def is_clear(self, branch: Branch, gap_mm: float) -> bool:
        """Whether a branch's outer wall keeps a gap to every branch that it must not touch.

        Its parent and its sister meet it at the fork; of those only the far half counts.
        """
        known = self.numbers[: self.count]
        middle = (branch.start_mm + branch.end_mm) / 2
        half = np.linalg.norm(branch.end_mm - branch.start_mm) / 2
        reach = known[:, 6] + known[:, 7] + half + branch.outer_mm + gap_mm
        away = np.linalg.norm(known[:, :3] + known[:, 3:6] / 2 - middle, axis=1)
        close = np.flatnonzero(away <= reach)
        start, along, outer_mm = known[close, :3], known[close, 3:6], known[close, 6]
        points = branch.start_mm + STEPS * (branch.end_mm - branch.start_mm)  # [25, 3]
        offset = points[:, None] - start  # [25, N, 3]
        share = ((offset * along).sum(-1) / (along**2).sum(-1)).clip(0, 1)
        axis_mm = np.linalg.norm(offset - share[..., None] * along, axis=-1)
        meets = (known[close, 8] == branch.parent) | (close == branch.parent)
        axis_mm[: len(STEPS) // 2, meets] = math.inf
        gaps_mm = axis_mm - outer_mm - branch.outer_mm
        return bool(gaps_mm.min(initial=math.inf) > gap_mm)
