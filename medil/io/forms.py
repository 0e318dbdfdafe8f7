"""The two places that a NIfTI header can name, and signs that a place is half a voxel off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

from medil.errors import InputError
from medil.grid import Grid
from medil.io.source import Source, nifti_units

MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
NEAR_VOX = 0.02  # from 0 or from half a voxel: what a person wrote, with the rounding of float32
SAME_SIZE = 0.01  # share by which voxel sizes may differ
CORNER = "as if a corner of a voxel had been taken for its centre"


def in_mm(affine: np.ndarray, unit: str) -> np.ndarray:
    """A [4, 4] affine in a unit of a NIfTI header, in mm; float64."""
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= MM_PER_UNIT[unit]
    return affine


def form_grid(header: Any, name: str, shape: tuple[int, int, int]) -> Grid | None:
    """The grid that the ``qform`` or the ``sform`` of a NIfTI header names.

    None if its code is 0, or if it cannot be used.
    """
    if not header[f"{name}_code"]:
        return None
    read = header.get_qform if name == "qform" else header.get_sform
    try:
        return Grid(shape, in_mm(read(), nifti_units(header)[0]))
    except (InputError, HeaderDataError):
        return None


def apart_mm(one: Grid, other: Grid) -> float:
    """The largest distance between the same corner of two grids of one shape, in mm."""
    return float(np.linalg.norm(other.corners_mm - one.corners_mm, axis=1).max())


def mirrored(one: Grid, other: Grid) -> bool:
    """Whether two grids of one image contradict each other in what is left and right."""
    return bool(np.linalg.det(other.edges_mm) * np.linalg.det(one.edges_mm) < 0)


def contradictions(header: Any, grid: Grid) -> list[str]:
    """What a header says against the grid that is used; two forms may name different spaces."""
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    qform = form_grid(header, "qform", grid.shape)
    if s_code and qform is not None:
        if mirrored(grid, qform):
            return ["qform and sform differ in what is left and right: the sform is used."]
        apart = apart_mm(grid, qform)
        if s_code == q_code and apart > max(grid.spacing_mm):
            return [
                f"qform and sform name one space and lie {apart:.3g} mm apart: the sform is used."
            ]
    if s_code and not q_code:
        return _sizes(header, grid)
    return []


def _sizes(header: Any, grid: Grid) -> list[str]:
    """Voxel sizes that the sform does not have; programs that read them alone see other voxels."""
    unit = MM_PER_UNIT[nifti_units(header)[0]]
    sizes = [abs(float(size)) * unit for size in header["pixdim"][1:4]]
    pairs = zip(sizes, grid.spacing_mm, strict=True)
    if all(abs(size - used) <= SAME_SIZE * used for size, used in pairs):
        return []
    named = " x ".join(f"{size:.5g}" for size in sizes)
    used = " x ".join(f"{size:.5g}" for size in grid.spacing_mm)
    return [f"the header names voxels of {named} mm (pixdim), its sform {used} mm, which is used."]


def describe_forms(source: Source) -> str:
    """Which forms a NIfTI header has, and how far apart they lie; empty for other formats."""
    if source.codes is None:
        return ""
    grids = {
        name: form_grid(source.header, name, source.grid.shape)
        for name, code in zip(("qform", "sform"), source.codes, strict=True)
        if code
    }
    if not grids:
        return "neither qform nor sform"
    if unusable := [name for name, grid in grids.items() if grid is None]:
        return f"the {' and the '.join(unusable)} cannot be used"
    if len(grids) == 1:
        return f"the {next(iter(grids))} alone"
    qform, sform = grids["qform"], grids["sform"]
    assert qform is not None and sform is not None
    text = f"qform and sform lie {apart_mm(sform, qform):.3f} mm apart at most"
    return text + (", and differ in what is left and right" if mirrored(sform, qform) else "")


def half_voxel(source: Source) -> str:
    """Signs that the place in a header is half a voxel off; ``no sign`` where there is none.

    Two things are looked at, both along the axes of the file. The first voxels of qform and sform
    of one orientation and voxel size: are they half a voxel apart? And the world's origin: does
    it lie half a voxel from the middle of the box, where a program that meant to put it in the
    middle took a corner for a centre? An axis counts at half a voxel, and has to lie at 0 or at
    half a voxel in both cases, to `NEAR_VOX`.
    """
    grid, signs = source.grid, []
    if source.codes is not None and source.codes[1]:
        qform = form_grid(source.header, "qform", grid.shape)
        if qform is not None and _alike(grid, qform):
            first = grid.ras_to_index(qform.index_to_ras((0, 0, 0)))
            if axes := _half_axes(first):
                signs.append(f"qform and sform lie half a voxel apart along {axes}")
    middle = (np.asarray(grid.shape) - 1) / 2
    if axes := _half_axes(grid.ras_to_index((0, 0, 0)) - middle):
        signs.append(
            f"the world's origin lies half a voxel from the middle of the box along {axes}"
        )
    return f"{'; '.join(signs)}, {CORNER}" if signs else "no sign"


def _alike(one: Grid, other: Grid) -> bool:
    """Whether the voxels of two grids have one orientation and size."""
    return bool(np.abs(one.edges_mm - other.edges_mm).max() <= SAME_SIZE * min(one.spacing_mm))


def _half_axes(offset_vox: np.ndarray) -> str:
    """The axes along which an offset is half a voxel; empty where one is neither that nor 0."""
    distances = np.abs(offset_vox).tolist()
    half = [abs(distance - 0.5) <= NEAR_VOX for distance in distances]
    near = [distance <= NEAR_VOX for distance in distances]
    if not all(map(max, half, near)):
        return ""
    return ", ".join(axis for axis, is_half in zip("ijk", half, strict=True) if is_half)


def tilt_deg(grid: Grid) -> list[float]:
    """Angles between the voxel axes i, j, k and the world axes they are named after, in degrees."""
    angles = []
    for code, direction in zip(grid.orientation, grid.directions.T, strict=True):
        along = next(n for n, codes in enumerate(("LR", "PA", "IS")) if code in codes)
        aside = math.hypot(*np.delete(direction, along))
        angles.append(math.degrees(math.atan2(aside, abs(direction[along]))))
    return angles
