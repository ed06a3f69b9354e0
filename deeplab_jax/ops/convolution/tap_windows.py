"""Convolution as windows of a padded input, including products with padding.

For the symbolic sizes of exported programs, where taps cannot be clipped to the image, and for a network's first
convolution, whose padding is negligible.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from deeplab_jax.ops.convolution.geometry import Geometry, output_size
from deeplab_jax.ops.convolution.spans import read

MAX_CHANNELWISE = 64  # taps times input channels; each is one term of the program


def dense_windows(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """As `convolution.lax_dense`."""
    products = (
        lax.dot_general(window, kernel[position], (((3,), (0,)), ((), ())))
        for position, window in _windows(x, kernel, geometry)
    )
    return functools.reduce(operator.add, products)


def depthwise_windows(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """As `convolution.lax_depthwise`."""
    products = (window * kernel[position][None, None] for position, window in _windows(x, kernel, geometry))
    return functools.reduce(operator.add, products)


def dense_channelwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """As `convolution.lax_dense` without a matmul: each input channel times its kernel row, summed in float32.

    For images of few channels, whose matmuls are so narrow that data movement dominates.
    """
    products = (
        window[..., channel, None].astype(jnp.float32) * kernel[position][None, None, None, channel].astype(jnp.float32)
        for position, window in _windows(x, kernel, geometry)
        for channel in range(x.shape[-1])
    )
    return functools.reduce(operator.add, products).astype(x.dtype)


def _windows(x: Array, kernel: Array, geometry: Geometry) -> Iterator[tuple[tuple[int, int], Array]]:
    """Each tap's position, and the part of the padded input it reads."""
    strides, (rows, columns), rates = geometry
    padding = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    padded = lax.optimization_barrier(padding)  # written to memory once instead of recomputed for every tap
    size = output_size(x, kernel, geometry)
    for position in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
        row, column = (tap * rate for tap, rate in zip(position, rates, strict=True))
        yield position, read(padded, (row, column), size, strides)
