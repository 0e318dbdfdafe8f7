"""Local functions on a feature grid: a window times a few Fourier modes, or a B-spline.

`delta` is everywhere the distance from a feature cell's centre in cells (feature
pitches). Each basis comes with its exact antiderivative, because a voxel is an
average over its cell: the mean of a basis function over [a, b] is
(integral(b) - integral(a)) / (b - a), with no quadrature and no aliasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Basis:
    """Functions of delta that live on one feature cell, along one axis.

    By quadrature with the cubic, errors stay near 1e-3 of the coefficients' standard deviation;
    a hat's kinks leave about 1e-2.
    """

    name: str  # for messages
    radius: int  # they vanish where |delta| >= radius, in cells
    n_functions: int  # J, how many
    value: Callable[[Tensor], Tensor]  # delta [...] -> [..., J], with gradients
    integral: Callable[[np.ndarray], np.ndarray]  # an antiderivative, likewise
    points_per_cell: float = 4.0  # Gauss points per axis, where a voxel's mean has no closed form


def hat(delta: Tensor) -> Tensor:
    """The window max(0, 1 - |delta|): the local ensemble's weight (LTE Sec. 3.2)."""
    return (1 - delta.abs()).clamp(min=0)


def _hat_fourier_value(delta: Tensor, harmonics: int) -> Tensor:
    angle = math.pi * delta[..., None] * torch.arange(1, harmonics + 1).to(delta)
    modes = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return hat(delta)[..., None] * torch.cat([torch.ones_like(delta)[..., None], modes], dim=-1)


def _hat_fourier_integral(delta: np.ndarray, harmonics: int) -> np.ndarray:
    d = np.clip(delta, -1.0, 1.0)[..., None]
    side, far = np.sign(d), np.abs(d)
    omega = math.pi * np.arange(1, harmonics + 1)
    constant = d - side * far**2 / 2
    # By parts: the sine's antiderivative is even, the cosine's is odd.
    sine = -(1 - far) * np.cos(omega * far) / omega - np.sin(omega * far) / omega**2
    cosine = side * ((1 - far) * np.sin(omega * far) / omega + (1 - np.cos(omega * far)) / omega**2)
    modes = np.stack([sine, cosine], axis=-1).reshape(*delta.shape, -1)
    return np.concatenate([constant, modes], axis=-1)


@cache
def local_fourier(harmonics: int) -> Basis:
    """hat(delta) * {1, sin pi d, cos pi d, ..., sin K pi d, cos K pi d}: fixed local frequencies.

    K = `harmonics` >= 0 gives J = 2 K + 1 functions per axis. Departure: LTE predicts its
    frequencies from the features; here they are fixed and only the amplitudes come from the
    features (`medil.layers.operators.IntegratedLTE`).

    Example:
        >>> local_fourier(1).value(torch.tensor(0.0)).tolist()
        [1.0, 0.0, 1.0]
    """
    return Basis(
        name=f"hat x Fourier, {harmonics} harmonics",
        radius=1,
        n_functions=2 * harmonics + 1,
        value=lambda delta: _hat_fourier_value(delta, harmonics),
        integral=lambda delta: _hat_fourier_integral(delta, harmonics),
    )


def _cubic_value(delta: Tensor) -> Tensor:
    x = delta.abs()
    near, far = 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp(min=0) ** 3 / 6
    return torch.where(x < 1, near, far)[..., None]


def _cubic_integral(delta: np.ndarray) -> np.ndarray:
    """The antiderivative that vanishes at 0, where the spline is even."""
    far = np.abs(delta)
    near = far * (2 / 3 - far**2 / 3 + far**3 / 8)
    beyond = 0.5 - (2 - far).clip(min=0) ** 4 / 24
    area: np.ndarray = np.sign(delta) * np.where(far < 1, near, beyond)
    return area[..., None]


@cache
def cubic_bspline() -> Basis:
    """The centred cubic B-spline (Unser 1999), radius 2, one function."""
    return Basis(
        name="cubic B-spline",
        radius=2,
        n_functions=1,
        value=_cubic_value,
        integral=_cubic_integral,
        points_per_cell=2.5,
    )


def cell_average(basis: Basis, delta: np.ndarray, width: float) -> np.ndarray:
    """Mean of each basis function over cells: [..., J] float64.

    Args:
        basis: The functions.
        delta: [...] cell centres, in feature cells.
        width: Width of the averaged cell, in feature cells; 0 takes the point value.
    """
    if width == 0:
        return basis.value(torch.from_numpy(np.asarray(delta))).numpy()
    area: np.ndarray = basis.integral(delta + width / 2) - basis.integral(delta - width / 2)
    return area / width
