"""The measured limits of the available devices: FLOP/s of a matrix product, bytes/s of a copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_MATRIX_SIZE = {"cpu": 2048}  # rows and columns: large enough for full speed, small enough for a second
_COPIED_BYTES = {"cpu": 2**27}  # of one array: far larger than any cache
_LARGE_MATRIX, _LARGE_COPY = 8192, 2**30  # for all other platforms


class Limits(NamedTuple):
    """The measured limits of all devices of a mesh together."""

    flops: float  # operations per second, multiply and add counted separately
    bandwidth: float  # bytes per second, read plus written


class Pace(NamedTuple):
    """Statistics of the seconds per call."""

    median: float
    lower: float  # first quartile
    upper: float  # third quartile
    num_calls: int


def measure_limits(mesh: Mesh, dtype: str, *, matrix_size: int = 0, copied_bytes: int = 0) -> Limits:
    """The best of several runs of a square matrix product and of a copy with one addition, on all devices at once.

    A train step cannot be faster than its operations at the first rate, nor than its bytes at the second.

    Args:
      mesh: the devices.
      dtype: of the matrices, 'float32' or 'bfloat16'; the product uses the platform's default precision.
      matrix_size: rows and columns; 0: the platform's default.
      copied_bytes: size of the copied array on each device; 0: the platform's default.
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
    """The best seconds of one application; several run in one program, to exclude the launch.

    They reuse the memory of `x`, since fresh memory has its own cost.
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
    """Seconds from the end of one call's work to the end of the next, each dispatched while the previous one runs.

    The train loop drives its step in the same way: the host's work is hidden unless it takes longer than the device's.

    Args:
      call: starts work on the devices and returns the resulting arrays, none of them donated to a later call.
      num_calls: number of timed calls.
      num_before: number of uncounted calls before them.
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
    """An array of values whose products neither overflow nor underflow the dtype."""
    return jax.jit(lambda: jnp.full(shape, 1 / shape[-1], jnp.dtype(dtype)), out_shardings=sharding)()
