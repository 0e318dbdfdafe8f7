"""Find the images that files, folders, patterns, tables, DICOM folders and BIDS data sets hold."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError, of_system, printable, shown
from medil.io import bids
from medil.io.covariates import Covariates, read_covariates
from medil.io.dicom_folder import Series, find_series
from medil.io.dicom_headers import is_dicom
from medil.io.source import FOREIGN, SUFFIXES, has_suffix, suffix_of
from medil.io.tables import Row, is_table, read_table


class Listed(NamedTuple):
    """An image, its name, its subject where one is known, and perhaps its mask."""

    path: Path  # a file, or the folder of a DICOM series
    name: str = ""
    subject: str = ""  # splits go by it
    mask: Path | None = None
    series: str | None = None  # UID of a DICOM series, as `medil.volume.load` takes it
    files: tuple[Path, ...] = ()  # of a DICOM series
    covariates: Covariates = Covariates()
    split: str = ""  # as a table names it


class Found(NamedTuple):
    """The images at some places, and sentences.

    One of `left_out` is about a file that had to be left out; one of `notes` says how a place was
    read, and what of it is not meant to be an image.
    """

    images: list[Listed]
    left_out: list[str]
    notes: list[str]


def list_images(
    places: Iterable[str | Path], suffix: str = bids.SUFFIX, split: str | None = None
) -> Found:
    """The images that places name, each once, in that order.

    - A pattern is such as ``scans/*/t1.nii.gz``; what matches and cannot be used is left out.
    - A BIDS data set, one of its subjects or sessions: see `medil.io.bids`.
    - Another folder gives its images, sorted by name; one without images gives those of the
      folders in it. Hidden folders, such as the ``.git/annex`` of a DataLad data set, are not
      searched, and of several links to one file the first one counts. Links to files that are not
      there are left out.
    - A folder with DICOM files and no other image gives every series that is a volume: see
      `medil.io.dicom_folder`. Beside other images DICOM files do not count.
    - A table (.csv, .tsv) has a column ``path``, relative to the table, and may have ``subject``,
      ``mask``, ``age``, ``sex`` and ``split``; see `medil.io.tables`. A path is a file or a DICOM
      folder.

    Args:
        places: Files, folders, patterns, tables.
        suffix: Which images of a BIDS data set, such as ``T1w``.
        split: Leave out lines of tables that name another split; all count when None.

    Raises:
        InputError: A place that does not exist or holds no image, an unusable table, or one file
            under the names of two subjects.
    """
    found = Found([], [], [])
    for place in places:
        _add_place(found, Path(place), suffix)
    images = _of_split(_once(found.images), split, found.notes)
    left_out, notes = (list(dict.fromkeys(said)) for said in (found.left_out, found.notes))
    return Found(images, left_out, notes)


def _add_place(found: Found, place: Path, suffix: str) -> None:
    if place.is_dir():
        _add_folder(found, place, suffix)
    elif place.is_symlink() and not place.exists():
        found.left_out.append(_broken(place))
    elif place.exists():
        if is_table(place):
            _add_table(found, place)
        elif _is_dicom_file(place):
            _add_series(found, place)
        else:
            found.images.append(Listed(place, _stem(place)))
    else:
        matches = sorted(glob.glob(str(place), recursive=True))
        if not matches:
            raise InputError(f"{place} does not exist.")
        for match in matches:
            try:
                _add_place(found, Path(match), suffix)
            except InputError as error:
                found.left_out.append(str(error))


def _broken(link: Path) -> str:
    return f"{link} is a link to a file that is not there."


def _stem(path: Path) -> str:
    return path.name[: -len(suffix_of(path))] or path.name


# Folders


def _add_folder(found: Found, folder: Path, suffix: str) -> None:
    if bids.root_of(folder):
        _add_bids(found, folder, suffix)
        return
    paths: list[Path] = []
    levels: list[Callable[[], Iterable[Path]]] = [folder.iterdir, lambda: _below(folder)]
    for level in levels:
        paths = _shown(level())
        if any(map(has_suffix, paths)):
            break
    images = [path for path in paths if has_suffix(path)]
    has_dicom = any(map(_is_dicom_file, paths))
    if not images and has_dicom:
        _add_series(found, folder)
        return
    foreign = [path for path in paths if path.suffix.lower() in FOREIGN]
    if not images:
        hint = FOREIGN[foreign[0].suffix.lower()] if foreign else "no DICOM file either."
        raise InputError(f"{folder} holds no image that ends in {', '.join(SUFFIXES)}; {hint}")
    if has_dicom:
        found.notes.append(f"{folder} holds DICOM files beside images: the images alone count.")
    found.notes.extend(_of_others(folder, foreign))
    for path in images:
        if path.exists():
            found.images.append(Listed(path, _stem(path)))
        else:
            found.left_out.append(_broken(path))


def _of_others(folder: Path, paths: Sequence[Path]) -> list[str]:
    """A note on each format that is not read."""
    hints = Counter(FOREIGN[path.suffix.lower()] for path in paths)
    return [f"{folder} holds {n} that do not count: {hint}" for hint, n in hints.items()]


def _shown(paths: Iterable[Path]) -> list[Path]:
    """Files, and links to none, without hidden ones; sorted."""
    return sorted(p for p in paths if not p.name.startswith(".") and not p.is_dir())


def _is_dicom_file(path: Path) -> bool:
    try:
        return path.is_file() and not has_suffix(path) and is_dicom(path)
    except OSError:  # a file that may not be read is said to be so where it is named
        return False


def _below(folder: Path) -> Iterator[Path]:
    """What lies in the folders of a folder, also in linked ones, but not in hidden ones.

    Raises:
        InputError: A folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(of_system(error)) from error

    seen: set[str] = set()
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        place = os.path.realpath(root)
        folders[:] = [] if place in seen else [f for f in folders if not f.startswith(".")]
        if place not in seen:
            yield from (Path(root, name) for name in names)
        seen.add(place)


def _add_bids(found: Found, folder: Path, suffix: str) -> None:
    read = bids.read_bids(folder, suffix)
    found.left_out.extend(read.left_out)
    found.notes.extend(read.notes)
    for image in read.images:
        if image.path.exists():
            listed = Listed(image.path, image.name, image.subject, covariates=image.covariates)
            found.images.append(listed)
        else:
            found.left_out.append(_broken(image.path))


def _add_series(found: Found, place: Path) -> None:
    series = find_series(place)
    found.left_out.extend(series.broken)
    found.notes.extend(series.others)
    found.images.extend(_listed_series(one) for one in series.volumes)


def _listed_series(one: Series) -> Listed:
    return Listed(one.place, one.name, one.study, series=one.uid, files=one.files)


# Tables


def _add_table(found: Found, table: Path) -> None:
    rows = read_table(table, "path")
    if not rows:
        raise InputError(f"{table} names no volume.")
    scans = Counter(row.cells.get("subject", "") for row in rows)
    for row in rows:
        where = f"{table}, line {row.line}"
        if fault := _missing(table, row):
            found.left_out.append(f"{where}: {fault}")
            continue
        covariates, remarks, faults = read_covariates(row.cells)
        if faults:
            raise InputError(f"{where}: {faults[0]}.")
        found.notes.extend(f"{where}: {remark}." for remark in remarks)
        mask, split = row.cells.get("mask", ""), row.cells.get("split", "")
        found.images.extend(
            image._replace(
                mask=table.parent / mask if mask else None, covariates=covariates, split=split
            )
            for image in _images_of(found, table, row, scans)
        )


def _missing(table: Path, row: Row) -> str:
    """Which file of a line is not there, as a sentence; empty if all are.

    Raises:
        InputError: The line names no image.
    """
    if not row.cells["path"]:
        raise InputError(f"{table}, line {row.line} names no path.")
    for column in ("path", "mask"):
        named = row.cells.get(column, "")
        if named and not (table.parent / named).exists():
            return f"{printable(named)} does not exist."
    return ""


def _images_of(found: Found, table: Path, row: Row, scans: Counter[str]) -> list[Listed]:
    """The image of a line, or the series of its DICOM folder, under the subject of the line.

    `scans` counts the lines of each subject: the subject names its scan if it has one alone.
    """
    path, subject = table.parent / row.cells["path"], row.cells.get("subject", "")
    try:
        if path.is_dir() or _is_dicom_file(path):
            series = Found([], [], [])
            _add_series(series, path)
            found.left_out.extend(series.left_out)
            found.notes.extend(series.notes)
            images = series.images
        else:
            images = [Listed(path, _stem(path))]
    except InputError as error:
        raise InputError(f"{table}, line {row.line}: {error}") from error
    if not subject:
        return images
    if len(images) == scans[subject] == 1:
        return [images[0]._replace(name=subject, subject=subject)]
    return [image._replace(name=f"{subject}_{image.name}", subject=subject) for image in images]


# All


def _once(images: Sequence[Listed]) -> list[Listed]:
    """Without the second and further mentions of one file with one mask.

    What names a subject counts before what names none.

    Raises:
        InputError: It belongs to two subjects.
    """
    first: dict[tuple[str, str, str], Listed] = {}
    for image in images:
        mask = os.path.realpath(image.mask) if image.mask else ""
        key = (os.path.realpath(image.path), image.series or "", mask)
        other = first.setdefault(key, image)
        if not image.subject or image.subject == other.subject:
            continue
        if not other.subject:
            first[key] = image
        else:
            raise InputError(
                f"{image.path} is listed as subject {shown(other.subject)} "
                f"and as {shown(image.subject)}; name it once."
            )
    return list(first.values())


def _of_split(images: list[Listed], split: str | None, notes: list[str]) -> list[Listed]:
    """The images of one split, and those that name none; adds a note on the others.

    Raises:
        InputError: All of them name other splits.
    """
    if split is None:
        return images
    kept = [image for image in images if image.split in ("", split)]
    others = Counter(image.split for image in images if image.split not in ("", split))
    listed = ", ".join(f"{printable(name)} ({n})" for name, n in sorted(others.items()))
    if images and not kept:
        raise InputError(
            f"no scan is of the split {shown(split)}, only of {listed}; pass `split=NAME`."
        )
    if others:
        notes.append(f"scans of other splits than {shown(split)} do not count: {listed}.")
    return kept
