"""Run a command of any release, and disturb it at one step on the disk.

A program of its own, of the standard library alone: the release is the one on PYTHONPATH.

    python -P eval/reliability/disturbed.py '{"most_bytes": 300}' medil encode scan.nii.gz -o a
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

CAPABILITIES_3 = 0x20080522  # constant of Linux's capability.h
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SOON_S = 4.0
Plan = dict[str, Any]


class At:
    """An audit hook that acts at a step: `{"step": "rename", "name": "a.json", "act": "kill"}`.

    Steps are `open` (for writing), `write` (the first bytes after it), `rename` (to that name) and
    `mkdir`; the `count`-th one whose path ends with `name` is meant.
    """

    def __init__(self, step: str, name: str, act: str, count: int = 1) -> None:
        self.event = {"write": "open", "open": "open"}.get(step, f"os.{step}")
        self.step, self.name, self.act, self.count = step, name, ACTS[act], count

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python before each event."""
        if event == self.event and self._is_meant(arguments):
            self.count -= 1
            if self.count == 0:
                self.act() if self.step != "write" else sys.setprofile(self._at_write)

    def _is_meant(self, arguments: tuple[Any, ...]) -> bool:
        if self.event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return False
        path = arguments[1] if self.event == "os.rename" else arguments[0]
        return isinstance(path, str | os.PathLike) and os.fspath(path).endswith(self.name)

    def _at_write(self, _: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") == "write":
            self.act()


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def soon() -> None:
    """End it in some seconds."""
    signal.signal(signal.SIGALRM, lambda *_: kill())
    signal.setitimer(signal.ITIMER_REAL, SOON_S)


def pause() -> None:
    """Stop it until somebody continues it."""
    os.kill(os.getpid(), signal.SIGSTOP)


ACTS = {"kill": kill, "soon": soon, "pause": pause}


class PowerCut:
    """Empties, at the end, files that got their names without having been flushed to the disk."""

    def __init__(self) -> None:
        self.flushed: set[int] = set()
        self.named: dict[str, int] = {}
        self.fsync, os.fsync = os.fsync, self._fsync  # type: ignore[assignment]
        sys.addaudithook(self._note)

    def _fsync(self, file: Any) -> None:
        self.flushed.add(os.fstat(file).st_ino)
        self.fsync(file)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and os.path.isfile(arguments[0]):
            self.named[os.path.abspath(arguments[1])] = os.stat(arguments[0]).st_ino

    def cut(self) -> None:
        """What a power cut does now."""
        for path, inode in self.named.items():
            if inode not in self.flushed and os.path.exists(path):
                os.truncate(path, 0)


def prepare(plan: Plan) -> None:
    """Limits, permissions and the clock of this process.

    Args:
        plan: `most_bytes` of a file and `addresses` of memory; `bound`: permissions hold even for
            root; `clock`: how many times faster it goes.
    """
    for limit, name in ((resource.RLIMIT_FSIZE, "most_bytes"), (resource.RLIMIT_AS, "addresses")):
        if name in plan:
            resource.setrlimit(limit, (plan[name], resource.getrlimit(limit)[1]))
    if plan.get("bound"):
        header, none = struct.pack("Ii", CAPABILITIES_3, 0), struct.pack("6I", *[0] * 6)
        ctypes.CDLL(None).capset(header, none)
    if "clock" in plan:
        real, faster = time.monotonic, plan["clock"]
        time.monotonic = lambda: real() * faster


def medil() -> None:
    """`medil`, as its script calls it."""
    from medil.cli import main

    main()


def evaluate() -> None:
    """`python -m eval.evaluate` without its pages, which would cost minutes."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # optional; fits one torch alone
    from eval.evaluate import book

    book.execute_all = lambda *_: None
    book.render = _no_pages  # type: ignore[assignment]
    runpy.run_module("eval.evaluate", run_name="__main__", alter_sys=True)


def _no_pages(_source: Path, out: Path) -> Path:
    html = out / "_build" / "html"
    html.mkdir(parents=True)
    return html


def fetch() -> None:
    """Fetch the first file of the manifest in a folder, which is the argument."""
    from medil.data import manifest
    from medil.errors import InputError

    manifest.manifest_folder = lambda: Path(sys.argv[1])
    try:
        manifest.fetch(manifest.entries("made")[0])
    except InputError as error:
        print("medil:", error, file=sys.stderr)
        raise SystemExit(2) from error


PROGRAMS = {"medil": medil, "evaluate": evaluate, "fetch": fetch}


def main() -> None:
    """Run a program with its arguments as planned."""
    plan, program = json.loads(sys.argv[1]), sys.argv[2]
    sys.argv = [program, *sys.argv[3:]]
    cut = PowerCut() if plan.get("power_cut") else None
    if "at" in plan:
        sys.addaudithook(At(**plan["at"]))
    prepare(plan)
    try:
        PROGRAMS[program]()
    finally:
        if cut:
            cut.cut()


if __name__ == "__main__":
    main()
