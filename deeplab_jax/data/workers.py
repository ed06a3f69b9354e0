"""Threads that make batches: decoding and resizing release the interpreter lock, so threads are enough."""

from __future__ import annotations

import collections
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 16  # results that may wait for the consumer, besides those in work
_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerPool:
    """Daemon threads that run tasks first come, first served.

    Unlike `concurrent.futures.ThreadPoolExecutor`, whose threads are waited for
    when the interpreter exits, a task stuck on a dead file system cannot keep
    the process alive.
    """

    def __init__(self, num_workers: int):
        """Starts `num_workers` threads; 0: one for each CPU core."""
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks,), name=f"data-worker-{index}", daemon=True)
            for index in range(num_workers or available_cores())
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_workers(self) -> int:
        return len(self._threads)

    def submit(self, function: Callable[..., Result], *args: Any) -> Future[Result]:
        """Queues function(*args)."""
        future: Future[Result] = Future()
        self._tasks.put((future, function, args))
        return future

    def ordered_map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
    ) -> Generator[Result, None, None]:
        """Yields function(item) in the order of the items, at most `window` of them ahead of the consumer."""
        pending: collections.deque[Future[Result]] = collections.deque()
        try:
            for item in items:
                pending.append(self.submit(function, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def close(self, timeout: float = 5.0) -> None:
        """Lets the threads end after the tasks already queued; waits `timeout` seconds for them at most."""
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str = "",
    num_workers: int = 0,
    ahead: int = _AHEAD,
) -> Iterator[Result]:
    """Yields function(item) in the order of the items, computed in threads that end with the iteration.

    Args:
      title: of the progress bar, which counts images; '': there is no bar.
      num_workers: threads; 0: one for each CPU core.
      ahead: how many results may wait for the consumer, besides those in work.
    """
    pool = WorkerPool(num_workers)
    made = pool.ordered_map(function, items, window=pool.num_workers + ahead)
    try:
        yield from tqdm(made, total=len(items), desc=title, unit="image", disable=None if title else True)
    finally:
        made.close()
        pool.close()


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    # A function, not a method: a thread must not keep its pool's owner alive.
    while (task := tasks.get()) is not None:
        future, function, args = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(*args))
        except BaseException as error:  # whatever it is belongs to the thread that asks for the result
            future.set_exception(error)
        del task, future, function, args  # not kept alive while waiting for the next one
