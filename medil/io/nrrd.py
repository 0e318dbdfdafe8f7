"""NRRD files, read and written with pynrrd; world axes are LPS unless the file says RAS.

A NRRD "space origin" is the centre of the first sample whatever "centerings" says, so
the affine needs no half-voxel step: only the signs of the world axes and the unit.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from medil.errors import InputError, needs
from medil.grid import Grid
from medil.io.source import Source, check_dtype, native, spatial_shape
from medil.io.streams import MOST_BEHIND
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
    nrrd = _pynrrd()
    with open(path, "rb") as file:
        header = nrrd.read_header(file)
        if header["type"] == "block":
            raise InputError("the image holds blocks of bytes; medil reads one number per voxel.")
        require_memory(math.prod(int(n) for n in header["sizes"]), 8, "the image")
        packed = header["encoding"] in INFLATE
        data = (_read_packed if packed else nrrd.read_data)(header, file, str(path))
    check_dtype(data.dtype)
    data, header = _space_first(data, header)
    shape, tail, index = spatial_shape(data.shape, volume_index)
    affine, notes = _affine(header)
    stored = data.reshape(*shape, -1, order="F")[..., index].astype(native(data.dtype), copy=False)
    if tail or data.ndim > 3:
        header, tail = _only_space(header), ()
    source = Source("nrrd", Grid(shape, affine), stored.dtype, header, tail=tail, notes=notes)
    return stored, source


def _read_packed(header: dict, file: io.BufferedIOBase, path: str) -> np.ndarray:
    """Compressed voxels, whose check sum and length pynrrd does not verify to the end."""
    most = 8 * math.prod(int(n) for n in header["sizes"]) + MOST_BEHIND
    name = header.get("data file", header.get("datafile"))
    with open(Path(path).parent / name, "rb") if name else nullcontext(file) as packed:
        for _ in range(header.get("line skip", header.get("lineskip", 0))):
            packed.readline()
        with INFLATE[header["encoding"]](packed) as inflated:
            content = inflated.read(most)
            if inflated.read(1):
                raise InputError("the file inflates to far more than its header says.")
    left_out = ("data file", "datafile", "line skip", "lineskip")
    header = {k: v for k, v in header.items() if k not in left_out} | {"encoding": "raw"}
    return _pynrrd().read_data(header, io.BytesIO(content))


def _is_spatial(header: dict) -> list[bool]:
    """Which axes lie in space: those with a direction, or a spacing, or else the first three."""
    n_axes = int(header["dimension"])
    if "space directions" in header:
        rows = header["space directions"]
        return [r is not None and bool(np.isfinite(np.asarray(r, float)).all()) for r in rows]
    if "spacings" in header:
        return np.isfinite(np.asarray(header["spacings"], float)).tolist()
    return [i < 3 for i in range(n_axes)]


def _space_first(data: np.ndarray, header: dict) -> tuple[np.ndarray, dict]:
    """Move axes that are not spatial (a list of volumes) behind the spatial ones."""
    spatial = _is_spatial(header)
    if len(spatial) == data.ndim == 3 and not all(spatial):
        raise InputError("the space directions hold NaN; repair the header first.")
    order = [i for i, s in enumerate(spatial) if s] + [i for i, s in enumerate(spatial) if not s]
    if len(order) != data.ndim or order == list(range(data.ndim)):
        return data, header
    header = dict(header)
    for key in ("kinds", "spacings", "space directions", "centerings", "labels", "units"):
        if key in header:
            header[key] = [header[key][i] for i in order]
    return data.transpose(order), header


def _only_space(header: dict) -> dict:
    """The header of one volume: per-axis fields cut to the three spatial axes."""
    header = {k: v for k, v in header.items() if k not in ("thicknesses", "axis mins", "axis maxs")}
    for key in ("kinds", "spacings", "space directions", "centerings", "labels", "units"):
        if key in header:
            header[key] = header[key][:3]
    return header


def _signs(header: dict) -> tuple[int, int, int]:
    space = str(header.get("space", LPS)).lower()
    full = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": LPS}
    space = full.get(space, space)
    if space not in SIGNS_TO_RAS:
        raise InputError(f"the NRRD space {space!r} does not say where left and right are.")
    return SIGNS_TO_RAS[space]


def _mm_per_unit(header: dict) -> float:
    units = {str(u).strip('"') for u in header.get("space units", ["mm"])}
    if len(units) > 1 or not units <= set(MM_PER_UNIT):
        raise InputError(f"the space units {sorted(units)} are not one of {list(MM_PER_UNIT)}.")
    return MM_PER_UNIT[units.pop()]


def _affine(header: dict) -> tuple[np.ndarray, tuple[str, ...]]:
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
        affine[:3, 3] = np.asarray(header["space origin"], float)
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
