"""Encoding and decoding beside another busy process, by how idle threads wait for work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from eval.rows import spacing_text
from eval.speed import child
from eval.speed.timing import BUSY, Plan, Timing
from eval.speed.whole import RESIZED_MM, THREADS, Brain, real_brain
from medil.system.children import tied
from medil.system.threads import POLICY

ARMS = {"threads spin": "active", "threads sleep": "passive"}


def measure(plan: Plan) -> list[Timing]:
    """The real brain at 1 mm, beside one process that computes all the time."""
    with real_brain(plan.release) as brain:
        return beside_another(brain, plan.rounds_whole)


def beside_another(brain: Brain, rounds: int) -> list[Timing]:
    """Both ways to wait, in turns, each in a fresh process; their ratio is the sleepers' gain."""
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    job: dict[str, Any] = dict(scan=str(brain.path), name=brain.release, spacing_mm=RESIZED_MM)
    for _ in range(rounds):
        for arm, policy in ARMS.items():
            with another_process():
                run = child.run_job("release", THREADS, {POLICY: policy}, **job)
            seconds[arm].append(run["encode_s"] + run["decode_s"])
    spin, sleep = (np.array(seconds[arm]) for arm in ARMS)
    values = ({"seconds": spin}, {"seconds": sleep, "ratio_to_spinning": spin / sleep})
    return [
        Timing(
            arm, BUSY, " x ".join(map(str, brain.grid.shape)), measured, brain.grid.n_voxels,
            THREADS, subject=brain.name, spacing_in_mm=spacing_text(brain.grid),
            spacing_out_mm=spacing_text(brain.grid), weights_sha256=brain.weights_sha256,
            config={"release": brain.release, "policy": policy},
        )
        for (arm, policy), measured in zip(ARMS.items(), values, strict=True)
    ]  # fmt: skip


@contextmanager
def another_process() -> Iterator[None]:
    """One process that computes on a core until the block ends."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"], **tied())
    try:
        yield
    finally:
        other.kill()
        other.wait()
