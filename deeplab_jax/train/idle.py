"""Measures how long the devices are idle under asynchronous dispatch."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from typing import Any

import jax

_Watched = tuple[Any, list[float]]  # arrays that the work computes; receives the time at which it ended


class IdleTime:
    """Records when the most recently dispatched work ended.

    The host cannot tell from its own clock whether the devices waited for a batch: while the host waits, they may still
    be busy with the previous step. So a thread waits for the end of each step in turn and records the time.
    """

    def __init__(self) -> None:
        self._ended: list[float] = []  # of the most recently watched work: one entry once it is done
        self._watched: queue.SimpleQueue[_Watched | None] = queue.SimpleQueue()
        threading.Thread(target=_note_ends, args=(self._watched,), name="step-end", daemon=True).start()
        weakref.finalize(self, self._watched.put, None)  # the thread ends with its owner

    def watch(self, results: Any) -> None:
        """Call when work has been dispatched; `results` are arrays that it computes and that are not donated later."""
        self._ended = []
        self._watched.put((results, self._ended))

    def since(self, moment: float) -> float:
        """Seconds since `moment` (of `time.perf_counter`) during which the devices were idle."""
        if not self._ended:
            return 0.0
        return max(0.0, time.perf_counter() - max(moment, self._ended[0]))

    def before(self, moment: float) -> float:
        """Seconds before `moment` during which the devices were idle, counted from the end of the last work."""
        return max(0.0, moment - self._ended[0]) if self._ended else 0.0


def _note_ends(watched: queue.SimpleQueue[_Watched | None]) -> None:
    # A function, not a method: a thread must not keep its owner alive.
    while (work := watched.get()) is not None:
        results, ended = work
        with contextlib.suppress(Exception):  # errors are raised where the results are read
            jax.block_until_ready(results)
            ended.append(time.perf_counter())
        del work, results  # do not keep them alive while waiting for the next ones
