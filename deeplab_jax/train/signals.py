"""SIGTERM and SIGINT as wishes: the loop sees them between two steps, saves and goes."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

_WISHES = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Within its `with`, remembers the first such signal in `received`; a second one acts as it always does."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        self._previous = {number: signal.signal(number, self._note) for number in _WISHES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
