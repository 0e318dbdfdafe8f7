"""Run the tasks of an experiment that are not recorded yet, over processes.

A task is one subject's share of an experiment. It lists beforehand the rows it will give, so a
second run computes nothing and an interrupted run resumes. Tasks run
in a local Dask cluster, on the machines of another Dask scheduler, or in this process; their
rows are appended here, by one writer, each task's at once when it ends.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from eval import rows, rows_file
from medil.errors import InputError, is_out_of_memory, of_system
from medil.system.cluster import Call, as_done, connected

PROFILES = ("quick", "gpu", "paper")
STOPPED = 130
KEPT_BYTES = 4 * 10**9  # freed memory that a worker may keep


@dataclass(frozen=True)
class Task:
    """One subject's share of an experiment.

    `measure` may run in another process: it is a `functools.partial` of a module's function,
    which loads volumes and weights itself and depends on nothing but its arguments.
    """

    name: str  # shown on the progress bar
    wanted: frozenset[rows.Identity] | None  # of its rows; None: every run measures them again
    measure: Callable[[], list[rows.Row]]

    @classmethod
    def of_rows(cls, name: str, made: list[rows.Row]) -> Task:
        """A task for rows that are there already."""
        return cls(name, frozenset(row.identity for row in made), partial(list, made))


def run(
    tasks: Sequence[Task], path: Path, workers: int | None = None, scheduler: str | None = None
) -> int:
    """Run the tasks that are not recorded yet and append their rows; the number of new rows.

    Args:
        tasks: All tasks of the experiment.
        path: The rows file.
        workers: Processes on this machine: all cores when None, 0 for this process alone.
        scheduler: Address of a Dask scheduler whose workers run the tasks instead. They need
            the same checkout and data.

    Raises:
        InputError: A task rejects its input, or as `medil.system.cluster.as_done`.
    """
    recorded = rows_file.recorded_identities(path)
    waiting = [task for task in tasks if task.wanted is None or not task.wanted <= recorded]
    if not waiting:
        return 0
    added = 0
    with ExitStack() as stack, tqdm(total=len(waiting), unit="task") as bar:
        for task, measured in _results(waiting, workers, scheduler, stack):
            again = task.wanted is None
            added += rows_file.append_rows(
                path, [r for r in measured if again or r.identity not in recorded]
            )
            bar.set_postfix_str(task.name)
            bar.update()
    return added


def _results(
    tasks: Sequence[Task], workers: int | None, scheduler: str | None, stack: ExitStack
) -> Iterator[tuple[Task, list[rows.Row]]]:
    """Tasks with their rows, in the order in which they finish."""
    n_workers = min(len(tasks), os.cpu_count() or 1) if workers is None else workers
    if scheduler is None and n_workers == 0:
        yield from ((task, task.measure()) for task in tasks)
        return
    where = stack.enter_context(_local(n_workers)) if scheduler is None else scheduler
    client = stack.enter_context(connected(where))
    calls = (Call(task.name, task.measure) for task in tasks)
    yield from ((tasks[number], measured) for number, measured in as_done(client, calls))


@contextmanager
def _local(n_workers: int) -> Iterator:
    """A Dask cluster of processes here, with one thread each."""
    try:
        import dask
        from distributed import LocalCluster
    except ImportError as error:
        raise InputError(
            "several processes need Dask; install it with: pip install 'medil-book[eval]', "
            "or stay in one with --workers 0."
        ) from error
    settings = {
        "distributed.worker.memory.terminate": False,  # a large volume is no leak
        "distributed.scheduler.allowed-failures": 1,
        # Dask has workers hand memory back at once; volumes then cost as much time in
        # the kernel as in the networks.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": KEPT_BYTES,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": KEPT_BYTES,
    }
    with dask.config.set(settings), LocalCluster(
        n_workers=n_workers, threads_per_worker=1, memory_limit=0, dashboard_address=":0",
    ) as cluster:  # fmt: skip
        yield cluster


# The command line that experiments share


def parts_option(parser: argparse.ArgumentParser, parts: Collection[str]) -> None:
    """``--parts`` of an experiment that can run each of its parts alone."""
    names = list(parts)
    text = f"of {', '.join(names)} (all)"
    parser.add_argument(
        "--parts", nargs="+", choices=names, default=names, metavar="PART", help=text
    )


def command(
    body: Callable[[argparse.Namespace], int | None],
    options: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse and run: 0, 2 after a sentence on bad input, disk or memory, 130 after Ctrl-C."""
    try:
        parsed = options.parse_args(arguments)
        if parsed.workers is not None and parsed.workers < 0:
            raise InputError(f"--workers counts processes, so it cannot be {parsed.workers}.")
        torch.set_num_threads(1)  # as in workers, so that rows do not depend on the process
        return body(parsed) or 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full or broken disk is no bug
        print(of_system(error), file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("the memory ran out; start fewer --workers, or free some.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; recorded rows are kept, and the same command resumes", file=sys.stderr)
        return STOPPED
