"""A function applied to many items in threads, the results in the items' order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from compressor.processes.cores import usable_cores

__all__ = ["in_order"]

T = TypeVar("T")
R = TypeVar("R")

# A task is a few items, since small ones take less time than handing a task over does. How many tasks may be ahead
# of the item that is being used bounds the memory, however many there are.
ITEMS_PER_TASK = 16
TASKS_PER_THREAD = 3


def in_order(function: Callable[[T], R], items: Sequence[T]) -> Generator[R, None, None]:
    """`map(function, items)` in threads a bounded number ahead: for functions that work without
    the interpreter's lock, as decoders do."""
    workers = min(16, usable_cores())
    starts = iter(range(0, len(items), ITEMS_PER_TASK))

    def task(start: int) -> list[R]:
        return [function(item) for item in items[start : start + ITEMS_PER_TASK]]

    with ThreadPoolExecutor(workers) as pool:
        ahead = islice(starts, workers * TASKS_PER_THREAD)
        pending: deque[Future[list[R]]] = deque(pool.submit(task, start) for start in ahead)
        try:
            while pending:
                done = pending.popleft().result()
                pending.extend(pool.submit(task, start) for start in islice(starts, 1))
                yield from done
        finally:
            for future in pending:
                future.cancel()
