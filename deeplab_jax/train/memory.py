"""What a train step needs of a device's memory, from the compiled program's own analysis."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
from tqdm import tqdm

from deeplab_jax.train.state import TrainState
from deeplab_jax.train.step import TrainStep
from deeplab_jax.types import Batch, Metrics


@dataclasses.dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes on each device; `temporaries` are mostly the activations that the backward pass reads."""

    parameters: int
    statistics: int
    optimizer: int
    average: int
    batch: int
    temporaries: int
    capacity: int  # of the device; 0 where it does not say

    @property
    def total(self) -> int:
        return self.parameters + self.statistics + self.optimizer + self.average + self.batch + self.temporaries


def step_memory(state: TrainState, batch: Batch, program: Any = None) -> StepMemory:
    """The needs of a step on these arguments (arrays, or their shapes with shardings).

    Args:
      state: its arguments.
      batch: likewise.
      program: the compiled step; None: it could not be compiled, and its temporaries are unknown (0).
    """
    analysis = program.memory_analysis() if program is not None else None
    device = next(iter(jax.tree.leaves(state.params)[0].sharding.addressable_devices))
    return StepMemory(
        parameters=device_bytes(state.params),
        statistics=device_bytes(state.batch_stats),
        optimizer=device_bytes(state.opt_state),
        average=device_bytes(state.ema),
        batch=device_bytes(batch),
        temporaries=int(analysis.temp_size_in_bytes) if analysis else 0,
        capacity=(device.memory_stats() or {}).get("bytes_limit", 0),
    )


def device_bytes(tree: Any) -> int:
    """Bytes of a tree's shards on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def warn_of_second_shape(shape: str, before: str) -> None:
    """One line on stderr, which does not disturb a bar."""
    if jax.process_index() == 0:
        line = (
            f"warning: the train step is compiled again, for {shape} after {before}; batches of one size need it once"
        )
        tqdm.write(line, file=sys.stderr)


class MeasuredStep:
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
          tell: called once, when the step has been compiled.
          warn: called with the shape of a batch, and that of the first one, where the step is to be compiled again.
        """
        self._step: Any = train_step
        self._tell, self._warn = tell, warn
        self._programs: dict[tuple[Any, ...], Any] = {}  # by the shapes and types of a batch
        self._first = ""

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = tuple((leaf.shape, leaf.dtype) for leaf in batch)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._compile(state, batch)
        return program(state, batch)

    def _compile(self, state: TrainState, batch: Batch) -> Any:
        if self._first:
            self._warn(_shape(batch), self._first)
            return self._step.lower(state, batch).compile()
        program = self._step.lower(state, batch).compile()
        self._first = _shape(batch)
        self._tell(step_memory(state, batch, program))
        return program


def _shape(batch: Batch) -> str:
    """'8 x 129x161 pixels (3 x uint8)'."""
    num_images, height, width, channels = batch.image.shape
    return f"{num_images} x {height}x{width} pixels ({channels} x {batch.image.dtype})"
