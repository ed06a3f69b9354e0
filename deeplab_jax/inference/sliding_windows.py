"""Logits of a large image from overlapping windows, blended without seams; weights sum to 1 at every pixel."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from numpy.typing import NDArray

from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.types import Image, Logits


def window_starts(size: int, window: int, stride: int) -> tuple[int, ...]:
    """Start positions of windows along an axis: every `stride` pixels, the last one flush with the end.

    An axis no longer than a window gets a single window of its own length.
    """
    if size <= window:
        return (0,)
    num_windows = math.ceil((size - window) / stride) + 1
    return tuple(min(k * stride, size - window) for k in range(num_windows))


def window_weights(size: tuple[int, int], blend: str) -> Float[NDArray, "h w"]:
    """The weight of each pixel of a window where windows overlap; positive everywhere.

    'smooth': falls linearly from the centre to nearly 0 at the edges, so that no window begins or ends abruptly.
    'uniform': constant, as in mmsegmentation.
    """
    if blend == "uniform":
        return np.ones(size)
    ramps = [np.minimum(np.arange(1, axis + 1), np.arange(axis, 0, -1)) / math.ceil(axis / 2) for axis in size]
    return np.outer(*ramps)


def sliding_windows(function: Callable[[Image], Logits], settings: InferenceConfig) -> Callable[[Image], Logits]:
    """Returns images -> logits of the same height and width, computed by `function` window by window.

        logits(x) = sum over windows w that contain x of a_w(x) f(w)(x) / sum over these of a_w(x)

    A single program computes all windows one after another, in the memory of one window and the result. An image
    smaller than a window along an axis is taken whole there.

    Args:
      function: images of the window's size -> logits of that size.
      settings: size, stride and blending of the windows.
    """
    window, stride = settings.window, settings.window_stride

    def apply(images: Image) -> Logits:
        batch_size, height, width, num_channels = images.shape
        patch = (min(window[0], height), min(window[1], width))
        if patch == (height, width):
            return function(images)
        starts = [
            (top, left)
            for top in window_starts(height, window[0], stride[0])
            for left in window_starts(width, window[1], stride[1])
        ]
        weights = window_weights(patch, settings.blend)
        coverage = np.zeros((height, width))
        for top, left in starts:
            coverage[top : top + patch[0], left : left + patch[1]] += weights
        weight = jnp.asarray(weights, jnp.float32)[None, :, :, None]

        def add(total: Array, start: Array) -> tuple[Array, None]:
            corner = (0, start[0], start[1], 0)
            logits = function(lax.dynamic_slice(images, corner, (batch_size, *patch, num_channels)))
            before = lax.dynamic_slice(total, corner, logits.shape)
            return lax.dynamic_update_slice(total, before + weight * logits.astype(jnp.float32), corner), None

        of_patch = jax.eval_shape(
            function, jax.ShapeDtypeStruct((batch_size, *patch, num_channels), jnp.asarray(images).dtype)
        )
        empty = jnp.zeros((batch_size, height, width, of_patch.shape[-1]), jnp.float32)
        total, _ = lax.scan(add, empty, jnp.asarray(starts, jnp.int32))
        return total / jnp.asarray(coverage, jnp.float32)[None, :, :, None]

    return apply
