"""Dense convolution as one matmul per kernel tap, forward and for both gradients.

Each multiplies a shifted (and strided) view of the input, clipped to the image.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from deeplab_jax.ops.convolution.geometry import Geometry, output_size, spatial_size
from deeplab_jax.ops.convolution.spans import Span, forward_spans, has_fixed_size, read, stack_taps
from deeplab_jax.ops.convolution.tap_windows import dense_windows


class _Tap(NamedTuple):
    position: tuple[int, int]
    rows: Span
    columns: Span


def _taps(x: Array, kernel: Array, geometry: Geometry) -> Iterator[_Tap]:
    """All taps that touch the image."""
    rows, columns = forward_spans(x, kernel, geometry)
    for i, j in itertools.product(rows, columns):
        yield _Tap((i, j), rows[i], columns[j])


def _read(x: Array, tap: _Tap, strides: tuple[int, int]) -> Array:
    """The input pixels that a tap multiplies."""
    return read(x, (tap.rows.start, tap.columns.start), (tap.rows.size, tap.columns.size), strides)


def _clip(dy: Array, tap: _Tap) -> Array:
    """The output pixels that a tap serves."""
    return dy[:, tap.rows.low : tap.rows.high, tap.columns.low : tap.columns.high]


def _spread_output(part: Array, tap: _Tap, shape: tuple[int, int]) -> Array:
    """Pads a tap's contribution to an output of `shape`."""
    rows, columns = tap.rows, tap.columns
    edges = (
        (0, 0, 0),
        (rows.low, shape[0] - rows.high, 0),
        (columns.low, shape[1] - columns.high, 0),
        (0, 0, 0),
    )
    return lax.pad(part, jnp.zeros((), part.dtype), edges)


def _spread_input(part: Array, tap: _Tap, shape: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Pads a tap's contribution to the input gradient to an input of `shape`."""
    edges = [(0, 0, 0)]
    for span, size, stride, count in zip((tap.rows, tap.columns), shape, strides, part.shape[1:3], strict=True):
        edges.append((span.start, size - span.start - (count - 1) * stride - 1, stride - 1))
    return lax.pad(part, jnp.zeros((), part.dtype), (*edges, (0, 0, 0)))


def _total(parts: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, parts)


def _matmul(x: Array, matrix: Array) -> Array:
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())))


def dense_taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    if not has_fixed_size(x):
        return dense_windows(x, kernel, geometry)
    shape = output_size(x, kernel, geometry)
    return _total(
        _spread_output(_matmul(_read(x, tap, geometry.strides), kernel[tap.position]), tap, shape)
        for tap in _taps(x, kernel, geometry)
    )


def dense_input_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return _total(
        _spread_input(_matmul(_clip(dy, tap), kernel[tap.position].T), tap, spatial_size(x), geometry.strides)
        for tap in _taps(x, kernel, geometry)
    )


def dense_kernel_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    gradients = {}
    for tap in _taps(x, kernel, geometry):
        pixels = _read(x, tap, geometry.strides).reshape(-1, x.shape[-1])
        served = _clip(dy, tap).reshape(-1, dy.shape[-1])
        gradients[tap.position] = lax.dot_general(pixels, served, (((0,), (0,)), ((), ())))
    return stack_taps(gradients, kernel)
