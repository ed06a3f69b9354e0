"""Stops training between two steps on SIGTERM or SIGINT, in all processes at the same step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Within its `with`, records the first such signal; a second one has its usual effect.

    With several processes, JAX's preemption service handles a SIGTERM to any of them, from `jax.distributed`'s
    initialisation on: it notifies the others, and they agree on a step that none of them has passed. SIGINT is
    forwarded to it.

    Attributes:
      received: the signal, or None; with several processes, set from the step at which all stop.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._noted: signal.Signals | None = None
        self._shared = jax.process_count() > 1
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        caught = (signal.SIGINT,) if self._shared else _STOP_SIGNALS
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; call it exactly once per step."""
        if self._shared and multihost_utils.reached_preemption_sync_point(step):
            self.received = self._noted or signal.SIGTERM
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = signal.Signals(number)
        self._restore()
        if self._shared:
            signal.raise_signal(signal.SIGTERM)
        else:
            self.received = self._noted

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
