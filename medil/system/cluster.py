"""Independent pieces of work on the workers of a Dask scheduler, here or on other machines.

When a worker dies, the scheduler gives its tasks to another one; a task whose workers keep dying
is given up. Workers may come and go while the work goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from medil.errors import InputError, needs

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 5.0
AHEAD = 500  # tasks that the scheduler knows of at a time; further workers would wait
LOOK_S = 2.0  # between looks at a scheduler from which nothing comes
PATIENCE_S = 60.0  # without any worker
CHATTY = ("distributed", "distributed.client", "tornado.application")  # the sentences are ours
RESUMES = "What was finished is kept; the same command goes on"

Result = TypeVar("Result")
_one_at_a_time = threading.Lock()


class WorkerDied(InputError):
    """The workers that ran a task died, each time that it was tried."""


class Call(NamedTuple):
    """A piece of work: a function without arguments that can be pickled, and a name for people."""

    name: str
    function: Callable[[], Any]


@contextmanager
def connected(scheduler: Any) -> Iterator[Client]:
    """A client of a Dask scheduler: of an address, or of a `LocalCluster`.

    Raises:
        InputError: Dask is missing, nothing answers at the address, or a worker lacks medil.
    """
    with needs("dask", "a scheduler needs Dask"):
        from distributed import Client
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler}; start one with: dask scheduler."
        ) from error
    with client:
        _check_workers(client)
        yield client


def _check_workers(client: Client, package: str = "medil") -> None:
    """Refuse workers that cannot import a package: they would die of the first task.

    Raises:
        InputError: Names one.
    """
    found = client.run(importlib.util.find_spec, package)
    if lacking := [address for address, spec in found.items() if spec is None]:
        raise InputError(
            f"the worker at {lacking[0]} cannot import {package}; install the same packages there."
        )


def as_done(
    client: Client,
    calls: Iterable[Call],
    died: Callable[[str, WorkerDied], Any] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[tuple[int, Any]]:
    """The number of each call and what it gave, as they are done.

    No more than `AHEAD` calls are held at a time. A worker runs one at a time, with one thread of
    torch, however many threads it has.

    Args:
        client: As `connected` gives it.
        calls: The work.
        died: What a call gives whose workers died, from its name; None: the error is raised.
        patience_s: How long to wait while there is no worker at all.

    Raises:
        WorkerDied: Without `died`.
        InputError: The scheduler is gone, or there is no worker.
        Exception: Whatever a call raised first.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting = iter(enumerate(calls))
    running: dict[Any, tuple[int, Call]] = {}
    had_workers = time.monotonic()
    while True:
        for number, call in islice(waiting, AHEAD - len(running)):
            future = client.submit(_alone, call.function, pure=False)
            running[future] = number, call
            future.add_done_callback(done.put)
        if not running:
            return
        try:
            future = done.get(timeout=LOOK_S)
        except queue.Empty:
            had_workers = _look(client, had_workers, patience_s)
            continue
        had_workers = time.monotonic()
        number, call = running.pop(future)
        try:
            result = _result(future)
        except WorkerDied as error:
            if died is None:
                raise WorkerDied(f"{call.name}: {error}") from error
            result = died(call.name, error)
        yield number, result


def _result(future: Any) -> Any:
    """What a finished call gave.

    Raises:
        InputError: As `as_done`.
    """
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise WorkerDied(
            f"the worker died, at {error.allowed_failures + 1} of as many tries, perhaps because "
            "its memory ran out; its log says more."
        ) from error
    except CancelledError as error:
        raise InputError(f"the Dask scheduler is gone. {RESUMES}.") from error


def _look(client: Client, had_workers: float, patience_s: float) -> float:
    """When there was a worker last, by `time.monotonic`.

    Raises:
        InputError: That is too long ago, or the scheduler is gone.
    """
    try:
        if client.nthreads():
            return time.monotonic()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the Dask scheduler is gone. {RESUMES}.") from error
    if time.monotonic() - had_workers > patience_s:
        raise InputError(
            f"the Dask scheduler has had no worker for {patience_s:.0f} s; start some with: "
            f"dask worker {client.scheduler_info()['address']}. {RESUMES}."
        )
    return had_workers


def _alone(function: Callable[[], Result]) -> Result:
    """Call a function on a worker, while no other thread of it does: matplotlib shares state."""
    with _one_at_a_time:
        torch.set_num_threads(1)
        return function()
