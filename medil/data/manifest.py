"""Published data: addresses, hashes, licences, and which files may be trained on.

Each data set has a manifest, a TOML file in `data_manifests/` of a checkout. `fetch` looks for a
file in the local mirror (`MEDIL_DATA_MIRROR`) and in the cache (`MEDIL_CACHE`, or
~/.cache/medil), downloads it otherwise, and checks its SHA-256 every time.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from medil.errors import InputError
from medil.system.files import atomic_output, file_sha256

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
SPLITS = ("train", "test")


@dataclass(frozen=True)
class PublishedFile:
    """A published file, which its hash identifies."""

    path: str  # in a mirror or the cache, such as ct/ct-64.nrrd
    url: str  # public address, with the commit in it
    sha256: str  # of its bytes: 64 hexadecimal digits, or as many as are published
    bytes: int  # size
    licence: str


@dataclass(frozen=True)
class Entry(PublishedFile):
    """One file of a data set."""

    split: str  # train or test; all files of a subject share it
    dataset: str  # name of its manifest
    subject: str  # the person, unique within the data set
    citation: str  # what to cite when using it
    kind: str = ""  # what a scan shows: brain (skull-stripped) or head; empty for others
    age: float | None = None  # years, where published
    sex: str = ""  # m or f, where published


def manifest_folder() -> Path:
    """The folder of manifests of this checkout.

    Raises:
        InputError: The package runs from a wheel, which carries no manifests.
    """
    folder = Path(__file__).resolve().parents[2] / "data_manifests"
    if not folder.is_dir():
        raise InputError(
            "data manifests are part of a checkout, not of the installed package; "
            "clone the repository and install it with: pip install -e ."
        )
    return folder


def datasets() -> list[str]:
    """The names of all manifests, sorted."""
    return sorted(path.stem for path in manifest_folder().glob("*.toml"))


def entries(name: str, split: str | None = None) -> list[Entry]:
    """The files of a data set in a split (``train``, ``test``; None for both), in manifest order.

    Raises:
        InputError: An unknown data set or split.

    Example:
        >>> [e.subject for e in entries("ct")]
        ['chest-64', 'chest-crop']
    """
    if name not in datasets():
        raise InputError(f"there is no data set {name!r}; there are {', '.join(datasets())}.")
    if split not in (None, *SPLITS):
        raise InputError(f"a split is {' or '.join(SPLITS)}, not {split!r}.")
    table = tomllib.loads((manifest_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    files = table.pop("file")
    entries_ = [Entry(**{**table, "dataset": name, **row}) for row in files]
    return [e for e in entries_ if split in (None, e.split)]


def local_paths(entry: PublishedFile, nearby: Iterable[Path] = ()) -> Iterator[Path]:
    """Paths where a file may lie: `nearby`, the mirror if one is set, the cache."""
    yield from nearby
    if mirror := os.environ.get("MEDIL_DATA_MIRROR"):
        yield Path(mirror) / entry.path
    yield cache_path(entry)


def cache_path(entry: PublishedFile) -> Path:
    """Where a file lies in the cache."""
    cache = os.environ.get("MEDIL_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "medil") / entry.path


def available(entry: PublishedFile, nearby: Iterable[Path] = ()) -> bool:
    """Whether a local copy exists, so that `fetch` needs no network."""
    return any(path.is_file() for path in local_paths(entry, nearby))


def local_entries(name: str, split: str | None = None) -> list[Entry]:
    """The `entries` of a data set whose files are on this computer."""
    return [entry for entry in entries(name, split) if available(entry)]


def fetch(entry: PublishedFile, nearby: Iterable[Path] = ()) -> Path:
    """Return a verified local copy of a published file; download it if there is none.

    The paths `nearby` are looked at before the mirror and the cache.

    Raises:
        InputError: The bytes are not the published ones, or there is no network.
    """
    for path in local_paths(entry, nearby):
        if path.is_file():
            _verify(path, entry)
            return path
    return download(entry, cache_path(entry))


def reachable(entry: PublishedFile) -> bool:
    """Whether `fetch` succeeds: a local copy exists or can be downloaded.

    Raises:
        InputError: A local copy is damaged; a stand-in would hide that.
    """
    try:
        fetch(entry)
    except InputError:
        if available(entry):
            raise
        return False
    return True


def _verify(path: Path, entry: PublishedFile) -> None:
    digest = file_sha256(path)
    if digest != entry.sha256:
        raise InputError(
            f"{path} does not hold the published bytes of {entry.path} "
            f"(sha256 {digest[:12]}..., expected {entry.sha256[:12]}...); delete it and try again."
        )


def download(entry: PublishedFile, target: Path) -> Path:
    """Download a file from its address; only the published bytes are kept.

    Raises:
        InputError: No network, other bytes, or a folder that cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache folder {target.parent} cannot be made ({error.strerror}); "
            "set MEDIL_CACHE to a folder that you may write to."
        ) from error
    with atomic_output(target) as temporary:
        try:
            digest = _stream(entry, temporary)
        except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            raise InputError(
                f"{entry.path} could not be downloaded ({reason}): connect "
                "to the network and try again, or set MEDIL_DATA_MIRROR to a folder that holds it."
            ) from error
        if not digest.startswith(entry.sha256):
            raise InputError(
                f"{entry.url} gave other bytes than published (sha256 {digest[:12]}..., expected "
                f"{entry.sha256[:12]}...); nothing was kept."
            )
    return target


def _stream(entry: PublishedFile, target: Path) -> str:
    """Download to a file and return the SHA-256 of its bytes."""
    digest, name = hashlib.sha256(), Path(entry.path).name
    with (
        urllib.request.urlopen(entry.url, timeout=TIMEOUT_S) as response,
        tqdm(total=entry.bytes or None, unit="B", unit_scale=True, desc=name) as bar,
        target.open("wb") as file,
    ):
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
