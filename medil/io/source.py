"""Metadata of an image file, and the checks that every format shares.

Readers give the values *as stored* (disk order, unscaled) and a `Source` that says what
they mean; writers take the same two back. Nothing here resamples, reorders or scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medil.errors import InputError
from medil.grid import Grid

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".nhdr")
ANALYZE = (
    "Analyze and paired NIfTI images (.hdr, .img) are neither read nor written; nibabel's command "
    "`nib-convert scan.img scan.nii.gz` makes one file of them, whose left and right must be "
    "checked, since Analyze does not tell them apart."
)
META_IMAGE = (
    "MetaImage (.mha, .mhd) is neither read nor written; 3D Slicer converts it, and so does "
    "SimpleITK: WriteImage(ReadImage('scan.mha'), 'scan.nii.gz')."
)
FOREIGN = {".hdr": ANALYZE, ".img": ANALYZE, ".mha": META_IMAGE, ".mhd": META_IMAGE}


@dataclass(frozen=True)
class Source:
    """Metadata of an image file, with which it can be written again unchanged.

    Args:
        kind: ``nifti1``, ``nifti2``, ``mgh``, ``nrrd`` or ``dicom``; empty for a grid alone.
        grid: The grid in the order of the file, in mm.
        dtype: Type of the stored numbers, in native byte order.
        header: A copy of the header, in the format's own type; None of a DICOM series, whose
            headers name people.
        slope: ``value = stored * slope + inter``.
        inter: See `slope`.
        tail: Trailing axes of size 1 that the file had.
        notes: Sentences that say what was assumed.
    """

    kind: str
    grid: Grid
    dtype: np.dtype
    header: Any = field(repr=False, compare=False)
    slope: float = 1.0
    inter: float = 0.0
    tail: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_scaled(self) -> bool:
        """Whether stored numbers and values differ."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def orientation(self) -> str:
        """Axis codes in the order of the file."""
        return self.grid.orientation

    @property
    def codes(self) -> tuple[int, int] | None:
        """(qform_code, sform_code) of a NIfTI file, else None."""
        if not self.kind.startswith("nifti"):
            return None
        return int(self.header["qform_code"]), int(self.header["sform_code"])

    @property
    def units(self) -> tuple[str, str]:
        """Units of space and time as the file names them."""
        return nifti_units(self.header) if self.kind.startswith("nifti") else ("mm", "unknown")


def nifti_units(header: Any) -> tuple[str, str]:
    """Units of space and time; unknown where the header holds a number that means nothing."""
    try:
        units: tuple[str, str] = header.get_xyzt_units()
        return units
    except KeyError:
        return "unknown", "unknown"


def has_suffix(path: str | Path) -> bool:
    """Whether a name ends as that of an image file."""
    return Path(path).name.lower().endswith(SUFFIXES)


def suffix_of(path: str | Path) -> str:
    """The image suffix of a name, such as ``.nii.gz``.

    Raises:
        InputError: Unknown suffix.
    """
    name = Path(path).name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    if hint := FOREIGN.get(Path(name).suffix):
        raise InputError(f"{path}: {hint}")
    raise InputError(f"{path}: unknown extension; images end in {', '.join(SUFFIXES)}.")


def written_suffix(path: str | Path) -> str:
    """The image suffix of an output.

    Raises:
        InputError: Unknown suffix, or .nhdr.
    """
    suffix = suffix_of(path)
    if suffix == ".nhdr":
        raise InputError(f"{path}: .nhdr is read only; write .nrrd, which is one file.")
    return suffix


def spatial_shape(
    shape: tuple[int, ...], volume_index: int | None
) -> tuple[tuple[int, int, int], tuple[int, ...], int]:
    """Separate the spatial axes of a file, which come first, from the others.

    Returns:
        The three spatial sizes, the trailing axes of size 1 to keep, the volume's index.

    Raises:
        InputError: Fewer than three axes, an axis of size 0, several volumes and none
            chosen, or a choice that does not exist.
    """
    sizes = " x ".join(map(str, shape))
    if len(shape) < 3:
        raise InputError(f"the image is {len(shape)}-D ({sizes}); medil needs a 3-D volume.")
    if min(shape) < 1:
        raise InputError(
            f"the image has an axis of size {min(shape)} ({sizes}); there is nothing to read."
        )
    n_volumes = math.prod(shape[3:])
    if n_volumes == 1:
        if volume_index not in (None, 0):
            raise InputError(f"`volume_index={volume_index}`, but the image has one volume.")
        return shape[:3], shape[3:], 0  # type: ignore[return-value]
    if len([n for n in shape[3:] if n > 1]) > 1:
        raise InputError(f"the image is {len(shape)}-D ({sizes}); medil reads 3-D and 4-D images.")
    if volume_index is None:
        raise InputError(
            f"the image is 4-D ({sizes}): pass `volume_index=K` to pick one, "
            f"with K from 0 to {n_volumes - 1}."
        )
    if not 0 <= volume_index < n_volumes:
        raise InputError(f"`volume_index={volume_index}`, but K is 0 to {n_volumes - 1}.")
    return shape[:3], (), volume_index  # type: ignore[return-value]


def as_one_of_many(fault: str) -> str:
    """A fault of an image, as a sentence, where many are read and none has options of its own."""
    reason, advice, _ = fault.partition("pass `")
    if not advice:
        return fault
    how = "medil convert, with --volume, or of DICOM with --series and --keep-tilt"
    return f"{reason.rstrip(' :;')}; convert it first: {how}."


def check_dtype(dtype: np.dtype) -> None:
    """Refuse types other than one real number per voxel.

    Raises:
        InputError: Complex, RGB(A), or another kind.
    """
    if dtype.fields or dtype.kind == "V":
        raise InputError("the image holds colours (RGB); medil reads one number per voxel.")
    if dtype.kind == "c":
        raise InputError("the image is complex; save its magnitude as an image of its own.")
    if dtype.kind not in "biuf":
        raise InputError(f"the image stores {dtype}, which is not a number.")


def native(dtype: np.dtype) -> np.dtype:
    """The same kind in native byte order; long double becomes float64."""
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")
