"""The kernel gradient of a dilated convolution as that of an undilated one, by sorting pixels into phases.

With o = rate q + s, each phase s of the pixels is a separate image, on which the convolution is not dilated:

    dk[t] = sum_s sum_q x_s[q + t] dy_s[q],    x_s[q] = x[rate q + s - pad],  dy_s[q] = dy[rate q + s]

so one undilated convolution over rate x rate times as many images computes it. XLA for GPU has no library call for the
gradient of a dilated kernel and lowers it to a forward convolution whose window is the whole map; this one goes to
cuDNN.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from deeplab_jax.ops.convolution.dense_taps import dense_kernel_taps
from deeplab_jax.ops.convolution.geometry import Geometry, lax_dense_kernel

_PLAIN = Geometry(strides=(1, 1), padding=((0, 0), (0, 0)), rate=(1, 1))


def phased_dense_kernel(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    """As `convolution.lax_dense_kernel`, for strides of 1."""
    before, after = [], []
    for size, count, taps, (low, _), rate in zip(
        x.shape[1:3], dy.shape[1:3], kernel.shape[:2], geometry.padding, geometry.rate, strict=True
    ):
        num_cells = math.ceil(count / rate)
        before.append((low, rate * (num_cells + taps - 1) - size - low, 0))
        after.append((0, rate * num_cells - count, 0))
    phases_of_x, phases_of_dy = _phases(x, before, geometry.rate), _phases(dy, after, geometry.rate)
    return lax_dense_kernel(phases_of_x, kernel, phases_of_dy, _PLAIN)


def phases_or_taps(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    """The same, by phases or by one matmul per tap, whichever moves fewer bytes."""
    pays = phases_pay(x, kernel, dy, geometry)
    return (phased_dense_kernel if pays else dense_kernel_taps)(x, kernel, dy, geometry)


def phases_pay(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> bool:
    """Whether phases move fewer bytes than one matmul per tap.

    Sorting reads both arrays and writes them padded, and the convolution reads them again. Each tap reads its operands,
    copies them and reads the copy; at rates near the map's size most taps are largely outside.
    """
    if geometry.strides != (1, 1):
        return False
    inside, phases_of_x, phases_of_dy = 1, 1, 1  # pixels of one channel of one image
    for size, count, taps, (low, _), rate in zip(
        x.shape[1:3], dy.shape[1:3], kernel.shape[:2], geometry.padding, geometry.rate, strict=True
    ):
        served = [min(count, size + low - tap * rate) - max(0, low - tap * rate) for tap in range(taps)]
        num_cells = math.ceil(count / rate)
        inside *= sum(max(pixels, 0) for pixels in served)
        phases_of_x *= rate * (num_cells + taps - 1)
        phases_of_dy *= rate * num_cells
    moved = (x.size // x.shape[-1] + 2 * x.shape[0] * phases_of_x) * x.shape[-1]
    moved += (dy.size // dy.shape[-1] + 2 * dy.shape[0] * phases_of_dy) * dy.shape[-1]
    return moved < 3 * x.shape[0] * inside * (x.shape[-1] + dy.shape[-1])


def _phases(x: Array, edges: list[tuple[int, int, int]], rate: tuple[int, int]) -> Array:
    """[b, h, w, c] -> [b * rate * rate, h / rate, w / rate, c] of the padded array.

    An example's phases stay adjacent, so a sharded batch needs no communication.
    """
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    batch, height, width, channels = padded.shape
    split = padded.reshape(batch, height // rate[0], rate[0], width // rate[1], rate[1], channels)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, height // rate[0], width // rate[1], channels)
