"""How the threads of a process wait for work."""

from __future__ import annotations

import os

POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> None:
    """Let idle threads of this process and its children sleep; call it before torch is imported.

    OpenMP's threads spin by default while they wait for each other, which costs another process
    on the same cores its time, and this one more when it has to share. A policy that is set in
    the environment stays.
    """
    os.environ.setdefault(POLICY, "passive")
