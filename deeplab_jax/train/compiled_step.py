"""The train step, compiled ahead of time in a thread, once per batch shape, with a report of its memory needs."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
from tqdm import tqdm

from deeplab_jax.train.state import TrainState
from deeplab_jax.train.step import TrainStep
from deeplab_jax.train.step_memory import StepMemory, step_memory
from deeplab_jax.types import Batch, Metrics


def warn_of_second_shape(shape: str, before: str) -> None:
    """Prints one line to stderr, without disturbing a progress bar."""
    if jax.process_index() == 0:
        text = f"warning: the train step is compiled again, for {shape} after {before}: make all batches of one shape"
        tqdm.write(text, file=sys.stderr)


class CompiledStep:
    """A train step that is compiled once per batch shape and reports its memory needs before it first runs."""

    def __init__(
        self,
        train_step: TrainStep,
        tell: Callable[[StepMemory], None],
        warn: Callable[[str, str], None] = warn_of_second_shape,
    ) -> None:
        """Wraps a jitted step.

        Args:
          train_step: from `make_train_step`.
          tell: called once, before the step first runs.
          warn: called with the new and the first batch shape before the step is compiled again.
        """
        self._step = train_step
        self._tell, self._warn = tell, warn
        # Both are keyed by the shapes and dtypes of a batch.
        self._programs: dict[Any, Any] = {}
        self._ahead: dict[Any, concurrent.futures.Future[Any]] = {}
        self._first = ""

    def begin(self, state: TrainState, batch: Batch) -> None:
        """Starts compiling in a daemon thread for these shapes, dtypes and shardings; the first call waits for it."""
        future = self._ahead[_key(batch)] = concurrent.futures.Future()

        def compile_now() -> None:
            try:
                future.set_result(self._step.lower(state, batch).compile())
            except BaseException as error:  # raised when the program is requested
                future.set_exception(error)

        threading.Thread(target=compile_now, name="compile-step", daemon=True).start()

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = _key(batch)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._find(key, state, batch)
        return program(state, batch)

    def _find(self, key: Any, state: TrainState, batch: Batch) -> Any:
        """The program for a new batch shape."""
        if self._first:
            self._warn(_describe(batch), self._first)
        ahead = self._ahead.pop(key, None)
        program = ahead.result() if ahead else self._step.lower(state, batch).compile()
        if not self._first:
            self._first = _describe(batch)
            self._tell(step_memory(state, batch, program))
        return program


def _key(batch: Batch) -> Any:
    return tuple((leaf.shape, leaf.dtype) for leaf in batch)


def _describe(batch: Batch) -> str:
    """'8 x 129x161 pixels (3 x uint8)'."""
    num_images, height, width, channels = batch.image.shape
    return f"{num_images} x {height}x{width} pixels ({channels} x {batch.image.dtype})"
