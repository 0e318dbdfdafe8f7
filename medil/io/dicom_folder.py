"""The volumes among the DICOM series of a folder, under names that say nothing of a person."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError, needs
from medil.io.dicom import stacked
from medil.io.dicom_headers import Header, read_headers, silence_pydicom
from medil.io.dicom_series import by_series, series_label
from medil.io.source import as_one_of_many

DIGITS = 8  # hexadecimal ones of the digest that stands for a UID


class Series(NamedTuple):
    """A series that is a volume.

    Args:
        place: The file that holds it, or the folder that holds its files.
        files: All of them, sorted.
        uid: Its identifier, which `medil.volume.load` takes as `series`.
        study: Stands for its study, such as ``dicom-1f3a9c2e``; the digits are of a digest.
        name: Study and number of the series, such as ``dicom-1f3a9c2e_series-4``.
    """

    place: Path
    files: tuple[Path, ...]
    uid: str
    study: str
    name: str


class SeriesFound(NamedTuple):
    """The volumes of a folder, and a sentence for each series that is broken, or no volume."""

    volumes: list[Series]
    broken: list[str]
    others: list[str]


def find_series(place: Path) -> SeriesFound:
    """All series in a folder and those in it, or in one file, by their headers.

    Series that are not meant as a volume are `others`: localizers, screen captures, single
    slices. A series that would be a volume and cannot be read, as one without a slice, is broken.

    Raises:
        InputError: A damaged file, no DICOM image, or no series that is a volume.
    """
    with needs("dicom", "DICOM series need pydicom"):
        import pydicom  # noqa: F401
    found = SeriesFound([], [], [])
    with silence_pydicom():
        try:
            headers, notes = read_headers(place)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        if not place.is_dir() and sum(header.n_frames for header in headers) == 1:
            raise InputError(f"{place.parent}: DICOM files of one slice; name the folder of them.")
        found.others.extend(f"{place}: {note}" for note in notes)
        groups = by_series(headers)
        numbers = Counter(files[0].number for files in groups.values())
        labelled = [(series_label(files, numbers), files) for files in groups.values()]
        for label, files in sorted(labelled, key=lambda pair: (pair[1][0].number or 0, pair[0])):
            said = f"{place}: series {label}"
            if reason := _not_meant(files):
                found.others.append(f"{said} {reason}")
            elif reason := _broken(files):
                found.broken.append(f"{said}: {reason}")
            else:
                found.volumes.append(_series(files, groups))
    if not found.volumes:
        raise InputError(" ".join([*found.broken, *found.others][:3]))
    return found


def _not_meant(files: list[Header]) -> str:
    """Why a series is no volume by its own word; empty if it may be one."""
    if all("LOCALIZER" in header.image_type for header in files):
        return "is a localizer, no volume."
    if all("Secondary Capture" in header.kind for header in files):
        return "is a screen capture, no volume."
    if sum(header.n_frames for header in files) == 1:
        return "is a single slice, no volume."
    return ""


def _broken(files: list[Header]) -> str:
    """What is wrong with a series, as a sentence; empty if it is one volume."""
    try:
        stacked(files)
    except InputError as error:
        return as_one_of_many(str(error))
    return ""


def _series(files: list[Header], groups: dict[str, list[Header]]) -> Series:
    first, paths = files[0], sorted(header.path for header in files)
    alike = [f for f in groups.values() if (f[0].study, f[0].number) == (first.study, first.number)]
    is_unique = first.number is not None and len(alike) == 1
    study = f"dicom-{_digits(first.study or first.uid)}"
    number = first.number if is_unique else _digits(first.uid)
    place = paths[0] if len(paths) == 1 else Path(os.path.commonpath(paths))
    return Series(place, tuple(paths), first.uid, study, f"{study}_series-{number}")


def _digits(uid: str) -> str:
    """Short digits that stand for an identifier."""
    return hashlib.sha256(uid.encode()).hexdigest()[:DIGITS]
