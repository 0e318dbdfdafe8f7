"""Find the images that files, folders, patterns and CSV tables name."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError
from medil.io.source import SUFFIXES


class Listed(NamedTuple):
    """An image, its subject where a table names one, and perhaps its mask."""

    path: Path
    subject: str = ""
    mask: Path | None = None


def list_images(places: Iterable[str | Path]) -> list[Listed]:
    """The images that files, patterns, folders and CSV tables name, in that order.

    A pattern is such as ``scans/*/t1.nii.gz``. A folder gives its images, sorted by name; one
    without images gives those of the folders in it. A table needs a column ``path`` and may have
    ``subject`` and ``mask``; its paths are relative to it, and need not exist.

    Raises:
        InputError: A place that does not exist or holds no image, or an unusable table.
    """
    return [image for place in places for image in _images_at(Path(place))]


def _images_at(place: Path) -> list[Listed]:
    if not place.exists():
        matches = sorted(glob.glob(str(place), recursive=True))
        if not matches:
            raise InputError(f"{place} does not exist.")
        return list_images(matches)
    if place.is_dir():
        images = _images_among(place.iterdir()) or _images_among(place.rglob("*"))
        if not images:
            raise InputError(f"{place} holds no image that ends in {', '.join(SUFFIXES)}.")
        return [Listed(path) for path in images]
    return _read_table(place) if place.suffix.lower() == ".csv" else [Listed(place)]


def _images_among(paths: Iterable[Path]) -> list[Path]:
    """Files by their endings, without the hidden ones that file managers leave."""
    shown = (p for p in paths if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in shown if p.name.lower().endswith(SUFFIXES))


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
