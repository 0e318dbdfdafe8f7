"""Phantoms by name: ramp, ball, 3-D Shepp-Logan, a folded cortex, an airway tree, a chest.

Each factory returns a `Phantom`: a formula and the facts that hold exactly for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError
from medil.synth.airway import airway
from medil.synth.chest import chest
from medil.synth.cortex import cortex
from medil.synth.phantom import Formula, Phantom, inside_share, render

__all__ = [
    "PHANTOMS",
    "Phantom",
    "airway",
    "ball",
    "chest",
    "cortex",
    "ramp",
    "render",
    "shepp_logan",
]


def ramp(
    slope_per_mm: tuple[float, float, float] = (0.004, 0.003, 0.002),
    offset: float = 0.5,
    extent_mm: float = 100.0,
) -> Phantom:
    """A linear function of position: resampling must keep it exactly.

    Args:
        slope_per_mm: Change of the value per mm along (R, A, S).
        offset: Value at the origin.
        extent_mm: Side of the interesting box, centred on the origin.

    Returns:
        The phantom; facts: slope_per_mm, offset.
    """
    slope = torch.tensor(slope_per_mm, dtype=torch.float64)
    reach = float(slope.abs().sum()) * extent_mm / 2 or 0.5
    return Phantom(
        "ramp",
        lambda points_mm: points_mm @ slope + offset,
        _cube(extent_mm / 2),
        {"slope_per_mm": list(slope_per_mm), "offset": offset},
        (offset - reach, offset + reach),
    )


def ball(
    radius_mm: float = 30.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    inside: float = 1.0,
    outside: float = 0.0,
    edge_mm: float = 0.0,
) -> Phantom:
    """A ball, sharp or with an edge that falls linearly.

    Args:
        radius_mm: Radius (of the middle of the edge).
        centre_mm: (R, A, S).
        inside: Value inside.
        outside: Value outside.
        edge_mm: Width of the edge; 0 is a step.

    Returns:
        The phantom; facts: radius_mm, volume_mm3 (of the sharp ball), and
        integral_mm3, the integral of (value - outside) over space.

    Raises:
        InputError: A radius not above half the edge.
    """
    if not radius_mm > edge_mm / 2 >= 0:
        raise InputError(f"a ball's radius must be above half its edge, not {radius_mm} mm.")
    centre = torch.tensor(centre_mm, dtype=torch.float64)

    def formula(points_mm: Tensor) -> Tensor:
        signed_mm = torch.linalg.vector_norm(points_mm - centre, dim=-1) - radius_mm
        return outside + (inside - outside) * inside_share(signed_mm, edge_mm)

    volume_mm3 = 4 / 3 * math.pi * radius_mm**3
    # The mean of 4/3 pi t^3 over t in the edge, since the share is linear in t.
    soft_mm3 = volume_mm3 + math.pi / 3 * radius_mm * edge_mm**2
    return Phantom(
        "ball",
        formula,
        np.asarray(centre_mm) + _cube(1.25 * radius_mm + edge_mm),
        {
            "radius_mm": radius_mm,
            "volume_mm3": volume_mm3,
            "integral_mm3": (inside - outside) * soft_mm3,
        },
        (min(inside, outside), max(inside, outside)),
    )


# Value added, semi-axes and centre as fractions of the half-width, turn about S in degrees.
# Shapes as usually given for 3-D after Kak & Slaney (1988), Principles of Computerized
# Tomographic Imaging, sec. 3.2; values with the higher contrast of Toft (1996), The Radon
# Transform, pp. 199-200.
SHEPP_LOGAN = (
    (1.0, (0.69, 0.92, 0.81), (0.0, 0.0, 0.0), 0.0),
    (-0.8, (0.6624, 0.874, 0.78), (0.0, -0.0184, 0.0), 0.0),
    (-0.2, (0.11, 0.31, 0.22), (0.22, 0.0, 0.0), -18.0),
    (-0.2, (0.16, 0.41, 0.28), (-0.22, 0.0, 0.0), 18.0),
    (0.1, (0.21, 0.25, 0.41), (0.0, 0.35, -0.15), 0.0),
    (0.1, (0.046, 0.046, 0.05), (0.0, 0.1, 0.25), 0.0),
    (0.1, (0.046, 0.046, 0.05), (0.0, -0.1, 0.25), 0.0),
    (0.1, (0.046, 0.023, 0.05), (-0.08, -0.605, 0.0), 0.0),
    (0.1, (0.023, 0.023, 0.02), (0.0, -0.606, 0.0), 0.0),
    (0.1, (0.023, 0.046, 0.02), (0.06, -0.605, 0.0), 0.0),
)


def shepp_logan(half_width_mm: float = 100.0) -> Phantom:
    """The 3-D Shepp-Logan head: ten ellipsoids, added. One unit of the table is `half_width_mm`.

    Departure: some tables turn the two dark ellipsoids by a further 10 degrees through a
    third Euler angle; here they keep the 18 degrees of the 2-D phantom.

    Returns:
        The phantom; facts: integral_mm3 (of the values over space), ellipsoids.
    """
    parts = [_ellipsoid(*row, half_width_mm) for row in SHEPP_LOGAN]
    integral = sum(row[0] * 4 / 3 * math.pi * math.prod(row[1]) for row in SHEPP_LOGAN)
    semi_mm = half_width_mm * np.array(SHEPP_LOGAN[0][1])
    reach = np.array([half_width_mm * max(row[1]) for row in SHEPP_LOGAN])[:, None]
    centres = half_width_mm * np.array([row[2] for row in SHEPP_LOGAN])

    def near(low_mm: np.ndarray, high_mm: np.ndarray) -> Formula:
        touching = ((centres - reach <= high_mm) & (centres + reach >= low_mm)).all(1)
        return _total([part for part, touches in zip(parts, touching, strict=True) if touches])

    return Phantom(
        "shepp_logan",
        _total(parts),
        np.stack([-semi_mm, semi_mm]) * 1.05,
        {
            "integral_mm3": integral * half_width_mm**3,
            "ellipsoids": [
                {
                    "value": value,
                    "semi_axes_mm": [half_width_mm * s for s in semi],
                    "centre_mm": [half_width_mm * c for c in centre],
                    "turn_deg": turn,
                }
                for value, semi, centre, turn in SHEPP_LOGAN
            ],
        },
        (0.0, 0.4),
        near=near,
    )


def _total(parts: list[Formula]) -> Formula:
    """The sum of some formulas."""

    def formula(points_mm: Tensor) -> Tensor:
        values = torch.zeros(points_mm.shape[:-1], dtype=torch.float64)
        for part in parts:
            values += part(points_mm)
        return values

    return formula


def _ellipsoid(
    value: float,
    semi: tuple[float, ...],
    centre: tuple[float, ...],
    turn_deg: float,
    unit_mm: float,
) -> Formula:
    """A formula that is `value` inside one ellipsoid of `SHEPP_LOGAN`, 0 outside."""
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    axes = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    to_unit = axes / (unit_mm * torch.tensor(semi, dtype=torch.float64))  # columns: axes
    centre_mm = unit_mm * torch.tensor(centre, dtype=torch.float64)

    def formula(points_mm: Tensor) -> Tensor:
        squared = ((points_mm - centre_mm) @ to_unit).square().sum(-1)
        return value * (squared <= 1).to(torch.float64)

    return formula


def _cube(half_mm: float) -> np.ndarray:
    """[2, 3] bounds of a cube about the origin."""
    return np.array([[-half_mm] * 3, [half_mm] * 3])


PHANTOMS: dict[str, Callable[..., Phantom]] = {
    "ramp": ramp,
    "ball": ball,
    "shepp_logan": shepp_logan,
    "cortex": cortex,
    "airway": airway,
    "chest": chest,
}
