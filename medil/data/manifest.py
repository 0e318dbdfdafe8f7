"""Published data: which data sets there are, and where their files lie on this computer.

Each data set has a manifest, a TOML file in `data_manifests/` of a checkout
(`medil.data.schema`). `fetch` looks for a file in the local mirror (`MEDIL_DATA_MIRROR`) and in
the cache (`MEDIL_CACHE`, or ~/.cache/medil), downloads it otherwise (`medil.data.fetch`), and
checks its SHA-256 every time.
"""

from __future__ import annotations

import glob
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medil.checksums import parsed
from medil.data.fetch import LOCK, download, download_all
from medil.data.folders import cache_folder, mirror_folder, repository_folder
from medil.data.schema import SPLITS, DataSet, Entry, PublishedFile, read_manifest
from medil.data.transfer import PARTIAL, Patience
from medil.errors import InputError
from medil.formats import FIELD, HASHES, claimed
from medil.system.files import atomic_output, file_sha256

QUICKLY = Patience(attempts=1)
ONE_WRITER = threading.Lock()  # of lock files


def manifest_folder() -> Path:
    """The folder of manifests of this checkout, or of the unpacked archive of the repository.

    Raises:
        InputError: The package runs from a wheel, which carries no manifests.
    """
    repository = repository_folder()
    if repository is None:
        raise InputError(
            "data manifests are part of a checkout, not of the installed package; "
            "clone the repository and install it with: pip install -e ."
        )
    return repository / "data_manifests"


def datasets() -> list[str]:
    """The names of all manifests, sorted."""
    return sorted(path.stem for path in manifest_folder().glob("*.toml"))


def dataset(name: str) -> DataSet:
    """What the manifest of a data set says.

    Hashes that the manifest leaves open are those of the first fetch, where there was one.

    Raises:
        InputError: An unknown data set, or a manifest with a fault.
    """
    if name not in datasets():
        raise InputError(f"there is no data set {name!r}; there are {', '.join(datasets())}.")
    found = read_manifest(manifest_folder() / f"{name}.toml")
    return replace(found, files=tuple(_with_recorded_hash(entry) for entry in found.files))


def entries(name: str, split: str | None = None) -> list[Entry]:
    """The files of a data set in a split (``train``, ``test``; None for both), in manifest order.

    Raises:
        InputError: An unknown data set or split, or a manifest with a fault.

    Example:
        >>> [e.subject for e in entries("ct")][:2]
        ['chest-64', 'chest-crop']
    """
    if split not in (None, *SPLITS):
        raise InputError(f"a split is {' or '.join(SPLITS)}, not {split!r}.")
    return [e for e in dataset(name).files if split in (None, e.split)]


def local_paths(entry: PublishedFile, nearby: Iterable[Path] = ()) -> Iterator[Path]:
    """Paths where a file may lie: `nearby`, the mirror if one is set, the cache."""
    yield from nearby
    if mirror := mirror_folder():
        yield mirror / entry.path
    yield cache_path(entry)


def cache_path(entry: PublishedFile) -> Path:
    """Where a file lies in the cache."""
    return cache_folder() / entry.path


def local_path(entry: PublishedFile, nearby: Iterable[Path] = ()) -> Path | None:
    """The first local copy, unchecked; None if there is none."""
    return next((path for path in local_paths(entry, nearby) if path.is_file()), None)


def available(entry: PublishedFile, nearby: Iterable[Path] = ()) -> bool:
    """Whether a local copy exists, so that `fetch` needs no network."""
    return local_path(entry, nearby) is not None


def local_entries(name: str, split: str | None = None) -> list[Entry]:
    """The `entries` of a data set whose files are on this computer."""
    return [entry for entry in entries(name, split) if available(entry)]


def fetch(
    entry: PublishedFile, nearby: Iterable[Path] = (), patience: Patience | None = None
) -> Path:
    """Return a verified local copy of a published file; download it if there is none.

    The paths `nearby` are looked at before the mirror and the cache.

    Raises:
        InputError: The bytes are not the published ones, there is no network, or the file has
            no address of its own.
    """
    if isinstance(entry, Entry):
        entry = _with_recorded_hash(entry)
    path = local_path(entry, nearby)
    if path:
        verify(path, entry)
    else:
        path = download(entry, cache_path(entry), patience)
    if isinstance(entry, Entry) and not entry.sha256:
        _record_hash(entry, path)
    return path


def fetch_all(files: Sequence[PublishedFile], workers: int = 4) -> dict[str, InputError]:
    """Fetch several files, side by side, under one progress bar.

    Returns:
        The error of each file that failed, by its path; one for all files without a network.
    """
    missing = [(file, cache_path(file)) for file in files if not available(file)]
    failed = download_all(missing, workers=workers)
    for file in files:
        if file.path not in failed and available(file):
            try:
                fetch(file)
            except InputError as error:
                failed[file.path] = error
    return failed


def unfinished(entry: PublishedFile) -> list[Path]:
    """What interrupted downloads of a file left in the cache."""
    path = cache_path(entry)
    names = glob.escape(path.name)
    return [p for end in (PARTIAL, LOCK) for p in path.parent.glob(f"{names}*{end}") if p.is_file()]


def reachable(entry: PublishedFile) -> bool:
    """Whether `fetch` succeeds: a local copy exists or can be downloaded at the first attempt.

    Raises:
        InputError: A local copy is damaged; a stand-in would hide that.
    """
    try:
        fetch(entry, patience=QUICKLY)
    except InputError:
        if available(entry):
            raise
        return False
    return True


def verify(path: Path, entry: PublishedFile) -> None:
    """Refuse a local copy with other bytes than the published ones.

    Raises:
        InputError: Its SHA-256 is another one.
    """
    digest = file_sha256(path)
    if entry.sha256 and digest != entry.sha256:
        raise InputError(
            f"{path} does not hold the published bytes of {entry.path} "
            f"(sha256 {digest[:12]}..., expected {entry.sha256[:12]}...); delete it and try again."
        )


# Hashes that a manifest leaves open


def lock_path(name: str) -> Path:
    """The file that keeps the hashes of first fetches, beside the manifest."""
    return manifest_folder() / f"{name}.lock.json"


def _with_recorded_hash(entry: Entry) -> Entry:
    """The entry itself, or with the hash of its first fetch where the manifest leaves it open."""
    if entry.sha256:
        return entry
    return replace(entry, sha256=_read_lock(entry.dataset).get(entry.path, ""))


def _record_hash(entry: Entry, path: Path) -> None:
    """Keep the hash of a file that was fetched for the first time; later fetches must match it."""
    digest = file_sha256(path)
    with ONE_WRITER:
        recorded = {FIELD: str(HASHES), **_read_lock(entry.dataset), entry.path: digest}
        with atomic_output(lock_path(entry.dataset), force=True) as temporary:
            temporary.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", "utf-8")


def _read_lock(name: str) -> dict[str, str]:
    path = lock_path(name)
    if not path.is_file():
        return {}
    try:
        recorded = parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(recorded, dict) or not all(isinstance(v, str) for v in recorded.values()):
        raise InputError(f"{path} does not hold a SHA-256 for each path; delete it.")
    claimed(recorded, path, HASHES, "does not hold hashes of first fetches; delete it.")
    return {name: sha256 for name, sha256 in recorded.items() if name != FIELD}
