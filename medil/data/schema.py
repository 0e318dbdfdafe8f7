"""What a manifest may say: one strict reader of the TOML files in `data_manifests/`.

A manifest is not trusted. Unknown or missing fields, paths that leave the folder of their data
set, addresses without https and malformed hashes are refused, in one sentence that names the
manifest and the entry.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medil.errors import InputError, printable
from medil.formats import FIELD, claimed
from medil.formats import MANIFEST as MANIFEST_FORMAT

SPLITS = ("train", "test")
ACCESS = ("open", "registration", "agreement")
UNKNOWN_HASH = "recorded at first fetch"  # instead of a hash that nobody publishes
LARGEST_BYTES = 1 << 24  # of a manifest
LONGEST_TEXT = 1000  # characters

Check = Callable[[Any], Any]


@dataclass(frozen=True)
class PublishedFile:
    """A published file, which its hash identifies."""

    path: str  # in a mirror or the cache, such as ct/ct-64.nrrd
    url: str  # public address, with the commit in it; empty if the file has none of its own
    sha256: str  # of its bytes, 64 hexadecimal digits; empty until the first fetch records it
    bytes: int  # size; 0 where it is not known
    licence: str
    how: str = ""  # how to get a file without an address
    plain_http: bool = False  # whether the address may be http instead of https


@dataclass(frozen=True, kw_only=True)
class Entry(PublishedFile):
    """One file of a data set."""

    split: str  # train or test; all files of a subject share it
    dataset: str  # name of its manifest
    subject: str  # the person, unique within the data set
    citation: str  # what to cite when using it
    session: str = ""  # the visit, where a subject has several
    kind: str = ""  # what a scan shows: brain (skull-stripped) or head; mask; empty for others
    age: float | None = None  # years, where published
    sex: str = ""  # m or f, where published
    shape: tuple[int, int, int] | None = None  # voxels along R, A, S, as `medil.load` gives them
    spacing_mm: tuple[float, float, float] | None = None  # voxel size along R, A, S


@dataclass(frozen=True)
class DataSet:
    """What a manifest says about a data set."""

    name: str
    title: str  # what it holds, in a line
    version: str
    licence: str
    terms: str  # what a user has to do or to leave
    citation: str
    modality: str
    access: str  # open, registration or agreement
    page: str  # public page of the data set
    how: str  # how to get files that the manifest does not list; empty if it lists all
    files: tuple[Entry, ...]
    sidecars: tuple[PublishedFile, ...] = ()  # files beside the scans, such as a description

    @property
    def all_files(self) -> tuple[PublishedFile, ...]:
        """Scans and sidecars."""
        return (*self.files, *self.sidecars)


def read_manifest(path: Path) -> DataSet:
    """Read a manifest and check every field.

    Raises:
        InputError: The file is no manifest: one sentence with its name, the entry and the field.
    """
    table = _read_toml(path)
    claimed(table, path.name, MANIFEST_FORMAT, f"is no manifest of the format {MANIFEST_FORMAT}.")
    table.pop(FIELD, None)
    rows, beside = _rows(table, "file", path), _rows(table, "sidecar", path)
    values = _checked(table, MANIFEST, OPTIONAL, path.name)
    if values["name"] != path.stem:
        raise InputError(
            f"{path.name}: its name is {_shown(values['name'])}, not that of the file."
        )
    if not (rows or "how" in values):
        raise InputError(f"{path.name} lists no file; its field how must say how to get the data.")
    licence = {"licence": values["licence"]}
    shared = {"citation": values["citation"], "kind": values.pop("kind", ""), "dataset": path.stem}
    files = tuple(Entry(**licence | shared | _file(path, row, n)) for n, row in enumerate(rows, 1))
    sidecars = tuple(
        PublishedFile(**licence | _file(path, row, n, "sidecar")) for n, row in enumerate(beside, 1)
    )
    _check_files(files, sidecars, path)
    return DataSet(**{"how": "", **values}, files=files, sidecars=sidecars)


def _rows(table: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """Take the tables of one name, such as ``[[file]]``, out of a manifest."""
    rows = table.pop(name, [])
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise InputError(f"{path.name}: each {name} is a table that begins with [[{name}]].")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path.name} is larger than 16 MiB and no manifest.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path.name} is not a TOML file: {printable(str(error))}.") from error
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror or error}.") from error


def _file(path: Path, row: dict[str, Any], number: int, table: str = "file") -> dict[str, Any]:
    """The fields of one file, after checks; messages say its table, number and path."""
    name = row.get("path")
    named = f" ({printable(name)[:80]})" if isinstance(name, str) else ""
    place = f"{path.name}, {table} {number}{named}"
    required, optional = (FILE, FILE_OPTIONAL) if table == "file" else (SIDECAR, ADDRESS)
    values = {"url": "", **_checked(row, required, optional, place)}
    if bool(values["url"]) == ("how" in values):
        raise InputError(f"{place} needs either the field url or the field how.")
    if urlsplit(values["url"]).scheme == "http" and not values.get("plain_http"):
        raise InputError(f"{place}: {values['url']} is not https, and plain_http is not set.")
    if not values["path"].startswith(f"{path.stem}/"):
        raise InputError(f"{place}: its path must begin with {path.stem}/.")
    return values


def _check_files(files: Iterable[Entry], sidecars: Iterable[PublishedFile], manifest: Path) -> None:
    """Refuse one path twice, also on file systems that ignore case, and a subject in two splits."""
    paths: set[str] = set()
    for file in (*files, *sidecars):
        if file.path.casefold() in paths:
            raise InputError(f"{manifest.name} lists {file.path} twice.")
        paths.add(file.path.casefold())
    splits: dict[str, str] = {}
    for entry in files:
        if splits.setdefault(entry.subject, entry.split) != entry.split:
            raise InputError(
                f"{manifest.name}: subject {printable(entry.subject)} is in both splits."
            )


def _checked(
    table: dict[str, Any], required: dict[str, Check], optional: dict[str, Check], place: str
) -> dict[str, Any]:
    """The values of a table after their checks."""
    known = required | optional
    if unknown := sorted(set(table) - set(known)):
        raise InputError(f"{place}: there is no field {_shown(unknown[0])} in a manifest.")
    if missing := [field for field in required if field not in table]:
        raise InputError(f"{place}: the field {missing[0]} is missing.")
    values = {}
    for field, value in table.items():
        try:
            values[field] = known[field](value)
        except ValueError as error:
            raise InputError(f"{place}: {field} is {error}, not {_shown(value)}.") from error
    return values


def _shown(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


# Checks: each returns the value, or raises a ValueError that says what is expected.


def _text(value: Any) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        if len(value) <= LONGEST_TEXT:
            return value
        raise ValueError(f"a text of at most {LONGEST_TEXT} characters")
    raise ValueError("a line of text")


def _one_of(*names: str) -> Check:
    def check(value: Any) -> str:
        if value in names:
            return str(value)
        raise ValueError(" or ".join(names))

    return check


def _path(value: Any) -> str:
    """A relative path of plain names: no `..`, no hidden names, drives, links or backslashes."""
    name = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
    if isinstance(value, str) and len(value) < 256 and re.fullmatch(rf"{name}(/{name})*", value):
        return value
    raise ValueError("a relative path of plain names")


def _address(value: Any) -> str:
    """An https address, or an http address that the entry must allow itself."""
    if isinstance(value, str) and re.fullmatch(r"https?://[!-~]+", value):
        parts = urlsplit(value)
        if parts.hostname and parts.username is None and parts.password is None:
            return value
    raise ValueError("an https address without user and password")


def _page(value: Any) -> str:
    if _address(value).startswith("https:"):
        return str(value)
    raise ValueError("an https address")


def _sha256(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    raise ValueError("64 hexadecimal digits in lower case")


def _sha256_or_none_yet(value: Any) -> str:
    if value == UNKNOWN_HASH:
        return ""
    try:
        return _sha256(value)
    except ValueError as error:
        raise ValueError(f'{error} or "{UNKNOWN_HASH}"') from error


def _count(value: Any) -> int:
    if type(value) is int and 0 <= value < 1 << 50:
        return value
    raise ValueError("a whole number from 0")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _age(value: Any) -> float:
    if isinstance(value, int | float) and type(value) is not bool and 0 <= value <= 130:
        return value
    raise ValueError("a number of years")


def _is_triple(value: Any, kinds: tuple[type, ...], limit: int) -> bool:
    """Whether a value is a list of three positive, finite numbers below a limit."""
    is_three = isinstance(value, list) and len(value) == 3
    return is_three and all(type(x) in kinds and 0 < x < limit for x in value)


def _shape(value: Any) -> tuple[int, ...]:
    if _is_triple(value, (int,), 1 << 16):
        return tuple(value)
    raise ValueError("three whole numbers of voxels")


def _spacing_mm(value: Any) -> tuple[float, ...]:
    if _is_triple(value, (int, float), 1000):
        return tuple(map(float, value))
    raise ValueError("three sizes in mm")


MANIFEST: dict[str, Check] = {
    "name": _text,
    "title": _text,
    "version": _text,
    "licence": _text,
    "terms": _text,
    "citation": _text,
    "modality": _text,
    "access": _one_of(*ACCESS),
    "page": _page,
}
OPTIONAL: dict[str, Check] = {"how": _text, "kind": _text}
SIDECAR: dict[str, Check] = {"path": _path, "sha256": _sha256, "bytes": _count}
ADDRESS: dict[str, Check] = {"url": _address, "how": _text, "plain_http": _flag}
FILE: dict[str, Check] = {
    "path": _path,
    "sha256": _sha256_or_none_yet,
    "bytes": _count,
    "subject": _text,
    "split": _one_of(*SPLITS),
}
FILE_OPTIONAL: dict[str, Check] = {
    **ADDRESS,
    "licence": _text,
    "citation": _text,
    "session": _text,
    "kind": _text,
    "age": _age,
    "sex": _one_of("m", "f"),
    "shape": _shape,
    "spacing_mm": _spacing_mm,
}
