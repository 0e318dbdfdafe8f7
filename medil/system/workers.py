"""Independent pieces of work, spread over processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from medil.errors import InputError
from medil.system.children import end_with_parent
from medil.system.cluster import RESUMES, Call, WorkerDied, as_done, connected
from medil.system.memory import free_memory_bytes

HEAD_BYTES = 3e9  # peak memory of a process that draws heads
FEW = 4  # with fewer tasks, starting processes takes longer than it saves

Group = list[int]
Result = TypeVar("Result")


def process_count(bytes_each: float = HEAD_BYTES) -> int:
    """Number of processes that this machine has cores and memory for, at least 1."""
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min(processors, int(free_memory_bytes() / bytes_each)))


def grouped(numbers: Iterable[int], n_kinds: int, processes: int = 1) -> list[Group]:
    """Group indices by `index % n_kinds`, so that each process loads an input only once.

    Groups are split until there are about as many as processes.

    Example:
        >>> grouped(range(6), 2), grouped(range(6), 2, processes=4)
        ([[0, 2, 4], [1, 3, 5]], [[0, 2], [4], [1, 3], [5]])
    """
    ordered = sorted(numbers)
    kinds = [[k for k in ordered if k % n_kinds == kind] for kind in range(n_kinds)]
    kinds = [group for group in kinds if group]
    split = -(-processes // max(1, len(kinds)))
    parts = []
    for group in kinds:
        size = -(-len(group) // split)
        parts += [group[a : a + size] for a in range(0, len(group), size)]
    return parts


def share_out(
    work: Callable[[Any], None],
    groups: Sequence[Sequence[Any]],
    processes: int,
    title: str,
    few: int = FEW,
) -> None:
    """Process groups of tasks in parallel, under a progress bar that counts the tasks.

    `work` is called once for each group, in another process where there are several. With fewer
    than `few` tasks, all run in this process.

    Raises:
        Exception: Whatever `work` raised first.
    """
    count = sum(map(len, groups))
    with tqdm(total=count, desc=title, disable=count < 2) as bar:
        if min(processes, len(groups)) < 2 or count < few:
            for group in groups:
                work(group)
                bar.update(len(group))
            return
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(groups)), spawn, _one_thread) as crew:
            running = {crew.submit(work, group): len(group) for group in groups}
            try:
                for done in as_completed(running):
                    done.result()
                    bar.update(running[done])
            finally:  # after a failure, do not start the rest
                crew.shutdown(cancel_futures=True)


def results(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    processes: int,
    title: str,
    scheduler: str | None = None,
    died: Callable[[str, WorkerDied], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """The number of each task and what a function gives for its arguments, as they are done.

    Tasks are long; their first argument names them. Each runs in a process of its own kind where
    there are several, and few more than processes are held at a time.

    Args:
        function: Of a module, so that it can be pickled, as its arguments and results.
        tasks: Arguments.
        processes: Number of processes here.
        title: Of the progress bar.
        scheduler: Address of a Dask scheduler whose workers run the tasks instead.
        died: What a task gives whose workers of the scheduler died, from its name; the error is
            raised when None.

    Raises:
        InputError: A process died, or as `medil.system.cluster.as_done`.
        Exception: Whatever a task raised first.
    """
    quiet = True if len(tasks) < 2 else None  # None: unless somebody watches
    with tqdm(total=len(tasks), desc=title, disable=quiet) as bar:
        for number, result in _results(function, tasks, processes, scheduler, died):
            bar.update()
            yield number, result


def _results(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    processes: int,
    scheduler: str | None,
    died: Callable[[str, WorkerDied], Result] | None,
) -> Iterator[tuple[int, Result]]:
    if scheduler is not None:
        calls = (Call(str(task[0]), functools.partial(function, *task)) for task in tasks)
        with connected(scheduler) as client:
            yield from as_done(client, calls, died)
    elif min(processes, len(tasks)) < 2:
        yield from ((number, function(*task)) for number, task in enumerate(tasks))
    else:
        yield from _of_processes(function, tasks, min(processes, len(tasks)))


def _of_processes(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[tuple[int, Result]]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _one_thread) as crew:
        waiting = iter(enumerate(tasks))
        running: dict[Future[Result], int] = {}
        try:
            while True:
                for number, task in islice(waiting, 2 * processes - len(running)):
                    running[crew.submit(function, *task)] = number
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a process died, perhaps because the memory ran out; start fewer at a time. "
                f"{RESUMES}."
            ) from error
        finally:  # after a failure, do not start the rest
            crew.shutdown(cancel_futures=True)


def call_each(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], processes: int, title: str
) -> None:
    """Call a function with the arguments of each task, by `share_out`; tasks are long."""
    share_out(functools.partial(_call, function), [[t] for t in tasks], processes, title, few=2)


def _call(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> None:
    for arguments in tasks:
        function(*arguments)


def _one_thread() -> None:
    torch.set_num_threads(1)
    end_with_parent()
