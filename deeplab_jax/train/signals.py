"""Stops training between two steps on SIGTERM, SIGINT or SIGHUP, in all processes at the same step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

_STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_NUM_PATIENT = 2  # `timeout` sends SIGTERM to its child and to the child's group: the save must survive both


class StopSignal:
    """Within its `with`, records the first such signal and ignores the second; the third has its usual effect.

    With several processes, JAX's preemption service handles a SIGTERM to any of them, from `jax.distributed`'s
    initialisation on: it notifies the others, and they agree on a step that none of them has passed. SIGINT is
    forwarded to it.

    Attributes:
      received: the signal, or None; with several processes, set from the step at which all stop.
    """

    def __init__(self, leave: Callable[[signal.Signals], None] | None = None) -> None:
        """A stop signal that nothing has been received by.

        Args:
          leave: called in a thread at a signal that arrives before `begin`, when there is nothing to save, and is to
            end the process: the main thread may be compiling for minutes. Not used with several processes.
        """
        self.received: signal.Signals | None = None
        self._noted: signal.Signals | None = None
        self._num_noted = 0
        self._shared = jax.process_count() > 1
        self._leave = None if self._shared else leave
        self._previous: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> StopSignal:
        caught = (signal.SIGINT,) if self._shared else tuple(filter(_is_meant, _STOP_SIGNALS))
        self._terminals = [output for output in (1, 2) if os.isatty(output)]
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        self._cleanup.callback(self._restore)
        if self._leave:
            self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def begin(self) -> None:
        """From now on there is something to save; call it after the first step."""
        self._leave = None

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; call it exactly once per step."""
        if self._shared and multihost_utils.reached_preemption_sync_point(step):
            self.received = self._noted or signal.SIGTERM
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = signal.Signals(number)
        self._num_noted += 1
        if self._noted.name == "SIGHUP":
            self._forget_terminals()
        if self._num_noted == _NUM_PATIENT:
            self._restore()
        if not self._shared:
            self.received = self._noted
        elif self._num_noted == 1:
            signal.raise_signal(signal.SIGTERM)

    def _watch(self) -> None:
        """Reads in a thread the signals that arrive: a handler would have to wait for the main thread's compiler."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def watch() -> None:
            for number in iter(lambda: os.read(reading, 1), b""):
                if self._leave and number[0] in _STOP_SIGNALS:
                    self._leave(signal.Signals(number[0]))
            os.close(reading)

        threading.Thread(target=watch, name="stop-signals", daemon=True).start()
        self._cleanup.callback(os.close, writing)  # ends the thread
        self._cleanup.callback(signal.set_wakeup_fd, previous)

    def _forget_terminals(self) -> None:
        """Sends what is printed from now on nowhere: writing to a terminal that is gone is an error."""
        for output in self._terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _is_meant(number: signal.Signals) -> bool:
    """False for the end of a terminal that the run is to survive: `nohup` ignores that signal."""
    return number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
