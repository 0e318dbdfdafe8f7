"""Run a command in a process of its own, which is forked from one that has imported everything.

A new interpreter would spend seconds on imports; a forked one is there at once.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

MOST_S = 600.0  # a command that takes longer hangs
FACTS = b"\0"  # divides what was said from the facts
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
KILLED = {-signal.SIGKILL, -signal.SIGPROF}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Exit code, or minus the signal that ended it.
        said: What it wrote to stderr.
        facts: `steps` it took on the disk, `cpu_s`, `grown_bytes` of addresses, and the `modules`
            that it imported; empty where it was killed.
    """

    code: int
    said: str
    facts: dict[str, Any] = field(default_factory=dict)


class Steps:
    """An audit hook that counts a process's changes of files in a folder, and acts before one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.at = str(folder), 0, -1
        self.act: Callable[[], object] = os.abort

    def __call__(self, event: str, arguments: tuple) -> None:
        """Called by Python before each change, with the path as first argument."""
        if event == "open":
            is_change = isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
        else:
            is_change = event in CHANGES
        if is_change and self._is_inside(arguments[0]):
            self.count += 1
            if self.count == self.at:
                self.act()

    def _is_inside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor
        text = os.fsdecode(path)
        return text.startswith(self.folder) or not text.startswith("/")  # of `shutil.rmtree`


class Running:
    """A command that was started by `start`."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self.pipe = pid, pipe

    def wait(self, most_s: float = MOST_S) -> Ended:
        """Its end; one that takes longer is killed, and said to hang."""
        said, deadline = b"", time.monotonic() + most_s
        while select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(self.pipe, 1 << 16)
            if not part:
                break
            said += part
        else:
            os.kill(self.pid, signal.SIGKILL)
            said = b"it hangs"
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        text, _, facts = said.partition(FACTS)
        hangs = said == b"it hangs"
        return Ended(1 if hangs else code, text.decode("utf-8", "replace"), _parsed(facts))


def start(
    command: Callable[[], int | None], folder: Path, arm: Callable[[Steps], None] = lambda _: None
) -> Running:
    """Start a command in a forked process.

    Args:
        command: Returns its exit code, or raises SystemExit.
        folder: Where its changes of files are counted.
        arm: Called first in the new process, to make something go wrong there.
    """
    here, there = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.close(there)
        return Running(pid, here)
    os.close(here)
    _work(command, folder, arm, there)


def _work(command: Callable, folder: Path, arm: Callable, pipe: int) -> NoReturn:
    code: Any = 1
    try:
        _redirect(pipe)
        tqdm.set_lock(threading.RLock())  # the inherited one would stay held by who is killed
        steps, before, modules = Steps(folder), _addresses("VmSize"), set(sys.modules)
        sys.addaudithook(steps)
        arm(steps)
        code = command()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
            os.write(2, FACTS + json.dumps(_facts(steps, before, modules)).encode())
        os._exit(code or 0)


def _redirect(pipe: int) -> None:
    """Write stderr to a pipe and stdout nowhere; Python's own objects may be replaced by a test."""
    os.dup2(pipe, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _facts(steps: Steps, before: int, modules: set[str]) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "steps": steps.count,
        "cpu_s": used.ru_utime + used.ru_stime,
        "grown_bytes": _addresses("VmPeak") - before,
        "modules": sorted(set(sys.modules) - modules),
    }


def _parsed(facts: bytes) -> dict[str, Any]:
    try:
        return json.loads(facts)
    except ValueError:
        return {}


def _addresses(name: str) -> int:
    """A size of this process's addresses, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
