"""Memory budgets: refuse a job before it allocates more than it may use."""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from medil.errors import InputError

GB = 1e9
FREE_SHARE = 0.5  # share of the free memory that a job may use without a budget
DECIMAL = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS = {**DECIMAL, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
START_BYTES = 1e9  # of addresses, to import torch and read a small image: 0.7 GB were measured
THREAD_BYTES = 1e8  # of addresses for each processor: stacks and buffers of threads
RETURNED_BYTES = 2**25  # ours: less saves more memory, but takes time to ask for again
KEPT_BYTES = 2**26  # ours: memory that slabs after slabs may use again
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
T = TypeVar("T")


def parse_size(text: str) -> int:
    """The number of bytes in a text such as `2GB`, `500MB` or `1.5GiB`.

    Raises:
        InputError: Another text, or a size that is not above zero.

    Example:
        >>> parse_size("500MB"), parse_size("1.5 GiB"), parse_size("2g")
        (500000000, 1610612736, 2000000000)
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([KMGT]I?|)B?\s*", text.upper())
    n_bytes = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 1 <= n_bytes < 2**63:
        raise InputError(f"{text!r} is not a memory size; write 500MB, 2GB or 1.5GiB.")
    return int(n_bytes)


def free_memory_bytes(group: Path | None = None) -> int:
    """Memory that is free without swapping, in this machine and its control group.

    Args:
        group: Folder of a control group (cgroup v2); this process's own when None.
    """
    available: int = psutil.virtual_memory().available
    return min(available, _free_in_group(group or _own_group()))


def _own_group() -> Path:
    """The folder of this process's control group; the root inside a container."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        inner = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return root
    own = root / inner.strip("/")
    return own if (own / "memory.max").is_file() else root


def _free_in_group(group: Path) -> int:
    """Bytes that a cgroup may still use; file pages that it can drop count as free."""
    try:
        limit = int((group / "memory.max").read_text())  # "max" is no number
        used = int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 2**63
    return max(0, limit - used + int(facts.get("inactive_file", 0)))


def resident_bytes() -> int:
    """Memory that this process uses now."""
    n_bytes: int = psutil.Process().memory_info().rss
    return n_bytes


def check_address_space() -> None:
    """Refuse a limit of addresses (``ulimit -v``) within which libraries cannot even start.

    Some of them spin there for minutes, deaf to signals.

    Raises:
        InputError: States the limit and the least that is needed.
    """
    if os.name != "posix":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    least = START_BYTES + THREAD_BYTES * (os.cpu_count() or 1)
    if limit != resource.RLIM_INFINITY and limit < least:
        raise InputError(
            f"medil needs at least {_rounded_up(least)} of addresses to start, but ulimit -v "
            f"allows {limit / GB:,.2f} GB; raise it with: ulimit -v {math.ceil(least / 1024)}."
        )


def give_back_freed_blocks() -> None:
    """Make the C library return large blocks to the system as soon as they are freed.

    glibc raises its own threshold as a program runs; arrays below it then stay behind as holes
    between others, and the process's memory creeps up. What slabs take and free again and again
    is kept: pages that are new each time cost a quarter of the time. Other C libraries are left
    alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, ctypes.c_int(RETURNED_BYTES))
        mallopt(M_TRIM_THRESHOLD, ctypes.c_int(KEPT_BYTES))


def choose(
    candidates: Sequence[T],
    bytes_of: Callable[[T], float],
    memory_bytes: int | None,
    what: str,
) -> T:
    """The first of several ways to do a job whose memory fits the budget.

    Args:
        candidates: The ways, from the most to the least memory.
        bytes_of: Memory of a candidate in addition to what the process uses now.
        memory_bytes: Budget of the whole process, including what it uses now; a share of
            the free memory when None.
        what: Name of the job in the error, such as ``this output``.

    Raises:
        InputError: Not even the last one fits; states the need and the budget.
    """
    in_use = resident_bytes()
    free = free_memory_bytes()
    budget = in_use + free * FREE_SHARE if memory_bytes is None else memory_bytes
    for candidate in candidates:
        need = in_use + bytes_of(candidate)
        if need <= budget:
            return candidate
    raise InputError(
        f"{what} needs at least {_rounded_up(need)} of memory, but the budget is "
        f"{budget / GB:,.2f} GB; {'name a larger `memory_bytes` or ' if memory_bytes else ''}"
        "choose larger voxels or a smaller box."
    )


def _rounded_up(n_bytes: float) -> str:
    return f"{math.ceil(n_bytes / GB * 100) / 100:,.2f} GB"


def require_memory(n_voxels: int, bytes_per_voxel: float, what: str) -> None:
    """Refuse a job that needs more memory than is free; `what` names it, as in ``this output``.

    Raises:
        InputError: States the voxels, the GB needed and the GB free.
    """
    need, free = n_voxels * bytes_per_voxel, free_memory_bytes()
    if need > free:
        raise InputError(
            f"{what} has {n_voxels:,} voxels and needs about {need / GB:,.1f} GB of memory, "
            f"but {free / GB:,.1f} GB is free; choose larger voxels or a smaller box."
        )
