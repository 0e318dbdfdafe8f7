"""A chest in Hounsfield units whose airways are known: lungs, vessels, ribs, spine and heart.

Shapes are simple (ellipsoids, cylinders, elliptical ribs), sizes drawn around those of an adult;
all but the airway tree is there so that a scan has what a scan of a chest has. Every airway of
`medil.synth.airway` is kept that ends in a lung; an artery runs beside each, as in a lung.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.synth.airway import Branch, distance_to_segment, grow
from medil.synth.phantom import Formula, Phantom, inside_share

AIR_HU, FAT_HU, MUSCLE_HU, BLOOD_HU = -1000.0, -100.0, 50.0, 40.0
MARROW_HU, BONE_HU, DISC_HU, HEART_HU, LIVER_HU = 200.0, 500.0, 90.0, 45.0, 60.0
PARENCHYMA_HU, FISSURE_HU = -850.0, -650.0
GRAVITY_HU_MM = 0.6  # the back of a lung is denser, in someone who lies on it
TEXTURE_HU, TEXTURE_MM, WAVES = 60.0, (2.5, 15.0), 32  # standard deviation, wavelengths, count
FISSURE_MM = 1.0  # thickness
RIB_MM, SHELL_MM = 5.0, 1.3  # radius of a rib; thickness of its hard shell
LEVELS = 14  # generations of airways at most
FULL_LEVELS = 10  # of which all branches grow; beyond, some
DEEP_SHARE = 0.5  # of the branches that go on
TRIES, GAP_MM = 20, 0.1  # of a branch that must end in a lung; between its wall and others
HALF_HEIGHT_MM = 150.0
ARTERY_GAP_MM = 0.5  # between the walls of an airway and its artery


@dataclass(frozen=True)
class Body:
    """Sizes of one chest, in mm; the carina is the origin."""

    half_width: float
    half_depth: float
    middle: float  # A of the body's axis: the carina lies behind it
    lungs: np.ndarray  # [2, 2, 3] centre and half axes of the right and the left lung
    heart: np.ndarray  # [2, 3] centre and half axes
    dome: float  # S of the top of the diaphragm
    fat: float  # thickness under the skin


def draw_body(rng: np.random.Generator) -> Body:
    """A body of random size."""
    size = rng.uniform(0.92, 1.08, 3)
    half_width, half_depth = 165 * size[0], 112 * size[1]
    middle = 14.0 + rng.uniform(-4, 4)
    half = np.array([0.4 * half_width, 0.74 * half_depth, 118 * size[2]])
    lungs = np.stack([
        np.stack([np.array([side * 0.455 * half_width, middle - 4, -32.0]), half * [share, 1, 1]])
        for side, share in ((1, 1.0), (-1, 0.93))
    ])  # fmt: skip
    heart = np.array([[-20.0, middle + 34, -80.0], [42.0, 36.0, 46.0]]) * rng.uniform(0.94, 1.06)
    return Body(half_width, half_depth, middle, lungs, heart, -112 * size[2], rng.uniform(8, 22))


def chest(seed: int = 0, generations: int = LEVELS, trachea_radius_mm: float = 8.0) -> Phantom:
    """A chest with an airway tree of radii from the trachea's down to about 0.4 mm.

    Args:
        seed: Seeds the body, the tree and the texture of the lungs.
        generations: Generations of airways below the trachea, 0 to `LEVELS`; beyond
            `FULL_LEVELS` only some branches go on.
        trachea_radius_mm: Radius of the trachea's lumen.

    Returns:
        The phantom, carina at (0, 0, 0); facts: branches as in `airway`, all of them in a lung
        or between the lungs, and values_hu.

    Raises:
        InputError: Generations or radius out of range.
    """
    if not 0 <= generations <= LEVELS:
        raise InputError(f"a chest has 0 to {LEVELS} generations, not {generations}.")
    if not 1 <= trachea_radius_mm <= 12:
        raise InputError(f"trachea_radius_mm lies in 1 to 12, not {trachea_radius_mm}.")
    rng = np.random.default_rng([seed, 31])
    body = draw_body(rng)
    tree = grown(rng, body, generations, trachea_radius_mm)
    arteries = beside(rng, tree)
    texture = _Texture(rng)
    bones = _Bones(body)
    fissures = rng.normal(0, 0.08, (2, 3)) + np.array([0.0, 0.75, 0.66])

    def formula_of(airways: list[Branch], vessels: list[Branch]) -> Formula:
        def formula(points_mm: Tensor) -> Tensor:
            values = _trunk(points_mm, body, bones)
            lung = _lung_mm(points_mm, body)
            inside = lung <= 0
            if inside.any():
                values[inside] = _parenchyma(points_mm[inside], body, texture, fissures)
                values = _with_tubes(values, points_mm, vessels, inside)
            return _with_airways(values, points_mm, airways)

        return formula

    every = [*tree, *arteries]
    ends = np.array([[b.start_mm, b.end_mm] for b in every])
    outer = np.array([b.outer_mm for b in every])[:, None]

    def near(low_mm: np.ndarray, high_mm: np.ndarray) -> Formula:
        touching = (ends.min(1) - outer <= high_mm) & (ends.max(1) + outer >= low_mm)
        close = touching.all(1)
        airways = [b for b, here in zip(tree, close[: len(tree)], strict=True) if here]
        vessels = [b for b, here in zip(arteries, close[len(tree) :], strict=True) if here]
        return formula_of(airways, vessels)

    reach = np.array([body.half_width, body.half_depth, HALF_HEIGHT_MM])
    centre = np.array([0.0, body.middle, -15.0])
    bounds_mm = np.stack([centre - reach - 10, centre + reach + 10])
    facts = {
        "branches": [branch.facts() for branch in tree],
        "values_hu": {"lumen": AIR_HU, "wall": 40.0, "parenchyma": PARENCHYMA_HU},
    }
    window = (-1200.0, 600.0)
    return Phantom("chest", formula_of(tree, arteries), bounds_mm, facts, window, "HU", near)


# The tree


def grown(
    rng: np.random.Generator, body: Body, generations: int, trachea_radius_mm: float
) -> list[Branch]:
    """An airway tree whose branches end in the lungs, but for the trachea and the main bronchi."""

    def fits(branch: Branch) -> bool:
        return branch.generation < 2 or is_in_lung(branch.end_mm, body)

    def ends(branch: Branch) -> bool:
        return branch.generation >= FULL_LEVELS and rng.random() > DEEP_SHARE

    return grow(rng, generations, trachea_radius_mm, fits, ends, TRIES, GAP_MM, wall_mm)


def is_in_lung(point_mm: np.ndarray, body: Body, margin_mm: float = 3.0) -> bool:
    """Whether a point lies in a lung, and not within a margin of its surface."""
    return bool(_lung_mm(torch.from_numpy(point_mm)[None], body)[0] < -margin_mm)


def beside(rng: np.random.Generator, tree: Sequence[Branch]) -> list[Branch]:
    """An artery beside each airway from the second generation on: a full tube of its width."""
    found = []
    for branch in tree:
        if branch.generation < 2:
            continue
        sideways = np.cross(branch.direction, rng.normal(size=3))
        sideways /= np.linalg.norm(sideways)
        radius_mm = branch.radius_mm * rng.uniform(0.8, 1.1)
        away = sideways * (branch.outer_mm + radius_mm + ARTERY_GAP_MM)
        found.append(replace(
            branch, start_mm=branch.start_mm + away, end_mm=branch.end_mm + away,
            radius_mm=radius_mm, wall_mm=0.0,
        ))  # fmt: skip
    return found


def wall_mm(radius_mm: float) -> float:
    """Wall thickness, thinner than in `airway`, so that a tree of small branches fits (ours)."""
    return 0.12 + 0.13 * radius_mm


# Tissues, from the outside to the inside


def _trunk(points_mm: Tensor, body: Body, bones: _Bones) -> Tensor:
    """[...] HU of everything but the lungs."""
    x, y, z = points_mm.unbind(-1)
    across, deep = x / body.half_width, (y - body.middle) / body.half_depth
    round_ = (across.abs() ** 2.5 + deep.abs() ** 2.5) ** 0.4
    skin_mm = (round_ - 1) * min(body.half_width, body.half_depth)
    values = torch.full_like(x, AIR_HU)
    values = torch.where(skin_mm <= 0, FAT_HU, values)
    values = torch.where(skin_mm <= -body.fat, MUSCLE_HU, values)
    under = (z < body.dome) & (skin_mm <= -body.fat - 12)
    values = torch.where(under, LIVER_HU, values)
    values = torch.where(_ellipsoid_mm(points_mm, *body.heart) <= 0, HEART_HU, values)
    return bones(points_mm, values)


def _ellipsoid_mm(points_mm: Tensor, centre: np.ndarray, half: np.ndarray) -> Tensor:
    """[...]: about the distance from an ellipsoid, negative inside."""
    sizes = torch.from_numpy(half)
    scaled = (points_mm - torch.from_numpy(centre)) / sizes
    distance_mm: Tensor = (scaled.norm(dim=-1) - 1) * float(sizes.min())
    return distance_mm


def _lung_mm(points_mm: Tensor, body: Body) -> Tensor:
    """[...]: about the distance from the lungs, negative inside; heart and dome are cut out."""
    right, left = (_ellipsoid_mm(points_mm, *lung) for lung in body.lungs)
    both = torch.minimum(right, left)
    heart = _ellipsoid_mm(points_mm, body.heart[0], body.heart[1] + 4)
    x, y, z = points_mm.unbind(-1)
    side = torch.where(x > 0, body.lungs[0, 0, 0], body.lungs[1, 0, 0])
    dome = body.dome + 26 - ((x - side) ** 2 + (y - body.middle) ** 2) / 260  # a paraboloid
    return torch.stack([both, -heart, dome - z, 12 - x.abs()]).amax(0)


def _parenchyma(points_mm: Tensor, body: Body, texture: _Texture, fissures: np.ndarray) -> Tensor:
    """[Q] HU of lung tissue at points [Q, 3]: denser at the back, uneven, with a fissure a lung."""
    values = PARENCHYMA_HU + GRAVITY_HU_MM * (body.middle - points_mm[:, 1]) + texture(points_mm)
    for side, (normal, lung) in enumerate(zip(fissures, body.lungs, strict=True)):
        unit = torch.from_numpy(normal / np.linalg.norm(normal))
        away = ((points_mm - torch.from_numpy(lung[0])) @ unit).abs()
        own = points_mm[:, 0] > 0 if side == 0 else points_mm[:, 0] <= 0
        values = torch.where(own & (away < FISSURE_MM / 2), FISSURE_HU, values)
    return values


def _with_tubes(
    values: Tensor, points_mm: Tensor, vessels: Sequence[Branch], inside: Tensor
) -> Tensor:
    """Values with blood in the vessels, inside the lungs."""
    for vessel in vessels:
        away = distance_to_segment(points_mm, vessel.start_mm, vessel.end_mm)
        values = torch.where(inside & (away <= vessel.radius_mm), BLOOD_HU, values)
    return values


def _with_airways(values: Tensor, points_mm: Tensor, airways: Sequence[Branch]) -> Tensor:
    """Values with the walls and lumens of airways; a lumen goes through all walls."""
    lumen = torch.full(values.shape, math.inf, dtype=torch.float64)
    wall = lumen.clone()
    for branch in airways:
        axis_mm = distance_to_segment(points_mm, branch.start_mm, branch.end_mm)
        lumen = torch.minimum(lumen, axis_mm - branch.radius_mm)
        wall = torch.minimum(wall, axis_mm - branch.outer_mm)
    values = values + (MUSCLE_HU - 10 - values) * inside_share(wall)
    return values + (AIR_HU - values) * inside_share(lumen)


class _Texture:
    """Uneven lung tissue: plane waves of random direction, `TEXTURE_HU` in all."""

    def __init__(self, rng: np.random.Generator) -> None:
        directions = rng.normal(size=(WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        low, high = TEXTURE_MM
        lengths_mm = np.exp(rng.uniform(math.log(low), math.log(high), WAVES))[:, None]
        self.waves = torch.from_numpy(2 * math.pi * directions / lengths_mm)
        self.phases = torch.from_numpy(rng.uniform(0, 2 * math.pi, WAVES))

    def __call__(self, points_mm: Tensor) -> Tensor:
        angles = points_mm @ self.waves.T + self.phases
        return TEXTURE_HU * math.sqrt(2 / WAVES) * torch.cos(angles).sum(-1)


class _Bones:
    """A spine with discs, ten pairs of ribs and a sternum."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.ribs_mm = np.linspace(-125, 115, 10)  # S of their backs
        self.back_mm = body.middle - body.half_depth + body.fat + 34

    def __call__(self, points_mm: Tensor, values: Tensor) -> Tensor:
        body, (x, y, z) = self.body, points_mm.unbind(-1)
        spine = torch.hypot(x, y - self.back_mm) - 17
        values = _hard(values, spine)
        disc = (spine <= 0) & ((z + 300) % 26 < 5)
        values = torch.where(disc, DISC_HU, values)
        canal = torch.hypot(x, y - self.back_mm + 26) <= 8
        values = torch.where(canal, BLOOD_HU - 10, values)
        front = body.middle + body.half_depth - body.fat - 14
        plate = torch.stack([x.abs() - 16, (y - front).abs() - 5, -z - 70]).amax(0)
        values = _hard(values, plate)
        a, b = body.half_width - body.fat - 16, body.half_depth - body.fat - 14
        deep = (y - body.middle) / b
        round_ = torch.hypot(x / a, deep).clamp(min=1e-6)
        from_ring = (round_ - 1) * torch.hypot(x, y - body.middle) / round_
        for height in self.ribs_mm:
            middle = height - 28 * (1 + deep.clamp(-1, 1)) / 2  # ribs fall to the front
            values = _hard(values, torch.hypot(from_ring, z - middle) - RIB_MM)
        return values


def _hard(values: Tensor, signed_mm: Tensor) -> Tensor:
    """Values with a bone of a signed distance: a hard shell around marrow."""
    values = torch.where(signed_mm <= 0, BONE_HU, values)
    return torch.where(signed_mm <= -SHELL_MM, MARROW_HU, values)
