"""NRRD files, read and written with pynrrd; world axes are LPS unless the file says RAS.

A NRRD "space origin" is the centre of the first sample whatever "centerings" says, so
the affine needs no half-voxel step: only the signs of the world axes and the unit.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from medil.errors import InputError, needs, shown
from medil.grid import Grid
from medil.io.source import Source, check_dtype, native, spatial_shape
from medil.io.streams import MOST_BEHIND, PIECE_BYTES
from medil.system.memory import require_memory

SIGNS_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
INFLATE: dict[str, Any] = {  # compressed encodings
    **dict.fromkeys(("gzip", "gz"), lambda file: gzip.GzipFile(fileobj=file)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2File),
}
MAGIC = re.compile(rb"NRRD[0-9]{4}")
REQUIRED = ("type", "dimension", "sizes", "encoding")
ELSEWHERE = ("data file", "datafile", "line skip", "lineskip")  # fields of what was left out
MOST_HEADER = 2**24  # bytes
LPS = "left-posterior-superior"
MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3}


def _pynrrd() -> Any:
    with needs("nrrd", "NRRD files need pynrrd"):
        import nrrd
    return nrrd


def read_nrrd(path: Path, volume_index: int | None) -> tuple[np.ndarray, Source]:
    """Stored values of a .nrrd file, or of a .nhdr with its data beside it; one volume if 4-D.

    Returns:
        [i, j, k] in the order and (native) dtype of the file, and its `Source`.

    Raises:
        InputError: What is wrong with the file, without its name.
    """
    with open(path, "rb") as file:
        header = _header(file)
        data = _data(header, file, path)
    check_dtype(data.dtype)
    data, header = _space_first(data, header)
    shape, tail, index = spatial_shape(data.shape, volume_index)
    affine, notes = _affine(header)
    stored = data.reshape(*shape, -1, order="F")[..., index].astype(native(data.dtype), copy=False)
    if tail or data.ndim > 3:
        header, tail = _only_space(header), ()
    source = Source("nrrd", Grid(shape, affine), stored.dtype, header, tail=tail, notes=notes)
    return stored, source


def _header(file: io.BufferedIOBase) -> dict[str, Any]:
    """The fields of a header; the file is behind it.

    Raises:
        InputError: A field that is needed is missing, or the sizes are no sizes.
    """
    lines, n_bytes = [], 0
    while (line := file.readline(MOST_HEADER)) and line.rstrip():
        lines.append(line)
        n_bytes += len(line)
        if n_bytes >= MOST_HEADER:
            raise InputError("the header does not end; it is no NRRD file, or damaged.")
    if not lines or not MAGIC.fullmatch(lines[0].rstrip()):
        raise ValueError("it has no NRRD header of a known version")
    if any(b":" not in line and not line.startswith(b"#") for line in lines[1:]):
        raise ValueError("a line of its header is no field")
    try:
        header: dict[str, Any] = _pynrrd().read_header(lines)
    except (TypeError, ValueError) as error:
        raise ValueError("a field of its header holds no numbers where it should") from error
    if missing := [name for name in REQUIRED if name not in header]:
        raise InputError(f"the header has no {' and no '.join(missing)}.")
    if header["type"] == "block":
        raise InputError("the image holds blocks of bytes; medil reads one number per voxel.")
    if min(sizes := [int(n) for n in header["sizes"]]) < 1:
        raise InputError(f"the image has an axis of size {min(sizes)}; there is nothing to read.")
    return header


def _data(header: dict[str, Any], file: io.BufferedIOBase, path: Path) -> np.ndarray:
    """The voxels behind the header, or in a file that it names."""
    name = header.get("data file", header.get("datafile"))
    fields = {k: v for k, v in header.items() if k not in ELSEWHERE}
    n_voxels = math.prod(int(n) for n in header["sizes"])
    require_memory(n_voxels, 8, "the image")
    with open(_beside(path, name), "rb") if name else nullcontext(file) as data:
        n_lines = header.get("line skip", header.get("lineskip", 0))
        if n_lines < 0:
            raise InputError(f"the header skips {n_lines} lines; repair it first.")
        for _ in range(n_lines):
            if not data.readline():
                raise EOFError("it has fewer lines than its header skips")
        if header["encoding"] not in INFLATE:
            return _voxels(fields, data)
        content = io.BytesIO()
        with INFLATE[header["encoding"]](data) as inflated:
            while piece := inflated.read(PIECE_BYTES):
                content.write(piece)
                if content.tell() > 8 * n_voxels + MOST_BEHIND:
                    raise InputError("the file inflates to far more than its header says.")
    content.seek(0)
    return _voxels(fields | {"encoding": "raw"}, content)


def _voxels(fields: dict[str, Any], file: Any) -> np.ndarray:
    try:
        voxels: np.ndarray = _pynrrd().read_data(fields, file)
    except KeyError as error:
        raise InputError(f"the type {shown(fields['type'])} is unknown.") from error
    except TypeError as error:
        raise ValueError("a field of its header does not hold what it should") from error
    return voxels


def _beside(path: Path, name: str) -> Path:
    """The file with the voxels of a header: in its folder, or below it.

    Raises:
        InputError: Another place, several files, or no file.
    """
    if name.startswith("LIST") or "%" in name:
        raise InputError("the voxels are in several files; write them as one .nrrd first.")
    place, folder = path.parent / name, path.parent.resolve()
    if not place.resolve().is_relative_to(folder):
        raise InputError(f"the data file {shown(name)} leaves its folder; put it beside it.")
    if not place.is_file() or place.samefile(path):
        raise InputError(f"the data file {shown(name)} is no file beside it.")
    return place


def _is_spatial(header: dict[str, Any]) -> list[bool]:
    """Which axes lie in space: those with a direction, or a spacing, or else the first three."""
    n_axes = int(header["dimension"])
    if "space directions" in header:
        rows = header["space directions"]
        return [r is not None and bool(np.isfinite(np.asarray(r, float)).all()) for r in rows]
    if "spacings" in header:
        return [bool(np.isfinite(mm)) for mm in np.asarray(header["spacings"], float)]
    return [i < 3 for i in range(n_axes)]


def _space_first(data: np.ndarray, header: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Move axes that are not spatial (a list of volumes) behind the spatial ones."""
    spatial = _is_spatial(header)
    if len(spatial) == data.ndim == 3 and not all(spatial):
        raise InputError("a space direction is NaN or Inf, or none; repair the header first.")
    order = [i for i, s in enumerate(spatial) if s] + [i for i, s in enumerate(spatial) if not s]
    if len(order) != data.ndim or order == list(range(data.ndim)):
        return data, header
    header = dict(header)
    for key in ("kinds", "spacings", "space directions", "centerings", "labels", "units"):
        if key in header:
            header[key] = [header[key][i] for i in order]
    return data.transpose(order), header


def _only_space(header: dict[str, Any]) -> dict[str, Any]:
    """The header of one volume: per-axis fields cut to the three spatial axes."""
    header = {k: v for k, v in header.items() if k not in ("thicknesses", "axis mins", "axis maxs")}
    for key in ("kinds", "spacings", "space directions", "centerings", "labels", "units"):
        if key in header:
            header[key] = header[key][:3]
    return header


def _signs(header: dict[str, Any]) -> tuple[int, int, int]:
    space = str(header.get("space", LPS)).lower()
    full = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": LPS}
    space = full.get(space, space)
    if space not in SIGNS_TO_RAS:
        raise InputError(f"the NRRD space {shown(space)} does not say where left and right are.")
    return SIGNS_TO_RAS[space]


def _mm_per_unit(header: dict[str, Any]) -> float:
    units = {str(u).strip('"') for u in header.get("space units", ["mm"])}
    if len(units) > 1 or not units <= set(MM_PER_UNIT):
        given = shown(" ".join(sorted(units)))
        raise InputError(f"the space units {given} are not one of {list(MM_PER_UNIT)}.")
    return MM_PER_UNIT[units.pop()]


def _affine(header: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """[4, 4] voxel to RAS+ in mm, and what had to be assumed to get it."""
    affine, notes = np.eye(4), []
    if "space directions" in header:
        rows = [np.asarray(r, dtype=np.float64) for r in header["space directions"][:3]]
        affine[:3, :3] = np.array(rows).T
    elif "spacings" in header:
        affine[:3, :3] = np.diag(np.asarray(header["spacings"][:3], dtype=np.float64))
    else:
        notes.append("the header has no voxel sizes: 1 mm is assumed.")
    if "space" not in header:
        notes.append("the header names no space: left, posterior, superior axes are assumed.")
    if "space origin" in header:
        origin = np.asarray(header["space origin"], float)
        if origin.shape != (3,):
            raise InputError(f"the space origin has {origin.size} numbers, not 3.")
        affine[:3, 3] = origin
    else:
        notes.append("the header has no origin: the first voxel is put at 0 mm.")
    affine[:3] *= _mm_per_unit(header)
    return np.diag([*_signs(header), 1]) @ affine, tuple(notes)


def write_nrrd(path: Path, stored: np.ndarray, grid: Grid, source: Source | None) -> None:
    """Write [i, j, k] stored values on `grid` as one .nrrd file.

    A source of this format keeps its header: space, content, key-value pairs.
    """
    nrrd = _pynrrd()
    header = dict(source.header) if source and source.kind == "nrrd" else {}
    for key in ("type", "sizes", "dimension", "endian", "data file", "byte skip", "line skip"):
        header.pop(key, None)
    if not (source and source.kind == "nrrd" and source.grid.is_close(grid, tolerance_mm=1e-6)):
        header.setdefault("space", LPS)
        header.setdefault("kinds", ["domain"] * 3)
        affine = np.diag([*_signs(header), 1]) @ grid.affine_vox2ras / _mm_per_unit(header)
        for key in ("spacings", "axis mins", "axis maxs", "thicknesses"):
            header.pop(key, None)
        header.update({"space directions": affine[:3, :3].T, "space origin": affine[:3, 3]})
    if header.get("encoding", "gzip") not in ("gzip", "raw", "bzip2"):
        header["encoding"] = "gzip"
    nrrd.write(str(path), stored, header, detached_header=False)
