"""The resampling operator: features on one grid become values on any other.

Every operator is called as `layer(features, nodes, voxels)`. Those here and in
`medil.layers.content_lte` are linear in the amplitudes and average over the target voxel; those
in `medil.layers.pointwise` evaluate an MLP at the voxel's centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid
from medil.layers.bases import cubic_bspline, local_fourier
from medil.layers.blocks import at_least_float, depth_to_space, zero_init
from medil.layers.content_lte import ContentLTE, plane_waves
from medil.layers.pointwise import LIIF, FixedMLP, LiteralLTE, SkipLTE, Trilinear
from medil.layers.projection import (
    least_squares,
    synthesise,
    synthesise_features,
    synthesise_points,
)

SPLINE_MEMORY = 16  # voxels beyond which a cubic spline's weights are negligible: 0.36 ** 16 < 1e-7


class IntegratedLTE(nn.Module):
    """Fixed-frequency, cell-integrated Local Texture Estimator.

    y(voxel) = mean over the voxel of sum_n sum_j a_j(n) phi_j((x - p_n) / pitch), with
    phi = hat x {1, sin pi d, cos pi d, ...} an axis, J = 2 K + 1 of them (K `harmonics`), and a_j
    a 1x1x1 convolution of the features. The hat is LTE's local ensemble. Departures from LTE: the
    frequencies are fixed, there is no MLP, and a voxel is an average over its cell, not a point.
    """

    reach = 1  # beyond a voxel's faces, in feature cells

    def __init__(self, channels_in: int, channels_out: int, harmonics: int) -> None:
        super().__init__()
        self.basis = local_fourier(harmonics)
        self.channels_out = channels_out
        n_amplitudes = channels_out * self.basis.n_functions**3
        self.amplitude = zero_init(nn.Conv3d(channels_in, n_amplitudes, 1))

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        weight, bias = self.amplitude.weight.flatten(1), self.amplitude.bias
        return synthesise_features(features, weight, bias, self.basis, nodes, voxels)

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `medil.layers.pointwise.PointOperator.at`; voxels are averaged by quadrature."""
        j = self.basis.n_functions
        amplitudes = self.amplitude(features).unflatten(1, (self.channels_out, j, j, j))
        return synthesise_points(amplitudes, self.basis, nodes, points_mm, edges_mm)


def resample_cubic(values: Tensor, grid: Grid, target: Grid) -> Tensor:
    """Anti-aliased cubic resampling: the spline through the voxels, averaged over the new ones.

    Voxels are taken for averages over their cells at both ends, so a constant and a ramp
    stay what they are and a grid onto itself changes (almost) nothing.

    Args:
        values: [B, C, D, H, W] on `grid`.
        grid: Grid of `values`.
        target: Finer, coarser or equal; parallel (fast) or oblique.

    Returns:
        [B, C, D', H', W'], never in reduced precision.
    """
    return synthesise(_spline_through(values, grid), cubic_bspline(), grid, target)


def _spline_through(values: Tensor, grid: Grid) -> Tensor:
    """Coefficients [B, C, 1, 1, 1, D, H, W] of the cubic spline with these voxel averages."""
    spline = least_squares(at_least_float(values), cubic_bspline(), grid, grid, ridge=0.0)
    return spline[:, :, None, None, None]


class SubPixel(nn.Module):
    """Sub-pixel convolution to a fixed grid, then anti-aliased cubic: the conventional peer.

    A 3x3x3 convolution gives every feature cell factor^3 voxels (Shi et al. 2016), and
    `resample_cubic` takes them to the target. Its reach is that of the convolution, one cell, and
    of the spline, which depends on as many voxels as `SPLINE_MEMORY` says.
    """

    def __init__(self, channels_in: int, channels_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.reach = 1 + math.ceil((cubic_bspline().radius + SPLINE_MEMORY) / factor)
        self.spread = zero_init(nn.Conv3d(channels_in, channels_out * factor**3, 3, padding=1))

    def forward(self, features: Tensor, nodes: Grid, voxels: Grid) -> Tensor:
        """[B, C, d, h, w] on `nodes` -> [B, channels_out, D, H, W] on `voxels`."""
        return resample_cubic(*self.on_fixed_grid(features, nodes), voxels)

    def on_fixed_grid(self, features: Tensor, nodes: Grid) -> tuple[Tensor, Grid]:
        """The values [B, channels_out, f d, f h, f w] of the convolution, and their grid."""
        fixed = nodes.resized([self.factor * n for n in nodes.shape])
        return depth_to_space(self.spread(features), self.factor), fixed

    def at(
        self, features: Tensor, nodes: Grid, points_mm: Tensor, edges_mm: np.ndarray | None = None
    ) -> Tensor:
        """As `medil.layers.pointwise.PointOperator.at`: of the spline through the fixed grid."""
        values, fixed = self.on_fixed_grid(features, nodes)
        spline = _spline_through(values, fixed)
        return synthesise_points(spline, cubic_bspline(), fixed, points_mm, edges_mm)


@dataclass(frozen=True)
class Operator:
    """How a configuration makes an operator, a layer with a `reach`."""

    make: Callable[[ModelConfig, int, int], nn.Module]  # with C in, C out
    encodes: bool = False  # whether an encoder can resample with it too


def _voxels_per_cell(config: ModelConfig) -> int:
    """How many voxels of `working_mm` fit in a fine feature cell, an axis."""
    pitch_mm = config.latent_spacing_mm / config.fine_per_latent
    return max(1, round(pitch_mm / config.working_mm))


OPERATORS = {  # the one list: whatever stands here can be trained, tested and compared
    "integrated": Operator(lambda c, i, o: IntegratedLTE(i, o, c.harmonics), encodes=True),
    "integrated-content": Operator(lambda c, i, o: ContentLTE(i, o, c.harmonics)),
    "fixed-mlp": Operator(lambda c, i, o: FixedMLP(i, o, plane_waves(c.harmonics), c.hidden)),
    "literal": Operator(lambda c, i, o: LiteralLTE(i, o, c.frequencies, c.hidden), encodes=True),
    "literal-skip": Operator(lambda c, i, o: SkipLTE(i, o, c.frequencies, c.hidden), encodes=True),
    "liif": Operator(lambda c, i, o: LIIF(i, o, c.hidden)),
    "trilinear": Operator(lambda c, i, o: Trilinear(i, o, c.hidden), encodes=True),
    "subpixel": Operator(lambda c, i, o: SubPixel(i, o, _voxels_per_cell(c))),
}
ENCODER_OPERATORS = tuple(name for name, operator in OPERATORS.items() if operator.encodes)


def make_operator(
    config: ModelConfig, kind: str, channels_in: int, channels_out: int, encodes: bool = False
) -> nn.Module:
    """The resampling operator of a name in `OPERATORS`; `encodes` asks for the encoder's.

    Raises:
        InputError: No such operator, or one that encoders cannot use.
    """
    known = ENCODER_OPERATORS if encodes else tuple(OPERATORS)
    if kind not in known:
        field = "encoder_operator" if encodes else "operator"
        raise InputError(f"{field} must be one of {', '.join(known)}, not {kind!r}.")
    return OPERATORS[kind].make(config, channels_in, channels_out)
