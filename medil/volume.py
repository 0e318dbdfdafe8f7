"""Images in and out: RAS+ in memory, and back exactly as the file had them.

`load` turns the axes to RAS+ and applies the scaling of the header; `save` undoes both.
A round trip without resampling gives back shape, affine, orientation, codes, units,
dtype and the stored integers.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from nibabel import orientations
from torch import Tensor

from medil.errors import InputError, of_system, printable
from medil.grid import Grid
from medil.io.dicom import read_dicom
from medil.io.dicom_headers import is_dicom
from medil.io.intensity import Intensity, replace_nonfinite, robust_intensity
from medil.io.nifti import full_shape, nifti_image, read_nibabel, write_nibabel
from medil.io.nrrd import read_nrrd, write_nrrd
from medil.io.source import Source, has_suffix, suffix_of, written_suffix
from medil.io.streams import Deflated, check_regular
from medil.system.files import atomic_output
from medil.system.memory import GB, choose

__all__ = [
    "Intensity",
    "Source",
    "Volume",
    "load",
    "replace_nonfinite",
    "robust_intensity",
    "save",
]

Slabs = Iterator[tuple[int, Tensor]]  # first index along the axis, and [D, H, W] float32
STREAMED = (".nii", ".nii.gz")  # formats that are written slab by slab
WHOLE_BYTES = 16  # bytes per voxel, for formats that are written whole
TENSOR_KINDS = {"uint16": np.int32, "uint32": np.int64, "bool": np.uint8, "float16": np.float32}
FLOAT32 = np.finfo(np.float32)
MOST_REASON = 200  # letters of what a parser says about damage
FLOAT32_EXACT = 2**23  # beyond it, neighbouring stored integers would share a float32
MGH_DTYPES = ("uint8", "int16", "int32", "float32")
NIFTI_DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@dataclass(frozen=True)
class Volume:
    """An image: voxel values and the grid that they lie on.

    Args:
        data: [D, H, W]; after `load`, axes in RAS+ order.
        grid: Where each voxel is, in mm.
        source: The file it came from, which `save` gives back; None for synthetic volumes.

    Raises:
        InputError: Data and grid differ in shape.

    Example:
        >>> v = Volume(torch.zeros(4, 5, 6), Grid.from_spacing((4, 5, 6), 2.0))
        >>> v.grid.extent_mm
        (8.0, 10.0, 12.0)
    """

    data: Tensor
    grid: Grid
    source: Source | None = None

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != self.grid.shape:
            raise InputError(
                f"data of shape {tuple(self.data.shape)} cannot lie on a grid of {self.grid.shape}."
            )

    def with_data(self, data: Tensor, grid: Grid | None = None) -> Volume:
        """Other values [D, H, W] of the same image, here or on another grid; the same source.

        `save` keeps the file's dtype and scaling where they hold the new values exactly, and writes
        float32 where they do not.

        Example:
            >>> volume = Volume(torch.ones(4, 5, 6), Grid.from_spacing((4, 5, 6), 2.0))
            >>> volume.with_data(3 * volume.data).data.max().item()
            3.0
        """
        return replace(self, data=data, grid=grid or self.grid)


def load(
    path: str | Path,
    volume_index: int | None = None,
    *,
    series: str | int | None = None,
    keep_tilt: bool = False,
) -> Volume:
    """Read an image and turn its axes to RAS+.

    Args:
        path: .nii, .nii.gz (NIfTI-1 or 2), .mgz, .mgh, .nrrd or .nhdr; the folder of a DICOM
            series, or one DICOM file.
        volume_index: Which volume of a 4-D image, from 0.
        series: Number or UID of the DICOM series, where a folder holds several.
        keep_tilt: Read a DICOM series with a tilted gantry; its affine keeps the shear.

    Returns:
        The volume, values scaled by the header. Unscaled integers stay integers of a kind
        that torch has (uint16 becomes int32, uint32 int64); scaled ones become float32,
        or float64 where float32 could not tell two stored numbers apart; float64 stays.
        NaN and Inf stay; see `replace_nonfinite`.

    Raises:
        InputError: What is wrong with the file, in one sentence.

    Example:
        >>> load("absent.nii.gz")
        Traceback (most recent call last):
        medil.errors.InputError: absent.nii.gz does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    try:
        check_regular(path)
        if path.is_dir() or (not has_suffix(path) and is_dicom(path)):
            stored, source = read_dicom(path, volume_index, series, keep_tilt)
        elif series is not None:
            raise InputError("`series` chooses from a DICOM folder, and this is an image file.")
        else:
            stored, source = _read(path, volume_index)
        grid, transform = source.grid.reoriented("RAS")
        values = orientations.apply_orientation(_to_values(stored, source), transform)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{path}:") else f"{path}: {text}") from error
    # A flipped axis of one voxel counts as contiguous, with a stride that torch refuses.
    return Volume(torch.from_numpy(values.ravel().reshape(values.shape)), grid, source)


def _read(path: Path, volume_index: int | None) -> tuple[np.ndarray, Source]:
    """Stored values and source; whatever a parser makes of damaged bytes is an `InputError`."""
    suffix = suffix_of(path)
    reader = read_nrrd if suffix in (".nrrd", ".nhdr") else read_nibabel
    try:
        with np.errstate(all="ignore"):  # headers hold NaN and Inf, which are checked
            return reader(path, volume_index)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # parsers raise KeyError, TypeError, zlib.error and more
        if isinstance(error, OSError) and error.filename:
            raise InputError(of_system(error)) from error
        reason = printable(str(error)).rstrip(".")[:MOST_REASON] or type(error).__name__
        raise InputError(f"this is not a whole, readable {suffix} image ({reason}).") from error


def _to_values(stored: np.ndarray, source: Source) -> np.ndarray:
    """What the stored numbers mean, in a dtype that torch has."""
    if not source.is_scaled:
        if stored.dtype == np.uint64:
            if stored.max() > np.iinfo(np.int64).max:
                raise InputError("the image holds integers beyond 2^63, which medil cannot keep.")
            return stored.astype(np.int64)
        return stored.astype(TENSOR_KINDS.get(stored.dtype.name, stored.dtype), copy=False)
    wide = _needs_float64(stored, source)
    values = np.empty(stored.shape, np.float64 if wide else np.float32, order="F")
    for k in range(stored.shape[2]):  # plane by plane: a whole float64 copy would be large
        values[..., k] = stored[..., k].astype(np.float64) * source.slope + source.inter
    return values


def _needs_float64(stored: np.ndarray, source: Source) -> bool:
    """Whether float32 could not hold scaled values, or not tell them apart."""
    if stored.dtype.kind == "f" and stored.dtype.itemsize > 4:
        return True
    finite = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
    if not finite.size:
        return False
    ends = np.array([finite.min(), finite.max()], dtype=np.float64)
    if stored.dtype.kind != "f":
        offset = abs(source.inter / source.slope)
        if np.abs(ends).max() + offset > FLOAT32_EXACT:
            return True
    largest = np.abs(ends * source.slope + source.inter).max()
    return bool(largest > FLOAT32.max or 0 < largest < FLOAT32.tiny * FLOAT32_EXACT)


def save(
    volume: Volume, path: str | Path, *, like: Source | None = None, force: bool = False
) -> Path:
    """Write an image in the orientation of the file it came from.

    Our choice: the source's dtype and scaling are kept where they hold every value
    exactly (an untouched image, a label map); rendered values are written as float32,
    slope 1, because rounding them to the source's integers would add an error.

    Args:
        volume: What to write.
        path: .nii, .nii.gz, .mgz, .mgh or .nrrd; the suffix picks the format.
        like: The file to resemble; `volume.source` when None.
        force: Replace a file that exists.

    Returns:
        The path. It holds a whole file or, after an error, what it held before.

    Raises:
        InputError: Missing folder, existing file without `force`, unknown suffix, or
            values that the format cannot hold.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> volume = Volume(torch.zeros(4, 5, 6), Grid.from_spacing((4, 5, 6), 2.0))
        >>> with TemporaryDirectory() as folder:
        ...     path = save(volume, f"{folder}/zeros.nii.gz")
        ...     back = load(path)
        >>> path.name, back.grid.is_close(volume.grid)
        ('zeros.nii.gz', True)
    """
    path, source, suffix = Path(path), like or volume.source, written_suffix(path)
    grid, transform = as_in_file(volume.grid, source)
    values = orientations.apply_orientation(_to_numpy(volume.data), transform)
    stored, slope, inter = _to_stored(values, source, suffix)
    with atomic_output(path, force) as temporary:
        if suffix == ".nrrd":
            write_nrrd(temporary, stored, grid, source)
        else:
            write_nibabel(temporary, stored, grid, source, slope, inter)
    return path


def as_in_file(grid: Grid, source: Source | None) -> tuple[Grid, np.ndarray]:
    """A grid in memory with its axes as in the file, RAS+ without one, and the transform."""
    return grid.aligned(source.grid) if source else grid.reoriented("RAS")


def _to_numpy(data: Tensor) -> np.ndarray:
    data = data.detach().cpu()
    if data.dtype == torch.bool:
        data = data.to(torch.uint8)
    if data.dtype in (torch.float16, torch.bfloat16):
        data = data.to(torch.float32)
    return data.numpy()


def _to_stored(
    values: np.ndarray, source: Source | None, suffix: str
) -> tuple[np.ndarray, float, float]:
    """Stored numbers, slope and intercept: the source's own where they lose nothing."""
    if source is not None and not (source.is_scaled and suffix not in (".nii", ".nii.gz")):
        stored = _exactly(values, source)
        if stored is not None and _holds(stored.dtype, suffix):
            return stored, source.slope, source.inter
    if _holds(values.dtype, suffix):
        return values, 1.0, 0.0
    if values.dtype.kind in "iu":
        wide = values.astype(np.int32)
        if (wide == values).all():
            return wide, 1.0, 0.0
        raise InputError(f"{suffix} cannot hold integers beyond 32 bits; write .nii.gz or .nrrd.")
    return values.astype(np.float32), 1.0, 0.0


def _holds(dtype: np.dtype, suffix: str) -> bool:
    """Whether a format has this dtype."""
    if suffix in (".mgz", ".mgh"):
        return dtype.name in MGH_DTYPES
    return dtype.name in (*NIFTI_DTYPES, "float32", "float64")


def _exactly(values: np.ndarray, source: Source) -> np.ndarray | None:
    """Values as the source stored them, or None where that would change one of them."""
    if source.dtype.kind == "f" and not source.is_scaled:
        stored = values.astype(source.dtype, copy=False)
        is_same = np.array_equal(stored, values, equal_nan=values.dtype.kind == "f")
        return stored if is_same else None
    if not np.isfinite(values).all():
        return None
    raw = values
    if source.is_scaled:
        raw = (values.astype(np.float64) - source.inter) / source.slope
    if source.dtype.kind in "iu":
        raw = np.rint(raw) if raw.dtype.kind == "f" else raw
        limits = np.iinfo(source.dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            return None
    stored = raw.astype(source.dtype)
    again = _to_values(stored, source).astype(values.dtype)
    return stored if np.array_equal(again, values) else None


def save_slabs(
    path: str | Path,
    grid: Grid,
    like: Source | None,
    make_slabs: Callable[[int, bool], Slabs],
    force: bool = False,
    memory_bytes: int | None = None,
) -> Path:
    """Write an image that comes in slabs, as `medil.volume.save` writes float32 volumes.

    Args:
        path: .nii and .nii.gz are written slab by slab; other formats are collected first.
        grid: Grid of the whole image, RAS+.
        like: The file to resemble: its orientation, codes, units. RAS+ when None.
        make_slabs: Called once with an axis of `grid` and whether to begin at its end; returns
            all slabs of the image in that order. `functools.partial(field.slabs, grid)` of a
            `medil.model.field.Field` is one.
        force: Replace a file that exists.
        memory_bytes: Budget of the process, for formats that are collected; a share of what
            is free when None.

    Returns:
        The path. It holds a whole file or, after an error, what it held before.

    Raises:
        InputError: As `medil.volume.save`, or not enough memory for a format that needs
            the whole.
    """
    path, suffix = Path(path), written_suffix(path)
    if suffix not in STREAMED:
        what = f"this output, which {suffix} needs as a whole,"
        choose([WHOLE_BYTES], lambda size: size * grid.n_voxels, memory_bytes, what)
        data = torch.empty(grid.shape)
        for start, slab in make_slabs(0, False):
            data[start : start + len(slab)] = slab
        return save(Volume(data, grid), path, like=like, force=force)
    stored_grid, transform = as_in_file(grid, like)
    slowest = int(np.flatnonzero(transform[:, 0] == 2)[0])  # NIfTI's last axis
    blank = np.broadcast_to(np.float32(0), full_shape(stored_grid, like))  # takes no memory
    image = nifti_image(blank, stored_grid, like)
    image.update_header()
    with (
        atomic_output(path, force) as temporary,
        Deflated(temporary) if suffix.endswith(".gz") else open(temporary, "wb") as file,
    ):
        head = io.BytesIO()
        image.header.write_to(head)
        file.write(head.getvalue().ljust(image.header.get_data_offset(), b"\0"))
        dtype = image.header.get_data_dtype()  # in the byte order of the header
        for _, slab in make_slabs(slowest, transform[slowest, 1] < 0):
            stored = orientations.apply_orientation(slab.numpy(), transform)
            for k in range(stored.shape[2]):
                file.write(stored[..., k].astype(dtype).tobytes(order="F"))
            del slab, stored
    return path


def check_room(path: str | Path, grid: Grid) -> None:
    """Raise if a float32 output does not fit on its disk, before minutes of work.

    Compressed files need as much room here, because the noise in float32 leaves little to compress.

    Raises:
        InputError: Too little room; states the GB needed and the GB free.
    """
    need = 4 * grid.n_voxels
    folder = next(p for p in Path(path).absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{path} would have {grid.n_voxels:,} voxels and needs about {need / GB:,.1f} GB of "
            f"disk, but {free / GB:,.1f} GB is free; choose larger voxels or another disk."
        )
