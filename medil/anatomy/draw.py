"""Draw an anatomy: a packed map, bent smoothly, with the facts that are asked for.

`medil.anatomy.shape` draws the shape. Asked volumes are solved for: growth of the ventricles by
bisection, brain volume by the scale, on counts in the drawn map itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medil.anatomy.classes import BRAIN, LabelMap
from medil.anatomy.packed import PackedMap, packed_maps
from medil.anatomy.shape import (
    BENDS,
    COUNT_MM,
    EDGE_MM,
    Shape,
    Sizes,
    draw_shape,
    measured,
    sizes,
    tissue_map,
)
from medil.errors import InputError
from medil.synth.appearance import Range
from medil.synth.box import box_grid

FACTS = {  # that can be asked for, with their units
    "ventricles": "ml",  # volume of both lateral ventricles
    "brain": "ml",  # volume of all tissue with the ventricles
    "asymmetry": "1",  # (right - left) / (right + left) volume of the lateral ventricles
}
GROWTH: Range = (-150.0, 400.0)  # mm of pull per unit gradient, at most
SCALE: Range = (0.75, 1.3)  # isotropic size of a brain against its packed map, at most
TOLERANCE = 0.005  # relative error of what is asked for, at which solving ends
NEAR: Range = (0.4, 1.6)  # share of a map's own ventricles that growth reaches as a rule
MOST_CORRECTIONS, MOST_STEPS = 4, 24  # maps drawn, and estimates for each, at most


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
    bends: float = BENDS,
) -> DrawnAnatomy:
    """Draw anatomy `index` of the family `seed`: the same every time.

    Args:
        seed: Seeds all draws, together with `index`.
        index: Number of the anatomy.
        asked: Values for some of `FACTS`; each comes out within 1 %.
        maps: Packed maps to draw from; those of the release when None. Where one cannot
            reach what is asked, the next one is taken, in random order.
        bends: How far shapes are bent, as a factor on the warps of the cohort's heads. The
            default was chosen by `eval.generation.novelty`.

    Raises:
        InputError: An unknown fact, or values that no map reaches.
    """
    asked = dict(asked or {})
    _check_asked(asked)
    maps = packed_maps() if maps is None else maps
    order = np.random.default_rng([seed, index, 31]).permutation(len(maps))
    refusals = []
    for k in sorted(order, key=lambda k: not _is_near(maps[k], asked)):
        shape = draw_shape(maps[k], np.random.default_rng([seed, index, 32, int(k)]), bends)
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
        scale = float((aims["brain"] / own.brain) ** (1 / 3))
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
    return [float(a) for a in argument]
