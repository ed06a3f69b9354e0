"""What the devices at hand can do at most: operations per second of a matrix product, bytes per second of a copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_MATRIX_SIZE = {"cpu": 2048}  # rows and columns: large enough for full speed, small enough to be done in a second
_COPIED_BYTES = {"cpu": 2**27}  # of one array: far more than any cache holds
_LARGE_MATRIX, _LARGE_COPY = 8192, 2**30  # for all other platforms


class Limits(NamedTuple):
    """Of all devices of a mesh together, measured."""

    flops: float  # operations per second, multiply and add counted apart
    bandwidth: float  # bytes per second, those read and those written


class Pace(NamedTuple):
    """How long something takes that is done again and again; seconds."""

    median: float
    lower: float  # a quarter of the times are below
    upper: float  # a quarter of the times are above
    num_calls: int


def measure_limits(mesh: Mesh, dtype: str, *, matrix_size: int = 0, copied_bytes: int = 0) -> Limits:
    """The best of several runs of a square matrix product and of a copy with one addition, on each device at once.

    A train step cannot be faster than its operations at the first pace, nor than its bytes at the second.

    Args:
      mesh: the devices.
      dtype: of the matrices, 'float32' or 'bfloat16'; their product is summed as the platform does by default.
      matrix_size: rows and columns; 0: as is right for the platform.
      copied_bytes: of the array on each device that is copied; 0: likewise.
    """
    platform = mesh.devices.flat[0].platform
    size = matrix_size or _MATRIX_SIZE.get(platform, _LARGE_MATRIX)
    copied = copied_bytes or _COPIED_BYTES.get(platform, _LARGE_COPY)
    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rows = _filled((mesh.size * size, size), dtype, each)
    matrix = _filled((size, size), dtype, NamedSharding(mesh, PartitionSpec()))
    product = 2 * mesh.size * size**3 / _best_seconds(lambda rows: jnp.matmul(rows, matrix), rows)
    numbers = _filled((mesh.size, copied // 4), "float32", each)
    return Limits(product, 2 * mesh.size * copied / _best_seconds(lambda numbers: numbers + 1, numbers))


def _best_seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array, *, num_repeats: int = 4) -> float:
    """Of one application; several in one program, so that starting it does not count, and in the memory of `x`.

    Memory that is new to the process has a price of its own.
    """

    def repeat(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, num_repeats, lambda _, x: function(x), x)

    call, times = jax.jit(repeat, donate_argnums=0, out_shardings=x.sharding), []
    for _ in range(5):
        started = time.perf_counter()
        x = jax.block_until_ready(call(x))
        times.append(time.perf_counter() - started)
    return min(times) / num_repeats


def call_times(call: Callable[[], Any], *, num_calls: int, num_before: int = 2) -> list[float]:
    """Seconds from the end of one call's work to the end of the next, each dispatched while the one before runs.

    That is how a train loop drives its step: the host's share is hidden, unless it is longer than the device's.

    Args:
      call: starts work on the devices and returns arrays that it makes, none of them donated to a later call.
      num_calls: of which the times are returned.
      num_before: calls before the first one that counts.
    """
    pending, ends = call(), []
    for _ in range(num_before + num_calls):
        following = call()
        jax.block_until_ready(pending)
        ends.append(time.perf_counter())
        pending = following
    jax.block_until_ready(pending)
    return [after - before for before, after in zip(ends[num_before - 1 :], ends[num_before:], strict=False)]


def pace_of(times: list[float]) -> Pace:
    """Median and quartiles of at least two times."""
    lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
    return Pace(median, lower, upper, len(times))


def _filled(shape: tuple[int, ...], dtype: str, sharding: NamedSharding) -> jax.Array:
    """Numbers of which no product leaves the range of the type, and none is zero."""
    return jax.jit(lambda: jnp.full(shape, 1 / shape[-1], jnp.dtype(dtype)), out_shardings=sharding)()
