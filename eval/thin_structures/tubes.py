"""What a volume shows of an airway whose place and radius are known.

Across the middle part of an airway the volume is read on circles around its axis. The *profile*
is the median over a circle, of means along the axis: the artery beside an airway covers less than
half of a circle and does not move it. The *depth* is how much darker the axis is than the
brightest circle no farther out than `REACH_MM` beyond the wall.

A lumen counts as *found* where its depth is at least half of the step from lung tissue to air
(`FOUND_HU`). Its *radius* is where the profile has climbed half of its depth: half of the full
width at half depth. *Contrast* is the depth over the true step from air to wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from medil.grid import Grid
from medil.synth.chest import AIR_HU, PARENCHYMA_HU

WALL_HU = 40.0  # of airways in `medil.synth.chest`
FOUND_HU = (PARENCHYMA_HU - AIR_HU) / 2
REACH_MM = 0.75  # beyond the wall, in which a scanner's kernel blurs it
MIDDLE = (0.2, 0.8)  # part of an airway's length that is read: forks are left out
STEP_MM, LEAST_STEPS = 0.5, 3  # along the axis
DIRECTIONS = 16  # on a circle
RADII = 24  # circles, from the axis to the reach
DEFINITION = [1, FOUND_HU, REACH_MM, MIDDLE, STEP_MM, LEAST_STEPS, DIRECTIONS, RADII]


@dataclass(frozen=True)
class Tube:
    """A straight piece of an airway, or of lung tissue where none is."""

    start_mm: np.ndarray  # [3]
    end_mm: np.ndarray  # [3]
    radius_mm: float  # of the lumen
    wall_mm: float

    @property
    def reach_mm(self) -> float:
        """How far from the axis it is read."""
        return self.radius_mm + self.wall_mm + REACH_MM


@dataclass(frozen=True)
class Seen:
    """What a volume shows of one tube."""

    depth_hu: float
    radius_mm: float  # estimated; NaN where the profile does not climb from its axis

    @property
    def is_found(self) -> bool:
        """Whether the lumen counts as found."""
        return self.depth_hu >= FOUND_HU

    @property
    def contrast(self) -> float:
        """Depth over the true step from air to wall."""
        return self.depth_hu / (WALL_HU - AIR_HU)


def circles_mm(tube: Tube) -> tuple[np.ndarray, np.ndarray]:
    """Radii [R] of the circles, and points [S, R, A, 3] on them: along the axis, radii, angles."""
    along = tube.end_mm - tube.start_mm
    length_mm = float(np.linalg.norm(along))
    steps = max(LEAST_STEPS, round((MIDDLE[1] - MIDDLE[0]) * length_mm / STEP_MM))
    axis_mm = tube.start_mm + np.linspace(*MIDDLE, steps)[:, None] * along  # [S, 3]
    first = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
    first /= np.linalg.norm(first)
    second = np.cross(along / length_mm, first)
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    out = np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second  # [A, 3]
    radii_mm = np.linspace(0, tube.reach_mm, RADII)
    return radii_mm, axis_mm[:, None, None] + radii_mm[None, :, None, None] * out


def profile(data: np.ndarray, grid: Grid, tube: Tube) -> tuple[np.ndarray, np.ndarray]:
    """Radii [R] in mm and the volume's profile [R] across a tube.

    Args:
        data: [D, H, W], interpolated linearly between voxel centres.
        grid: Its voxels.
        tube: Inside the volume.
    """
    radii_mm, points_mm = circles_mm(tube)
    index = grid.ras_to_index(points_mm.reshape(-1, 3)).T
    values = ndimage.map_coordinates(data, index, order=1, mode="nearest")
    return radii_mm, np.median(values.reshape(points_mm.shape[:3]).mean(0), axis=1)


def look(data: np.ndarray, grid: Grid, tube: Tube) -> Seen:
    """What a volume [D, H, W] in HU shows of a tube."""
    radii_mm, values = profile(data, grid, tube)
    brightest = int(np.argmax(values))
    depth = float(values[brightest] - values[0])
    if brightest == 0:
        return Seen(depth, float("nan"))
    half = values[0] + depth / 2
    outside = int(np.argmax(values[: brightest + 1] >= half))
    low, high = values[outside - 1], values[outside]
    share = (half - low) / (high - low)
    return Seen(depth, float(radii_mm[outside - 1] + share * np.diff(radii_mm)[0]))


def half_recall_mm(radii_mm: Sequence[float], found: Sequence[bool]) -> float:
    """The radius at which half of the lumens are found: of a logistic curve in log radius.

    Kept within the radii that were measured: the smallest where nearly all are found.
    """
    x, y = np.log(radii_mm), np.asarray(found, dtype=float)
    sign = 2 * y - 1

    def cost(p: np.ndarray) -> float:  # a slope of about 4 is a weak prior: separable data end
        return float(np.logaddexp(0, -sign * np.exp(p[1]) * (x - p[0])).sum() + (p[1] - 1.4) ** 2)

    middle = optimize.minimize(cost, [float(np.median(x)), 1.4], method="Nelder-Mead").x[0]
    return float(np.exp(np.clip(middle, x.min(), x.max())))
