"""Atrous (dilated) convolution: one operation, its gradients, and the formulation each platform runs fast.

    y[o] = sum_t x[o * stride + t * rate - pad] k[t]            DeepLab v3 (1706.05587), eq. 1

`lax.conv_general_dilated` with `rhs_dilation` computes it everywhere and is the reference in the tests, but
two compilers are weak at it. XLA on CPU multiplies the padding of dilated kernels and expands depthwise
kernels to dense ones (10 to 1000 times slower than need be), and XLA on GPU turns the kernel gradient of a
dilated convolution into a convolution with a huge window. So the operation carries its own gradient rules,
and each of its three directions is lowered as the platform likes it:

                    CPU                                other
    dense           1x1 and rates from 3: a matmul     lax
                    per tap; else lax
      its kernel    a matmul per tap (lax for the      rate 1: lax; dilated: a matmul per tap
      gradient      few channels of an image)
    depthwise       shifted multiply-adds              lax
      its kernel    a scan over rows                   rate 1: lax; dilated: a reduction per tap
      gradient

A tap of a dense kernel is clipped: only what falls inside the image is multiplied.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), in pixels

_DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 16  # below it a matmul per tap has too little to do


class Geometry(NamedTuple):
    """Everything about a convolution that is not an array."""

    strides: tuple[int, int]
    padding: Padding
    rate: tuple[int, int]


def atrous_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 d"]:
    """Dense convolution with `rate` - 1 holes between kernel taps.

    Args:
      x: images or features.
      kernel: weights, taps first.
      strides: output steps, in input pixels.
      rate: distance of neighbouring taps, in input pixels.
      padding: a name that `same_padding` knows.

    Raises:
      ValueError: for an unknown padding.
    """
    return _dense(x, kernel, _geometry(x, kernel, strides, rate, padding))


def atrous_depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 c"]:
    """Convolution of each channel with its own kernel; arguments as in `atrous_conv`."""
    return _depthwise(x, kernel, _geometry(x, kernel, strides, rate, padding))


def same_padding(size: int, taps: int, stride: int, rate: int, kind: str) -> tuple[int, int]:
    """Pixels added before and after an axis of `size`, for an output of ceil(size / stride).

    'tf_same': TensorFlow's SAME; the odd pixel goes behind, and it depends on the size.
    'symmetric': equal on both sides whatever the size; PyTorch's usual, and TF-slim's fixed padding.
    The two agree for odd kernels at stride 1, and at stride 2 on odd sizes.
    """
    extent = (taps - 1) * rate + 1
    if kind == "symmetric":
        return (extent - 1) // 2, extent // 2
    if kind == "tf_same":
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        return total // 2, total - total // 2
    raise ValueError(f"unknown padding '{kind}'; there are 'tf_same' and 'symmetric'")


def _geometry(x: Array, kernel: Array, strides: tuple[int, int], rate: tuple[int, int], padding: str) -> Geometry:
    rows, columns = (
        same_padding(size, taps, stride, step, padding)
        for size, taps, stride, step in zip(x.shape[1:3], kernel.shape[:2], strides, rate, strict=True)
    )
    return Geometry(tuple(strides), (rows, columns), tuple(rate))


# --- The two operations with their gradient rules ---------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Array, kernel: Array, geometry: Geometry) -> Array:
    on_cpu = _dense_taps if _cpu_prefers_taps(kernel, geometry) else _lax_dense
    return _by_platform(on_cpu, _lax_dense, geometry)(x, kernel)


def _dense_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _dense(x, kernel, geometry), (x, kernel)


def _dense_backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    input_on_cpu = _dense_input_taps if _cpu_prefers_taps(kernel, geometry) else _lax_dense_input
    dx = _by_platform(input_on_cpu, _lax_dense_input, geometry)(x, kernel, dy)
    kernel_on_cpu = _lax_dense_kernel if x.shape[-1] < _FEW_CHANNELS else _dense_kernel_taps
    kernel_elsewhere = _dense_kernel_taps if max(geometry.rate) > 1 else _lax_dense_kernel
    dk = _by_platform(kernel_on_cpu, kernel_elsewhere, geometry)(x, kernel, dy)
    return dx, dk


_dense.defvjp(_dense_forward, _dense_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _by_platform(_depthwise_taps, _lax_depthwise, geometry)(x, kernel)


def _depthwise_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, geometry), (x, kernel)


def _depthwise_backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = _by_platform(_depthwise_input_taps, _lax_depthwise_input, geometry)(x, kernel, dy)
    kernel_elsewhere = _depthwise_kernel_taps if max(geometry.rate) > 1 else _lax_depthwise_kernel
    dk = _by_platform(_depthwise_kernel_scan, kernel_elsewhere, geometry)(x, kernel, dy)
    return dx, dk


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _by_platform(cpu: Callable[..., Array], other: Callable[..., Array], geometry: Geometry) -> Callable[..., Array]:
    """The formulation is chosen when the program is lowered, so that one trace serves every platform."""
    if cpu is other:
        return functools.partial(cpu, geometry=geometry)
    return functools.partial(
        lax.platform_dependent,
        cpu=functools.partial(cpu, geometry=geometry),
        default=functools.partial(other, geometry=geometry),
    )


def _cpu_prefers_taps(kernel: Array, geometry: Geometry) -> bool:
    """Measured: the library's own convolution wins on CPU where kernels have few holes to waste work on."""
    return kernel.shape[:2] == (1, 1) or max(geometry.rate) >= 3


# --- The reference: what every platform can run -----------------------------------------------------------


def _lax_conv(x: Array, kernel: Array, geometry: Geometry, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.rate,
        dimension_numbers=_DIMENSION_NUMBERS,
        feature_group_count=groups,
    )


def _lax_dense(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lax_conv(x, kernel, geometry, groups=1)


def _lax_depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lax_conv(x, kernel, geometry, groups=x.shape[-1])


def _lax_dense_input(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda x: _lax_dense(x, kernel, geometry), x)(dy)[0]


def _lax_dense_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda k: _lax_dense(x, k, geometry), kernel)(dy)[0]


def _lax_depthwise_input(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda x: _lax_depthwise(x, kernel, geometry), x)(dy)[0]


def _lax_depthwise_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda k: _lax_depthwise(x, k, geometry), kernel)(dy)[0]


# --- Clipped taps -----------------------------------------------------------------------------------------


class _Span(NamedTuple):
    """The outputs [low, high) of one axis that a tap can serve, and the first input pixel that it reads."""

    low: int
    high: int
    start: int


class _Tap(NamedTuple):
    index: tuple[int, int]
    rows: _Span
    columns: _Span


def _span(tap: int, in_size: int, out_size: int, stride: int, pad: int, rate: int) -> _Span:
    offset = tap * rate - pad
    low = max(0, math.ceil(-offset / stride))
    high = min(out_size, (in_size - 1 - offset) // stride + 1)
    return _Span(low, max(high, low), low * stride + offset)


def _out_size(size: int, taps: int, stride: int, pad: tuple[int, int], rate: int) -> int:
    return (size + sum(pad) - (taps - 1) * rate - 1) // stride + 1


def _out_shape(x: Array, kernel: Array, geometry: Geometry) -> tuple[int, int]:
    rows, columns = (
        _out_size(size, taps, stride, pad, rate)
        for size, taps, stride, pad, rate in zip(x.shape[1:3], kernel.shape[:2], *geometry, strict=True)
    )
    return rows, columns


def _taps(x: Array, kernel: Array, geometry: Geometry) -> Iterator[_Tap]:
    """All taps that touch the image."""
    (stride_h, stride_w), ((top, _), (left, _)), (rate_h, rate_w) = geometry
    out_h, out_w = _out_shape(x, kernel, geometry)
    for i in range(kernel.shape[0]):
        rows = _span(i, x.shape[1], out_h, stride_h, top, rate_h)
        for j in range(kernel.shape[1]):
            columns = _span(j, x.shape[2], out_w, stride_w, left, rate_w)
            if rows.high > rows.low and columns.high > columns.low:
                yield _Tap((i, j), rows, columns)


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


def _matmul(x: Array, matrix: Array) -> Array:
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())))


def _dense_taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    shape = _out_shape(x, kernel, geometry)
    return sum(
        _spread_output(_matmul(_read(x, tap, geometry.strides), kernel[tap.index]), tap, shape)
        for tap in _taps(x, kernel, geometry)
    )


def _dense_input_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return sum(
        _spread_input(_matmul(_clip(dy, tap), kernel[tap.index].T), tap, x.shape[1:3], geometry.strides)
        for tap in _taps(x, kernel, geometry)
    )


def _dense_kernel_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    def tap_gradient(tap: _Tap) -> Array:
        pixels = _read(x, tap, geometry.strides).reshape(-1, x.shape[-1])
        return lax.dot_general(pixels, _clip(dy, tap).reshape(-1, dy.shape[-1]), (((0,), (0,)), ((), ())))

    return _gather_taps(kernel, geometry, x, tap_gradient)


def _pad_once(x: Array, edges: tuple[tuple[int, int, int], tuple[int, int, int]]) -> Array:
    """Zero padding that is written to memory once, instead of being recomputed inside every tap that reads it."""
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0))))


def _window(padded: Array, index: tuple[int, int], geometry: Geometry, shape: tuple[int, int]) -> Array:
    """What tap `index` reads of a padded input, for outputs of `shape`."""
    start = [i * rate for i, rate in zip(index, geometry.rate, strict=True)]
    stop = [first + (size - 1) * step + 1 for first, size, step in zip(start, shape, geometry.strides, strict=True)]
    return lax.slice(padded, (0, *start, 0), (padded.shape[0], *stop, padded.shape[3]), (1, *geometry.strides, 1))


def _depthwise_taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    shape = _out_shape(x, kernel, geometry)
    rows, columns = geometry.padding
    padded = _pad_once(x, ((*rows, 0), (*columns, 0)))
    return sum(_window(padded, index, geometry, shape) * kernel[index][None, None] for index in _indices(kernel))


def _depthwise_input_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
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
    return sum(_window(padded, index, unit, x.shape[1:3]) * flipped[index][None, None] for index in _indices(kernel))


def _depthwise_kernel_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    def tap_gradient(tap: _Tap) -> Array:
        return jnp.sum(_read(x, tap, geometry.strides) * _clip(dy, tap), axis=(0, 1, 2))[None]

    return _gather_taps(kernel, geometry, x, tap_gradient)


def _depthwise_kernel_scan(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    """Row by row, so that a row of the gradient serves all taps while it is in the cache."""
    (stride_h, stride_w), (rows, columns), (rate_h, rate_w) = geometry
    kernel_h, kernel_w = kernel.shape[:2]
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    width = dy.shape[2]

    def add_row(total: Array, row_id: Array) -> tuple[Array, None]:
        row = lax.dynamic_index_in_dim(dy, row_id, axis=1, keepdims=False)
        parts = []
        for i in range(kernel_h):
            pixels = lax.dynamic_index_in_dim(padded, row_id * stride_h + i * rate_h, axis=1, keepdims=False)
            for j in range(kernel_w):
                shifted = lax.slice_in_dim(
                    pixels, j * rate_w, j * rate_w + (width - 1) * stride_w + 1, stride_w, axis=1
                )
                parts.append(jnp.sum((shifted * row).astype(jnp.float32), axis=(0, 1)))
        return total + jnp.stack(parts), None

    zero = jnp.zeros((kernel_h * kernel_w, x.shape[-1]), jnp.float32)
    total, _ = lax.scan(add_row, zero, jnp.arange(dy.shape[1]))
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _indices(kernel: Array) -> Iterator[tuple[int, int]]:
    return itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))


def _gather_taps(kernel: Array, geometry: Geometry, x: Array, tap_gradient: Callable[[_Tap], Array]) -> Array:
    """The kernel's gradient from its taps'; those that never touch the image get zero."""
    zero = jnp.zeros(kernel.shape[2:], kernel.dtype)
    found = {tap.index: tap_gradient(tap) for tap in _taps(x, kernel, geometry)}
    return jnp.stack([found.get(index, zero) for index in _indices(kernel)]).reshape(kernel.shape).astype(kernel.dtype)
