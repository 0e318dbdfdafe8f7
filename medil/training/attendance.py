"""Who is still there in a run of several processes, so that a lost one is named in one sentence.

Every process counts on in the store through which the processes found one another. When one ends
or stops counting, the others compare counts, the first of them says who is gone, and all end.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from medil.errors import InputError, printable
from medil.training.launch import Interruption

TICK_S = 0.5  # between two counts
ROLL_CALL_S = 3.0  # within which those who are there have counted on
SILENT_S = 60.0  # without a count, where no connection broke
STORE_S = 20.0  # until the store counts as gone
ENDED = 2  # exit code of all
ALARM = "medil/alarm"


class Attendance:
    """Watch the other processes of a run while the block runs; a single process has none.

    Args:
        fabric: From `medil.training.launch.launch`.
        again: Says how to go on when one is gone: an imperative without a full stop.

    Raises:
        InputError: A process is gone; it is named. In all but the first that is left, and where
            another process has said what is wrong: SystemExit.
    """

    def __init__(self, fabric: Any, again: Callable[[], str]) -> None:
        self.fabric, self.again = fabric, again
        self.rank, self.count = fabric.global_rank, fabric.world_size
        self.over, self.speaks = threading.Event(), threading.Event()
        self.sentence = ""
        self.thread: threading.Thread | None = None

    def __enter__(self) -> Attendance:
        if self.count > 1:
            from torch.distributed.distributed_c10d import _get_default_store

            shared: Any = _get_default_store()
            self.store = shared.clone()  # a connection of its own for the thread
            self.store.set_timeout(timedelta(seconds=STORE_S))
            self.store.set(f"medil/host/{self.rank}", socket.gethostname())
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.thread is None:
            return
        if error is None:
            error = self._leave_together()
        if error is None:
            return
        self.speaks.set()
        if is_of_connection(error):
            with Interruption():  # a launcher ends all when one is gone; first comes the sentence
                self._raise_alarm("lost")
                self.thread.join()
            if self.sentence:
                raise InputError(self.sentence) from error
        elif self._raise_alarm("over"):  # it says itself what is wrong, as the first one
            time.sleep(2 * TICK_S)  # until the others have seen it
            return
        raise SystemExit(ENDED) from error

    def _leave_together(self) -> BaseException | None:
        """Wait for all, so that nobody takes the store along; what went wrong meanwhile."""
        try:
            self.fabric.barrier()
            self.over.set()
            self.thread.join()  # type: ignore[union-attr]
            self.fabric.barrier()
        except RuntimeError as error:
            return error
        return None

    def _raise_alarm(self, what: str) -> bool:
        """Whether this process is the first that raises it."""
        try:
            mine = f"{what} {self.rank}"
            return bool(self.store.compare_set(ALARM, "", mine).decode() == mine)
        except RuntimeError:  # no store any more
            return True

    # In the thread

    def _watch(self) -> None:
        """Count on until the block ends or the alarm is raised; then end this process, too."""
        try:
            seen, since = self._counts(), time.monotonic()
            while not self.over.wait(TICK_S):
                self.store.add(self._key(self.rank), 1)
                if self.store.check([ALARM]):
                    self._answer(self.store.get(ALARM).decode())
                    break
                if self.rank == 0 and time.monotonic() - since > SILENT_S:
                    if self._still(seen, now := self._counts()):
                        self._raise_alarm("lost")
                    seen, since = now, time.monotonic()
        except RuntimeError:  # the first process holds the store, where no launcher does
            self._note([0], first=self.fabric.local_rank == (self.fabric.node_rank == 0))
        if not self.over.is_set():
            self._end()

    def _answer(self, alarm: str) -> None:
        """Find out who is gone."""
        if alarm.startswith("over"):
            return
        before, began = self._counts(), time.monotonic()
        while time.monotonic() - began < ROLL_CALL_S + (self.rank == 0) * TICK_S:
            self.store.add(self._key(self.rank), 1)
            time.sleep(TICK_S)
        gone = self._still(before, self._counts())
        here = [rank for rank in range(self.count) if rank not in gone]
        self._note(gone, first=self.rank == here[0])

    def _end(self) -> None:
        """Leave the rest to the main thread, unless it waits for somebody who never comes."""
        if not self.speaks.wait(2 * TICK_S):
            if self.sentence:
                print("medil:", printable(self.sentence), file=sys.stderr, flush=True)
            os._exit(ENDED)

    def _note(self, gone: list[int], first: bool) -> None:
        if gone and first:
            ranks = ", ".join(map(self._named, gone))
            self.sentence = (
                f"of {self.count} processes, rank {ranks} is gone: killed, out of memory, or its "
                f"machine stopped; {self.again()}."
            )

    def _named(self, rank: int) -> str:
        """A rank and its machine, where that is known."""
        key = f"medil/host/{rank}"
        try:
            known = self.store.check([key])
            return f"{rank} (on {self.store.get(key).decode()})" if known else str(rank)
        except RuntimeError:
            return str(rank)

    def _key(self, rank: int) -> str:
        return f"medil/count/{rank}"

    def _counts(self) -> list[int]:
        return [self.store.add(self._key(rank), 0) for rank in range(self.count)]

    def _still(self, before: list[int], now: list[int]) -> list[int]:
        """The ranks that did not count on."""
        return [rank for rank in range(self.count) if before[rank] == now[rank]]


def is_of_connection(error: BaseException) -> bool:
    """Whether a process did not answer another one, as gloo, NCCL and the store say it.

    Example:
        >>> is_of_connection(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed"))
        True
        >>> is_of_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        False
    """
    from torch.distributed import DistError

    text = str(error).lower()
    words = ("gloo", "connection closed", "connection reset", "broken pipe")
    return isinstance(error, RuntimeError) and (
        isinstance(error, DistError) or any(word in text for word in words)
    )
