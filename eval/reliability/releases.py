"""Commands of a checkout of any release, each in an interpreter of its own, on the bench."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.reliability import disturbed
from eval.reliability.bench import Bench
from eval.reliability.child import Ended
from medil.errors import InputError

MOST_S = 60.0  # a command that takes longer hangs
MIRROR = "MEDIL_DATA_MIRROR"


class Running:
    """A command that was started; `until_paused` and `wait` may be called one after another."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.said, self.began = b"", time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self.pid, self.ended = self.process.pid, Ended(0, "")
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def until_paused(self) -> bool:
        """Wait until the command pauses itself; False where it ended instead."""
        return self._changed(os.WUNTRACED)

    def go_on(self) -> None:
        """Let a paused command continue; one that has ended stays so."""
        if self.process.returncode is None:
            os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> Ended:
        """Its end; one that takes longer than `MOST_S` is killed, and said to hang."""
        if self.process.returncode is None:
            self._changed(0)
        return self.ended

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as pipe:
            while part := os.read(pipe.fileno(), 1 << 16):
                self.said += part

    def _changed(self, how: int) -> bool:
        while time.monotonic() - self.began < MOST_S:
            pid, status, used = os.wait4(self.pid, os.WNOHANG | how)
            if pid and os.WIFSTOPPED(status):
                return True
            if pid:
                self._note(os.waitstatus_to_exitcode(status), used.ru_maxrss, "")
                return False
            time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
        _, _, used = os.wait4(self.pid, 0)
        self._note(1, used.ru_maxrss, f"it hangs after {MOST_S:g} s")
        return False

    def _note(self, code: int, peak_kb: int, words: str) -> None:
        self.process.returncode = code
        self.reader.join(1.0)  # programs that it has started may hold the pipe for longer
        text = words or self.said.decode("utf-8", "replace")
        facts = {"took_s": time.monotonic() - self.began, "peak_mb": peak_kb / 1024}
        self.ended = Ended(code, text, facts)


@dataclass(frozen=True)
class Release:
    """A checkout whose commands are called, and the bench on which they work."""

    root: Path
    bench: Bench = field(compare=False)

    def start(self, program: str, *arguments: Any, **plan: Any) -> Running:
        """Start a program of `disturbed`, with a plan of what disturbs it."""
        words = [json.dumps(plan), program, *map(str, arguments)]
        environment = {k: v for k, v in os.environ.items() if k != MIRROR}
        environment |= {
            "PYTHONPATH": str(self.root), "TMPDIR": str(self.bench.temporary),
            "MEDIL_CACHE": str(self.bench.place / "cache"),
        }  # fmt: skip
        command = [sys.executable, "-P", disturbed.__file__, *words]
        return Running(command, self.bench.place, environment)

    def call(self, program: str, *arguments: Any, **plan: Any) -> Ended:
        """Run a program to its end."""
        return self.start(program, *arguments, **plan).wait()

    def medil(self, *arguments: Any, **plan: Any) -> Ended:
        """Run a verb of `medil` to its end."""
        return self.call("medil", *arguments, **plan)


@lru_cache
def code_of(root: Path) -> tuple[str, str]:
    """Version and commit of a checkout.

    Raises:
        InputError: The folder is none.
    """
    try:
        text = (root / "medil" / "__init__.py").read_text("utf-8")
        call = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
        return text.split('__version__ = "')[1].split('"')[0], commit
    except (OSError, IndexError, subprocess.CalledProcessError) as error:
        raise InputError(f"{root} is no git checkout of MedIL; clone one there first.") from error
