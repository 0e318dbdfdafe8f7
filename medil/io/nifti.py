"""NIfTI and MGH files, read and written with nibabel.

Readers give the values *as stored* (disk order, unscaled) and a `Source` that says what
they mean; writers take the same two back. Nothing here resamples, reorders or scales.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.freesurfer.mghformat import DATA_OFFSET, footer_dtype, header_dtype
from nibabel.spatialimages import HeaderDataError

from medil.errors import InputError
from medil.grid import Grid
from medil.io.forms import MM_PER_UNIT, contradictions, in_mm
from medil.io.source import (
    Source,
    check_dtype,
    native,
    nifti_units,
    spatial_shape,
    suffix_of,
)
from medil.io.streams import MOST_BEFORE, opened, read_to_end, read_voxels
from medil.system.memory import require_memory

ALIGNED = 2  # code of a world that an image was aligned to
MAX_NIFTI1_SIZE = 32767  # its header counts voxels in int16
MGH_CORONAL = ((-1, 0, 0), (0, 0, -1), (0, 1, 0))  # rows: i, j, k in RAS, as FreeSurfer assumes
MGH_TYPES = (0, 1, 3, 4)  # uint8, int32, float32, int16
MGH_SUFFIXES = (".mgz", ".mgh")
PLACE = (  # header fields that say where voxels are
    "pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
    "qoffset_y", "qoffset_z", "sform_code", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
SLICES = ("slice_start", "slice_end", "slice_code", "slice_duration")  # fields of their timing


def read_nibabel(path: Path, volume_index: int | None) -> tuple[np.ndarray, Source]:
    """Stored values of a NIfTI or MGH file, of one volume if it is 4-D.

    The file is read once, to its end, so that damage to a gzip file is noticed.

    Returns:
        [i, j, k] in the order and (native) dtype of the file, and its `Source`.

    Raises:
        InputError: What is wrong with the file, without its name.
        Exception: Whatever nibabel and gzip raise on damaged bytes.
    """
    is_mgh = suffix_of(path) in MGH_SUFFIXES
    notes: list[str] = []
    with opened(path) as file, _silence_nibabel():
        header, start = (_mgh_header if is_mgh else _nifti_header)(file, notes)
        dtype = header.get_data_dtype()
        check_dtype(dtype)
        sizes = tuple(int(n) for n in header.get_data_shape())  # MGH's int32 would overflow
        sizes = (*sizes[:3], *(n or 1 for n in sizes[3:]))  # an absent axis is 0 to some writers
        shape, tail, index = spatial_shape(sizes, volume_index)
        grid, slope, inter = _meaning(header, shape, notes)
        n_bytes = math.prod(shape) * dtype.itemsize
        require_memory(math.prod(shape), 2 * dtype.itemsize, "the image")
        stored = read_voxels(file, start + index * n_bytes, shape, dtype)
        end = start + math.prod(sizes) * dtype.itemsize
        if is_mgh:
            file.seek(end)
            end += len(footer := file.read(footer_dtype.itemsize))
            header = nib.MGHImage.header_class(header.binaryblock[: header_dtype.itemsize] + footer)
        behind = read_to_end(file, end)
    if behind and not is_mgh:  # which has tags there
        notes.append(f"the file holds {behind:,} bytes behind its last voxel, which are left out.")
    kind = "mgh" if is_mgh else "nifti2" if isinstance(header, nib.Nifti2Header) else "nifti1"
    stored = stored.astype(native(dtype), copy=False)
    return stored, Source(kind, grid, stored.dtype, header, slope, inter, tail, tuple(notes))


@contextmanager
def _silence_nibabel() -> Iterator[None]:
    """Keep remarks of nibabel, which quote headers, off every log."""
    before, imageglobals.logger.disabled = imageglobals.logger.disabled, True
    try:
        yield
    finally:
        imageglobals.logger.disabled = before


def _mgh_header(file: io.BufferedIOBase, notes: list[str]) -> tuple[Any, int]:
    """The header of an MGH file without its footer, and the byte at which voxels begin."""
    block = file.read(header_dtype.itemsize)
    if len(block) < header_dtype.itemsize:
        raise EOFError("it ends in its header")
    header = nib.MGHImage.header_class(block)
    if (kind := int(header["type"])) not in MGH_TYPES:
        raise InputError(f"the header names the data type {kind}, which MGH does not have.")
    if np.frombuffer(block, header_dtype)["goodRASFlag"].item() <= 0:
        header["goodRASFlag"], header["delta"], header["Pxyz_c"] = 1, 1, 0
        header["Mdc"] = MGH_CORONAL
        notes.append("the header names no orientation: coronal slices of 1 mm are assumed.")
    if (header["delta"] < 0).any():
        sizes = " x ".join(f"{size:g}" for size in header["delta"])
        raise InputError(f"the header holds voxels of {sizes} mm; repair it first.")
    return header, DATA_OFFSET


def _nifti_header(file: io.BufferedIOBase, notes: list[str]) -> tuple[Any, int]:
    """The header of a NIfTI file, mended as other readers do, and where voxels begin."""
    start = file.read(nib.Nifti2Header.sizeof_hdr)
    both: tuple[Any, ...] = nib.Nifti1Header, nib.Nifti2Header
    kinds = [kind for kind in both if kind.may_contain_header(start)]
    if not kinds:
        raise ValueError("it has no NIfTI header")
    raw = kinds[0](start[: kinds[0].sizeof_hdr], check=False)
    if raw["magic"].item() == raw.pair_magic:
        raise InputError("the voxels are in another file (.img); write both as one .nii first.")
    offset = max(int(raw["vox_offset"]), raw.single_vox_offset)
    if offset > MOST_BEFORE:
        raise InputError(f"the header says that voxels begin at byte {offset:,}; repair it first.")
    file.seek(0)
    header = kinds[0].from_fileobj(io.BytesIO(file.read(offset)))
    _keep_forms(raw, header, notes)
    if not (header["qform_code"] or header["sform_code"]):
        notes.append("the header has no qform and no sform: position and handedness are assumed.")
    if not header["sform_code"] and 0 in raw["pixdim"][1:4]:
        notes.append("the header holds a voxel size of 0: 1 is assumed.")
    return header, offset


def _keep_forms(raw: Any, header: Any, notes: list[str]) -> None:
    """Put back what nibabel drops or refuses: forms of an unknown code, quaternions too long."""
    for name in ("qform_code", "sform_code"):
        if raw[name] > 0 and not header[name]:
            header[name] = ALIGNED
            notes.append(f"the {name} {int(raw[name])} is unknown: {ALIGNED} is assumed.")
    quaternion = [header[name].item() for name in ("quatern_b", "quatern_c", "quatern_d")]
    length = math.hypot(*quaternion)
    if header["qform_code"] and 1 < length < math.inf:
        shrink = (1 - float(np.finfo(header["quatern_b"].dtype).eps)) / length
        for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), quaternion, strict=True):
            header[name] = value * shrink  # nibabel refuses those longer than 1
        if length > 1 + 1e-5:
            notes.append(f"the qform's quaternion has length {length:g}: 1 is assumed.")


def _meaning(
    header: Any, shape: tuple[int, int, int], notes: list[str]
) -> tuple[Grid, float, float]:
    """The grid in mm, slope and intercept of a header; adds what had to be assumed."""
    if isinstance(header, nib.MGHImage.header_class):
        return Grid(shape, header.get_affine()), 1.0, 0.0
    unit = nifti_units(header)[0]
    if unit == "unknown" and header["xyzt_units"] % 8:
        notes.append("the header names no known unit of length: mm is assumed.")
    try:
        grid = Grid(shape, in_mm(header.get_best_affine(), unit))
    except InputError:
        if not (header["sform_code"] and header["qform_code"]):
            raise
        grid = Grid(shape, in_mm(header.get_qform(), unit))
        notes.append("the sform cannot be used: the qform is used instead.")
    else:
        notes += contradictions(header, grid)
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError:
        slope, inter = header["scl_slope"].item(), 0.0
        notes.append("the intercept of the header is not finite: 0 is assumed.")
    return grid, float(slope or 1.0), float(inter or 0.0)


def write_nibabel(
    path: Path, stored: np.ndarray, grid: Grid, source: Source | None, slope: float, inter: float
) -> None:
    """Write [i, j, k] stored values on `grid` as NIfTI or MGH, by the suffix of the path.

    A header of the source's format is kept, with its codes, units and extensions; where the
    grid has not changed, its qform and sform stay untouched to the last bit. In NIfTI,
    ``value = stored * slope + inter``.
    """
    stored = stored.reshape(full_shape(grid, source))
    if suffix_of(path) in (".mgz", ".mgh"):
        header = source.header if source and source.kind == "mgh" else None
        known = header is not None and _keeps_grid(grid, source)
        image = nib.MGHImage(stored, None if known else grid.affine_vox2ras, header)
        image.header.set_data_dtype(stored.dtype)
    else:
        image = nifti_image(stored, grid, source, slope, inter)
    nib.save(image, path)


def place_to_json(source: Source) -> dict[str, Any]:
    """The header fields of a NIfTI source that say where voxels are, as JSON-able values."""
    return {name: source.header[name].tolist() for name in PLACE}


def place_from_json(kind: str, grid: Grid, fields: dict[str, Any]) -> Source:
    """A source that is a place alone: its grid and forms, and nothing about an image.

    Args:
        kind: ``nifti1`` or ``nifti2``.
        grid: In the order of the file.
        fields: What `place_to_json` gave.
    """
    header: Any = nib.Nifti2Header() if kind == "nifti2" else nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    for name, value in fields.items():
        header[name] = value
    header["pixdim"][4:] = 1
    return Source(kind, grid, np.dtype(np.float32), header)


def place_of(source: Source) -> Source:
    """A file as a place for another image: without what its header says about its own image."""
    if source.codes is None:  # MGH and NRRD are written from the grid alone
        return replace(source, kind="", header=None, tail=(), notes=())
    return place_from_json(source.kind, source.grid, place_to_json(source))


def aligned_source(source: Source, affine_vox2ras: np.ndarray) -> Source:
    """A file whose voxels lie elsewhere, aligned to something; axes at right angles, mm."""
    header = source.header
    if source.codes is not None:
        header = header.copy()
        affine = np.diag([*[1 / MM_PER_UNIT[source.units[0]]] * 3, 1]) @ affine_vox2ras
        header.set_qform(affine, ALIGNED)
        header.set_sform(affine, ALIGNED)
    return replace(source, grid=Grid(source.grid.shape, affine_vox2ras), header=header)


def full_shape(grid: Grid, source: Source | None) -> tuple[int, ...]:
    """Shape of the file: with the trailing axes of the source where the grid is the same."""
    tail = source.tail if source is not None and _keeps_grid(grid, source) else ()
    return (*grid.shape, *tail)


def _keeps_grid(grid: Grid, source: Source | None) -> bool:
    return source is not None and source.grid.is_close(grid, tolerance_mm=1e-6)


def nifti_image(
    stored: np.ndarray, grid: Grid, source: Source | None, slope: float = 1.0, inter: float = 0.0
) -> Any:
    """A NIfTI image as `write_nibabel` writes it.

    `stored` has the shape of `full_shape`; only that and its dtype matter for the header.
    """
    known = source if source and source.kind.startswith("nifti") else None
    header = known.header if known else None
    wide = max(grid.shape) > MAX_NIFTI1_SIZE or isinstance(header, nib.Nifti2Header)
    image_class: Any = nib.Nifti2Image if wide else nib.Nifti1Image
    if known and _keeps_grid(grid, known):
        image = image_class(stored, None, header)
    else:
        image = image_class(stored, grid.affine_vox2ras, header, dtype=stored.dtype)
        _set_place(image, grid, known)
    image.header.set_data_dtype(stored.dtype)
    image.header.set_slope_inter(slope, inter)
    return image


def _set_place(image: Any, grid: Grid, known: Source | None) -> None:
    """Put a new grid into the header of an image, which is that of `known`.

    qform and sform keep their codes and each its own space: both move with the voxels. A qform
    cannot hold shear and then gives way to the sform. No time is known of slices that are new.
    """
    header, (q_code, s_code) = image.header, (known and known.codes) or (1, 1)
    if known is None:
        header.set_xyzt_units("mm")
    unit = known.units[0] if known else "mm"
    to_header = np.diag([*[1 / MM_PER_UNIT[unit]] * 3, 1])
    affine = q_affine = to_header @ grid.affine_vox2ras
    if not (q_code or s_code):
        q_code = s_code = ALIGNED  # the old header named no coordinate space
    elif known and q_code and s_code:
        old = to_header @ known.grid.affine_vox2ras
        if np.allclose(old, known.header.get_sform(), atol=1e-5):
            q_affine = known.header.get_qform() @ np.linalg.solve(old, affine)
        else:
            s_code = 0  # the old sform could not be used
    # Two forms of one code name one space, so that one without the shear would contradict.
    if not is_rigid(q_affine) or (q_code == s_code and not is_rigid(affine)):
        q_affine, q_code, s_code = affine, 0, s_code or q_code
    image.set_qform(q_affine, q_code)
    image.set_sform(affine, s_code)
    for name in SLICES:
        header[name] = 0


def is_rigid(affine: np.ndarray) -> bool:
    """Whether voxel axes stand at right angles, as a quaternion needs."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not spacing.all():
        return False
    directions = affine[:3, :3] / spacing
    return np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
