"""The shape of a drawn anatomy: a packed map, turned, scaled and bent smoothly.

A point of the new brain is turned and scaled, then moved along a smooth random velocity, to the
point of the packed map whose tissue it has. The velocity also pulls the lateral ventricles open
or closed, each side by its own growth.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medil.anatomy.classes import BRAIN, NUMBER, LabelMap, SoftLabels
from medil.anatomy.packed import PackedMap
from medil.grid import Grid, centres_mm
from medil.regrid import sample_trilinear
from medil.synth.anatomy import gaussian, outline
from medil.synth.appearance import LATTICE_MM, Range, smooth_noise
from medil.synth.box import box_grid
from medil.synth.subject import CohortConfig, draw_pose, draw_velocity, integrate

STYLE = CohortConfig(rotation_deg=4.0, scale=(0.88, 1.02))  # small enough for the box
BENDS = 1.5  # factor on its warps: at 1, some maps lie as near to training heads as a copy would
LEAST_JACOBIAN = 0.05  # of the map to the packed anatomy: the largest local growth is its inverse
RIM_MM: Range = (0.5, 3.0)  # outer CSF around the brain's outline, as in skull-stripped scans
RIM_NOISE_MM = 0.4  # standard deviation of the rim over the surface
EDGE_MM = 3.0  # air between the brain's rim and the faces of the box, at least
ROOM_MM = 16.0  # beyond the box of a packed map, where a shape of scale 1 can reach
COUNT_MM = 2.0  # spacing of the points at which volumes are estimated while solving
SPREAD_VOX = 6.0  # blur of the ventricles whose gradient pulls
UNMOVED = torch.zeros(3, dtype=torch.float64)
SIDE_MM = 3.0  # distance from the midplane over which one side's pull gives way to the other's


@dataclass(frozen=True)
class Prepared:
    """What every shape of one packed map needs.

    Args:
        packed: The map.
        tissue: Its classes as a function of space.
        outside_mm: [1, 1, D, H, W] distance from the brain's outline, negative inside.
        brain, ventricles: [1, 1, D, H, W] smooth indicators, of the brain and of the lateral
            ventricles.
        pull: [3, ...] gradient on `lattice`, per mm, of the blurred ventricles, at most 1.
        lattice: Grid of velocities.
        middle_mm: [3] middle of the brain.
    """

    packed: PackedMap
    tissue: SoftLabels
    outside_mm: Tensor
    brain: Tensor
    ventricles: Tensor
    pull: Tensor
    lattice: Grid
    middle_mm: Tensor


@functools.lru_cache(maxsize=2)  # a few hundred MB each
def prepare(packed: PackedMap) -> Prepared:
    """Compute once what every shape of a packed map needs."""
    tissues = packed.tissues
    grid, brain = tissues.grid, tissues.is_class(*BRAIN)
    inside = outline(brain.numpy()).numpy() > 0.5
    outside_mm = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    roomy = grid.covering(LATTICE_MM)
    lattice = roomy.crop([-4] * 3, [n + 8 for n in roomy.shape])
    lateral = tissues.is_class("lateral ventricles").float()
    wide = gaussian(lateral, SPREAD_VOX)
    spread = sample_trilinear((wide / wide.max())[None, None], grid, centres_mm(lattice))
    return Prepared(
        packed,
        SoftLabels(tissues),
        gaussian(torch.from_numpy(outside_mm).float(), 1.0)[None, None],
        gaussian(brain.float(), 0.6)[None, None],
        gaussian(lateral, 0.6)[None, None],
        torch.stack(torch.gradient(spread[0, 0], spacing=LATTICE_MM)),
        lattice,
        centres_mm(grid)[torch.from_numpy(inside)].mean(0),
    )


@dataclass(frozen=True)
class Shape:
    """A drawn shape: a map from points of the new brain to points of a packed map.

    Args:
        known: The packed map, prepared.
        velocity: [3, ...] mm on the lattice.
        turn: [3, 3] new point to packed point, both from their middles.
        growth: Pull on the left and right lateral ventricle.
        scale: Isotropic size, beside `turn`.
        shift_mm: [3] of the new brain, so that it lies in the middle of the box.
        half_mm: [3] half the sides of the brain, once that is so.
        mirrored: Left and right are exchanged.
        rim_mm: Outer CSF around the outline.
        rim_noise_mm: [1, 1, ...] on the lattice, added to it.
    """

    known: Prepared
    velocity: Tensor
    turn: Tensor
    growth: tuple[float, float]
    scale: float
    shift_mm: Tensor
    half_mm: Tensor
    mirrored: bool
    rim_mm: float
    rim_noise_mm: Tensor

    @functools.cached_property
    def displacement_mm(self) -> Tensor:
        """[3, ...] of the velocity with the pulls of both ventricles, on the lattice."""
        lattice = self.known.lattice
        right = torch.sigmoid(self.from_midplane_mm(centres_mm(lattice)) / SIDE_MM)
        left_growth, right_growth = self._growth_in_map()
        pull = (left_growth * (1 - right) + right_growth * right).float() * self.known.pull
        return integrate(self.velocity + pull, lattice)

    def _growth_in_map(self) -> tuple[float, float]:
        """The growths of the packed map's own left and right."""
        left, right = self.growth
        return (right, left) if self.mirrored else (left, right)

    def from_midplane_mm(self, source_mm: Tensor) -> Tensor:
        """[...] distance of points [..., 3] of the packed map to the right of its midplane."""
        *normal, offset = self.known.packed.midplane
        return source_mm @ torch.tensor(normal, dtype=source_mm.dtype) + offset

    def source_mm(self, points_mm: Tensor) -> Tensor:
        """The point of the packed map that each point [..., 3] of the new brain comes from."""
        centred = (points_mm - self.shift_mm) / self.scale
        if self.mirrored:
            centred = centred * centred.new_tensor([-1.0, 1.0, 1.0])
        posed_mm = centred @ self.turn.T + self.known.middle_mm
        moved = sample_trilinear(self.displacement_mm[None], self.known.lattice, posed_mm)[0]
        return posed_mm + moved.movedim(0, -1)

    def is_torn(self) -> bool:
        """Whether the displacement folds, or stretches anything beyond measure."""
        least = jacobian(self.displacement_mm, self.known.lattice).min()
        return bool(least < LEAST_JACOBIAN)


def jacobian(displacement_mm: Tensor, lattice: Grid) -> Tensor:
    """[...] Jacobian determinant of x + displacement, by differences between lattice points."""
    rows = [torch.stack(torch.gradient(u, spacing=LATTICE_MM)) for u in displacement_mm]
    axes = torch.from_numpy(np.linalg.inv(lattice.directions)).to(displacement_mm)
    gradient = torch.einsum("uidhw,ij->dhwuj", torch.stack(rows), axes)
    determinant: Tensor = torch.linalg.det(gradient + torch.eye(3))
    return determinant


def draw_shape(packed: PackedMap, rng: np.random.Generator, bends: float = BENDS) -> Shape:
    """Draw warp, pose, growth, rim and side of a new brain; `bends` is a factor on the warp."""
    known = prepare(packed)
    velocity = draw_velocity(known.lattice, rng) * (bends * rng.uniform(*STYLE.warp_mm))
    turn, _ = draw_pose(rng, STYLE)
    growth = rng.uniform(*STYLE.ventricles)
    noise = smooth_noise(known.lattice.shape, 6.0 / LATTICE_MM, rng)
    return Shape(
        known, velocity, torch.from_numpy(turn), (growth, growth), 1.0, UNMOVED, UNMOVED,
        bool(rng.random() < 0.5), rng.uniform(*RIM_MM), RIM_NOISE_MM * noise[None, None],
    )  # fmt: skip


# Volumes, and the map itself


@dataclass(frozen=True)
class Sizes:
    """Estimated volumes of a shape of scale 1, in ml, and the bounds of its brain."""

    left: float
    right: float
    brain: float
    bounds_mm: Tensor  # [2, 3] lowest and highest (R, A, S)

    @property
    def ventricles(self) -> float:
        """Both lateral ventricles."""
        return self.left + self.right


def sizes(shape: Shape) -> Sizes:
    """Integrals of the smooth indicators over the new brain, by points `COUNT_MM` apart.

    They rise smoothly with growth, as counts of voxels do not.
    """
    grid, known = box_grid(COUNT_MM), shape.known
    own = replace(shape, scale=1.0, shift_mm=UNMOVED)
    half_mm = torch.tensor(known.packed.tissues.grid.extent_mm) / 2 + ROOM_MM
    points_mm = centres_mm(_cropped(grid, _block(grid, half_mm))).reshape(-1, 3)
    source_mm = own.source_mm(points_mm)
    where = known.packed.tissues.grid
    brain, lateral = (
        sample_trilinear(values, where, source_mm)[0, 0]
        for values in (known.brain, known.ventricles)
    )
    right = (own.from_midplane_mm(source_mm) > 0) ^ shape.mirrored
    point_ml = COUNT_MM**3 / 1000
    inside_mm = points_mm[brain > 0.5]
    return Sizes(
        float(lateral[~right].sum()) * point_ml,
        float(lateral[right].sum()) * point_ml,
        float(brain.sum()) * point_ml,
        torch.stack([inside_mm.amin(0), inside_mm.amax(0)]),
    )


def tissue_map(shape: Shape) -> LabelMap:
    """The tissue map of a placed shape on the box grid, its outer CSF cut to the rim."""
    grid, known = box_grid(1.0), shape.known
    block = _block(grid, shape.half_mm + shape.rim_mm + EDGE_MM)
    source_mm = shape.source_mm(centres_mm(_cropped(grid, block)))
    where = known.packed.tissues.grid
    outside_mm = sample_trilinear(known.outside_mm, where, source_mm)[0, 0]
    noise_mm = sample_trilinear(shape.rim_noise_mm, known.lattice, source_mm)[0, 0]
    kept = outside_mm * shape.scale < shape.rim_mm + noise_mm
    drawn = torch.zeros(kept.shape, dtype=torch.uint8)
    drawn[kept] = known.tissue.at(source_mm[kept]).clamp(min=NUMBER["csf"])
    labels = torch.zeros(grid.shape, dtype=torch.uint8)
    labels[block] = drawn
    return LabelMap(labels, grid)


def _block(grid: Grid, half_mm: Tensor) -> tuple[slice, ...]:
    """The voxels of a grid around (0, 0, 0) that lie within half-sides of a box."""
    ends = [
        (n / 2 - half / size, n / 2 + half / size)
        for n, half, size in zip(grid.shape, half_mm.tolist(), grid.spacing_mm, strict=True)
    ]
    return tuple(
        slice(max(0, math.floor(a)), min(n, math.ceil(b)))
        for (a, b), n in zip(ends, grid.shape, strict=True)
    )


def _cropped(grid: Grid, block: tuple[slice, ...]) -> Grid:
    return grid.crop([b.start for b in block], [b.stop - b.start for b in block])


def measured(shape: Shape, tissues: LabelMap) -> dict[str, float]:
    """The facts of a drawn map that can be asked for, counted in its voxels."""
    volumes = tissues.volumes_ml()
    lateral = tissues.is_class("lateral ventricles")
    source_mm = shape.source_mm(centres_mm(tissues.grid)[lateral])
    right = (shape.from_midplane_mm(source_mm) > 0) ^ shape.mirrored
    share = float(right.float().mean()) if len(right) else 0.5
    return {
        "ventricles": volumes["lateral ventricles"],
        "brain": sum(volumes[name] for name in BRAIN),
        "asymmetry": 2 * share - 1,
    }
