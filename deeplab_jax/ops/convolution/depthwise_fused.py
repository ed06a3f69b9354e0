"""Depthwise atrous convolution as expressions that XLA for GPU fuses to one kernel without padding in memory.

Writing the padded input to memory would be half of all traffic. Fused, the padding becomes a mask, and forward and
input gradient are one loop that reads and writes every array once. The nine sums of the kernel gradient, as nine
reductions or as one with nine operands, take five passes or more; over a stack of the taps' inputs they take one pass,
which reads an image tap by tap, from the cache if it fits.

Sums are float32, rounded once.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops.convolution.geometry import Geometry, output_size, spatial_size

_Edges = tuple[int, int, int]  # before an axis, after it, between its elements


def depthwise_fused(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], geometry: Geometry
) -> Float[Array, "b h2 w2 c"]:
    """As `convolution.lax_depthwise`."""
    size = output_size(x, kernel, geometry)
    (top, bottom), (left, right) = geometry.padding
    windows = _windows(_pad(x, (top, bottom, 0), (left, right, 0)), kernel, geometry, size)
    return _weighted_sum(windows, kernel).astype(x.dtype)


def depthwise_input_fused(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
) -> Float[Array, "b h w c"]:
    """As `convolution.lax_depthwise_input`: the flipped kernel slides over the spread-out gradient."""
    edges = []
    for size, count, taps, stride, (low, _), rate in zip(
        x.shape[1:3], dy.shape[1:3], kernel.shape[:2], *geometry, strict=True
    ):
        edges.append(((taps - 1) * rate - low, size + low - (count - 1) * stride - 1, stride - 1))
    windows = _windows(_pad(dy, *edges), kernel, geometry._replace(strides=(1, 1)), spatial_size(x))
    return _weighted_sum(windows, kernel[::-1, ::-1]).astype(x.dtype)


def depthwise_kernel_fused(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
) -> Float[Array, "kh kw 1 c"]:
    """As `convolution.lax_depthwise_kernel`."""
    (top, bottom), (left, right) = geometry.padding
    windows = _windows(_pad(x, (top, bottom, 0), (left, right, 0)), kernel, geometry, spatial_size(dy))
    products = jnp.stack(list(windows), axis=1).astype(jnp.float32) * dy[:, None].astype(jnp.float32)
    sums = jnp.sum(jnp.sum(products, axis=(2, 3)), axis=0)
    return sums.reshape(kernel.shape).astype(kernel.dtype)


def _pad(x: Array, rows: _Edges, columns: _Edges) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def _windows(padded: Array, kernel: Array, geometry: Geometry, size: tuple[int, int]) -> Iterator[Array]:
    """The part of a padded input that each tap reads, for outputs of `size`."""
    for position in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
        start = [tap * rate for tap, rate in zip(position, geometry.rate, strict=True)]
        stop = [low + (count - 1) * step + 1 for low, count, step in zip(start, size, geometry.strides, strict=True)]
        yield lax.slice(padded, (0, *start, 0), (padded.shape[0], *stop, padded.shape[3]), (1, *geometry.strides, 1))


def _weighted_sum(windows: Iterator[Array], kernel: Float[Array, "kh kw 1 c"]) -> Array:
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]).astype(jnp.float32)
    terms = (window.astype(jnp.float32) * weight for window, weight in zip(windows, weights, strict=True))
    return functools.reduce(operator.add, terms)
