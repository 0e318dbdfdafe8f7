"""Draw an anatomy: a packed map, bent smoothly, with the facts that are asked for.

A point of the new brain is turned and scaled, then moved along a smooth random velocity, to the
point of the packed map whose tissue it has. The velocity also pulls the lateral ventricles open
or closed, each side by its own growth. Asked volumes are solved for: growth by bisection,
brain volume by the scale, on counts in the drawn map itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medil.anatomy.classes import BRAIN, NUMBER, LabelMap, SoftLabels
from medil.anatomy.packed import PackedMap, packed_maps
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import sample_trilinear
from medil.synth.anatomy import gaussian, outline
from medil.synth.appearance import LATTICE_MM, Range, smooth_noise
from medil.synth.box import box_grid
from medil.synth.subject import CohortConfig, draw_pose, draw_velocity, integrate

FACTS = {  # that can be asked for, with their units
    "ventricles": "ml",  # volume of both lateral ventricles
    "brain": "ml",  # volume of all tissue with the ventricles
    "asymmetry": "1",  # (right - left) / (right + left) volume of the lateral ventricles
}
STYLE = CohortConfig(rotation_deg=4.0, scale=(0.88, 1.02))  # small enough for the box
LEAST_JACOBIAN = 0.05  # of the map to the packed anatomy: the largest local growth is its inverse
GROWTH: Range = (-150.0, 400.0)  # mm of pull per unit gradient, at most
SCALE: Range = (0.75, 1.3)  # isotropic size of a brain against its packed map, at most
RIM_MM: Range = (0.5, 3.0)  # outer CSF around the brain's outline, as in skull-stripped scans
RIM_NOISE_MM = 0.4  # standard deviation of the rim over the surface
TOLERANCE = 0.005  # relative error of what is asked for, at which solving ends
NEAR: Range = (0.4, 1.6)  # share of a map's own ventricles that growth reaches as a rule
MOST_CORRECTIONS, MOST_STEPS = 4, 24  # maps drawn, and estimates for each, at most
EDGE_MM = 3.0  # air between the brain's rim and the faces of the box, at least
ROOM_MM = 16.0  # beyond the box of a packed map, where a shape of scale 1 can reach
COUNT_MM = 2.0  # spacing of the points at which volumes are estimated while solving
SPREAD_VOX = 6.0  # blur of the ventricles whose gradient pulls
UNMOVED = torch.zeros(3, dtype=torch.float64)
SIDE_MM = 3.0  # distance from the midplane over which one side's pull gives way to the other's


@dataclass(frozen=True)
class DrawnAnatomy:
    """A drawn tissue map.

    Args:
        tissues: The map, on `box_grid(1.0)`.
        facts: ventricles and brain (ml), asymmetry, volumes (ml by class), source, seed,
            index, mirrored, growth (left, right), scale, rim_mm.
    """

    tissues: LabelMap
    facts: dict[str, Any]


def draw_anatomy(
    seed: int,
    index: int = 0,
    asked: Mapping[str, float] | None = None,
    maps: Sequence[PackedMap] | None = None,
) -> DrawnAnatomy:
    """Draw anatomy `index` of the family `seed`: the same every time.

    Args:
        seed: Seeds all draws, together with `index`.
        index: Number of the anatomy.
        asked: Values for some of `FACTS`; each comes out within 1 %.
        maps: Packed maps to draw from; those of the release when None. Where one cannot
            reach what is asked, the next one is taken, in random order.

    Raises:
        InputError: An unknown fact, or values that no map reaches.
    """
    asked = dict(asked or {})
    _check_asked(asked)
    maps = packed_maps() if maps is None else maps
    order = np.random.default_rng([seed, index, 31]).permutation(len(maps))
    refusals = []
    for k in sorted(order, key=lambda k: not _is_near(maps[k], asked)):
        shape = draw_shape(maps[k], np.random.default_rng([seed, index, 32, int(k)]))
        try:
            return _solved(shape, asked, {"seed": seed, "index": index})
        except OutOfReachError as error:
            refusals.append(error)
    raise min(refusals, key=lambda refusal: refusal.gap)


def _is_near(packed: PackedMap, asked: Mapping[str, float]) -> bool:
    """Whether a map's own ventricles are near those asked for, so that it probably reaches them."""
    volumes = packed.tissues.volumes_ml()
    own, brain = volumes["lateral ventricles"], sum(volumes[name] for name in BRAIN)
    wanted = asked.get("ventricles", own) * brain / asked.get("brain", brain)
    return NEAR[0] * own < wanted < NEAR[1] * own


def _check_asked(asked: Mapping[str, float]) -> None:
    for name, value in asked.items():
        if name not in FACTS:
            raise InputError(f"an anatomy has no fact {name!r}; ask for {', '.join(FACTS)}.")
        low, high = (-1, 1) if name == "asymmetry" else (0, math.inf)
        if not low < value < high:
            raise InputError(f"{name} lies between {low:g} and {high:g}, not at {value:g}.")


class OutOfReachError(InputError):
    """A value that an anatomy cannot reach; `gap` says by what share of it."""

    def __init__(self, name: str, value: float, low: float, high: float, source: str) -> None:
        unit = FACTS[name].replace("1", "").strip()
        self.gap = max(low - value, value - high) / max(abs(value), 1e-9)
        super().__init__(
            f"no anatomy reaches {name} = {value:g} {unit}".rstrip()
            + f" with what else is asked; the nearest, {source}, reaches {low:.3g} to {high:.3g}."
        )


# A shape: everything drawn, nothing solved


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
    return torch.linalg.det(gradient + torch.eye(3))


def draw_shape(packed: PackedMap, rng: np.random.Generator) -> Shape:
    """Draw warp, pose, growth, rim and side of a new brain."""
    known = prepare(packed)
    velocity = draw_velocity(known.lattice, rng) * rng.uniform(*STYLE.warp_mm)
    turn, _ = draw_pose(rng, STYLE)
    growth = rng.uniform(*STYLE.ventricles)
    noise = smooth_noise(known.lattice.shape, 6.0 / LATTICE_MM, rng)
    return Shape(
        known, velocity, torch.from_numpy(turn), (growth, growth), 1.0, UNMOVED, UNMOVED,
        bool(rng.random() < 0.5), rng.uniform(*RIM_MM), RIM_NOISE_MM * noise[None, None],
    )  # fmt: skip


# Volumes while solving, and the map itself


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
    """The `FACTS` of a drawn map, counted in its voxels."""
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


# Solving


def _solved(shape: Shape, asked: Mapping[str, float], facts: dict[str, Any]) -> DrawnAnatomy:
    """The drawn anatomy of a shape whose growth and scale give what is asked.

    Estimates while solving are smooth integrals; what the drawn map counts corrects them.

    Raises:
        OutOfReachError: The shape does not reach it.
    """
    solver, aims = Solver(shape), dict(asked)
    for _ in range(MOST_CORRECTIONS):
        solved = solver.solve(aims)
        tissues = tissue_map(solved)
        found = measured(solved, tissues)
        errors = {name: _error(name, found[name], value) for name, value in asked.items()}
        if all(abs(error) <= TOLERANCE for error in errors.values()):
            break
        for name, error in errors.items():
            aims[name] = aims[name] - error if name == "asymmetry" else aims[name] / (1 + error)
    facts = {
        **facts, "source": shape.known.packed.name, "mirrored": shape.mirrored,
        "growth": solved.growth, "scale": solved.scale, "rim_mm": shape.rim_mm,
        "volumes": tissues.volumes_ml(), **found,
    }  # fmt: skip
    return DrawnAnatomy(tissues, facts)


def _error(name: str, value: float, wanted: float) -> float:
    """Relative error of a volume, absolute error of an asymmetry."""
    return value - wanted if name == "asymmetry" else value / wanted - 1


class Solver:
    """Growth and scale of a shape that give asked volumes, from smooth estimates."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.known: dict[tuple[float, float], Sizes] = {}

    def sizes(self, growth: tuple[float, float]) -> Sizes:
        """Estimated volumes at a growth of the left and right ventricle."""
        if growth not in self.known:
            self.known[growth] = sizes(replace(self.shape, growth=growth))
        return self.known[growth]

    @functools.cached_property
    def growth_range(self) -> Range:
        """The range of growth within which nothing is torn."""
        low, high = GROWTH
        while replace(self.shape, growth=(low, low)).is_torn() and low < -1:
            low *= 0.7
        while replace(self.shape, growth=(high, high)).is_torn() and high > 1:
            high *= 0.7
        return low, high

    def solve(self, aims: Mapping[str, float]) -> Shape:
        """The shape with solved growth, scale and place.

        Raises:
            OutOfReachError: An aim lies outside what the shape reaches.
        """
        growth = self.shape.growth
        if "asymmetry" in aims:
            growth = self._growth_of_sides(aims)
        elif "ventricles" in aims:
            growth = self._common_growth(aims)
        own = self.sizes(growth)
        scale = self._scale(own, aims)
        low_mm, high_mm = scale * own.bounds_mm
        shift_mm, half_mm = -(low_mm + high_mm) / 2, (high_mm - low_mm) / 2
        return replace(self.shape, growth=growth, scale=scale, shift_mm=shift_mm, half_mm=half_mm)

    def _scale(self, own: Sizes, aims: Mapping[str, float]) -> float:
        """The isotropic scale that gives the brain volume, or fits the box."""
        room_mm = torch.tensor(box_grid(COUNT_MM).extent_mm) - 2 * (self.shape.rim_mm + EDGE_MM)
        fits = float((room_mm / (own.bounds_mm[1] - own.bounds_mm[0])).min())
        if "brain" not in aims:
            return min(1.0, fits)
        low, high = SCALE[0], min(SCALE[1], fits)
        scale = (aims["brain"] / own.brain) ** (1 / 3)
        if not low <= scale <= high:
            raise self._refusal("brain", aims, low**3 * own.brain, high**3 * own.brain)
        return scale

    def _common_growth(self, aims: Mapping[str, float]) -> tuple[float, float]:
        """One growth of both sides that gives the volume of both ventricles."""

        def volume_ml(growth: np.ndarray) -> np.ndarray:
            own = self.sizes((growth[0], growth[0]))
            return np.array([own.ventricles * self._scale(own, aims) ** 3])

        low, high = (volume_ml(np.array([end])) for end in self.growth_range)
        wanted = aims["ventricles"]
        if not low[0] <= wanted <= high[0]:
            raise self._refusal("ventricles", aims, low[0], high[0])
        (growth,) = solve_rising(volume_ml, np.array([wanted]), self.growth_range)
        return growth, growth

    def _growth_of_sides(self, aims: Mapping[str, float]) -> tuple[float, float]:
        """A growth of each side that gives the asymmetry, and the volume of both ventricles."""

        def volumes_ml(growth: np.ndarray) -> np.ndarray:
            own = self.sizes((growth[0], growth[1]))
            return np.array([own.left, own.right]) * self._scale(own, aims) ** 3

        ends = [volumes_ml(np.array([end, end])) for end in self.growth_range]
        drawn = self.sizes(self.shape.growth)
        total = aims.get("ventricles", drawn.ventricles * self._scale(drawn, aims) ** 3)
        wanted = total * np.array([1 - aims["asymmetry"], 1 + aims["asymmetry"]]) / 2
        if (wanted < ends[0]).any() or (wanted > ends[1]).any():
            low, high = (sum(end) for end in ends)
            if not low <= total <= high:
                raise self._refusal("ventricles", aims, low, high)
            least = max(2 * ends[0][1] / total - 1, 1 - 2 * ends[1][0] / total)
            most = min(2 * ends[1][1] / total - 1, 1 - 2 * ends[0][0] / total)
            raise self._refusal("asymmetry", aims, least, most)
        left, right = solve_rising(volumes_ml, wanted, self.growth_range)
        return left, right

    def _refusal(
        self, name: str, aims: Mapping[str, float], low: float, high: float
    ) -> OutOfReachError:
        return OutOfReachError(name, aims[name], low, high, self.shape.known.packed.name)


def solve_rising(
    function: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray, ends: Range
) -> list[float]:
    """Arguments at which a function takes wanted values, by the false position in logarithms.

    Args:
        function: [k] arguments to [k] values above zero; each rises with its own argument and
            hardly depends on the others.
        wanted: [k] values between those at the ends.
        ends: Range of every argument.
    """
    low, high = (np.full(len(wanted), end) for end in ends)
    aims = np.log(wanted)
    below, above = (np.log(np.maximum(function(end), 1e-9)) - aims for end in (low, high))
    argument = (low + high) / 2
    for step in range(MOST_STEPS):
        share = np.clip(-below / np.maximum(above - below, 1e-12), 0.05, 0.95)
        argument = low + (0.5 if step % 3 == 2 else share) * (high - low)  # bisect now and then
        error = np.log(np.maximum(function(argument), 1e-9)) - aims
        if np.abs(error).max() < TOLERANCE / 4:
            break
        under = error < 0
        low, below = np.where(under, argument, low), np.where(under, error, below)
        high, above = np.where(under, high, argument), np.where(under, above, error)
    return argument.tolist()
