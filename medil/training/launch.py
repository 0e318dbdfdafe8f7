"""The processes of a run: start them, split a batch between them, stop on signals."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from medil.config import Schedule
from medil.errors import InputError, needs, shown
from medil.system.children import tied
from medil.system.device import find_device

STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]


def launch(processes: int | None = None, device: str = "auto") -> Any:
    """Lightning Fabric, launched in every process of the run.

    `processes` are those on this machine; when None, as torchrun or SLURM started them, else 1.

    Raises:
        InputError: Fabric is not installed, or there is no such device here.
    """
    with needs("train", "training needs Fabric"):
        from lightning_fabric import Fabric
    accelerator = find_device(device).type
    started, nodes = started_processes()
    try:
        # Full precision to Fabric: `step_loss` casts by itself, with Fabric or without.
        fabric = Fabric(accelerator=accelerator, devices=processes or started, num_nodes=nodes)
    except (ValueError, RuntimeError) as error:  # Fabric's own exceptions are of these kinds
        raise InputError(
            f"{processes or started} processes cannot be used here: {error}"
        ) from error
    if (processes or 1) > 1 and not is_started():
        start_others(processes or 1)
    fabric.launch()
    return fabric


def is_started() -> bool:
    """Whether a launcher started this process: torchrun, SLURM's `srun`, or `start_others`."""
    return "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ


def start_others(processes: int) -> None:
    """Start this program again as the other processes of a run, which end with this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
        "WORLD_SIZE": str(processes), "LOCAL_RANK": "0",
    }  # fmt: skip
    for rank in range(1, processes):
        environment = os.environ | {"LOCAL_RANK": str(rank)}
        subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment, **tied())


def started_processes() -> tuple[int, int]:
    """Processes per machine, and machines, as torchrun or SLURM started them; else 1, 1."""
    env = {k: int(v) for k, v in os.environ.items() if v.isdecimal()}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = env["LOCAL_WORLD_SIZE"]
        return local, env["WORLD_SIZE"] // local
    nodes = env.get("SLURM_NNODES", 1)
    return max(1, env.get("SLURM_NTASKS", 1) // nodes), nodes


def check_batch(settings: Schedule, processes: int) -> None:
    """Refuse a batch that cannot be split into equal parts.

    Raises:
        InputError: The batch cannot be split.
    """
    if settings.batch % (processes * settings.accumulate):
        raise InputError(
            f"a batch of {settings.batch} cannot be split equally over {processes} "
            f"processes that accumulate {settings.accumulate}; choose another `batch`."
        )


class Interruption:
    """Record Ctrl-C, SIGTERM and SIGUSR1 (SLURM's early warning) within a `with` block.

    The current step is finished; a second Ctrl-C ends it at once. Handlers are set even where
    a shell ignores signals, and restored at the end.
    """

    def __init__(self) -> None:
        self.name = ""  # of the signal received
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            self.before = {s: signal.signal(s, self._note) for s in STOPPING}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name == "SIGINT":
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def duration_s(text: str) -> float:
    """Seconds in `90s`, `9m`, `1.5h` or a plain number of minutes.

    Raises:
        InputError: Another text, or a time that is not above zero.

    Example:
        >>> duration_s("9m"), duration_s("1.5h"), duration_s("2")
        (540.0, 5400.0, 120.0)
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "m")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(f"{shown(text)} is no time budget; say 90s, 9m or 1.5h.")
    return seconds
