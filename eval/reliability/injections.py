"""What is made to go wrong: in the process of a command, on its disk, or in the files it reads.

Each kind is drawn from a share of the unit interval, so that trials cover the whole of a command's
time, of its steps on the disk, or of the sizes that it writes.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.reliability.child import Steps

STOPPED, REMOVED, DAMAGED = "stopped by a signal", "folder removed", "damaged file"
CAPABILITIES_3 = 0x20080522  # constant of Linux's capability.h


@dataclass(frozen=True)
class Injection:
    """One thing that goes wrong.

    Args:
        arm: Called in the process of the command, before it.
        around: Holds while the command runs; undone before the next one.
        twice: Start the command twice at once.
        damaged: The file that is damaged meanwhile, if any.
    """

    arm: Callable[[Steps], None] = lambda _: None
    around: Callable[[], AbstractContextManager] = nullcontext
    twice: bool = False
    damaged: Path | None = None


@dataclass(frozen=True)
class Draw:
    """What an injection is drawn from.

    Args:
        share: From 0 to below 1.
        rng: For what else is random.
        facts: Of the undisturbed command: its time, steps, memory and largest file.
        place: The folder that it writes to.
        files: What it reads of ours, and what is there of its own from an earlier call.
    """

    share: float
    rng: np.random.Generator
    facts: dict[str, Any]
    place: Path
    files: tuple[Path, ...]


def killed(draw: Draw) -> Injection:
    """Ended by the system at a moment of its computing time."""
    return Injection(partial(_after, draw.share * draw.facts["cpu_s"], None))


def killed_at_a_step(draw: Draw) -> Injection:
    """Killed just before it creates, opens for writing, renames or removes a file or folder."""
    return Injection(partial(_at_step, _step(draw), _end_at_once))


def stopped(draw: Draw) -> Injection:
    """Asked to end, by Ctrl-C or SIGTERM, at a moment of its computing time."""
    name = (signal.SIGINT, signal.SIGTERM)[int(draw.rng.integers(2))]
    return Injection(partial(_after, draw.share * draw.facts["cpu_s"], name))


def full_disk(draw: Draw) -> Injection:
    """No file can grow beyond a size."""
    most_bytes = int((draw.facts["largest_bytes"] + 1) ** draw.share) - 1
    return Injection(partial(_limited, resource.RLIMIT_FSIZE, most_bytes))


def read_only(draw: Draw) -> Injection:
    """Its folder, and all that is in it, may not be written to."""
    return Injection(without_privileges, partial(locked, draw.place))


def folder_removed(draw: Draw) -> Injection:
    """Somebody removes its folder meanwhile."""
    return Injection(partial(_at_step, _step(draw), partial(_emptied, draw.place)))


def two_at_once(draw: Draw) -> Injection:
    """The same command is started twice at the same time."""
    return Injection(twice=True)


def little_memory(draw: Draw) -> Injection:
    """Addresses run out at a size that it reaches."""
    return Injection(partial(_little_memory, int(draw.share * draw.facts["grown_bytes"])))


def damage(draw: Draw) -> Injection:
    """A bit of a file is turned over, a part of it becomes zeros, or it is cut."""
    path = draw.files[int(draw.share * len(draw.files))]
    return Injection(around=partial(_damaged, path, draw.rng), damaged=path)


KINDS: dict[str, tuple[Callable[[Draw], Injection], int]] = {  # and how many in the full profile
    "killed at a moment": (killed, 14),
    "killed at a step on the disk": (killed_at_a_step, 16),
    STOPPED: (stopped, 4),
    "full disk": (full_disk, 8),
    "read-only folder": (read_only, 2),
    REMOVED: (folder_removed, 4),
    "two at once": (two_at_once, 4),
    "little memory": (little_memory, 6),
    DAMAGED: (damage, 12),
}


# In the process


def _step(draw: Draw) -> int:
    return 1 + int(draw.share * draw.facts["steps"])


def _after(cpu_s: float, name: signal.Signals | None, _: Steps) -> None:
    """Send this process a signal after some computing time; end it at once where None."""
    if name is not None:
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), name))
    signal.setitimer(signal.ITIMER_PROF, max(1e-4, cpu_s))


def _at_step(number: int, act: Callable[[], object], steps: Steps) -> None:
    steps.at, steps.act = number, act


def _end_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limited(limit: int, most: int, _: Steps) -> None:
    resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))


def _little_memory(more: int, steps: Steps) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limited(resource.RLIMIT_AS, pages * resource.getpagesize() + more, steps)


def without_privileges(_: Steps) -> None:
    """Let permissions hold for this process even where root runs it."""
    header, none = struct.pack("Ii", CAPABILITIES_3, 0), struct.pack("6I", *[0] * 6)
    ctypes.CDLL(None).capset(header, none)


def _emptied(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


# On the disk


@contextmanager
def locked(place: Path) -> Iterator[None]:
    paths = [place, *place.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in reversed(paths):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])


@contextmanager
def _damaged(path: Path, rng: np.random.Generator) -> Iterator[None]:
    whole, stat = path.read_bytes(), path.stat()
    broken = changed(whole, rng)
    path.write_bytes(broken)
    try:
        yield
    finally:
        if path.exists() and path.read_bytes() == broken:  # nobody has replaced it
            path.write_bytes(whole)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with a bit turned over, with a part of zeros, or cut."""
    at, way = int(rng.integers(len(content))), int(rng.integers(4))
    if way < 2:
        flipped = bytes([content[at] ^ 1 << int(rng.integers(8))])
        return content[:at] + flipped + content[at + 1 :]
    if way == 2:
        end = min(len(content), at + int(rng.integers(1, 4096)))
        return content[:at] + bytes(end - at) + content[end:]
    return content[:at]
