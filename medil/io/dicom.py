"""DICOM series, read with pydicom: from the headers of its files to one volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medil.errors import InputError, needs, of_system
from medil.grid import Grid
from medil.io.codestreams import unpack
from medil.io.dicom_headers import (
    PER_FRAME,
    PIXELS,
    SHARED,
    Header,
    apply_to_file,
    parse,
    read_headers,
    silence_pydicom,
)
from medil.io.dicom_series import choose_series, without_localizers
from medil.io.slices import TURNED, Slice, grid_of, volumes
from medil.io.source import Source, spatial_shape
from medil.system.memory import require_memory

MACROS = {  # tag -> the functional group that holds it in a multi-frame file
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "DiffusionBValue": "MRDiffusionSequence",
}
MOST_SCALE = 1e28  # of rescaling: with 32 bits a voxel, float32 holds the values
ECHO = ("EchoTime", "EffectiveEchoTime")
ORDER = (  # of slices at one place
    "TemporalPositionIndex", "TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber",
    "InstanceNumber",
)  # fmt: skip


def read_dicom(
    place: Path, volume_index: int | None, series: str | int | None = None, keep_tilt: bool = False
) -> tuple[np.ndarray, Source]:
    """Stored values of a series: a folder and those in it, or one file.

    Rescaled values that are whole numbers, as Hounsfield units, are stored as such.

    Args:
        place: A folder, searched with its folders but not through links that leave it, or a file.
        volume_index: Which of several volumes at the same places (echoes, times), from 0.
        series: Number or UID of the series, where there are several.
        keep_tilt: Keep the shear of a tilted gantry in the affine.

    Returns:
        [column, row, slice] and its `Source`, which holds a place and nothing else of the headers.

    Raises:
        InputError: What is wrong with the series, without the name of the folder.
    """
    if place.is_dir() and not any(place.iterdir()):
        raise InputError("the folder holds no DICOM image; it is empty.")
    with needs("dicom", "DICOM series need pydicom"):
        import pydicom  # noqa: F401
    try:
        with silence_pydicom():
            headers, notes = read_headers(place)
            stack = stacked(choose_series(headers, series), volume_index, keep_tilt)
            stored, slope, inter = _read_pixels(stack.slices)
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(of_system(error)) from error
    except Exception:  # of damaged headers, whose text may name a person
        raise InputError("the series is damaged, or its headers contradict each other.") from None
    said = (*notes, *stack.notes)
    return stored, Source("dicom", stack.grid, stored.dtype, None, slope, inter, notes=said)


# Slices


class Stack(NamedTuple):
    """The sorted slices of one volume, where they lie, and what was assumed or left out."""

    slices: list[Slice]
    grid: Grid
    notes: list[str]


def stacked(
    headers: list[Header], volume_index: int | None = None, keep_tilt: bool = False
) -> Stack:
    """One volume of a series, by its headers alone; arguments as `read_dicom`.

    Raises:
        InputError: What is wrong with the series.
    """
    notes: list[str] = []
    headers = without_localizers(headers, notes)
    slices = [one for header in headers for one in apply_to_file(header, _slices)]
    found = volumes(slices)
    rows, columns = slices[0].shape
    _, _, index = spatial_shape((columns, rows, len(found[0]), len(found)), volume_index)
    grid, assumed = grid_of(found[index], keep_tilt)
    if any("MONOCHROME1" in header.tags.PhotometricInterpretation for header in headers):
        assumed.append("low values were meant to be shown bright (MONOCHROME1); none changed.")
    return Stack(found[index], grid, [*notes, *assumed])


def _slices(header: Header) -> list[Slice]:
    """The images of one file.

    Raises:
        InputError: Colours, other pixels that are no numbers, or no place in space.
    """
    tags = header.tags
    if int(tags.get("SamplesPerPixel") or 1) > 1 or "MONOCHROME" not in str(
        tags.get("PhotometricInterpretation")
    ):
        raise InputError("holds colours (RGB); medil reads one number per voxel.")
    if "MOSAIC" in header.image_type:
        raise InputError("is a Siemens mosaic, which is not read; export it as single slices.")
    if tags.get("ModalityLUTSequence"):
        raise InputError("maps its values by a table (Modality LUT), which is not read.")
    if tags.BitsAllocated not in (8, 16, 32):
        raise InputError(f"stores {int(tags.BitsAllocated)} bits a voxel, not 8, 16 or 32.")
    n_places = len(tags.get(PER_FRAME) or ())
    if (header.n_frames > 1 or n_places) and n_places != header.n_frames:
        raise InputError(
            f"holds {header.n_frames} frames that do not say where they lie (it has {n_places} "
            "places); it is no volume."
        )
    return [_slice(header, frame) for frame in range(header.n_frames)]


class _Fields(NamedTuple):
    """The fields of one frame: in its own functional groups, in the shared ones, in the file."""

    tags: Any
    groups: Sequence[Any]

    def find(self, name: str) -> Any:
        """A field; None where it is absent or empty."""
        for group in self.groups:
            macro = group.get(MACROS.get(name, "")) or ()
            if macro and macro[0].get(name) not in (None, ""):
                return macro[0].get(name)
        found = self.tags.get(name)
        return None if found == "" else found

    def number(self, name: str, default: float = 0.0) -> float:
        """One number."""
        found = self.find(name)
        return default if found is None else float(found)

    def numbers(self, name: str, count: int) -> np.ndarray:
        """[count] finite numbers.

        Raises:
            InputError: The field is absent, or something else.
        """
        found = self.find(name)
        if found is None:
            raise InputError(f"has no {name}, which says where it lies.")
        array = np.array(found, dtype=np.float64)
        if array.shape != (count,) or not np.isfinite(array).all():
            raise InputError(f"has a {name} that is not {count} numbers.")
        return array


def _slice(header: Header, frame: int) -> Slice:
    tags = header.tags
    groups = [*(tags.get(PER_FRAME) or ())[frame : frame + 1], *(tags.get(SHARED) or ())[:1]]
    fields = _Fields(tags, groups)
    axes = fields.numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > TURNED:
        raise InputError("has direction cosines that are no unit vectors at right angles.")
    between_rows, between_columns = fields.numbers("PixelSpacing", 2).tolist()
    if min(between_rows, between_columns) <= 0:
        raise InputError(f"has a PixelSpacing of {between_rows:g} and {between_columns:g} mm.")
    slope, inter = fields.number("RescaleSlope", 1.0), fields.number("RescaleIntercept")
    if not (abs(inter) < MOST_SCALE and 1 / MOST_SCALE < abs(slope) < MOST_SCALE):  # not NaN either
        raise InputError(f"has a rescale slope of {slope:g} and an intercept of {inter:g}.")
    thickness = fields.number("SpacingBetweenSlices") or fields.number("SliceThickness")
    return Slice(
        path=header.path,
        frame=frame,
        instance=str(tags.get("SOPInstanceUID") or header.path),
        shape=header.size[::-1],
        origin_mm=fields.numbers("ImagePositionPatient", 3),
        axes=axes,
        pixel_mm=(between_columns, between_rows),
        thickness_mm=abs(thickness) or None,
        dtype=np.dtype(f"{'i' if tags.PixelRepresentation else 'u'}{tags.BitsAllocated // 8}"),
        slope=slope,
        inter=inter,
        kind=(header.image_type, *(fields.number(name) for name in ECHO)),
        order=(*(fields.number(name) for name in ORDER), frame),
    )


# Pixels


def _read_pixels(slices: Sequence[Slice]) -> tuple[np.ndarray, float, float]:
    """[column, row, slice] stored numbers, slope and intercept of sorted slices.

    Whole numbers stay whole. One slope for all slices is kept, in float32 as in NIfTI; where
    slopes differ, values are float32.
    """
    rows, columns = slices[0].shape
    require_memory(rows * columns * len(slices), 16, "the series")
    dtype = np.result_type(*(s.dtype for s in slices))
    stored: np.ndarray | None = None  # until the first file has shown that it holds pixels
    by_path: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(slices):
        by_path.setdefault(one.path, []).append((k, one))
    for path, places in by_path.items():
        frames = apply_to_file(path, partial(_decode, slices=[s for _, s in places]))
        if stored is None:
            stored = np.empty((columns, rows, len(slices)), dtype, order="F")
        for (k, _), pixels in zip(places, frames, strict=True):
            stored[..., k] = pixels.T
    assert stored is not None
    return _scaled(stored, [s.slope for s in slices], [s.inter for s in slices])


def _scaled(
    stored: np.ndarray, slopes: Sequence[float], inters: Sequence[float]
) -> tuple[np.ndarray, float, float]:
    if set(slopes) == {1.0} and all(_is_small_integer(inter) for inter in inters):
        if not any(inters):
            return stored, 1.0, 0.0
        values = stored.astype(np.int64) + np.array(inters, dtype=np.int64)
        kinds = [np.iinfo(kind) for kind in (np.int16, np.uint16, np.int32, np.int64)]
        low, high = values.min(), values.max()
        kind = next(k for k in kinds if k.min <= low and high <= k.max)
        return values.astype(kind.dtype), 1.0, 0.0
    if len({*zip(slopes, inters)}) == 1:
        return stored, float(np.float32(slopes[0])), float(np.float32(inters[0]))
    values = np.empty(stored.shape, np.float64 if stored.dtype.itemsize > 2 else np.float32, "F")
    for k in range(stored.shape[2]):
        values[..., k] = stored[..., k].astype(np.float64) * slopes[k] + inters[k]
    return values, 1.0, 0.0


def _is_small_integer(number: float) -> bool:
    return number.is_integer() and abs(number) < 2**31


def _decode(path: Path, slices: Sequence[Slice]) -> list[np.ndarray]:
    """The pixels of slices of one file: [rows, columns] each.

    Raises:
        InputError: No or too few pixels, or a compression that cannot be undone here.
    """
    from pydicom.encaps import generate_frames
    from pydicom.pixels import iter_pixels
    from pydicom.uid import RLELossless

    tags = parse(path, specific_tags=[*PIXELS, "PixelData"])
    if "PixelData" not in tags:
        raise InputError("has no pixels, or is cut short.")
    _set_transfer_syntax(tags)
    syntax = tags.file_meta.TransferSyntaxUID
    n_frames = int(tags.get("NumberOfFrames") or 1)
    n_bytes = math.prod(slices[0].shape) * slices[0].dtype.itemsize * n_frames
    if not syntax.is_encapsulated and len(tags.PixelData) < n_bytes:
        raise InputError(f"is cut short: it has {len(tags.PixelData):,} of {n_bytes:,} bytes.")
    unused = tags.BitsAllocated - (tags.get("BitsStored") or tags.BitsAllocated)
    highest = tags.BitsAllocated - unused - 1
    if not 0 <= unused < tags.BitsAllocated or tags.get("HighBit", highest) != highest:
        raise InputError("packs its pixels in an order of bits that is not read.")
    wanted = [s.frame for s in slices]
    if syntax.is_encapsulated and syntax != RLELossless:
        frames = dict(enumerate(generate_frames(tags.PixelData, number_of_frames=n_frames)))
        decoded = [unpack(frames[k], syntax, slices[0].shape, slices[0].dtype) for k in wanted]
    else:
        decoded = list(iter_pixels(tags, indices=wanted, raw=True))
    return [(pixels << unused) >> unused for pixels in decoded]  # old overlays lie in those bits


def _set_transfer_syntax(tags: Any) -> None:
    """A file without file meta information does not say how it is encoded; the parser found out."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in tags.file_meta:
        return
    is_implicit, is_little = tags.original_encoding
    explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
    tags.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
