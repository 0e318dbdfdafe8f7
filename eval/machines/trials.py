"""What happens when a machine is lost: trials on hosts that are network namespaces.

A rank of a training run, a worker and the scheduler of Dask are killed (SIGKILL) in the middle of
the work; then the same command goes on. Volumes are small, since nothing here depends on them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from safetensors.torch import load_file

from eval import rows, rows_file
from eval.evaluate.measure import measured, plan_of, tasks
from eval.machines.hosts import ROOT, Host
from eval.runner import Task
from medil.errors import InputError
from medil.training.run import CONFIG
from medil.training.state import STATE

SHAPE, SPACING_MM = (20, 24, 20), 3.0  # of the volumes
BATCH, STEPS = 6, 12  # of the run
LOST_AFTER = 3  # steps or scans
PORT, DASK_PORT = 29511, 8786
PATIENCE_S = 300.0
CHEAP = ("--strip", "given", "--no-bias", "--no-align", "--no-pictures")
UNITS = {
    "ended_s": "s", "exit_code": "1", "sentences": "1", "half_written": "1", "done_before": "1",
    "done": "1",
}  # fmt: skip
RANK_UNITS = UNITS | {"left_running": "1", "difference": "1"}


def write_scans(folder: Path, count: int, seed: int = 0) -> Path:
    """Stripped heads of noise: an ellipsoid in zeros."""
    folder.mkdir()
    middle = (np.array(SHAPE) - 1) / 2
    inside = np.linalg.norm((np.indices(SHAPE).T - middle) / (0.8 * middle), axis=-1).T < 1
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    for number in range(count):
        noise = np.random.default_rng([seed, number]).normal(100, 20, SHAPE)
        data = np.where(inside, noise.clip(1, None), 0).astype(np.float32)
        nib.save(nib.Nifti1Image(data, affine), folder / f"sub-{number:03d}_T1w.nii.gz")
    return folder


# A rank of a run


def run_arguments(store: Path, out: Path, steps: int = STEPS) -> list[str]:
    """Of `medil train`: the smallest model on a store, every step saved."""
    return [
        "train", "--preset", "test", "--store", str(store), "--real-share", "1", "--batch",
        str(BATCH), "--steps", str(steps), "--device", "cpu", "-o", str(out), "--set",
        "train.save_every=1", "train.log_every=1", "train.bf16=false",
    ]  # fmt: skip


def as_slurm_starts(places: Sequence[Host], rank: int) -> dict[str, str]:
    """The variables that `srun` gives to a rank, one a machine."""
    count = str(len(places))
    return {
        "SLURM_NTASKS": count, "SLURM_NNODES": count, "SLURM_PROCID": str(rank),
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank),
        "SLURM_JOB_NAME": "medil",
        "SLURM_NODELIST": places[0].address, "MASTER_ADDR": places[0].address,
        "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": places[rank].interface,
    }  # fmt: skip


def start_ranks(
    places: Sequence[Host], arguments: Sequence[str], logs: Path
) -> list[subprocess.Popen]:
    """One rank a host; what each says goes to a file in `logs`."""
    logs.mkdir(exist_ok=True)
    started = []
    for rank, place in enumerate(places):
        with (logs / f"rank{rank}.txt").open("w") as file:
            started.append(
                place.start(
                    ["medil", *arguments], as_slurm_starts(places, rank),
                    stdout=subprocess.DEVNULL, stderr=file,
                )
            )  # fmt: skip
    return started


def lose_rank(folder: Path, places: Sequence[Host], store: Path, victim: int) -> dict[str, float]:
    """Kill one rank of a run, then go on with a single process; beside a run that lost none.

    Returns:
        `ended_s` from the kill to the end of the last rank, the exit code and the sentences of
        those that were left, steps that were saved before and done at last, and `difference`, the
        largest absolute difference of a weight from that of a single process.
    """
    out, logs = folder / f"lost{victim}", folder / f"logs{victim}"
    ranks = start_ranks(places, run_arguments(store, out), logs)
    wait_for(lambda: _lines(out / "log.jsonl") >= LOST_AFTER or ranks[0].poll() is not None)
    ranks[victim].kill()
    began = time.monotonic()
    codes = [rank.wait(PATIENCE_S) for number, rank in enumerate(ranks) if number != victim]
    ended_s = time.monotonic() - began
    ranks[victim].wait()
    said = [line for path in logs.iterdir() for line in sentences(path.read_text())]
    before = _lines(out / "log.jsonl")
    again = medil("train", "--resume", "-o", str(out))
    straight = folder / "straight"
    if not straight.exists():
        medil(*run_arguments(store, straight)).check_returncode()
    return {
        "ended_s": ended_s, "exit_code": min(codes), "sentences": len(said),
        "left_running": sum(rank.poll() is None for rank in ranks),
        "half_written": half_written(out) + (not (out / CONFIG).exists()),
        "done_before": before, "done": 0 if again.returncode else _lines(out / "log.jsonl"),
        "difference": difference(out, straight),
    }  # fmt: skip


def difference(one: Path, other: Path) -> float:
    """The largest absolute difference between the weights of two runs."""
    first, second = (load_file(out / STATE) for out in (one, other))
    names = [name for name in first if name.startswith("model.")]
    return max(float((first[n].double() - second[n].double()).abs().max()) for n in names)


# A worker, or the scheduler


@contextmanager
def dask_on(places: Sequence[Host]) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler on the first host, a worker on each other one: address; these processes."""
    address = f"tcp://{places[0].address}:{DASK_PORT}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [
        "distributed.cli.dask_scheduler", "--host", places[0].address, "--port", str(DASK_PORT),
        "--no-dashboard",
    ]  # fmt: skip
    started = [places[0].start(scheduler, **quiet)]
    for place in places[1:]:
        worker = ["distributed.cli.dask_worker", address, "--host", place.address]
        options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
        started.append(place.start([*worker, *options], **quiet))
    try:
        _wait_for_workers(address, len(places) - 1)
        yield address, started
    finally:
        for process in started:
            kill_tree(process)


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    def ready() -> bool:
        try:
            with Client(address, timeout=5, set_as_default=False) as client:
                return len(client.scheduler_info()["workers"]) == count
        except OSError:
            return False

    wait_for(ready)


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process and all that it started, as a machine that stops does."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()


def lose_while_preparing(
    folder: Path, places: Sequence[Host], victim: int, count: int
) -> dict[str, float]:
    """Kill the scheduler (0) or a worker of `medil preprocess`; where it ends, call it again."""
    raw, out = write_scans(folder / "raw", count), folder / f"prepared{victim}"

    def prepared() -> int:
        return len(list(out.rglob("*_T1w.json")))

    def call(address: str) -> subprocess.CompletedProcess:
        return medil("preprocess", str(raw), "-o", str(out), *CHEAP, "--scheduler", address)

    values, done = _lose(places, victim, prepared, call)
    values |= {"exit_code": done.returncode, "sentences": len(sentences(done.stderr))}
    if done.returncode:
        with dask_on(places) as (address, _):
            call(address).check_returncode()
    return values | {"half_written": half_written(out), "done": prepared()}


def lose_while_measuring(
    folder: Path, places: Sequence[Host], victim: int, count: int
) -> dict[str, float]:
    """Kill the scheduler (0) or a worker while the rows of `medil evaluate` are measured."""
    raw, path = write_scans(folder / "scans", count), folder / f"rows{victim}.jsonl"
    plan = plan_of([raw], "tiny")

    def recorded() -> int:
        return len(rows_file.recorded_identities(path))

    def call(address: str) -> list[str]:
        try:
            measured(plan, path, "quick", scheduler=address)
        except InputError as error:
            return [str(error)]
        return []

    values, said = _lose(places, victim, recorded, call)
    values |= {"exit_code": 2 * bool(said), "sentences": len(said)}
    if said:
        with dask_on(places) as (address, _):
            call(address)
    left: Sequence[Task] = tasks(plan, path, rows.Provenance.now("quick"))
    return values | {"half_written": 0, "done": count - len(left)}


def _lose(
    places: Sequence[Host], victim: int, count: Callable[[], int], call: Callable[[str], Any]
) -> tuple[dict[str, float], Any]:
    """Kill one process of Dask once some work is done, while `call` works; what it gave."""
    at: dict[str, float] = {}
    with dask_on(places) as (address, started):

        def kill() -> None:
            wait_for(lambda: count() >= 1)
            at["done_before"], at["s"] = count(), time.monotonic()
            kill_tree(started[victim])

        killer = threading.Thread(target=kill)
        killer.start()
        given = call(address)
        killer.join()
        ended_s = time.monotonic() - at["s"]
    return {"ended_s": ended_s, "done_before": at["done_before"]}, given


# Small parts


def medil(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command `medil` here."""
    return subprocess.run(
        [sys.executable, "-m", "medil", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def sentences(text: str) -> list[str]:
    """What the command says of an error: the lines that begin with its name."""
    lines = text.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("medil: ")]


def half_written(folder: Path) -> int:
    """Temporary files that are left in a folder; a lock's note is none."""
    return sum(".tmp" in path.name or ".part" in path.name for path in folder.rglob("*"))


def wait_for(ready: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It takes too long.
    """
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > PATIENCE_S:
            raise TimeoutError("nothing happened")
        time.sleep(0.05)


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0
