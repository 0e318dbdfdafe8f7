"""Sampling grids: a box of voxels (`medil.box`), and every other grid that is made from one.

Two scans of one head at 1 mm and 0.7 mm have different centres and affines, yet fill the same
box, which `Grid.corners_mm` gives and `Grid.with_spacing` keeps. All half-voxel rules are here
and in `medil.box`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import ArrayLike
from torch import Tensor

from medil.box import Box, Triple
from medil.errors import InputError

FLOAT32_ROUNDING = 2e-6  # of an extent; most of the scans at hand have less than 1e-6
MAX_AXIS_VOXELS = 2.0**40  # beyond it even the index of a voxel loses its fractions


@dataclass(frozen=True, eq=False)
class Grid(Box):
    """A sampling grid: the number of voxels and the position of each centre.

    Args:
        shape: (D, H, W), the number of voxels along the axes i, j, k.
        affine_vox2ras: [4, 4] float64, voxel index to RAS+ world, in mm.

    Raises:
        InputError: A size below 1, or an affine that `check_affine` refuses.

    Example:
        >>> grid = Grid((4, 5, 6), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> grid.spacing_mm, grid.centre_mm.tolist()
        ((3.0, 2.0, 1.0), [4.5, 4.0, 2.5])
    """

    @classmethod
    def from_spacing(
        cls,
        shape: Sequence[int],
        spacing_mm: float | Sequence[float],
        origin_mm: ArrayLike = (0.0, 0.0, 0.0),
        directions: np.ndarray | None = None,
    ) -> Grid:
        """A grid from its voxel size.

        Args:
            shape: (D, H, W).
            spacing_mm: Voxel size along i, j, k, in mm (one number or three).
            origin_mm: World position of the centre of voxel (0, 0, 0), in mm.
            directions: [3, 3], columns are the unit vectors of the voxel axes in
                RAS+; the identity when None.

        Raises:
            ValueError: Spacing not finite and above zero.

        Example:
            >>> g = Grid.from_spacing((4, 5, 6), spacing_mm=(3, 2, 1))
            >>> g.extent_mm
            (12.0, 10.0, 6.0)
        """
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3) if directions is None else np.asarray(directions)
        affine[:3, :3] = affine[:3, :3] * as_triple(spacing_mm, "spacing_mm")
        affine[:3, 3] = origin_mm
        return cls(tuple(shape), affine)  # type: ignore[arg-type]

    # Positions along an axis

    def index_to_norm(self, index_vox: ArrayLike) -> np.ndarray:
        """[..., 3] voxel indices to [..., 3] in -1 ... 1, which are the *outer faces*.

        Example:
            >>> Grid.from_spacing((4, 4, 4), 1.0).index_to_norm([-0.5, 1.5, 3.5]).tolist()
            [-1.0, 0.0, 1.0]
        """
        index = np.asarray(index_vox, dtype=np.float64)
        coord_norm: np.ndarray = (2 * index + 1) / np.asarray(self.shape) - 1
        return coord_norm

    def axis_offsets_mm(self, axis: int, origin: Grid) -> np.ndarray:
        """Voxel centres along one axis, measured along that axis from another grid's first centre.

        Only meaningful for parallel grids, where a point's coordinate along each axis
        is all that a separable operator needs.

        Returns:
            [n] float64, in mm.

        Example:
            >>> one = Grid.from_spacing((4, 4, 4), 1.0)
            >>> one.with_spacing(2.0).axis_offsets_mm(0, origin=one).tolist()
            [0.5, 2.5]
        """
        to_first = self.affine_vox2ras[:3, 3] - origin.affine_vox2ras[:3, 3]
        start_mm = float(np.linalg.solve(origin.directions, to_first)[axis])
        return start_mm + np.arange(self.shape[axis]) * self.spacing_mm[axis]

    # Other grids from this one

    def resized(self, shape: Sequence[int]) -> Grid:
        """A grid of exactly the same box with another number of voxels (D, H, W).

        ``index_old = (index_new + 0.5) * n_old / n_new - 0.5``: the origin moves too.

        Raises:
            InputError: Not three sizes of at least 1.

        Example:
            >>> Grid.from_spacing((4, 4, 4), 1.0).resized((2, 4, 8)).spacing_mm
            (2.0, 1.0, 0.5)
        """
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"a grid needs three sizes of at least 1, not {tuple(shape)}.")
        ratio = np.asarray(self.shape) / np.asarray(shape, dtype=np.float64)
        new_to_old = np.diag([*ratio, 1.0])
        new_to_old[:3, 3] = ratio / 2 - 0.5
        return Grid(tuple(shape), self.affine_vox2ras @ new_to_old)  # type: ignore[arg-type]

    def with_spacing(self, spacing_mm: float | Sequence[float]) -> Grid:
        """A grid with exactly this voxel size over the same box, to the nearest whole voxel.

        The two boxes share their middle, so no face is off by more than a quarter of a
        new voxel (or, for a box thinner than one new voxel, half the difference).

        Raises:
            ValueError: Spacing not finite and above zero.

        Example:
            >>> Grid.from_spacing((10, 10, 10), 1.0).with_spacing((2, 1, 0.5)).shape
            (5, 10, 20)
        """
        return self._covering(as_triple(spacing_mm, "spacing_mm"), lambda n: max(1, round(n)))

    def covering(self, spacing_mm: float | Sequence[float]) -> Grid:
        """The smallest grid of this spacing whose box holds this box, sharing its middle.

        Example:
            >>> Grid.from_spacing((5, 5, 5), 1.0).covering(2.0).extent_mm
            (6.0, 6.0, 6.0)
        """
        # An extent that is a whole number of voxels must not gain one by the rounding of an affine
        # that was stored in float32.
        return self._covering(
            as_triple(spacing_mm, "spacing_mm"),
            lambda n: max(1, math.ceil(n - max(1e-6, FLOAT32_ROUNDING * n))),
        )

    def covering_from_corner(self, spacing_mm: float | Sequence[float]) -> Grid:
        """`covering`, but from this box's first corner: the spare length lies at the far faces.

        Example:
            >>> Grid.from_spacing((5, 5, 5), 1.0).covering_from_corner(2.0).bounds_mm[:, 0].tolist()
            [-0.5, 5.5]
        """
        cover = self.covering(spacing_mm)
        spare_mm = (np.array(cover.extent_mm) - self.extent_mm) / 2
        return cover.shifted((self.directions @ spare_mm).tolist())

    def _covering(self, spacing_mm: Triple, whole: Callable[[float], int]) -> Grid:
        counts = [e / s for e, s in zip(self.extent_mm, spacing_mm, strict=True)]
        if not max(counts) < MAX_AXIS_VOXELS:
            raise InputError(f"voxels of {spacing_mm} mm are far too small for this box.")
        shape = [whole(n) for n in counts]
        first_mm = -(np.asarray(shape) - 1) / 2 * np.asarray(spacing_mm)
        origin_mm = self.centre_mm + self.directions @ first_mm
        return Grid.from_spacing(shape, spacing_mm, origin_mm, self.directions)

    def crop(self, start: ArrayLike, shape: Sequence[int] | np.ndarray) -> Grid:
        """A block of this grid's voxels, whose centres stay where they were.

        `start`, the index of its first voxel, may be negative and reach outside (padding).

        Example:
            >>> block = Grid.from_spacing((5, 5, 5), 2.0).crop((1, 2, 3), (2, 2, 2))
            >>> block.index_to_ras((0, 0, 0)).tolist()
            [2.0, 4.0, 6.0]
        """
        affine = self.affine_vox2ras.copy()
        affine[:3, 3] = self.index_to_ras(np.asarray(start))
        return Grid(tuple(shape), affine)

    def shifted(self, offset_mm: ArrayLike) -> Grid:
        """This grid translated by (R, A, S) mm.

        Example:
            >>> Grid.from_spacing((5, 5, 5), 1.0).shifted((10.0, 0.0, 0.0)).centre_mm.tolist()
            [12.0, 2.0, 2.0]
        """
        affine = self.affine_vox2ras.copy()
        affine[:3, 3] += np.asarray(offset_mm, dtype=np.float64)
        return Grid(self.shape, affine)

    def rotated(self, axis: Sequence[float], angle_deg: float) -> Grid:
        """This grid rotated about its centre: oblique, of the same shape and spacing.

        Args:
            axis: (R, A, S) direction of the rotation axis, of any length.
            angle_deg: Angle in degrees, right-handed.

        Example:
            >>> Grid.from_spacing((5, 5, 5), 1.0).rotated((0, 0, 1), 90.0).orientation
            'ALS'
        """
        x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        angle = math.radians(angle_deg)
        turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
        affine = np.eye(4)
        affine[:3, :3] = turn @ self.affine_vox2ras[:3, :3]
        affine[:3, 3] = self.centre_mm + turn @ (self.affine_vox2ras[:3, 3] - self.centre_mm)
        return Grid(self.shape, affine)

    def reoriented(self, codes: str) -> tuple[Grid, np.ndarray]:
        """The same voxels with their axes permuted and flipped to axis codes such as ``LPS``.

        Returns:
            The grid, and the [3, 2] transform for `nibabel.orientations.apply_orientation`.

        Raises:
            ValueError: Codes that are not one of R/L, A/P and S/I each.

        Example:
            >>> grid, _ = Grid.from_spacing((4, 5, 6), 1.0).reoriented("SPL")
            >>> grid.shape, grid.orientation
            ((6, 5, 4), 'SPL')
        """
        if sorted(codes.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
            raise InputError(f"orientation codes name R/L, A/P and S/I once each, not {codes!r}.")
        now = orientations.io_orientation(self.affine_vox2ras)
        return self._turned(orientations.ornt_transform(now, orientations.axcodes2ornt(codes)))

    def aligned(self, other: Grid) -> tuple[Grid, np.ndarray]:
        """The same voxels with their axes permuted and flipped to run as those of another grid.

        Exact for a grid that was turned with `reoriented`: codes do not lead back where two voxel
        axes are equally near to one world axis, as in a double oblique of 45 degrees.

        Returns:
            As `reoriented`.

        Example:
            >>> grid = Grid.from_spacing((4, 5, 6), 1.0)
            >>> turned, _ = grid.reoriented("SPL")
            >>> turned.aligned(grid)[0].is_close(grid)
            True
        """
        in_other = np.eye(4)
        in_other[:3, :3] = np.linalg.solve(other.directions, self.affine_vox2ras[:3, :3])
        return self._turned(orientations.io_orientation(in_other))

    def _turned(self, transform: np.ndarray) -> tuple[Grid, np.ndarray]:
        shape = np.empty(3, dtype=int)
        shape[transform[:, 0].astype(int)] = self.shape
        affine = self.affine_vox2ras @ orientations.inv_ornt_aff(transform, self.shape)
        return Grid(tuple(shape), affine), transform


def centres_mm(grid: Grid) -> Tensor:
    """World position of every voxel centre: [D, H, W, 3] float64, (R, A, S), in mm.

    Example:
        >>> g = Grid.from_spacing((4, 5, 6), spacing_mm=(3, 2, 1))
        >>> centres_mm(g)[1, 0, 0].tolist()
        [3.0, 0.0, 0.0]
    """
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
    index_vox = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # [D, H, W, 3]
    affine = torch.from_numpy(grid.affine_vox2ras.copy())
    return index_vox @ affine[:3, :3].T + affine[:3, 3]  # [D, H, W, 3]


def as_triple(value: float | Sequence[float], name: str) -> Triple:
    """Three floats from one number for all axes, or one for each voxel axis.

    Raises:
        InputError: Not one or three numbers, or any is not finite and above zero; says `name`.
    """
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if numbers.shape not in ((1,), (3,)):
        raise InputError(f"{name} takes one number or three, not {numbers.size}: {value}.")
    triple = tuple(float(n) for n in np.broadcast_to(numbers, (3,)))
    if not all(math.isfinite(n) and n > 0 for n in triple):
        raise InputError(f"{name} must be finite and above zero, not {value}.")
    return triple  # type: ignore[return-value]


def points_to_index(grid: Grid, points_mm: Tensor) -> Tensor:
    """`Grid.ras_to_index` of a tensor, with gradients: [..., 3] RAS+ mm -> [..., 3] float64."""
    inverse = torch.from_numpy(np.linalg.inv(grid.affine_vox2ras)).to(points_mm.device)
    return points_mm.to(torch.float64) @ inverse[:3, :3].T + inverse[:3, 3]
