"""Work on a Dask scheduler: what workers give, and what is said when they or the scheduler die."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medil.errors import InputError
from medil.system import cluster
from medil.system.cluster import Call, WorkerDied, as_done, connected
from medil.system.workers import results

distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")


def square(name, number):
    return number**2, os.getpid()


def die_or_square(name, number):
    return os._exit(3) if number == 2 else number**2


@pytest.fixture(scope="module")
def address():
    """A scheduler with one worker of two threads, which gives up at the first death."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as made,
    ):
        yield made.scheduler_address


def test_a_worker_s_results_come_with_their_numbers(address, monkeypatch):
    monkeypatch.setattr(cluster, "AHEAD", 3)
    tasks = [(f"n{k}", k) for k in range(8)]
    found = dict(results(square, tasks, 1, "squares", address))
    assert {number: square for number, (square, _) in found.items()} == {k: k**2 for k in range(8)}
    assert os.getpid() not in {process for _, process in found.values()}


def test_a_worker_that_lacks_the_package_is_refused(address):
    with connected(address) as client:
        cluster._check_workers(client)
        with pytest.raises(InputError, match=r"worker at tcp://.* cannot import not_a_package"):
            cluster._check_workers(client, "not_a_package")


def test_a_task_whose_worker_dies_is_named_and_another_worker_goes_on(address):
    tasks = [("n2", 2), ("n3", 3)]
    found = dict(results(die_or_square, tasks, 1, "squares", address, lambda *said: said))
    name, error = found[0]
    assert name == "n2" and isinstance(error, WorkerDied) and "its memory ran out" in str(error)
    assert found[1] == 9 or found[1][0] == "n3"  # the dead worker may have held it, too


def test_without_worker_or_scheduler_there_is_one_sentence(capfd):
    script = (
        "import asyncio\nfrom distributed import Scheduler\n"
        "async def main():\n"
        "    async with Scheduler(port=0, dashboard_address=':0') as made:\n"
        "        print(made.address, flush=True)\n        await made.finished()\n"
        "asyncio.run(main())\n"
    )
    serving = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = serving.stdout.readline().strip()
        call = Call("a", time.time)
        with connected(address) as client, pytest.raises(InputError, match="no worker for 0 s"):
            list(as_done(client, [call], patience_s=0))
        with connected(address) as client:
            waiting = as_done(client, [call])
            serving.send_signal(signal.SIGKILL)
            with pytest.raises(InputError, match="scheduler is gone"):
                next(waiting)
        assert capfd.readouterr().err == ""
    finally:
        serving.kill()
        serving.wait()


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"needs Dask: pip install 'medil-book\[dask\]'"):
        list(results(square, [("a", 1)], 1, "squares", "tcp://127.0.0.1:1"))
