"""SIGTERM and SIGINT as wishes: the loop sees them between two steps, saves and goes, all processes at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

_WISHES = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Within its `with`, takes note of the first such signal; a second one acts as it always does.

    In several processes a SIGTERM to any of them is a matter of JAX's preemption service, which has caught it since
    `jax.distributed` was initialised: it tells the others, and they agree on a step that none of them has passed.
    SIGINT is handed on to it.

    Attributes:
      received: the signal; in several processes, from the step on at which all stop. None before.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._noted: signal.Signals | None = None
        self._shared = jax.process_count() > 1
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        wishes = (signal.SIGINT,) if self._shared else _WISHES
        self._previous = {number: signal.signal(number, self._note) for number in wishes}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; to be asked once after each."""
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
