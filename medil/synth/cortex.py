"""A folded cortex whose topology is known by construction.

The white matter is *star-shaped*: its boundary is one radius for each direction, so the
surface is a sphere in disguise (genus 0) however deep its folds. Each handle is half of a
solid torus that leaves the white matter and comes back, which adds exactly one to the
genus: the kind of bridge that surface reconstruction has to find and cut.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.synth.phantom import Phantom, inside_share

MOST_HANDLES = 8
FLAT_DEG, FOLDED_DEG = 13.0, 24.0  # around a handle: no folds within, all folds beyond
WAVES, SQUASH = 16, 1.2
FOOT_STEPS, STEEPEST = 3, 6.0  # of the search for the nearest surface point
CSF, GREY, WHITE = 0.16, 0.62, 0.9


def cortex(
    seed: int = 0,
    handles: int = 0,
    radius_mm: float = 60.0,
    fold_mm: float = 6.0,
    wavelength_mm: float = 22.0,
    thickness_mm: float = 2.6,
    edge_mm: float = 0.0,
) -> Phantom:
    """White matter, a grey ribbon and CSF in a ball, T1w-like: 0.9, 0.62, 0.16; air 0.

    Grey matter is what lies within `thickness_mm` of the white matter, measured along the
    normal, so narrow sulci close, and the genus of the outer surface is unknown.

    Args:
        seed: Seeds the folds.
        handles: Bridges of white matter, 0 to 8.
        radius_mm: Mean radius of the white matter.
        fold_mm: Height of the gyri above it and depth of the sulci below.
        wavelength_mm: Distance between gyri, about.
        thickness_mm: Thickness of the grey ribbon.
        edge_mm: Width of a linear edge, along the normal; 0 is a step.

    Returns:
        The phantom; facts: white_genus, white_euler (of the solid: 1 - genus),
        thickness_mm, handles (centre and radii of each torus), values.

    Raises:
        InputError: Too many handles, or a radius that cannot hold folds and handles.
    """
    if not 0 <= handles <= MOST_HANDLES:
        raise InputError(f"a cortex takes 0 to {MOST_HANDLES} handles, not {handles}.")
    if radius_mm < 6 * fold_mm or radius_mm < 36:
        raise InputError(f"radius_mm must be at least 36 and 6 fold_mm, not {radius_mm}.")
    rng = np.random.default_rng(seed)
    folds = _Folds(rng, handles, radius_mm, fold_mm, wavelength_mm)
    tori = _Tori(folds.flat, rng, radius_mm)
    hull_mm = radius_mm + max(fold_mm, 1.2 * tori.reach_mm) + thickness_mm + 3.0

    # For a sharp ribbon, a radial distance within its thickness is enough: the true one is less.
    needed_mm = 0.0 if edge_mm else thickness_mm

    def formula(points_mm: Tensor) -> Tensor:
        distance_mm = torch.linalg.vector_norm(points_mm, dim=-1)
        values = CSF * inside_share(distance_mm - hull_mm, edge_mm)
        low_mm, high_mm = radius_mm - fold_mm - edge_mm, hull_mm - edge_mm
        values[distance_mm < low_mm] = WHITE
        band = (distance_mm >= low_mm) & (distance_mm < high_mm)
        white_mm = torch.minimum(
            folds.signed_distance_mm(points_mm[band], (needed_mm, thickness_mm + edge_mm)),
            tori(points_mm[band]),
        )
        white = inside_share(white_mm, edge_mm)
        pial = inside_share(white_mm - thickness_mm, edge_mm)
        values[band] = CSF + (GREY - CSF) * pial + (WHITE - GREY) * white
        return values

    facts = {
        "white_genus": handles,
        "white_euler": 1 - handles,
        "thickness_mm": thickness_mm,
        "handles": tori.facts(),
        "hull_radius_mm": hull_mm,
        "values": {"air": 0.0, "csf": CSF, "grey": GREY, "white": WHITE},
    }
    half = hull_mm + 4.0
    return Phantom("cortex", formula, np.array([[-half] * 3, [half] * 3]), facts, (0.0, 1.0))


class _Folds:
    """The radius of the white matter in each direction, and the distance from its surface.

    Plane waves of random direction and one length, summed and squashed, give gyral crowns
    and sulcal floors of about equal height with smooth walls between.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        handles: int,
        radius_mm: float,
        fold_mm: float,
        wavelength_mm: float,
    ) -> None:
        waves = rng.normal(size=(WAVES, 3))
        waves /= np.linalg.norm(waves, axis=1, keepdims=True)
        cycles = 2 * math.pi * radius_mm / wavelength_mm * rng.uniform(0.85, 1.15, (WAVES, 1))
        self.waves = torch.from_numpy(waves * cycles)  # [K, 3]
        self.phases = torch.from_numpy(rng.uniform(0, 2 * math.pi, WAVES))
        self.gain = SQUASH * math.sqrt(2 / WAVES)  # of a sum of unit variance
        self.radius_mm, self.fold_mm = radius_mm, fold_mm
        self.flat = torch.from_numpy(spread_directions(rng)[:handles])  # [H, 3]

    def signed_distance_mm(self, points_mm: Tensor, range_mm: tuple[float, float]) -> Tensor:
        """Distance [Q] of points [Q, 3] from the surface, along the normal where in `range_mm`.

        Inside is negative. The sign is exact: it compares the point's radius with the
        surface's. Nearer and farther points get their radial distance, an upper bound.
        """
        height_mm, _ = self._height(points_mm)
        nearest_mm, farthest_mm = range_mm
        far = height_mm.abs()
        close = (far >= nearest_mm) & (far < STEEPEST * farthest_mm)
        height_mm[close] = torch.sign(height_mm[close]) * self._nearest_mm(points_mm[close])
        return height_mm

    def _nearest_mm(self, points_mm: Tensor) -> Tensor:
        """[Q] distance to the surface by a short search, never below the true one.

        A path to any other point and from there along the radius to the surface is never shorter
        than the distance; the shortest such path is kept.
        """
        foot, least_mm = points_mm, torch.full(points_mm.shape[:1], math.inf, dtype=torch.float64)
        for _ in range(FOOT_STEPS):  # down to the surface, then under the point again
            above_mm, gradient = self._height(foot, with_gradient=True)
            apart = points_mm - foot
            least_mm = torch.minimum(least_mm, apart.norm(dim=-1) + above_mm.abs())
            normal = gradient / gradient.square().sum(-1, keepdim=True)
            foot = foot - above_mm[:, None] * normal
            apart = points_mm - foot
            foot = foot + apart - (apart * gradient).sum(-1, keepdim=True) * normal
        rest_mm = self._height(foot)[0].abs()
        return torch.minimum(least_mm, (points_mm - foot).norm(dim=-1) + rest_mm)

    def _height(self, points_mm: Tensor, with_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """How far points are above the surface along their radius [Q], and its gradient [Q, 3]."""
        distance_mm = torch.linalg.vector_norm(points_mm, dim=-1)
        directions = points_mm / distance_mm[:, None]
        angles = directions @ self.waves.T + self.phases  # [Q, K]
        squashed = torch.tanh(self.gain * torch.cos(angles).sum(-1))
        strength, tapering = self._strength(directions)
        above_mm = distance_mm - self.radius_mm - self.fold_mm * strength * squashed
        if not with_gradient:
            return above_mm, directions
        slope = -self.gain * torch.sin(angles) @ self.waves * (1 - squashed.square())[:, None]
        change = self.fold_mm * (strength[:, None] * slope + squashed[:, None] * tapering)
        along = (change * directions).sum(-1, keepdim=True) * directions
        return above_mm, directions - (change - along) / distance_mm[:, None]

    def _strength(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Strength of the folds, 0 near a handle and 1 elsewhere: [Q], and gradient [Q, 3]."""
        low, high = math.cos(math.radians(FOLDED_DEG)), math.cos(math.radians(FLAT_DEG))
        cosine = directions @ self.flat.T  # [Q, H]
        t = ((cosine - low) / (high - low)).clamp(0, 1)
        bump = t * t * (3 - 2 * t)
        return 1 - bump.sum(-1), -(6 * t * (1 - t) / (high - low)) @ self.flat


class _Tori:
    """Solid tori that stand upright on the flat places, half above and half below."""

    def __init__(self, normals: Tensor, rng: np.random.Generator, radius_mm: float):
        self.normals, self.major_mm, self.minor_mm = normals, 5.5, 1.8
        self.centres_mm = normals * radius_mm
        sideways = np.cross(normals.numpy(), rng.normal(size=(len(normals), 3)))
        sideways /= np.maximum(np.linalg.norm(sideways, axis=1, keepdims=True), 1e-12)
        self.axes = torch.from_numpy(sideways)  # the torus' axis lies in the surface
        self.reach_mm = self.major_mm + self.minor_mm if len(normals) else 0.0

    def __call__(self, points_mm: Tensor) -> Tensor:
        """[Q, 3] to signed distance to the nearest torus [Q]; infinite without handles."""
        nearest = torch.full(points_mm.shape[:-1], math.inf, dtype=torch.float64)
        for centre, axis in zip(self.centres_mm, self.axes, strict=True):
            offset = points_mm - centre
            along = offset @ axis
            across = (offset.square().sum(-1) - along.square()).clamp(min=0).sqrt()
            nearest = torch.minimum(
                nearest, torch.hypot(across - self.major_mm, along) - self.minor_mm
            )
        return nearest

    def facts(self) -> list[dict[str, Any]]:
        """Centre, axis and radii of each torus."""
        return [
            {
                "centre_mm": centre.tolist(),
                "axis": axis.tolist(),
                "major_radius_mm": self.major_mm,
                "minor_radius_mm": self.minor_mm,
            }
            for centre, axis in zip(self.centres_mm, self.axes, strict=True)
        ]


def spread_directions(rng: np.random.Generator) -> np.ndarray:
    """[8, 3] unit vectors at least 70 degrees apart: a cube's corners, turned at random."""
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T / math.sqrt(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return rng.permutation(signs @ turn.T)
