"""One writer at a time: a lock on a folder that names its holder and dies with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medil.errors import InputError, WriteError

try:
    import fcntl
except ImportError:  # not POSIX, where folders cannot be locked
    fcntl = None  # type: ignore[assignment]

HOLDER = ".writer"  # says who holds the folder, while it is held


@contextmanager
def only_writer(folder: str | Path, verb: str) -> Iterator[None]:
    """Hold a folder while the block runs; the system frees it when the process ends, however.

    Args:
        folder: It exists.
        verb: What the holder does, such as ``medil store``, for those who find it held.

    Raises:
        InputError: Another process holds it; the message names it.
        WriteError: The folder cannot be opened.

    Example:
        >>> import tempfile
        >>> with only_writer(tempfile.mkdtemp(), "medil store"):
        ...     pass
    """
    if fcntl is None:
        yield
        return
    note = Path(folder) / HOLDER
    held = _locked(folder, note)
    try:
        with suppress(OSError):  # a full disk only makes the message of others poorer
            note.write_text(f"{verb}, process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        os.close(held)


def _locked(folder: str | Path, note: Path) -> int:
    """The open folder, locked."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise WriteError(f"{folder} could not be opened: {error.strerror or error}.") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise InputError(f"{folder} is in use by {_holder(note)}; wait until it ends.") from None
    return held


def _holder(note: Path) -> str:
    try:
        return note.read_text("utf-8") or "another process"
    except OSError:
        return "another process"
