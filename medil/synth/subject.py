"""Draw one head: shape, contrast, texture and bias, defined inside its voxels.

`draw_subject` draws all properties of a head once. `Subject.render` then averages that
head over the cell of every voxel of any grid, so 0.7 mm voxels see real boundaries, 3 mm
slabs see partial volume, and two grids of one head agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import sample_trilinear
from medil.synth.anatomy import FINE, Anatomy
from medil.synth.appearance import LATTICE_MM, Range, paint, smooth_noise

MOST_VOXELS = 1_000_000  # voxels rendered at a time
NEAR = 0.05  # `Anatomy.inside` below which a whole voxel is air, for any outline


@dataclass(frozen=True)
class CohortConfig:
    """Ranges of variation of heads and their scans (all values: ours).

    Every pair is (lowest, highest) of a uniform draw, spacings of a log-uniform one.
    """

    spacing_mm: Range = (0.7, 2.0)  # isotropic scans
    in_plane_mm: Range = (0.7, 1.3)  # anisotropic scans
    slice_mm: Range = (1.5, 3.0)  # anisotropic scans, along a random axis
    isotropic_share: float = 0.6  # share of isotropic scans
    max_tilt_deg: float = 0.0  # largest tilt of the scan axes, about a random direction
    margin_mm: float = 6.0  # air in the box around the head
    cell: Range = (1.0, 1.5)  # width of the averaged cell, in voxels (the point spread)
    noise: Range = (0.003, 0.025)  # Rician sigma per channel; white matter is near 0.9
    background_noise: bool = False  # keep the noise outside the head (not skull-stripped)
    bias: Range = (0.0, 0.12)  # standard deviation of the log bias field
    texture: Range = (0.015, 0.045)  # fine texture within tissue
    shading: Range = (0.01, 0.03)  # smooth variation within tissue
    rotation_deg: float = 8.0  # twice the standard deviation of the head's turn about each axis
    scale: Range = (0.9, 1.1)  # size of the head along each axis
    warp_mm: Range = (0.5, 1.0)  # factor on the displacements of `WARPS`
    folding: Range = (0.1, 0.3)  # noise on the tissue shares of an average brain
    ventricles: Range = (-25.0, 40.0)  # ventricle growth: mm of pull per unit gradient

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "in_plane_mm", "slice_mm", "cell", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise InputError(
                    f"{name} must be two rising numbers above zero, not {low}, {high}."
                )
        if not 0 <= self.isotropic_share <= 1:
            raise InputError(f"isotropic_share lies in 0 ... 1, not {self.isotropic_share}.")


DEFAULT = CohortConfig()
# Displacement: (standard deviation, blur of the white noise), both in mm.
WARPS = ((4.0, 22.0), (2.0, 10.0), (0.8, 5.0))
SQUARINGS = 4  # halvings of a velocity before it is integrated


@dataclass(frozen=True)
class Subject:
    """One synthetic head as a function of space, before it is scanned.

    Args:
        painted: [1, 1, 2D, 2H, 2W] float32, intensity on the anatomy's fine grid.
        painted_grid: Grid of `painted`.
        fields: [1, 5, ...] float32 on `lattice`: the anatomy point (R, A, S) mm that each
            point of this head came from, the log bias field, and `Anatomy.inside` there.
        lattice: World grid of the smooth fields.
        head_mm: [2, 3] lowest and highest (R, A, S) of the head.
        darkest: Mean of the darkest tissue, CSF as a rule.
        facts: Drawn parameters, as plain numbers.
    """

    painted: Tensor
    painted_grid: Grid
    fields: Tensor
    lattice: Grid
    head_mm: np.ndarray
    darkest: float
    facts: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Subject:
        """The same head on a device, where it is then scanned."""
        return replace(self, painted=self.painted.to(device), fields=self.fields.to(device))

    def at(self, points_mm: Tensor) -> Tensor:
        """Intensity at points [..., 3] (R, A, S) mm: float32 [...], without noise."""
        fields = sample_trilinear(self.fields[:, :4], self.lattice, points_mm)[0]  # [4, ...]
        values = sample_trilinear(self.painted, self.painted_grid, fields[:3].movedim(0, -1))
        return values[0, 0] * fields[3].exp()

    def render(self, grid: Grid, cell: float = 1.0, quadrature_mm: float = 0.75) -> Tensor:
        """The average over each voxel's cell, by midpoint quadrature.

        Args:
            grid: Any grid, oblique ones too.
            cell: Width of the averaged cell, in voxels.
            quadrature_mm: Points lie at most this far apart within a cell.

        Returns:
            [D, H, W] float32 on the subject's device, noise-free.
        """
        offsets_mm = cell_offsets_mm(grid, cell, quadrature_mm).to(self.fields.device)  # [N, 3]
        slabs = [
            self._render_slab(grid.crop((start, 0, 0), (stop - start, *grid.shape[1:])), offsets_mm)
            for start, stop in _slabs(grid, MOST_VOXELS)
        ]
        return torch.cat(slabs)

    def _render_slab(self, grid: Grid, offsets_mm: Tensor) -> Tensor:
        centres = centres_mm(grid).to(self.fields.device)  # [D, H, W, 3]
        near = sample_trilinear(self.fields[:, 4:], self.lattice, centres)[0, 0] > NEAR
        values = torch.zeros(near.shape, device=centres.device)
        points_mm = centres[near]  # [Q, 3]: air is skipped, half of the box and more
        if len(points_mm) == 0:
            return values
        total = torch.zeros(len(points_mm), device=centres.device)
        for offset_mm in offsets_mm:
            total += self.at(points_mm + offset_mm)
        values[near] = total / total.new_tensor(len(offsets_mm))
        return values


def _slabs(grid: Grid, most_voxels: int) -> list[tuple[int, int]]:
    """First and last planes of slabs along axis 0 that hold about this many voxels."""
    planes = max(1, most_voxels // (grid.shape[1] * grid.shape[2]))
    return [(a, min(a + planes, grid.shape[0])) for a in range(0, grid.shape[0], planes)]


def cell_offsets_mm(grid: Grid, cell: float, quadrature_mm: float) -> Tensor:
    """[N, 3] (R, A, S) mm from a voxel's centre to the midpoints of its sub-cells."""
    axes = []
    for spacing_mm in grid.spacing_mm:
        count = max(1, math.ceil(cell * spacing_mm / quadrature_mm - 1e-6))
        axes.append(cell * ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5))
    offsets_vox = torch.cartesian_prod(*axes)  # [N, 3]
    return offsets_vox @ torch.from_numpy(grid.affine_vox2ras[:3, :3].copy()).T


def streams(seed: int, index: int, count: int) -> list[np.random.Generator]:
    """Independent generators of one subject: how it looks does not change how it is scanned."""
    return [np.random.default_rng([seed, index, k]) for k in range(count)]


def draw_subject(
    anatomy: Anatomy, seed: int, index: int, config: CohortConfig = DEFAULT
) -> Subject:
    """Draw head `index` of the cohort `seed`: shape, contrast, texture and bias; no grid yet.

    It lies on the anatomy's device: numpy draws and torch computes, so that it is
    the same everywhere to rounding, and the same bits on one device.
    """
    shape_rng, paint_rng, bias_rng = streams(seed, index, 3)
    lattice = _lattice(anatomy)
    source_mm, facts = _draw_warp(anatomy, lattice, shape_rng, config)
    bias = bias_rng.uniform(*config.bias)
    device = anatomy.inside.device
    log_bias = bias * smooth_noise(lattice.shape, 35.0 / LATTICE_MM, bias_rng, device)
    painted, darkest = paint(anatomy, paint_rng, config.folding, config.texture, config.shading)
    inside = sample_trilinear(anatomy.inside[None, None], anatomy.grid, source_mm)[0, 0]
    head = lattice.index_to_ras(torch.nonzero(inside > 0.25).cpu().numpy())
    fields = source_mm.movedim(-1, 0).float(), log_bias[None], inside[None].float()
    return Subject(
        painted=painted[None, None],
        painted_grid=anatomy.grid.resized([FINE * n for n in anatomy.grid.shape]),
        fields=torch.cat(fields)[None],
        lattice=lattice,
        head_mm=np.stack([head.min(0) - LATTICE_MM / 2, head.max(0) + LATTICE_MM / 2]),
        darkest=darkest,
        facts={**facts, "bias": bias},
    )


def _lattice(anatomy: Anatomy) -> Grid:
    """The world grid of the smooth fields: the anatomy's box, grown to hold any head."""
    roomy = anatomy.grid.covering(LATTICE_MM)
    grow = math.ceil(24 / LATTICE_MM)
    return roomy.crop([-grow] * 3, [n + 2 * grow for n in roomy.shape])


def _draw_warp(
    anatomy: Anatomy, lattice: Grid, rng: np.random.Generator, config: CohortConfig
) -> tuple[Tensor, dict[str, float]]:
    """The anatomy's point at each lattice point, [..., 3] (R, A, S) mm, and the drawn facts."""
    device = anatomy.inside.device
    amplitude, growth = rng.uniform(*config.warp_mm), rng.uniform(*config.ventricles)
    velocity = draw_velocity(lattice, rng, device) * amplitude
    velocity += growth * _ventricle_gradient(anatomy, lattice)
    step = integrate(velocity, lattice)
    points_mm = centres_mm(lattice).to(device)
    turn, scale = draw_pose(rng, config)
    centre_mm = torch.from_numpy(anatomy.grid.centre_mm).to(device)
    posed_mm = (points_mm - centre_mm) @ torch.from_numpy(turn).to(device).T + centre_mm
    warped_mm = posed_mm + sample_trilinear(step[None], lattice, posed_mm)[0].movedim(0, -1)
    facts = {"warp": amplitude, "ventricles": growth, "volume_scale": float(np.prod(scale))}
    return warped_mm, facts


def draw_velocity(
    lattice: Grid, rng: np.random.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """A smooth random velocity, [3, ...] (R, A, S) mm, of the sizes of `WARPS`."""

    def component() -> Tensor:
        parts = [a * smooth_noise(lattice.shape, s / LATTICE_MM, rng, device) for a, s in WARPS]
        return torch.stack(parts).sum(0)

    return torch.stack([component() for _ in range(3)])


def integrate(velocity: Tensor, lattice: Grid) -> Tensor:
    """The displacement, [3, ...] mm, of a velocity [3, ...] mm on a lattice after unit time.

    By scaling and squaring, so that tissue does not fold (Arsigny et al. 2006,
    doi:10.1007/11866565_113).
    """
    points_mm = centres_mm(lattice).to(velocity.device)
    step: Tensor = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        there_mm = points_mm + step.movedim(0, -1)
        step = step + sample_trilinear(step[None], lattice, there_mm)[0]
    return step


def draw_pose(rng: np.random.Generator, config: CohortConfig) -> tuple[np.ndarray, np.ndarray]:
    """[3, 3] head point to anatomy point (turn, shear, shrink), and the three scales."""
    scale = rng.uniform(*config.scale) ** 0.7 * rng.uniform(*config.scale, size=3) ** 0.3
    angles = np.radians(rng.normal(0, config.rotation_deg / 2, size=3))
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_r = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_a = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_s = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    shear = np.eye(3) + np.triu(rng.normal(0, 0.02, size=(3, 3)), 1)
    return about_r @ about_a @ about_s @ shear @ np.diag(1 / scale), scale


def _ventricle_gradient(anatomy: Anatomy, lattice: Grid) -> Tensor:
    """[3, ...] gradient of the blurred ventricles on the lattice, per mm: pulls them open."""
    soft = sample_trilinear(anatomy.ventricles[None, None], anatomy.grid, centres_mm(lattice))
    return torch.stack(torch.gradient(soft[0, 0], spacing=LATTICE_MM))
