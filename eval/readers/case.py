"""A file and what is right to make of it: the parts that the cases of all formats share."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation

from medil.grid import Grid
from medil.volume import Volume

SHAPE = (7, 8, 9)
GRID = Grid.from_spacing(SHAPE, (1.0, 1.5, 3.0), (-11.0, 7.5, 20.0)).rotated((1.0, 2.0, -0.5), 17.0)
AFFINE = GRID.affine_vox2ras
DATA = np.arange(GRID.n_voxels, dtype=np.int16).reshape(SHAPE) + 1000
PLACE_MM = 1e-3  # by which a corner may be off: headers hold float32
UNREADABLE = "this is not a whole, readable"


@dataclass(frozen=True)
class Refused:
    """The file must be refused, in a sentence that holds these words."""

    words: str


@dataclass(frozen=True, eq=False)
class Read:
    """The file must be read as this.

    Args:
        values: [i, j, k] in the order of the file.
        affine_vox2ras: [4, 4] of that order, in mm.
        note: Words that its notes must hold.
    """

    values: np.ndarray
    affine_vox2ras: np.ndarray
    note: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """One image with a fault.

    Args:
        format: Its format, for people.
        kind: Of the fault.
        name: Of the case, among those of its format.
        files: Their contents by name; the first is opened, or the folder that it lies in.
        right: What must become of it.
        volume_index: Which volume is asked for.
    """

    format: str
    kind: str
    name: str
    files: Mapping[str, bytes]
    right: Refused | Read
    volume_index: int | None = None

    @property
    def sha256(self) -> str:
        """Hash of all contents."""
        state = hashlib.sha256()
        for name, content in self.files.items():
            state.update(f"{name} {len(content)} ".encode() + content)
        return state.hexdigest()

    def write(self, folder: Path) -> Path:
        """Write the files; the path to open."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / Path(next(iter(self.files))).parts[0]


class Cases:
    """Collects the cases of one format, whose files have one suffix."""

    def __init__(self, format: str, suffix: str) -> None:
        self.format, self.suffix, self.found = format, suffix, list[Case]()

    def __iter__(self) -> Iterator[Case]:
        return iter(self.found)

    def refused(
        self, kind: str, name: str, content: bytes | Mapping[str, bytes], words: str = UNREADABLE,
        suffix: str = "",
    ) -> None:  # fmt: skip
        """Add a case that must be refused."""
        self._add(kind, name, content, Refused(words), suffix)

    def read(
        self, kind: str, name: str, content: bytes | Mapping[str, bytes],
        values: np.ndarray = DATA, affine: np.ndarray = AFFINE, note: str = "", suffix: str = "",
        volume_index: int | None = None,
    ) -> None:  # fmt: skip
        """Add a case that must be read."""
        self._add(kind, name, content, Read(values, affine, note), suffix, volume_index)

    def _add(self, kind, name, content, right, suffix, volume_index=None) -> None:
        files = {f"scan{suffix or self.suffix}": content} if isinstance(content, bytes) else content
        self.found.append(Case(self.format, kind, name, files, right, volume_index))


def fault(volume: Volume, right: Read) -> str:
    """In what a volume differs from what is right; empty if in nothing."""
    source = volume.source
    assert source is not None
    transform = volume.grid.aligned(source.grid)[1]
    values = apply_orientation(volume.data.numpy(), transform)
    if values.shape != right.values.shape:
        return f"it has shape {values.shape}, not {right.values.shape}"
    if not np.array_equal(values, right.values, equal_nan=right.values.dtype.kind == "f"):
        return "it has other values"
    if not source.grid.is_close(Grid(right.values.shape, right.affine_vox2ras), PLACE_MM):
        return "it lies at another place"
    if right.note not in " ".join(source.notes):
        return f"nothing is said about {right.note!r}"
    return ""


def patched(content: bytes, header: np.dtype, fields: Mapping[str, object]) -> bytes:
    """A file that begins with this header, with fields of it set, however wrong."""
    array = bytearray(content)
    for name, value in fields.items():
        assert header.fields is not None
        dtype, offset = header.fields[name][:2]
        with np.errstate(over="ignore"):
            packed = np.asarray(value, dtype.base).tobytes()
        array[offset : offset + len(packed)] = packed
    return bytes(array)


def flipped(content: bytes, place: int, mask: int = 0xFF) -> bytes:
    """A file with bits of one byte turned over."""
    array = bytearray(content)
    array[place] ^= mask
    return bytes(array)


def zipped(content: bytes) -> bytes:
    """A gzip file of fixed bytes: it holds no time."""
    return gzip.compress(content, 6, mtime=0)


def bomb(head: bytes, megabytes: int) -> bytes:
    """A small gzip file that inflates to `head` and megabytes of zeros, in many members."""
    return zipped(head) + zipped(bytes(2**20)) * megabytes
