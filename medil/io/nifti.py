"""NIfTI and MGH files, read and written with nibabel.

Readers give the values *as stored* (disk order, unscaled) and a `Source` that says what
they mean; writers take the same two back. Nothing here resamples, reorders or scales.
"""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medil.errors import InputError
from medil.grid import Grid
from medil.io.source import Source, check_dtype, native, spatial_shape, suffix_of
from medil.system.memory import require_memory

MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
GZIP_HEADER = zlib.MAX_WBITS + 16  # how zlib is told to write one, without a time
MAX_NIFTI1_SIZE = 32767  # its header counts voxels in int16


def read_nibabel(path: Path, volume_index: int | None) -> tuple[np.ndarray, Source]:
    """Stored values of a NIfTI or MGH file, of one volume if it is 4-D.

    Returns:
        [i, j, k] in the order and (native) dtype of the file, and its `Source`.

    Raises:
        InputError: What is wrong with the file, without its name.
    """
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image | nib.Nifti2Image | nib.MGHImage):
        raise InputError("this is not a NIfTI or MGH image.")
    on_disk = image.header.get_data_dtype()
    check_dtype(on_disk)
    sizes = tuple(int(n) for n in image.shape)  # MGH gives int32, whose product overflows
    shape, tail, index = spatial_shape(sizes, volume_index)
    source = _nibabel_source(image, shape, tail)
    require_memory(math.prod(sizes), 2 * on_disk.itemsize, "the image")
    proxy: Any = image.dataobj
    stored = np.asanyarray(proxy.get_unscaled())
    stored = stored.reshape(*shape, -1, order="F")[..., index]
    return stored.astype(native(on_disk), copy=False), source


def _nibabel_source(image: Any, shape: tuple[int, int, int], tail: tuple[int, ...]) -> Source:
    kind = "mgh" if isinstance(image, nib.MGHImage) else "nifti1"
    kind = "nifti2" if isinstance(image, nib.Nifti2Image) else kind
    header, notes = image.header.copy(), []
    affine = np.array(image.affine, dtype=np.float64)
    if kind != "mgh":
        affine[:3] *= MM_PER_UNIT[header.get_xyzt_units()[0]]
        if not (header["qform_code"] or header["sform_code"]):
            notes.append(
                "the header has no qform and no sform: position and handedness are assumed."
            )
    slope, inter = float(image.dataobj.slope), float(image.dataobj.inter)
    dtype = native(header.get_data_dtype())
    return Source(kind, Grid(shape, affine), dtype, header, slope, inter, tail, tuple(notes))


def write_nibabel(
    path: Path, stored: np.ndarray, grid: Grid, source: Source | None, slope: float, inter: float
) -> None:
    """Write [i, j, k] stored values on `grid` as NIfTI or MGH, by the suffix of the path.

    A header of the source's format is kept, with its codes, units and extensions; where the
    grid has not changed, its qform and sform stay untouched to the last bit. In NIfTI,
    ``value = stored * slope + inter``.
    """
    stored = stored.reshape(full_shape(grid, source))
    if suffix_of(path) in (".mgz", ".mgh"):
        header = source.header if source and source.kind == "mgh" else None
        known = header is not None and _keeps_grid(grid, source)
        image = nib.MGHImage(stored, None if known else grid.affine_vox2ras, header)
        image.header.set_data_dtype(stored.dtype)
    else:
        image = nifti_image(stored, grid, source, slope, inter)
    nib.save(image, path)


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

    def write(self, data) -> int:
        """Compress bytes behind those before."""
        self.file.write(self.deflate.compress(data))
        return len(data)

    def close(self) -> None:
        """End the file; it stays incomplete unless this is called."""
        if not self.closed:
            self.file.write(self.deflate.flush())
            self.file.close()
        super().close()


def full_shape(grid: Grid, source: Source | None) -> tuple[int, ...]:
    """Shape of the file: with the trailing axes of the source where the grid is the same."""
    tail = source.tail if source is not None and _keeps_grid(grid, source) else ()
    return (*grid.shape, *tail)


def _keeps_grid(grid: Grid, source: Source | None) -> bool:
    return source is not None and source.grid.is_close(grid, tolerance_mm=1e-6)


def nifti_image(
    stored: np.ndarray, grid: Grid, source: Source | None, slope: float = 1.0, inter: float = 0.0
) -> Any:
    """A NIfTI image as `write_nibabel` writes it.

    `stored` has the shape of `full_shape`; only that and its dtype matter for the header.
    """
    header = source.header if source and source.kind.startswith("nifti") else None
    wide = max(grid.shape) > MAX_NIFTI1_SIZE or isinstance(header, nib.Nifti2Header)
    image_class = nib.Nifti2Image if wide else nib.Nifti1Image
    if header is not None and _keeps_grid(grid, source):
        image = image_class(stored, None, header)
    else:
        affine = grid.affine_vox2ras.copy()
        image = image_class(stored, affine, header, dtype=stored.dtype)
        if header is None:
            image.header.set_xyzt_units("mm")
        affine[:3] /= MM_PER_UNIT[image.header.get_xyzt_units()[0]]
        _set_forms(image, affine, source.codes if source else None)
    image.header.set_data_dtype(stored.dtype)
    image.header.set_slope_inter(slope, inter)
    return image


def _set_forms(image: Any, affine: np.ndarray, codes: tuple[int, int] | None) -> None:
    """Set qform and sform of a new grid, with the codes of the old one."""
    q_code, s_code = codes or (1, 1)
    if not (q_code or s_code):
        q_code = s_code = 2  # the old header named no coordinate space: "aligned to something"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing
    is_sheared = not np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    image.set_qform(affine, q_code)  # loses shear, if there is any
    image.set_sform(affine, s_code or (q_code if is_sheared else 0))
