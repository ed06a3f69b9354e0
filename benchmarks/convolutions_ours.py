"""This project's side of benchmarks/convolutions.py: every implementation of an operation, compiled."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.depthwise_pallas import with_pallas
from benchmarks.pairs import turn_seconds
from benchmarks.shapes import Shape
from deeplab_jax.ops.convolution.geometry import geometry_of, output_size
from deeplab_jax.ops.convolution.implementations import serves

# Pallas kernels are for GPUs; phases are images of a few pixels, for which the CPU's convolution takes tens of seconds.
NOT_ON = {"cpu": {"pallas", "phases", "fewer_bytes"}, "gpu": set[str]()}


class Convolution:
    """One shape at a time."""

    def __init__(self, dtype: str, batch: int) -> None:
        self._dtype, self._batch = jnp.dtype(dtype), batch
        self._runs: dict[str, Callable[[], Any]] = {}

    def device(self) -> str:
        """The device's name."""
        return jax.devices()[0].device_kind

    def prepare(self, shape: Shape, operation: str) -> dict[str, float]:
        """Compiles each implementation; returns the seconds of one run of each."""
        rng = np.random.default_rng(0)

        def draw(*sizes: int) -> jax.Array:
            return jnp.asarray(rng.normal(size=sizes), self._dtype)

        x = draw(self._batch, shape.height, shape.width, shape.channels)
        dense = shape.kind == "dense"
        kernel = draw(shape.taps, shape.taps, shape.channels if dense else 1, shape.features or shape.channels)
        geometry = geometry_of(x, kernel, (shape.stride,) * 2, (shape.rate,) * 2, "symmetric")
        arrays = [x, kernel]
        if operation not in ("dense", "depthwise"):
            arrays.append(draw(self._batch, *output_size(x, kernel, geometry), kernel.shape[-1]))
        self._runs = {}
        for name, function in with_pallas(operation).items():
            if name not in NOT_ON[jax.default_backend()] and serves(name, x, kernel, geometry):
                program = jax.jit(functools.partial(function, geometry=geometry)).lower(*arrays).compile()
                self._runs[name] = functools.partial(_wait, program, arrays)
        return {name: self._once(name) for name in self._runs}

    def turn(self, name: str) -> float:
        """Seconds of one run."""
        return turn_seconds(self._runs[name], at_least=0.1)

    def _once(self, name: str) -> float:
        self._runs[name]()
        start = time.perf_counter()
        self._runs[name]()
        return time.perf_counter() - start


def _wait(program: Any, arrays: list[jax.Array]) -> None:
    jax.block_until_ready(program(*arrays))
