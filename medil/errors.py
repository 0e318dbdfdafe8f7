"""The one exception for input that a person can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, said in one clear sentence: what is wrong and what to do.

    The command line prints it and exits with 2; anything else that is raised is a bug.
    Parameters stand in backticks, as `force=True` or `volume_index=3`; the command line puts
    its options in their place.

    Example:
        >>> raise InputError("the image holds no voxel; choose another one.")
        Traceback (most recent call last):
        medil.errors.InputError: the image holds no voxel; choose another one.
    """


class WriteError(InputError):
    """The disk refused a write: it is full, read-only or gone, for whatever comes next too."""


def of_system(error: OSError) -> str:
    """What the system refused, as one sentence."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}."


def is_out_of_memory(error: Exception) -> bool:
    """Whether the system refused memory, to Python or to torch."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def printable(text: str) -> str:
    """A text for a terminal on one line: control characters become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown(value: object) -> str:
    """A value for a sentence: a text in quotes, at most 40 letters, no control characters."""
    text = printable(value if isinstance(value, str) else repr(value))
    short = text if len(text) <= 40 else f"{text[:37]}..."
    return repr(short) if isinstance(value, str) else short


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Packages of an extra are imported inside this block.

    Raises:
        InputError: One is missing: `what`, then how to install the extra.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{what}: pip install 'medil-book[{extra}]'.") from error
