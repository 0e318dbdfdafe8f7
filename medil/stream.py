"""Write an image slab by slab, so that memory does not grow with it.

Files of NIfTI are written from front to back. A memory map would let slabs come in any order,
but its pages count as the process's memory until the kernel takes them back, and it cannot
be compressed; so the slabs come in the file's order, whatever its axes are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from nibabel import orientations
from nibabel.openers import Opener
from nibabel.volumeutils import seek_tell
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid
from medil.io.nifti import Source, full_shape, nifti_image, written_suffix
from medil.system.files import atomic_output
from medil.system.memory import GB, choose
from medil.volume import Volume, save

Slabs = Iterator[tuple[int, Tensor]]  # first index along the axis, and [D, H, W] float32
STREAMED = (".nii", ".nii.gz")
WHOLE_BYTES = 16  # a voxel, for formats that are written whole


def save_slabs(
    path: str | Path,
    grid: Grid,
    like: Source | None,
    make_slabs: Callable[[int, bool], Slabs],
    force: bool = False,
    memory_bytes: int | None = None,
) -> Path:
    """Write an image that comes in slabs, as `medil.volume.save` writes float32 volumes.

    Args:
        path: .nii and .nii.gz are written slab by slab; other formats are collected first.
        grid: Of the whole image, RAS+.
        like: The file to resemble: its orientation, codes, units. RAS+ when None.
        make_slabs: Given an axis of `grid` and whether to begin at its end, all slabs of the
            image in that order; called once. `MedIL.decode_slabs` makes such.
        force: Replace a file that exists.
        memory_bytes: Budget of the process, for formats that are collected; a share of what
            is free when None.

    Returns:
        The path. It holds a whole file or, after an error, what it held before.

    Raises:
        InputError: As `medil.volume.save`, or not enough memory for a format that needs
            the whole.
    """
    path, suffix = Path(path), written_suffix(path)
    if suffix not in STREAMED:
        what = f"this output, which {suffix} needs as a whole,"
        choose([WHOLE_BYTES], lambda size: size * grid.n_voxels, memory_bytes, what)
        data = torch.empty(grid.shape)
        for start, slab in make_slabs(0, False):
            data[start : start + len(slab)] = slab
        return save(Volume(data, grid), path, like=like, force=force)
    stored_grid, transform = grid.reoriented(like.orientation if like else "RAS")
    slowest = int(np.flatnonzero(transform[:, 0] == 2)[0])  # NIfTI's last axis
    blank = np.broadcast_to(np.float32(0), full_shape(stored_grid, like))  # takes no memory
    image = nifti_image(blank, stored_grid, like)
    image.update_header()
    with atomic_output(path, force) as temporary, Opener(str(temporary), "wb") as file:
        image.header.write_to(file)
        seek_tell(file, image.header.get_data_offset(), write0=True)  # type: ignore[arg-type]
        dtype = image.header.get_data_dtype()  # in the byte order of the header
        for _, slab in make_slabs(slowest, transform[slowest, 1] < 0):
            stored = orientations.apply_orientation(slab.numpy(), transform)
            for k in range(stored.shape[2]):
                file.write(stored[..., k].astype(dtype).tobytes(order="F"))
            del slab, stored
    return path


def check_room(path: str | Path, grid: Grid) -> None:
    """Refuse an output that its disk has no room for, before minutes of work.

    Args:
        path: Where it shall lie.
        grid: Its voxels, written as float32. Compressed files are judged alike: the noise
            in float32 leaves little to compress.

    Raises:
        InputError: Says what is needed and what is free.
    """
    need = 4 * grid.n_voxels
    folder = next(p for p in Path(path).absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{path} would have {grid.n_voxels:,} voxels and needs about {need / GB:,.1f} GB of "
            f"disk, but {free / GB:,.1f} GB is free; choose larger voxels or another disk."
        )
