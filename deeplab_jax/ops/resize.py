"""Resizing: bilinear with both corner conventions, and nearest; the only implementation in the package.

`jax.image.resize` is not used: it antialiases when it shrinks, and resizes channels too if given a full shape. Here a
resize is two small matrix products, one per axis: exact, and fast forward and backward on every accelerator.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer


def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, int], *, align_corners: bool
) -> Float[Array, "b h2 w2 c"]:
    """Resizes height and width to `size` by linear interpolation between the two nearest cells.

    Either size may be symbolic, as in a program exported for images of any size; the program then computes the weights.

    Args:
      size: (height, width) of the result.
      align_corners: True: corner cells map to corner cells (TensorFlow's DeepLab, Caffe's Interp); False: cells are
        areas, with centres at (i + 0.5) * scale - 0.5 (PyTorch's default).

    Raises:
      ValueError: for a size that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> x = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
      >>> print(dl.ops.resize_bilinear(x, (1, 4), align_corners=False)[0, 0, :, 0])
      [0.   0.25 0.75 1.  ]
    """
    if any(axis < 1 for axis in size):
        raise ValueError(f"cannot resize to {size}")
    for axis, out_size in zip((1, 2), size, strict=True):
        in_size = x.shape[axis]
        if in_size == out_size:
            continue
        if in_size == 1:
            x = jnp.repeat(x, out_size, axis=axis)
            continue
        known = isinstance(in_size, int) and isinstance(out_size, int)
        make_weights = _weights if known else _weights_in_program
        weights = jnp.asarray(make_weights(in_size, out_size, align_corners), x.dtype)
        x = jnp.einsum("bhwc,Hh->bHwc" if axis == 1 else "bhwc,Ww->bhWc", x, weights)
    return x


def resize_nearest(x: Integer[Array, "b h w *maps"], size: tuple[int, int]) -> Integer[Array, "b h2 w2 *maps"]:
    """Resizes labels: each cell takes the nearest pixel, with aligned corners.

    From 8 k + 1 to k + 1 it takes every eighth pixel, as DeepLab v1 and v2 downsample their labels.
    """
    for axis, out_size in zip((1, 2), size, strict=True):
        in_size = x.shape[axis]
        if in_size != out_size:
            index = np.rint(np.arange(out_size) * ((in_size - 1) / max(out_size - 1, 1))).astype(int)
            x = jnp.take(x, index, axis=axis)
    return x


def _weights(in_size: int, out_size: int, align_corners: bool) -> np.ndarray:
    """The [out_size, in_size] matrix of interpolation weights; each row has one or two entries and sums to 1."""
    out_id = np.arange(out_size, dtype=np.float64)
    if align_corners:
        position = out_id * ((in_size - 1) / max(out_size - 1, 1))
    else:
        position = (out_id + 0.5) * (in_size / out_size) - 0.5
    position = np.clip(position, 0, in_size - 1)
    low = np.minimum(np.floor(position).astype(int), in_size - 1)
    high = np.minimum(low + 1, in_size - 1)
    fraction = position - low
    weights = np.zeros((out_size, in_size))
    rows = np.arange(out_size)
    np.add.at(weights, (rows, low), 1 - fraction)
    np.add.at(weights, (rows, high), fraction)
    return weights


def _weights_in_program(in_size: int, out_size: int, align_corners: bool) -> Float[Array, "out in"]:
    """As `_weights`, for sizes only known at run time.

    Positions are integer multiples of 1 / unit, so int32 keeps them exact.
    """
    out_id, in_id = jnp.arange(out_size, dtype=jnp.int32), jnp.arange(in_size, dtype=jnp.int32)
    if align_corners:
        unit = out_size - 1
        position = out_id * (in_size - 1)
    else:
        unit = 2 * out_size
        position = jnp.clip((2 * out_id + 1) * in_size - out_size, 0, unit * (in_size - 1))
    distance = jnp.abs(position[:, None] - unit * in_id[None])
    return jnp.maximum(1 - distance / unit, 0)
