"""Describes a run's device memory, and the settings that reduce it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from deeplab_jax.config import Config
from deeplab_jax.ops.mesh import num_data
from deeplab_jax.train.step_memory import StepMemory
from deeplab_jax.types import UserError

REMAT = '("backbone/.*","head/.*")'  # each unit of any backbone and each part of any head


def describe_memory(memory: StepMemory) -> str:
    """One line with the memory needed and available per device."""
    parts = [
        f"{field.name} {_gigabytes(getattr(memory, field.name))}"
        for field in dataclasses.fields(memory)
        if field.name != "capacity" and getattr(memory, field.name)
    ]
    room = f" of {_gigabytes(memory.capacity)}" if memory.capacity else ""
    return f"memory      per device {_gigabytes(memory.total)}{room} ({', '.join(parts)})"


@contextlib.contextmanager
def explain_out_of_memory(config: Config, mesh: Mesh, needs: list[StepMemory]) -> Iterator[None]:
    """Turns the runtime's out-of-memory error into the memory report and one line with settings that need less.

    Args:
      needs: receives the memory of the step as soon as it is known.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        memory = needs[-1] if needs else None
        if memory is not None:
            print(describe_memory(memory), flush=True)
        raise UserError(f"out of memory on the devices: {remedies(config, mesh, memory)}") from error


def remedies(config: Config, mesh: Mesh, memory: StepMemory | None) -> str:
    """Settings not yet in use that need less memory, with the resulting estimates; the least intrusive first."""
    found = []
    if config.model.compute_dtype == "float32":
        found.append(f"--config.model.compute_dtype=bfloat16{_would_be(memory, 2)}")
    if not config.model.remat:
        found.append(f"--config.model.remat='{REMAT}' (a third more computation)")
    if slices := _more_slices(config, mesh, memory):
        factor = slices / config.train.accumulation_steps
        rows = config.data.batch_size // slices
        norm = "" if config.model.batch_norm.frozen else f", batch norm over {rows} images"
        found.append(f"--config.train.accumulation_steps={slices}{_would_be(memory, factor, norm)}")
    if num_data(mesh) > 1 and not config.mesh.shard_optimizer:
        found.append("--config.mesh.shard_optimizer=True")
    found.append("a smaller config.data.crop_size or batch_size")
    return ", or ".join(found)


def _more_slices(config: Config, mesh: Mesh, memory: StepMemory | None) -> int:
    """The smallest number of slices above the current one with which the step should fit; 0: none."""
    today, batch = config.train.accumulation_steps, config.data.batch_size
    possible = [n for n in range(today + 1, batch + 1) if batch % n == 0 and batch // n % num_data(mesh) == 0]
    if memory is not None and memory.capacity and memory.temporaries:
        fixed = memory.total - memory.temporaries
        fitting = [n for n in possible if fixed + memory.temporaries * today / n <= 0.95 * memory.capacity]
        possible = fitting or possible[-1:]
    return possible[0] if possible else 0


def _would_be(memory: StepMemory | None, factor: float, more: str = "") -> str:
    """' (about 5.1 GB)'; the temporaries are mostly activations, which shrink by the factor."""
    if memory is None or not memory.temporaries:
        return f" ({more.removeprefix(', ')})" if more else ""
    total = memory.total - memory.temporaries * (1 - 1 / factor)
    return f" (about {_gigabytes(round(total))}{more})"


def _gigabytes(num_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
