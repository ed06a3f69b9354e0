"""Device memory of a train step, from the compiled program's own analysis."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from deeplab_jax.train.state import TrainState
from deeplab_jax.types import Batch


@dataclasses.dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes per device; `temporaries` are mostly activations kept for the backward pass."""

    parameters: int
    statistics: int
    optimizer: int
    average: int
    batch: int
    temporaries: int
    capacity: int  # of the device; 0 if unknown

    @property
    def total(self) -> int:
        return self.parameters + self.statistics + self.optimizer + self.average + self.batch + self.temporaries


def step_memory(state: TrainState, batch: Batch, program: Any = None) -> StepMemory:
    """The memory of a step on these arguments (arrays, or their shapes with shardings).

    Args:
      program: the compiled step; None if it could not be compiled: its temporaries are unknown (0).
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
