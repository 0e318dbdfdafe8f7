"""Files and headers of DICOM: which files are read, and what of them.

Only the tags named here are read, and none of them names a person. What is printed of a header
are numbers, checked identifiers and names of the DICOM dictionary, never its free text. What the
libraries say about damaged bytes is not passed on, because they quote the header.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from medil.errors import InputError, of_system, printable

SUFFIXES = (".dcm", ".dicom", ".ima")  # most files have none
MOST_FILES = 20_000  # that are looked at; a series has fewer
HEAD_BYTES = 1024  # in which the preamble and the transfer syntax lie
MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RTDOSE", "SC", "SEG", "US", "XA")
DEFLATED = b"1.2.840.10008.1.2.1.99"
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
)  # fmt: skip
TAGS = (
    *PIXELS, "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "Modality", "ImageType", "ImageOrientationPatient", "ImagePositionPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
    "EchoTime", "ModalityLUTSequence", "TemporalPositionIdentifier", "AcquisitionNumber",
    "InstanceNumber", SHARED, PER_FRAME,
)  # fmt: skip


class Header(NamedTuple):
    """A file, the tags that were read of it, and those that every file is asked for."""

    path: Path
    tags: Any  # a pydicom dataset
    kind: str  # by the DICOM dictionary, such as ``CT Image Storage``
    n_frames: int  # images in the file; 0 in other objects
    size: tuple[int, int]  # (columns, rows)
    uid: str  # of its series
    study: str  # UID of its study, which holds series of one person and one visit
    number: int | None  # of its series
    modality: str
    image_type: tuple[str, ...]


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


def read_headers(place: Path) -> tuple[list[Header], list[str]]:
    """The images in a folder and those in it, or in one file, and sentences on what was left out.

    Raises:
        InputError: A damaged file, or no image.
    """
    try:
        paths, n_left = _files(place)
        found = {path: apply_to_file(path, _read_header) for path in paths}
    except OSError as error:
        raise InputError(of_system(error)) from error
    headers = [header for header in found.values() if header]
    images = [header for header in headers if header.n_frames]
    if not images:
        what = "the folder" if place.is_dir() else "the file"
        raise InputError(f"{what} holds no DICOM image; name an image file or another folder.")
    others = Counter(header.kind for header in headers if not header.n_frames)
    notes = []
    if n_left:
        notes.append(f"links out of the folder, or to no file, were left out: {n_left}.")
    suffixes = {header.path.suffix for header in images}
    unread = [path.name for path, header in found.items() if not header and path.suffix in suffixes]
    if unread:
        notes.append(
            f"files named like the images that are not DICOM, or damaged, were left out: "
            f"{len(unread)}, such as {printable(unread[0])}."
        )
    if others:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
        notes.append(f"DICOM files that hold no image were left out: {listed}.")
    return images, notes


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


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
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


@contextmanager
def silence_pydicom() -> Iterator[None]:
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


def apply_to_file(item: Any, function: Any) -> Any:
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


class _Bounded(io.BufferedReader):
    """A file that is never asked for more bytes than it has.

    Python reserves what is asked for, and lengths in damaged headers reach 4 GB.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.n_bytes = os.stat(path).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, and no more than are left."""
        left = max(0, self.n_bytes - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def parse(path: Path, **options: Any) -> Any:
    """The pydicom dataset of a file; `options` are those of ``dcmread``."""
    from pydicom import dcmread

    with _Bounded(path) as file:
        return dcmread(file, force=True, **options)


def _read_header(path: Path) -> Header | None:
    """The `TAGS` of a file; None if it is not DICOM."""
    from pydicom.uid import UID, UID_dictionary

    kind = _kind(path)
    if kind == "deflated":
        raise InputError("is deflated; write it without compression first.")
    if not kind and path.suffix.lower() in SUFFIXES:
        raise InputError("is not DICOM, or damaged.")
    if not kind:
        return None
    tags = parse(path, stop_before_pixels=True, specific_tags=list(TAGS))
    named = (tags.get("SOPClassUID"), tags.file_meta.get("MediaStorageSOPClassUID"))
    uids = [str(uid) for uid in named if uid]
    if not uids:
        if kind == "bare":
            return None  # other bytes that look like it
        raise InputError("is damaged or cut short.")
    names = [UID(uid).name for uid in uids if uid in UID_dictionary]
    name = names[0] if names else "of an unknown kind"
    if "Rows" not in tags and ("Image" in name or len(set(uids)) > 1):  # a cut identifier differs
        raise InputError("is an image that is damaged or cut short.")
    modality, is_image = str(tags.get("Modality") or ""), "Rows" in tags
    return Header(
        path=path,
        tags=tags,
        kind=name,
        n_frames=_n_frames(tags) if is_image else 0,
        size=(int(tags.Columns), int(tags.Rows)) if is_image else (0, 0),
        uid=str(tags.get("SeriesInstanceUID") or ""),
        study=str(tags.get("StudyInstanceUID") or ""),
        number=_integer(tags.get("SeriesNumber")),
        modality=modality if modality in MODALITIES else "",
        image_type=_words(tags.get("ImageType")),
    )


def _n_frames(tags: Any) -> int:
    """Images in an image file; one where it does not say how many."""
    found = tags.get("NumberOfFrames")
    n_frames = 1 if found in (None, "") else int(found)
    if n_frames < 1:
        raise InputError(f"holds {n_frames} frames.")
    return n_frames


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _words(value: Any) -> tuple[str, ...]:
    """The words of a field that holds one, several or none."""
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value or ())
