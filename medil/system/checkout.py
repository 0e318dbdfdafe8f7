"""Which code is running: the commit of this checkout, and whether files differ from it."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

RECORDED = "eval/results"  # new rows there do not count as changed code


@lru_cache(maxsize=1)
def checkout() -> tuple[str, bool]:
    """The commit, and whether files differ from it; ("", True) outside a checkout.

    The environment variable ``MEDIL_COMMIT`` names the commit of a copy without history, with
    a + at its end where files differed.
    """
    if stated := os.environ.get("MEDIL_COMMIT"):
        return stated.rstrip("+"), stated.endswith("+")

    def git(*arguments: str) -> str:
        # Without locks: `git status` would write the index, and on a full disk leave its lock.
        call = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ":/", f":(top,exclude){RECORDED}")
        return git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return "", True


def commit() -> str:
    """The first digits of the commit, with + when files differ; empty outside a checkout."""
    name, differs = checkout()
    return name[:7] + "+" * differs if name else ""
