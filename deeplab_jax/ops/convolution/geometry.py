"""The geometry of a convolution, and `lax`'s own convolution: the reference for all other implementations."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import lax
from jaxtyping import Array

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), in pixels

_DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """Everything about a convolution that is not an array."""

    strides: tuple[int, int]
    padding: Padding
    rate: tuple[int, int]


def geometry_of(x: Array, kernel: Array, strides: tuple[int, int], rate: tuple[int, int], padding: str) -> Geometry:
    """The geometry of convolving `x` with `kernel`, with padding by name; see `same_padding`."""
    rows, columns = (
        same_padding(size, taps, stride, step, padding)
        for size, taps, stride, step in zip(x.shape[1:3], kernel.shape[:2], strides, rate, strict=True)
    )
    return Geometry(strides, (rows, columns), rate)


def spatial_size(x: Array) -> tuple[int, int]:
    """Height and width of a batch."""
    return x.shape[1], x.shape[2]


def output_size(x: Array, kernel: Array, geometry: Geometry) -> tuple[int, int]:
    """Height and width of the result."""
    height, width = (
        (size + sum(pad) - (taps - 1) * rate - 1) // stride + 1
        for size, taps, stride, pad, rate in zip(x.shape[1:3], kernel.shape[:2], *geometry, strict=True)
    )
    return height, width


def same_padding(size: int, taps: int, stride: int, rate: int, kind: str) -> tuple[int, int]:
    """Pixels added before and after an axis of `size`, for an output of ceil(size / stride) unless 'valid'.

    'tf_same': TensorFlow's SAME, which depends on the size; the odd pixel comes after.
    'symmetric': equal on both sides at any size; as usual in PyTorch, and TF-slim's fixed padding.
    'tf_same_even': 'tf_same' as for an even size: one pixel less before than after, at any size.
    'valid': none.
    The first two agree for odd kernels at stride 1, and at stride 2 on odd sizes.
    """
    extent = (taps - 1) * rate + 1
    if kind == "symmetric":
        return (extent - 1) // 2, extent // 2
    if kind == "tf_same":
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        return total // 2, total - total // 2
    if kind == "tf_same_even":
        before = max(extent - stride, 0) // 2
        return before, max((-(-size // stride) - 1) * stride + extent - size - before, 0)
    if kind == "valid":
        return 0, 0
    raise ValueError(f"unknown padding '{kind}'; there are 'tf_same', 'tf_same_even', 'symmetric' and 'valid'")


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


def lax_dense(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lax_conv(x, kernel, geometry, groups=1)


def lax_grouped(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lax_conv(x, kernel, geometry, groups=x.shape[-1] // kernel.shape[2])


def lax_grouped_input(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda x: lax_grouped(x, kernel, geometry), x)(dy)[0]


def lax_grouped_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda k: lax_grouped(x, k, geometry), kernel)(dy)[0]


def lax_depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _lax_conv(x, kernel, geometry, groups=x.shape[-1])


def lax_dense_input(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda x: lax_dense(x, kernel, geometry), x)(dy)[0]


def lax_dense_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda k: lax_dense(x, k, geometry), kernel)(dy)[0]


def lax_depthwise_input(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda x: lax_depthwise(x, kernel, geometry), x)(dy)[0]


def lax_depthwise_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    return jax.linear_transpose(lambda k: lax_depthwise(x, k, geometry), kernel)(dy)[0]
