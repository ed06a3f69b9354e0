"""The train step as programs: compiled while a run sets out, once for each shape, and asked for its needs of memory."""

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
    """One line on stderr, which does not disturb a bar."""
    if jax.process_index() == 0:
        text = f"warning: the train step is compiled again, for {shape} after {before}: make all batches of one shape"
        tqdm.write(text, file=sys.stderr)


class CompiledStep:
    """A train step that tells what it needs before it runs for the first time; it is compiled once for each shape."""

    def __init__(
        self,
        train_step: TrainStep,
        tell: Callable[[StepMemory], None],
        warn: Callable[[str, str], None] = warn_of_second_shape,
    ) -> None:
        """Wraps a jitted step.

        Args:
          train_step: as `make_train_step` makes it.
          tell: called once, before the step runs for the first time.
          warn: called with the shape of a batch, and that of the first one, where the step is to be compiled again.
        """
        self._step = train_step
        self._tell, self._warn = tell, warn
        self._programs: dict[Any, Any] = {}  # by the shapes and types of a batch
        self._ahead: dict[Any, concurrent.futures.Future[Any]] = {}  # likewise
        self._first = ""

    def begin(self, state: TrainState, batch: Batch) -> None:
        """Compiles in a thread for arguments of these shapes, types and shardings; the first call waits for it.

        The thread ends with the process, whatever it has come to.
        """
        future = self._ahead[_key(batch)] = concurrent.futures.Future()

        def compile_now() -> None:
            try:
                future.set_result(self._step.lower(state, batch).compile())
            except BaseException as error:  # raised where the program is asked for
                future.set_exception(error)

        threading.Thread(target=compile_now, name="compile-step", daemon=True).start()

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = _key(batch)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._find(key, state, batch)
        return program(state, batch)

    def _find(self, key: Any, state: TrainState, batch: Batch) -> Any:
        """The program for a batch of a shape that has not been seen before."""
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
