"""Where voxels lie: an oblique box in mm, from the outer face of its first to that of its last.

A voxel is a small box and its integer index names the *centre* of that box, so a box reaches half
a voxel beyond its outermost centres. `medil.grid.Grid` makes other grids from one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from numpy.typing import ArrayLike

from medil.errors import InputError

Triple = tuple[float, float, float]
LEAST_MM, MOST_MM = 1e-7, 1e9  # of voxel sizes, and the farthest place: other numbers are damage


@dataclass(frozen=True, eq=False)
class Box:
    """A number of voxels along each axis, and the position of each centre.

    Args:
        shape: (D, H, W), the number of voxels along the axes i, j, k.
        affine_vox2ras: [4, 4] float64, voxel index to RAS+ world, in mm.

    Raises:
        InputError: A size below 1, or an affine that `check_affine` refuses.

    Example:
        >>> box = Box((4, 5, 6), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> box.extent_mm, box.bounds_mm.tolist()
        ((12.0, 10.0, 6.0), [[-1.5, -1.0, -0.5], [10.5, 9.0, 5.5]])
    """

    shape: tuple[int, int, int]
    affine_vox2ras: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"a grid needs three sizes of at least 1, not {tuple(self.shape)}.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine_vox2ras", check_affine(self.affine_vox2ras))

    @property
    def n_voxels(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size along i, j, k, in mm."""
        size_i, size_j, size_k = np.linalg.norm(self.affine_vox2ras[:3, :3], axis=0).tolist()
        return size_i, size_j, size_k

    @property
    def directions(self) -> np.ndarray:
        """[3, 3] unit vectors of the voxel axes in RAS+, one per column."""
        columns: np.ndarray = self.affine_vox2ras[:3, :3] / np.asarray(self.spacing_mm)
        return columns

    @property
    def edges_mm(self) -> np.ndarray:
        """[3, 3] edges of a voxel in RAS+ mm, one per column."""
        return self.affine_vox2ras[:3, :3]

    @property
    def extent_mm(self) -> Triple:
        """Length of the box along i, j, k, from outer face to outer face, in mm."""
        depth, height, width = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return depth, height, width

    @property
    def centre_mm(self) -> np.ndarray:
        """[3] world position of the middle of the box, in mm."""
        return self.index_to_ras((np.asarray(self.shape) - 1) / 2)

    @property
    def corners_mm(self) -> np.ndarray:
        """[8, 3] world positions of the corners of the box (outer faces), in mm."""
        faces = [(-0.5, n - 0.5) for n in self.shape]
        return self.index_to_ras(np.array(list(itertools.product(*faces))))

    @property
    def bounds_mm(self) -> np.ndarray:
        """[2, 3] lowest and highest world coordinates of the box, in mm."""
        return np.stack([self.corners_mm.min(0), self.corners_mm.max(0)])

    @property
    def orientation(self) -> str:
        """Axis codes such as ``RAS`` or ``LIA``: the direction of each voxel axis."""
        return "".join(orientations.aff2axcodes(self.affine_vox2ras))

    # From index to mm and back

    def index_to_ras(self, index_vox: ArrayLike) -> np.ndarray:
        """[..., 3] voxel indices (fractions allowed) to [..., 3] RAS+ points in mm.

        Example:
            >>> box = Box((4, 5, 6), np.diag([3.0, 2.0, 1.0, 1.0]))
            >>> box.index_to_ras([[0, 0, 0], [1.5, 2, 2.5]]).tolist()
            [[0.0, 0.0, 0.0], [4.5, 4.0, 2.5]]
        """
        index = np.asarray(index_vox, dtype=np.float64)
        points_mm: np.ndarray = index @ self.affine_vox2ras[:3, :3].T + self.affine_vox2ras[:3, 3]
        return points_mm

    def ras_to_index(self, points_mm: ArrayLike) -> np.ndarray:
        """[..., 3] RAS+ points in mm to [..., 3] voxel indices (fractions).

        Example:
            >>> Box((4, 5, 6), np.diag([3.0, 2.0, 1.0, 1.0])).ras_to_index((4.5, 4.0, 2.5)).tolist()
            [1.5, 2.0, 2.5]
        """
        offset_mm = np.asarray(points_mm, dtype=np.float64) - self.affine_vox2ras[:3, 3]
        index_vox: np.ndarray = offset_mm @ np.linalg.inv(self.affine_vox2ras[:3, :3]).T
        return index_vox

    # Against another box

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Box)
            and self.shape == other.shape
            and np.array_equal(self.affine_vox2ras, other.affine_vox2ras)
        )

    def __hash__(self) -> int:
        return hash((self.shape, (self.affine_vox2ras + 0.0).tobytes()))  # -0.0 equals 0.0

    def is_close(self, other: Box, tolerance_mm: float = 1e-4) -> bool:
        """Whether both grids have one shape and every corner within a tolerance, in mm.

        Example:
            >>> from medil import Grid
            >>> one = Grid.from_spacing((4, 5, 6), 1.0)
            >>> one.is_close(one.shifted((1e-6, 0, 0))), one.is_close(one.shifted((0.1, 0, 0)))
            (True, False)
        """
        return self.shape == other.shape and bool(
            np.abs(self.corners_mm - other.corners_mm).max() <= tolerance_mm
        )

    def shares_extent(self, other: Box, tolerance_mm: float | None = None) -> bool:
        """Whether two grids fill the same physical box, whatever their voxels.

        Every corner of one must have a corner of the other within `tolerance_mm`; by default half
        of the largest voxel size of the two, since a box holds whole voxels.

        Example:
            >>> from medil import Grid
            >>> one = Grid.from_spacing((182, 218, 182), 1.0)
            >>> one.shares_extent(one.with_spacing(0.7))
            True
        """
        if tolerance_mm is None:
            tolerance_mm = max(*self.spacing_mm, *other.spacing_mm) / 2
        gap = np.linalg.norm(self.corners_mm[:, None] - other.corners_mm[None], axis=-1)
        farthest_mm = max(gap.min(0).max(), gap.min(1).max())
        return bool(farthest_mm <= tolerance_mm * math.sqrt(3))

    def overlaps(self, other: Box) -> bool:
        """Whether the boxes of two grids, parallel or oblique, share any space.

        Two convex bodies are apart where some plane separates them, and for boxes one that is
        spanned by two of their edges (the separating axis theorem).

        Example:
            >>> from medil import Grid
            >>> one = Grid.from_spacing((4, 5, 6), 1.0)
            >>> one.overlaps(one.shifted((3.9, 0, 0))), one.overlaps(one.shifted((4.1, 0, 0)))
            (True, False)
        """
        edges = [*self.directions.T, *other.directions.T]
        for one, two in itertools.combinations(edges, 2):
            normal = np.cross(one, two)
            here, there = self.corners_mm @ normal, other.corners_mm @ normal
            apart = max(there.min() - here.max(), here.min() - there.max())
            if np.linalg.norm(normal) > 1e-6 and apart >= -1e-6:
                return False
        return True

    def is_parallel_to(self, other: Box) -> bool:
        """Whether the voxel axes i, j, k of both grids have the same directions.

        Example:
            >>> from medil import Grid
            >>> one = Grid.from_spacing((4, 5, 6), 1.0)
            >>> turned = one.rotated((0, 0, 1), 5.0)
            >>> one.is_parallel_to(one.with_spacing(0.7)), one.is_parallel_to(turned)
            (True, False)
        """
        return bool(np.abs(self.directions - other.directions).max() <= 1e-5)


def check_affine(affine_vox2ras: ArrayLike) -> np.ndarray:
    """A float64 copy, read-only, of a usable [4, 4] voxel-to-RAS+ affine in mm.

    Raises:
        InputError: Wrong shape, NaN or Inf, all zero, singular, or of absurd sizes.
    """
    affine = np.array(affine_vox2ras, dtype=np.float64)
    if affine.shape != (4, 4):
        raise InputError(f"the affine must be 4 x 4, not {' x '.join(map(str, affine.shape))}.")
    if not np.isfinite(affine).all():
        raise InputError("the affine holds NaN or Inf; repair the header before using this image.")
    if not affine[:3, :3].any():
        raise InputError("the affine is zero; repair the header before using this image.")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        raise InputError(f"the affine's last row must be 0 0 0 1, not {affine[3].tolist()}.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise InputError("the affine is singular (two voxel axes coincide); repair the header.")
    if spacing.min() < LEAST_MM or spacing.max() > MOST_MM:
        sizes = " x ".join(f"{size:.4g}" for size in spacing)
        raise InputError(f"the affine has voxels of {sizes} mm; repair the header.")
    if (away := np.abs(affine[:3, 3]).max()) > MOST_MM:
        raise InputError(
            f"the affine puts the image {away:.4g} mm away, too far; repair the header."
        )
    affine.setflags(write=False)
    return affine
