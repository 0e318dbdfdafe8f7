"""Atomic outputs: checked early, written under a temporary name, renamed when complete."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from medil.errors import InputError, WriteError

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

PART = ".part-"  # begins the name of every temporary file
SETTLED_S = 5.0  # a younger one may be about to be locked


def check_output(path: str | Path, force: bool = False) -> Path:
    """Check that an output may be written; one that exists needs `force`. Returns its path.

    Raises:
        InputError: Its folder is missing, it is a folder, or it exists without `force`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write.")
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another name or pass `force=True` to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} may not be written to.")
    return path


@contextmanager
def atomic_output(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block succeeds and is removed otherwise.

    It lies in the same folder (so the rename is atomic) and ends in the same suffixes
    (so writers that look at the name choose the same format). What killed writers of `path` left
    there is removed first.

    Raises:
        InputError: As `check_output`.
        WriteError: The disk refused the write.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_output(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [p.name for p in folder.iterdir()]
        ['note.txt']
    """
    path = check_output(path, force)
    temporary = path.with_name(f"{PART}{secrets.token_hex(4)}-{path.name}")
    try:
        remove_leftovers(path)
        with temporary.open("xb") as held:
            _lock(held)
            usual_mode = temporary.stat().st_mode  # some writers make files that others cannot read
            yield temporary
            temporary.chmod(usual_mode)
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:  # also on Ctrl-C
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, lie on the disk: a power cut loses them no more.

    A file is flushed before it is renamed and its folder after: the name would else come first.
    """
    if path.is_dir():
        with suppress(OSError):  # not every system can
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)


def _flush(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose writers were killed: nobody holds their lock."""
    for leftover in path.parent.glob(f"{PART}*-{glob.escape(path.name)}"):
        with suppress(OSError), leftover.open("rb") as file:
            if time.time() - leftover.stat().st_mtime > SETTLED_S and _lock(file):
                leftover.unlink()


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that this process alone writes to."""
    for leftover in folder.glob(f"{PART}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Hold a file until it is closed, or its process ends; False where another does."""
    if fcntl is None:  # not POSIX: every file counts as held
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: str | Path) -> Path:
    """Create a folder for several outputs, with its parents, unless it exists; returns its path.

    Raises:
        InputError: It is a file.
        WriteError: It cannot be created.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path} could not be created: {error.strerror or error}.") from error
    return path
