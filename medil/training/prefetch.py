"""Draw the data of the next steps in threads while the current step learns.

A draw is a function of the step's number alone, so any thread may make it at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Drawn = TypeVar("Drawn")


class Prefetcher(Generic[Drawn]):
    """Draws the items of the next numbers in threads, while the current one is in use.

    `draw` takes a number and a variant, in any of the threads; at most `ahead` items wait.

    Example:
        >>> with Prefetcher(lambda number, variant: number**2, ahead=2) as squares:
        ...     [squares.take(k) for k in range(4)]
        [0, 1, 4, 9]
    """

    def __init__(
        self, draw: Callable[[int, Hashable], Drawn], ahead: int = 4, threads: int = 1
    ) -> None:
        self.draw, self.ahead = draw, ahead
        self.waited_s = 0.0  # in all calls of `take` together
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
        self._pending: dict[int, tuple[Hashable, Future[Drawn]]] = {}

    def take(self, number: int, variant: Hashable = None) -> Drawn:
        """The result of `draw(number, variant)`, once.

        `number` is usually one more than the last; anything else costs a wait. When the variant
        changes, waiting items are drawn again.

        Raises:
            Exception: Whatever the draw of this number raised.
        """
        wanted = range(number, number + self.ahead + 1)
        for other, (drawn_for, future) in list(self._pending.items()):
            if other not in wanted or drawn_for != variant:
                future.cancel()
                del self._pending[other]
        for other in wanted:
            if other not in self._pending:
                future = self._threads.submit(self.draw, other, variant)
                self._pending[other] = variant, future
        began = time.perf_counter()
        try:
            return self._pending.pop(number)[1].result()
        finally:
            self.waited_s += time.perf_counter() - began

    def close(self) -> None:
        """Drop items that were not taken, and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def __enter__(self) -> Prefetcher[Drawn]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
