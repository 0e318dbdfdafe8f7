"""The file of recorded results: one JSON line a row, with a check sum.

Files only grow: rows are appended whole or not at all, and a line that a crash tore is cut off or
left out with a word. Packed rows stand beside the plain file, before its own.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from eval.rows import SCHEMA, Identity, Row, check_record, identity
from medil.checksums import parsed
from medil.errors import InputError, WriteError
from medil.formats import FIELD, ROW, NewerError, claimed
from medil.system.files import atomic_output

CRC = "crc32"  # a field of lines on disk, beside those of a row


def append_rows(path: str | Path, rows: Iterable[Row]) -> int:
    """Append rows to ``NAME.jsonl``: all of them or, after an error, none; how many.

    The file is locked and opened for appending, so that two writers never mix lines and a crash
    loses only the rows of this call.

    Raises:
        InputError: A row breaks the schema, or the folder does not exist.
        WriteError: The disk refused the write.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make that folder first.")
    lines = [_line(r.to_record()) for r in rows]
    if lines:
        with _opened(path) as file:
            _append(file, "".join(lines))
    return len(lines)


def _line(record: dict[str, Any]) -> str:
    """A record as a line, with its format and the check sum of the rest."""
    record = {**record, FIELD: str(ROW)}
    return json.dumps({**record, CRC: _crc32(record)}, sort_keys=True, allow_nan=False) + "\n"


def _record(line: str, name: str) -> dict[str, Any]:
    """The record of a line of a file; those of releases up to 0.6.0 have no check sum and format.

    Raises:
        InputError: It is no row, or not what was written.
        NewerError: It is of a newer format.
    """
    record = parsed(line)
    written = record.pop(CRC, None) if isinstance(record, dict) else None
    # As `_line` wrote it, a line without its check sum is what the sum is of.
    rest = line.replace(f'"{CRC}": {written}, ', "", 1)
    if written is not None and written != zlib.crc32(rest.encode()) and written != _crc32(record):
        raise InputError("it is not what was written.")
    claimed(record, name, ROW, "holds something else.")
    record.pop(FIELD, None)
    check_record(record)
    return record


def _crc32(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def mend(path: str | Path) -> None:
    """Cut off the half of a row in which ``NAME.jsonl`` ends after a power cut, and say so.

    Raises:
        WriteError: The disk refused it.
    """
    if Path(path).is_file():
        with _opened(Path(path)):
            pass


@contextmanager
def _opened(path: Path) -> Iterator[io.FileIO]:
    """A file of whole rows, for this writer alone."""
    try:
        with path.open("a+b", buffering=0) as file:  # closing releases the lock
            fcntl.flock(file, fcntl.LOCK_EX)
            _end_whole(file, path.name)
            yield file
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}.") from error


def _end_whole(file: io.FileIO, name: str) -> None:
    """Let a file end in a whole row: a last one that only lacks its line break is kept."""
    size = file.seek(0, os.SEEK_END)
    if not size or os.pread(file.fileno(), 1, size - 1) == b"\n":
        return
    last = os.pread(file.fileno(), size, 0).rpartition(b"\n")[2]
    try:
        json.loads(last)
        _append(file, "\n")
    except ValueError:
        file.truncate(size - len(last))
        print(f"{name} ended in half a row, which is cut off; it is measured again.")


def _append(file: io.FileIO, text: str) -> None:
    """Append a text whole or not at all, also on Ctrl-C."""
    size, left = file.seek(0, os.SEEK_END), memoryview(text.encode())
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(size)
        raise


def read_rows(path: str | Path) -> pd.DataFrame:
    """All rows of ``NAME.jsonl`` with its packed part, or of a folder of such files.

    One column a field, in the order of recording; `recorded_at` as UTC times. Lines that a crash
    tore are left out with a warning.

    Raises:
        InputError: There is no such file, or it holds no row.
    """
    path = Path(path)
    whole = sorted({*path.glob("*.jsonl"), *(p.with_suffix("") for p in path.glob("*.jsonl.gz"))})
    files = [part for f in (whole if path.is_dir() else [path]) for part in parts(f)]
    if not files:
        raise InputError(
            f"there are no recorded rows at {path.name}; "
            "record some with: python -m eval.reconstruction --profile quick"
        )
    found = [record for f in files for record in records(f)]
    if not found:
        raise InputError(f"{path.name} holds no whole row; record some first.")
    frame = pd.DataFrame.from_records(found, columns=list(SCHEMA))
    frame["recorded_at"] = pd.to_datetime(frame["recorded_at"], utc=True, format="ISO8601")
    frame["value"] = frame["value"].astype(float)
    return frame


def parts(path: str | Path) -> list[Path]:
    """The files that hold the rows of ``NAME.jsonl``: rows packed into ``NAME.jsonl.gz`` first.

    New rows are always appended to the plain file; packing keeps a large record small.
    """
    path = Path(path)
    return [p for p in (path.with_name(path.name + ".gz"), path) if p.is_file()]


def pack(path: str | Path) -> Path | None:
    """Move the rows of ``NAME.jsonl`` behind those of ``NAME.jsonl.gz``; None without a plain file.

    The packed file appears whole before the plain one is deleted.
    """
    path = Path(path)
    if not path.is_file():
        return None
    packed = path.with_name(path.name + ".gz")
    text = b"".join(_bytes(part).rstrip(b"\n") + b"\n" for part in parts(path))
    with atomic_output(packed, force=True) as temporary:
        temporary.write_bytes(gzip.compress(text, 9, mtime=0))
    path.unlink()
    return packed


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def records(path: Path) -> Iterable[dict[str, Any]]:
    """The whole rows of one file, as flat mappings; a warning for each line that is none."""
    text = _bytes(path).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield _record(line, path.name)
        except NewerError:
            raise
        except (ValueError, TypeError) as error:
            warnings.warn(f"{path.name}, line {number} is not a row: {error}", stacklevel=3)


def recorded_identities(path: str | Path) -> set[Identity]:
    """What a file already holds, as `IDENTITY` tuples; empty when there is no file."""
    return {identity(record) for part in parts(path) for record in records(part)}
