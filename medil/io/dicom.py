"""DICOM series, read with pydicom.

Only the tags named here are read, and none of them names a person. What is printed of a header
are numbers, checked identifiers and names of the DICOM dictionary, never its free text. What the
libraries say about damaged bytes is not passed on, because they quote the header.
"""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medil.errors import InputError, needs, of_system, printable
from medil.io.codestreams import unpack
from medil.io.slices import TURNED, Slice, grid_of, volumes
from medil.io.source import Source, spatial_shape
from medil.system.memory import require_memory

SUFFIXES = (".dcm", ".dicom", ".ima")  # most files have none
MOST_FILES = 20_000  # that are looked at; a series has fewer
MOST_SERIES = 12  # that a sentence lists
HEAD_BYTES = 1024  # in which the preamble and the transfer syntax lie
MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RTDOSE", "SC", "SEG", "US", "XA")
DEFLATED = b"1.2.840.10008.1.2.1.99"
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
)  # fmt: skip
TAGS = (
    *PIXELS, "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality",
    "ImageType", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "ModalityLUTSequence", "TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber",
    SHARED, PER_FRAME,
)  # fmt: skip
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
ECHO = ("EchoTime", "EffectiveEchoTime")
ORDER = (  # of slices at one place
    "TemporalPositionIndex", "TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber",
    "InstanceNumber",
)  # fmt: skip


class Header(NamedTuple):
    """A file, the tags that were read of it, and those that every file is asked for."""

    path: Path
    tags: Any  # a pydicom dataset
    kind: str  # by the DICOM dictionary, such as ``CT Image Storage``
    n_frames: int  # images in the file; 0 in other objects
    size: tuple[int, int]  # (columns, rows)
    uid: str  # of its series
    number: int | None  # of its series
    modality: str
    image_type: tuple[str, ...]


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
    with needs("dicom", "DICOM series need pydicom"):
        import pydicom  # noqa: F401
    with _silence():
        headers, notes = _headers(place)
        chosen = _choose(headers, series)
        chosen = _without_localizers(chosen, notes)
        slices = [one for header in chosen for one in _each(header, _slices)]
        found = volumes(slices)
        rows, columns = slices[0].shape
        _, _, index = spatial_shape((columns, rows, len(found[0]), len(found)), volume_index)
        grid, assumed = grid_of(found[index], keep_tilt)
        if any("MONOCHROME1" in header.tags.PhotometricInterpretation for header in chosen):
            assumed.append("low values were meant to be shown bright (MONOCHROME1); none changed.")
        stored, slope, inter = _read_pixels(found[index])
    said = (*notes, *assumed)
    return stored, Source("dicom", grid, stored.dtype, None, slope, inter, notes=said)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep remarks of pydicom, which quote headers, off every log."""
    from pydicom.config import disable_value_validation

    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


# Files


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its first bytes or its suffix."""
    return path.suffix.lower() in SUFFIXES or _kind(path) != ""


def _kind(path: Path) -> str:
    """``whole``, ``bare`` (without a preamble), ``deflated``, or empty for other files."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head[128:132] == b"DICM":
        return "deflated" if DEFLATED in head else "whole"
    group, element = (int.from_bytes(head[k : k + 2], "little") for k in (0, 2))
    return "bare" if len(head) > 132 and group in (2, 8) and element < 0x100 else ""


def _files(place: Path) -> tuple[list[Path], int]:
    """Regular files in a folder and its folders, sorted, and the number of unusable links.

    Raises:
        InputError: More than `MOST_FILES`.
        OSError: A folder that may not be read.
    """
    if not place.is_dir():
        return [place], 0
    found = list(islice(_walk(place), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise InputError(f"the folder holds more than {MOST_FILES:,} files; name that of a series.")
    root = os.path.realpath(place) + os.sep
    unusable = {
        entry.path
        for entry in found
        if entry.is_symlink()
        and not (os.path.realpath(entry.path).startswith(root) and os.path.exists(entry.path))
    }
    regular = (e.path for e in found if e.is_file() and e.path not in unusable)
    return sorted(Path(path) for path in regular), len(unusable)


def _walk(folder: Path) -> Iterator[os.DirEntry]:
    """All that is no folder in a folder and its folders; nothing hidden, no linked folder."""
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


def _headers(place: Path) -> tuple[list[Header], list[str]]:
    """The images in a folder, and sentences on what was left out.

    Raises:
        InputError: A damaged file, or no image.
    """
    try:
        paths, n_left = _files(place)
        headers = [header for path in paths if (header := _each(path, _read_header))]
    except OSError as error:
        raise InputError(of_system(error)) from error
    images = [header for header in headers if header.n_frames]
    if not images:
        what = "the folder" if place.is_dir() else "the file"
        raise InputError(f"{what} holds no DICOM image; name an image file or another folder.")
    others = Counter(header.kind for header in headers if not header.n_frames)
    notes = []
    if n_left:
        notes.append(f"links out of the folder, or to no file, were left out: {n_left}.")
    if others:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
        notes.append(f"DICOM files that hold no image were left out: {listed}.")
    return images, notes


def _each(item: Any, function: Any) -> Any:
    """`function` of a file, path or `Header`; refusals name it and quote nothing else.

    Raises:
        InputError: What `function` refuses; or that the file is damaged, whatever a parser raises.
    """
    path = getattr(item, "path", item)
    try:
        return function(item)
    except InputError as error:
        raise InputError(f"{printable(path.name)} {error}") from None
    except Exception as error:  # parsers raise all sorts, with the damaged value in their text
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise  # from the system; pydicom raises an OSError without a number
        raise InputError(f"{printable(path.name)} is damaged or cut short.") from None


def _read_header(path: Path) -> Header | None:
    """The `TAGS` of a file; None if it is not DICOM."""
    from pydicom import dcmread
    from pydicom.uid import UID, UID_dictionary

    kind = _kind(path)
    if kind == "deflated":
        raise InputError("is deflated; write it without compression first.")
    if not kind and path.suffix.lower() in SUFFIXES:
        raise InputError("is not DICOM, or damaged.")
    if not kind:
        return None
    tags = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    uid = tags.get("SOPClassUID") or tags.file_meta.get("MediaStorageSOPClassUID")
    if not uid:
        if kind == "bare":
            return None  # other bytes that look like it
        raise InputError("is damaged or cut short.")
    name = UID(uid).name if uid in UID_dictionary else "of an unknown kind"
    if "Rows" not in tags and "Image" in name:
        raise InputError("is an image that is damaged or cut short.")
    modality, is_image = str(tags.get("Modality") or ""), "Rows" in tags
    return Header(
        path=path,
        tags=tags,
        kind=name,
        n_frames=int(tags.get("NumberOfFrames") or 1) if is_image else 0,
        size=(int(tags.Columns), int(tags.Rows)) if is_image else (0, 0),
        uid=str(tags.get("SeriesInstanceUID") or ""),
        number=_integer(tags.get("SeriesNumber")),
        modality=modality if modality in MODALITIES else "",
        image_type=_words(tags.get("ImageType")),
    )


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _words(value: Any) -> tuple[str, ...]:
    """The words of a field that holds one, several or none."""
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value or ())


# Series


def _choose(headers: Sequence[Header], series: str | int | None) -> list[Header]:
    """The files of one series.

    Raises:
        InputError: Several series and none chosen, or a choice that does not exist; lists them.
    """
    by_uid: dict[str, list[Header]] = {}
    for header in headers:
        by_uid.setdefault(header.uid, []).append(header)
    if series is None and len(by_uid) == 1:
        return list(headers)
    numbers = {uid: files[0].number for uid, files in by_uid.items()}
    wanted = str(series).strip()
    matches = [uid for uid, number in numbers.items() if wanted in (uid, str(number))]
    if series is not None and len(matches) == 1:
        return by_uid[matches[0]]
    listed = sorted(by_uid, key=lambda uid: (numbers[uid] is None, numbers[uid], uid))
    shared = Counter(numbers.values())
    names = [_series_name(by_uid[uid], shared) for uid in listed[:MOST_SERIES]]
    if len(listed) > MOST_SERIES:
        names.append(f"and {len(listed) - MOST_SERIES} more")
    problem = "pass `series=NUMBER_OR_UID` to choose one"
    if series is not None:
        problem = f"`series={printable(wanted)}` names {len(matches) or 'none'} of them"
    count = "there is one series" if len(by_uid) == 1 else f"there are {len(by_uid)} series"
    raise InputError(f"{count}: {', '.join(names)}; {problem}.")


def _series_name(files: Sequence[Header], shared: Counter) -> str:
    """Such as ``4 (MR, 256 x 256, 120 images)``; the UID where numbers do not tell apart."""
    first, name = files[0], str(files[0].number)
    if first.number is None or shared[first.number] > 1:
        is_valid = re.fullmatch(r"[0-9.]{1,64}", first.uid)
        name = first.uid if is_valid else "one without a valid UID"
    n_images = sum(header.n_frames for header in files)
    facts = [first.modality] if first.modality else []
    facts += ["{} x {}".format(*first.size), f"{n_images} image{'s'[: n_images - 1]}"]
    return f"{name} ({', '.join(facts)})"


def _without_localizers(headers: list[Header], notes: list[str]) -> list[Header]:
    """Without the localizers of a series that holds other images too; adds a note."""
    kept = [header for header in headers if "LOCALIZER" not in header.image_type]
    if not kept or len(kept) == len(headers):
        return headers
    notes.append(f"localizers in the series were left out: {len(headers) - len(kept)}.")
    return kept


# Slices


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
    if header.n_frames > 1 and len(tags.get(PER_FRAME) or ()) != header.n_frames:
        raise InputError(
            f"holds {header.n_frames} frames that do not say where they lie; it is no volume."
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
    slope, inter = fields.number("RescaleSlope", 1.0), fields.number("RescaleIntercept")
    if not (math.isfinite(inter) and math.isfinite(slope)) or slope == 0:
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
    stored = np.empty((columns, rows, len(slices)), dtype, order="F")
    by_path: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(slices):
        by_path.setdefault(one.path, []).append((k, one))
    for path, places in by_path.items():
        frames = _each(path, lambda path, places=places: _decode(path, [s for _, s in places]))
        for (k, _), pixels in zip(places, frames, strict=True):
            stored[..., k] = pixels.T
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
    from pydicom import dcmread
    from pydicom.encaps import generate_frames
    from pydicom.pixels import iter_pixels
    from pydicom.uid import RLELossless

    tags = dcmread(path, specific_tags=[*PIXELS, "PixelData"], force=True)
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
