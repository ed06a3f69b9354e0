"""Pooling with the conventions of the supported systems: padding, ceil mode, atrous windows."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops.convolution.geometry import same_padding


def max_pool(
    x: Float[Array, "b h w c"], window: int, *, stride: int = 1, rate: int = 1, padding: str = "symmetric"
) -> Float[Array, "b h2 w2 c"]:
    """The maximum of each window; padding is -inf.

    Args:
      stride: of the windows, in cells.
      rate: distance between neighbouring cells of a window.
      padding: see `pool_padding`.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> dl.ops.max_pool(jnp.ones((1, 9, 9, 2)), 3, stride=2).shape
      (1, 5, 5, 2)
    """
    rows, columns = _edges(x, (window, window), stride, rate, padding)
    lowest = np.array(-np.inf, x.dtype)
    if rate == 1:
        sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, lowest, lax.max, sizes, steps, ((0, 0), rows, columns, (0, 0)))
    # Dilated windows have no gradient in JAX; the maximum of shifted copies does.
    x = lax.pad(x, lowest, ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    extent = (window - 1) * rate
    height, width = x.shape[1] - extent, x.shape[2] - extent
    shifts = [(i * rate, j * rate) for i in range(window) for j in range(window)]
    copies = [x[:, i : i + height : stride, j : j + width : stride] for i, j in shifts]
    return functools.reduce(jnp.maximum, copies)


def average_pool(
    x: Float[Array, "b h w c"],
    window: tuple[int, int],
    *,
    stride: int = 1,
    rate: int = 1,
    padding: str = "valid",
    count_padding: bool = True,
) -> Float[Array, "b h2 w2 c"]:
    """The mean of each window, summed in float32.

    Args:
      window: (height, width) of a window, in cells.
      stride: of the windows, in cells.
      rate: distance between neighbouring cells of a window.
      padding: 'valid' (none), 'tf_same' or 'symmetric'.
      count_padding: whether padding counts as zeros, as in Caffe, or is left out of the mean.

    Raises:
      ValueError: for any other padding.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> dl.ops.average_pool(jnp.ones((1, 9, 9, 2)), (9, 9)).shape
      (1, 1, 1, 2)
    """
    if padding == "ceil":  # a window that extends beyond the padding would need its own divisor
        raise ValueError("padding='ceil': averages know 'valid', 'tf_same' and 'symmetric'")
    edges = ((0, 0), (0, 0)) if padding == "valid" else _edges(x, window, stride, rate, padding)

    def window_sums(values: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        sizes, steps, dilation = (1, *window, 1), (1, stride, stride, 1), (1, rate, rate, 1)
        return lax.reduce_window(values, 0.0, lax.add, sizes, steps, ((0, 0), *edges, (0, 0)), window_dilation=dilation)

    total = window_sums(x.astype(jnp.float32))
    count = np.float32(np.prod(window)) if count_padding else window_sums(jnp.ones((1, *x.shape[1:3], 1), jnp.float32))
    return (total / count).astype(x.dtype)


def pool_padding(size: int, window: int, stride: int, rate: int, kind: str) -> tuple[int, int]:
    """Cells added before and after an axis of `size`.

    'tf_same': TensorFlow's SAME, as for convolutions.
    'symmetric': half a window on each side, the odd cell after; it widens with dilation, so strides can become rates.
    'ceil': symmetric without the odd cell, plus as many cells after as let a last, partial window begin inside (Caffe,
      PyTorch's ceil_mode): 3x3 windows at stride 2 give one output more on even sizes, 2x2 at stride 1 one less.

    Raises:
      ValueError: for an unknown kind.
    """
    if kind == "tf_same":
        return same_padding(size, window, stride, rate, kind)
    before = (window - 1) // 2 * rate
    if kind == "symmetric":
        return before, window // 2 * rate
    if kind != "ceil":
        raise ValueError(f"unknown padding '{kind}'; there are 'tf_same', 'symmetric' and 'ceil'")
    extent = (window - 1) * rate + 1
    num_windows = -(-(size + 2 * before - extent) // stride) + 1
    if (num_windows - 1) * stride >= size + before:
        num_windows -= 1
    return before, max((num_windows - 1) * stride + extent - size - before, 0)


def _edges(
    x: Float[Array, "b h w c"], windows: tuple[int, int], stride: int, rate: int, padding: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = (
        pool_padding(size, window, stride, rate, padding) for size, window in zip(x.shape[1:3], windows, strict=True)
    )
    return rows, columns
