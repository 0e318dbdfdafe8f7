"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from typing import Any

PR_SET_PDEATHSIG = 1  # constant of Linux's prctl.h


def tied() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that tie a program to this thread: SIGTERM when it ends.

    A program that was not tied works on unseen when its starter is killed. Only Linux can do
    this; elsewhere there are no such arguments.

    Example:
        >>> import subprocess, sys
        >>> subprocess.run([sys.executable, "-c", "pass"], **tied()).returncode
        0
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if os.name == "posix" else None
    if prctl is None:
        return {}
    starter = os.getpid()

    def before_the_program() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != starter:  # it ended before it could be watched
            os._exit(1)

    return {"preexec_fn": before_the_program}


def end_with_parent() -> None:
    """Watch the parent of this process of `multiprocessing`, and end at once when it was killed."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
