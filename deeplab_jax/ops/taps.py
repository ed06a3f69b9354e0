"""Convolution written tap by tap, forward and in both gradient directions: what XLA on CPU runs fast.

A tap of a kernel is one of its positions. Each multiplies a shifted (and strided) view of the input. Dense taps
are clipped to what falls inside the image, so that no product with padding is ever computed.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from deeplab_jax.ops.convolution import Geometry, output_size, spatial_size

_NUM_SLABS = range(8, 14)  # so many products are added up before a value is written; more gained nothing


class _Span(NamedTuple):
    """The outputs [low, high) of one axis that a tap can serve, and the first input pixel that it reads."""

    low: int
    high: int
    start: int


class _Tap(NamedTuple):
    position: tuple[int, int]
    rows: _Span
    columns: _Span


def _span(tap: int, in_size: int, out_size: int, stride: int, pad: int, rate: int) -> _Span:
    offset = tap * rate - pad
    low = max(0, math.ceil(-offset / stride))
    high = min(out_size, (in_size - 1 - offset) // stride + 1)
    return _Span(low, max(high, low), low * stride + offset)


def _taps(x: Array, kernel: Array, geometry: Geometry) -> Iterator[_Tap]:
    """All taps that touch the image."""
    (stride_h, stride_w), ((top, _), (left, _)), (rate_h, rate_w) = geometry
    out_h, out_w = output_size(x, kernel, geometry)
    for i in range(kernel.shape[0]):
        rows = _span(i, x.shape[1], out_h, stride_h, top, rate_h)
        for j in range(kernel.shape[1]):
            columns = _span(j, x.shape[2], out_w, stride_w, left, rate_w)
            if rows.high > rows.low and columns.high > columns.low:
                yield _Tap((i, j), rows, columns)


def share_inside(x: Array, kernel: Array, geometry: Geometry) -> float:
    """Of all products of a convolution, those with pixels of the image; 0 where sizes are symbolic."""
    if not _has_fixed_size(x):
        return 0.0
    height, width = output_size(x, kernel, geometry)
    inside = sum(
        (tap.rows.high - tap.rows.low) * (tap.columns.high - tap.columns.low) for tap in _taps(x, kernel, geometry)
    )
    return inside / (height * width * kernel.shape[0] * kernel.shape[1])


def _has_fixed_size(x: Array) -> bool:
    return all(isinstance(axis, int) for axis in spatial_size(x))


def _read(x: Array, tap: _Tap, strides: tuple[int, int]) -> Array:
    """The input pixels that a tap multiplies."""
    (height, width) = (tap.rows.high - tap.rows.low, tap.columns.high - tap.columns.low)
    start = (0, tap.rows.start, tap.columns.start, 0)
    stop = (
        x.shape[0],
        tap.rows.start + (height - 1) * strides[0] + 1,
        tap.columns.start + (width - 1) * strides[1] + 1,
        x.shape[3],
    )
    return lax.slice(x, start, stop, (1, *strides, 1))


def _clip(dy: Array, tap: _Tap) -> Array:
    """The output pixels that a tap serves."""
    return dy[:, tap.rows.low : tap.rows.high, tap.columns.low : tap.columns.high]


def _spread_output(part: Array, tap: _Tap, shape: tuple[int, int]) -> Array:
    """Lays a tap's contribution into a zero output of `shape`."""
    rows, columns = tap.rows, tap.columns
    edges = (
        (0, 0, 0),
        (rows.low, shape[0] - rows.high, 0),
        (columns.low, shape[1] - columns.high, 0),
        (0, 0, 0),
    )
    return lax.pad(part, jnp.zeros((), part.dtype), edges)


def _spread_input(part: Array, tap: _Tap, shape: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Lays a tap's contribution to the input gradient into a zero input of `shape`."""
    edges = [(0, 0, 0)]
    for span, size, stride, count in zip((tap.rows, tap.columns), shape, strides, part.shape[1:3], strict=True):
        edges.append((span.start, size - span.start - (count - 1) * stride - 1, stride - 1))
    return lax.pad(part, jnp.zeros((), part.dtype), (*edges, (0, 0, 0)))


def _total(parts: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, parts)


def _matmul(x: Array, matrix: Array) -> Array:
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())))


def dense_taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    if not _has_fixed_size(x):
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
    def tap_gradient(tap: _Tap) -> Array:
        pixels = _read(x, tap, geometry.strides).reshape(-1, x.shape[-1])
        return lax.dot_general(pixels, _clip(dy, tap).reshape(-1, dy.shape[-1]), (((0,), (0,)), ((), ())))

    return _gather_taps(kernel, geometry, x, tap_gradient)


def _pad_once(x: Array, edges: tuple[tuple[int, int, int], tuple[int, int, int]]) -> Array:
    """Zero padding that is written to memory once, instead of being recomputed inside every tap that reads it."""
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0))))


def _window(padded: Array, position: tuple[int, int], geometry: Geometry, shape: tuple[int, int]) -> Array:
    """What the tap at `position` reads of a padded input, for outputs of `shape`."""
    start = [i * rate for i, rate in zip(position, geometry.rate, strict=True)]
    stop = [first + (size - 1) * step + 1 for first, size, step in zip(start, shape, geometry.strides, strict=True)]
    return lax.slice(padded, (0, *start, 0), (padded.shape[0], *stop, padded.shape[3]), (1, *geometry.strides, 1))


def dense_windows(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """As `dense_taps`, products with padding included: for sizes that are symbolic, where nothing can be clipped."""
    shape = output_size(x, kernel, geometry)
    rows, columns = geometry.padding
    padded = _pad_once(x, ((*rows, 0), (*columns, 0)))
    return _total(_matmul(_window(padded, at, geometry, shape), kernel[at]) for at in _positions(kernel))


def depthwise_taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    shape = output_size(x, kernel, geometry)
    rows, columns = geometry.padding
    padded = _pad_once(x, ((*rows, 0), (*columns, 0)))
    return _total(_window(padded, at, geometry, shape) * kernel[at][None, None] for at in _positions(kernel))


def depthwise_input_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    edges = []
    for size, count, taps, stride, (low, _), rate in zip(
        x.shape[1:3], dy.shape[1:3], kernel.shape[:2], *geometry, strict=True
    ):
        before = (taps - 1) * rate - low
        edges.append((before, size + low - (count - 1) * stride - 1, stride - 1))
    padded = _pad_once(dy, (edges[0], edges[1]))
    # The transposed operation: the flipped kernel slides in steps of one over the spread-out gradient.
    unit = geometry._replace(strides=(1, 1))
    flipped = kernel[::-1, ::-1]
    return _total(_window(padded, at, unit, spatial_size(x)) * flipped[at][None, None] for at in _positions(kernel))


def depthwise_kernel_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    def tap_gradient(tap: _Tap) -> Array:
        return jnp.sum(_read(x, tap, geometry.strides) * _clip(dy, tap), axis=(0, 1, 2))[None]

    return _gather_taps(kernel, geometry, x, tap_gradient)


def depthwise_kernel_slabs(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    """For XLA on CPU, whose own reductions over pixels run neither at the speed of memory nor of the processor.

    The loop that multiplies also adds up slabs of rows, so that an eighth of the products or less is written to
    memory; a matmul with ones sums that. Rows of zeros complete the last slab where no number of slabs fits.
    """
    num_rows, (rows, columns) = dy.shape[1], geometry.padding
    height = min((-(-num_rows // count) for count in _NUM_SLABS), key=lambda height: -num_rows % height)
    missing = -num_rows % height
    padded = _pad_once(x, ((rows[0], rows[1] + missing * geometry.strides[0], 0), (*columns, 0)))
    whole = _pad_once(dy, ((0, missing, 0), (0, 0, 0))) if missing else dy

    def added_up(position: tuple[int, int]) -> Array:
        read = _window(padded, position, geometry, spatial_size(whole)).astype(jnp.float32)
        slabs = [slice(start, start + height) for start in range(0, num_rows, height)]
        return _total(read[:, slab] * whole[:, slab].astype(jnp.float32) for slab in slabs)

    slabs = lax.optimization_barrier([added_up(at) for at in _positions(kernel)])
    return jnp.stack([_sum_pixels(each) for each in slabs]).reshape(kernel.shape).astype(kernel.dtype)


def _sum_pixels(x: Array) -> Array:
    pixels = x.reshape(-1, x.shape[-1])
    ones = jnp.ones((pixels.shape[0],), x.dtype)
    return lax.dot_general(ones, pixels, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)


def _positions(kernel: Array) -> Iterator[tuple[int, int]]:
    return itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))


def _gather_taps(kernel: Array, geometry: Geometry, x: Array, tap_gradient: Callable[[_Tap], Array]) -> Array:
    """The kernel's gradient from its taps'; those that never touch the image get zero."""
    zero = jnp.zeros(kernel.shape[2:], kernel.dtype)
    found = {tap.position: tap_gradient(tap) for tap in _taps(x, kernel, geometry)}
    return jnp.stack([found.get(at, zero) for at in _positions(kernel)]).reshape(kernel.shape).astype(kernel.dtype)
