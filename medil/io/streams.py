"""Bytes of image files: plain or gzip, read to their verified end, written once.

A reader that stops behind the last voxel never meets the check sum of a gzip file, and takes
damaged voxels for good ones.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medil.errors import InputError

GZIP = b"\x1f\x8b"  # the first bytes of a gzip file
GZIP_HEADER = zlib.MAX_WBITS + 16  # how zlib is told to write one, without a time
PIECE_BYTES = 2**20
MOST_BEHIND = 2**26  # bytes behind the voxels; beyond it a file was made to exhaust its reader
MOST_BEFORE = 2**26  # bytes before the voxels: the header and its extensions
MOST_INFLATED = 1040  # times its size to which a gzip file can inflate: 1032, and its last member


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file for reading, inflated where its bytes are gzip, whatever its name says.

    Raises:
        InputError: A pipe or a device, whose reader would wait.
    """
    check_regular(path)
    with open(path, "rb") as raw:
        is_gzip = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as file:
            yield file


def check_regular(path: Path) -> None:
    """Refuse what is no file on a disk: who reads a pipe waits for a writer.

    Raises:
        InputError: A pipe, a device or a socket.
    """
    if not (stat.S_ISREG(mode := os.stat(path).st_mode) or stat.S_ISDIR(mode)):
        raise InputError("it is a pipe or a device; name an image file.")


def read_voxels(
    file: io.BufferedIOBase, start: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """Voxels from byte `start` on, the first axis fastest.

    Memory is asked for only where the file can hold as many bytes.

    Raises:
        EOFError: The file is too short.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    room = _most_bytes(file) - start
    if room < n_bytes:
        raise EOFError(f"{n_bytes - max(0, room):,} bytes are missing at its end")
    file.seek(start)
    voxels = np.empty(n_bytes, np.uint8)
    n_read = 0
    while n_read < n_bytes:
        n_more = file.readinto(voxels.data[n_read : n_read + PIECE_BYTES])
        if not n_more:
            raise EOFError(f"{n_bytes - n_read:,} bytes are missing at its end")
        n_read += n_more
    return voxels.view(dtype).reshape(shape, order="F")


def _most_bytes(file: io.BufferedIOBase) -> int:
    """The size of a file, or a bound of the size to which it inflates."""
    size = os.stat(file.fileno()).st_size
    return size * MOST_INFLATED if isinstance(file, gzip.GzipFile) else size


def read_to_end(file: io.BufferedIOBase, end: int) -> int:
    """Read what is left of a file whose contents should end at byte `end`.

    The check sum and the length at the end of a gzip file are thereby verified.

    Returns:
        Number of bytes behind `end`.

    Raises:
        EOFError: The file ends before `end`.
        InputError: It goes on for more than 64 MB.
        OSError: A check sum or a length differs.
    """
    if not isinstance(file, gzip.GzipFile):
        behind = file.seek(0, io.SEEK_END) - end
    else:
        behind = file.tell() - end
        while piece := file.read(PIECE_BYTES):
            behind += len(piece)
            if behind > MOST_BEHIND:
                raise InputError("the file inflates to far more than its header says.")
    if behind < 0:
        raise EOFError(f"{-behind:,} bytes are missing at its end")
    return behind


class Deflated(io.RawIOBase):
    """A gzip file of float32 voxels, written once from its begin to its end.

    The last bits of rendered voxels are noise, in which a search for repeated strings finds next
    to nothing and costs several times what coding single bytes and their runs costs.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = open(path, "wb")  # noqa: SIM115
        self.deflate = zlib.compressobj(1, zlib.DEFLATED, GZIP_HEADER, 8, zlib.Z_RLE)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Compress bytes behind those before."""
        self.file.write(self.deflate.compress(data))
        return len(data)

    def close(self) -> None:
        """End the file; it stays incomplete unless this is called."""
        if self.closed:
            return
        try:
            with self.file:
                self.file.write(self.deflate.flush())
        finally:
            super().close()
