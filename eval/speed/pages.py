"""Pages of the book: how long a notebook takes to run, in a process of its own.

Minutes are those of the clock and, for a CPU, of the processor's time on one thread, which other
processes do not lengthen.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from eval.speed.timing import PAGE, Plan, Timing
from medil.errors import InputError
from medil.system.children import tied

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
KEPT_BYTES = str(4 * 10**9)  # freed memory that a notebook may keep, as in the book's build
PROFILES = {"cpu": "quick", "cuda": "gpu"}  # of a device


def measure(plan: Plan, notebook: Path) -> list[Timing]:
    """Run a notebook once, in the profile of the plan's device.

    Raises:
        InputError: A cell failed.
    """
    profile = PROFILES[plan.device]
    before, start = cpu_s(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "papermill", str(notebook), f"{folder}/page.ipynb"]
        command += ["-p", "profile", profile, "-k", "python3", "--cwd", str(notebook.parent)]
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        one |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), KEPT_BYTES)
        environment = os.environ | (one if plan.device == "cpu" else {})
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, **tied())
    if ran.returncode:
        raise InputError(f"{notebook.name} failed: {ran.stderr.strip().splitlines()[-1:]}")
    values = {"seconds": time.perf_counter() - start, "cpu_s": cpu_s() - before}
    return [
        Timing(
            "notebook", f"{PAGE} {notebook.stem}", f"profile {profile}", values, 1,
            subject=notebook.stem, spacing_in_mm="any", spacing_out_mm="any",
        )
    ]  # fmt: skip


def cpu_s() -> float:
    """CPU time of all processes that this one started and that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parts() -> dict:
    """One part a notebook, by its name."""
    return {p.stem: partial(measure, notebook=p) for p in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
