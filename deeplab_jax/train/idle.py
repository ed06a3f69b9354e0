"""How long the devices had nothing to do, though work is dispatched without waiting for its end."""

from __future__ import annotations

import threading
import time
from typing import Any

import jax


class IdleTime:
    """Knows when the last work that was dispatched came to its end.

    The host cannot tell by its own clock whether the devices waited for a batch: while it waits itself, they may still
    be at work on the step before. So a thread waits for the end of each step and notes the time.
    """

    def __init__(self) -> None:
        self._ended: list[float] = []  # of the work watched last: one entry once it is done

    def watch(self, results: Any) -> None:
        """Work has been dispatched; `results` are arrays that it makes, none of them donated afterwards."""
        self._ended = ended = []

        def note_end() -> None:
            try:
                jax.block_until_ready(results)
            except Exception:
                return  # it is raised where the results are read
            ended.append(time.perf_counter())

        threading.Thread(target=note_end, name="step-end", daemon=True).start()

    def since(self, moment: float) -> float:
        """Seconds since `moment` (of `time.perf_counter`) in which the devices had nothing to do."""
        if not self._ended:
            return 0.0
        return max(0.0, time.perf_counter() - max(moment, self._ended[0]))

    def before(self, moment: float) -> float:
        """Seconds before `moment` in which the devices had nothing to do since the last work's end."""
        return max(0.0, moment - self._ended[0]) if self._ended else 0.0
