"""Say no before allocating: how much memory a job needs and how much is free."""

from __future__ import annotations

import os
from pathlib import Path

from medil.errors import InputError

GB = 1e9


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that can be had without swapping.

    Args:
        meminfo: The kernel's report; other systems fall back to `os.sysconf`.

    Returns:
        Bytes; physical memory where what is free cannot be known.
    """
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)


def require_memory(n_voxels: int, bytes_per_voxel: float, what: str) -> None:
    """Refuse a job that would not fit, before it starts.

    Args:
        n_voxels: How many voxels the job makes.
        bytes_per_voxel: What it keeps for each at its peak.
        what: The job, for the sentence, such as ``this output``.

    Raises:
        InputError: It needs more than is free; says voxels, GB needed and GB free.
    """
    need, free = n_voxels * bytes_per_voxel, free_memory_bytes()
    if need > free:
        raise InputError(
            f"{what} has {n_voxels:,} voxels and needs about {need / GB:,.1f} GB of memory, "
            f"but {free / GB:,.1f} GB is free; choose larger voxels or a smaller box."
        )
