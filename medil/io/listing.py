"""Find the images that files, folders, patterns and CSV tables name."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError, of_system
from medil.io.source import SUFFIXES


class Listed(NamedTuple):
    """An image, its subject where a table names one, and perhaps its mask."""

    path: Path
    subject: str = ""
    mask: Path | None = None


class Found(NamedTuple):
    """The images at some places, and a sentence for each file that had to be left out."""

    images: list[Listed]
    left_out: list[str]


def list_images(places: Iterable[str | Path]) -> Found:
    """The images that files, patterns, folders and CSV tables name, each once, in that order.

    A pattern is such as ``scans/*/t1.nii.gz``. A folder gives its images, sorted by name; one
    without images gives those of the folders in it. Hidden folders, such as the ``.git/annex`` of
    a DataLad data set, are not searched, and of several links to one file the first one counts.
    Links to files that are not there are left out. A table needs a column ``path`` and may have
    ``subject`` and ``mask``; its paths are relative to it, and need not exist.

    Raises:
        InputError: A place that does not exist or holds no image, an unusable table, or one file
            under the names of two subjects.
    """
    found = Found([], [])
    for place in places:
        _add_place(found, Path(place))
    return Found(_once(found.images), list(dict.fromkeys(found.left_out)))


def _add_place(found: Found, place: Path) -> None:
    if place.is_dir():
        _add_folder(found, place)
    elif place.is_symlink() and not place.exists():
        found.left_out.append(_broken(place))
    elif place.exists():
        is_table = place.suffix.lower() == ".csv"
        found.images.extend(_read_table(place) if is_table else [Listed(place)])
    else:
        matches = sorted(glob.glob(str(place), recursive=True))
        if not matches:
            raise InputError(f"{place} does not exist.")
        for match in matches:
            _add_place(found, Path(match))


def _broken(link: Path) -> str:
    return f"{link} is a link to a file that is not there."


def _add_folder(found: Found, folder: Path) -> None:
    paths = _images_among(folder.iterdir()) or _images_among(_below(folder))
    if not paths:
        raise InputError(
            f"{folder} holds no image that ends in {', '.join(SUFFIXES)}; DICOM series become "
            "such with: medil convert FOLDER -o FILE."
        )
    for path in paths:
        if path.exists():
            found.images.append(Listed(path))
        else:
            found.left_out.append(_broken(path))


def _images_among(paths: Iterable[Path]) -> list[Path]:
    """Files, and links to none, by their endings, without hidden ones."""
    shown = (p for p in paths if not p.name.startswith(".") and not p.is_dir())
    return sorted(p for p in shown if p.name.lower().endswith(SUFFIXES))


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


def _once(images: Sequence[Listed]) -> list[Listed]:
    """Without the second and further mentions of one file with one mask.

    Raises:
        InputError: It belongs to two subjects.
    """
    first: dict[tuple[str, str], Listed] = {}
    for image in images:
        key = (os.path.realpath(image.path), os.path.realpath(image.mask) if image.mask else "")
        other = first.setdefault(key, image)
        if other.subject != image.subject:
            raise InputError(
                f"{image.path} is listed as subject {other.subject!r} and as {image.subject!r}; "
                "name it once."
            )
    return list(first.values())


def _read_table(table: Path) -> list[Listed]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a readable CSV table: {error}.") from error
    if "path" not in columns:
        raise InputError(f"{table} has no column called 'path'.")
    if not lines:
        raise InputError(f"{table} names no volume.")
    images = []
    for number, line in lines:
        path, mask, name = ((line.get(key) or "").strip() for key in ("path", "mask", "subject"))
        if not path:
            raise InputError(f"{table}, line {number} names no path.")
        images.append(Listed(table.parent / path, name, table.parent / mask if mask else None))
    return images
