"""How long the devices had nothing to do, though work is dispatched without waiting for its end."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from typing import Any

import jax

_Watched = tuple[Any, list[float]]  # what the work makes; where the time of its end goes


class IdleTime:
    """Knows when the last work that was dispatched came to its end.

    The host cannot tell by its own clock whether the devices waited for a batch: while it waits itself, they may still
    be at work on the step before. So a thread waits for the end of each step, in turn, and notes the time.
    """

    def __init__(self) -> None:
        self._ended: list[float] = []  # of the work watched last: one entry once it is done
        self._watched: queue.SimpleQueue[_Watched | None] = queue.SimpleQueue()
        threading.Thread(target=_note_ends, args=(self._watched,), name="step-end", daemon=True).start()
        weakref.finalize(self, self._watched.put, None)  # the thread ends with its owner

    def watch(self, results: Any) -> None:
        """Work has been dispatched; `results` are arrays that it makes, none of them donated afterwards."""
        self._ended = []
        self._watched.put((results, self._ended))

    def since(self, moment: float) -> float:
        """Seconds since `moment` (of `time.perf_counter`) in which the devices had nothing to do."""
        if not self._ended:
            return 0.0
        return max(0.0, time.perf_counter() - max(moment, self._ended[0]))

    def before(self, moment: float) -> float:
        """Seconds before `moment` in which the devices had nothing to do since the last work's end."""
        return max(0.0, moment - self._ended[0]) if self._ended else 0.0


def _note_ends(watched: queue.SimpleQueue[_Watched | None]) -> None:
    # A function, not a method: a thread must not keep its owner alive.
    while (work := watched.get()) is not None:
        results, ended = work
        with contextlib.suppress(Exception):  # it is raised where the results are read
            jax.block_until_ready(results)
            ended.append(time.perf_counter())
        del work, results  # not kept alive while waiting for the next ones
