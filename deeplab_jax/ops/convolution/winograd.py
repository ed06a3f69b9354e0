"""Winograd's minimal filtering for dense 3x3 convolution, at any rate: 16 products for 2x2 outputs instead of 36.

    Y = A^T [(G k G^T) * (B^T d B)] A      Lavin and Gray (1509.09308), F(2x2, 3x3); d: 4x4 inputs, k: 3x3 taps

Summed over channels, each of the 16 products is a matmul over all tiles. At rate r a tile's pixels are r apart. Larger
tiles would save more but lose precision: for 2x2 outputs the entries are only 0, 1 and 1/2, and results agree with
direct sums to float32 precision. Everything is computed in at least float32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from deeplab_jax.ops.convolution.geometry import Geometry, Padding, output_size, spatial_size

_Grid: TypeAlias = Sequence[Sequence[Array]]  # a matrix of arrays of one shape

_A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def share_needed(x: Array, kernel: Array, geometry: Geometry) -> float:
    """Ratio of products here to those of direct convolution, both with padding; infinite if not applicable."""
    size = output_size(x, kernel, geometry)
    if kernel.shape[:2] != (3, 3) or geometry.strides != (1, 1) or not all(isinstance(each, int) for each in size):
        return float("inf")
    rows, columns = _num_tiles(size, geometry.rate)
    return 16 * rows * columns * geometry.rate[0] * geometry.rate[1] / (9 * size[0] * size[1])


def dense_winograd(x: Array, kernel: Array, geometry: Geometry) -> Array:
    size = output_size(x, kernel, geometry)
    return _convolved(x, geometry.padding, geometry.rate, kernel, size).astype(x.dtype)


def dense_input_winograd(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    rows, columns = (
        (2 * rate - low, 2 * rate - high) for (low, high), rate in zip(geometry.padding, geometry.rate, strict=True)
    )
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _convolved(dy, (rows, columns), geometry.rate, flipped, spatial_size(x)).astype(x.dtype)


def dense_kernel_winograd(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    num_tiles = _num_tiles(spatial_size(dy), geometry.rate)
    inputs = _transformed(_B_T, _pixels(x, 4, geometry.padding, geometry.rate, num_tiles))
    outputs = _transformed(_A_T.T, _pixels(dy, 2, ((0, 0), (0, 0)), geometry.rate, num_tiles))
    products = [
        [_channel_products(v, d) for v, d in zip(*row, strict=True)] for row in zip(inputs, outputs, strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in _both_sides(_G.T, _stored(products))]).astype(kernel.dtype)


def _convolved(x: Array, padding: Padding, rate: tuple[int, int], kernel: Array, size: tuple[int, int]) -> Array:
    """A^T [products] A, with the pixels in their places."""
    kernels = _transformed(_G, [list(row.astype(_float32_at_least(kernel.dtype))) for row in kernel])
    inputs = _transformed(_B_T, _pixels(x, 4, padding, rate, _num_tiles(size, rate)))
    products = [[v @ u for v, u in zip(*row, strict=True)] for row in zip(inputs, kernels, strict=True)]
    outputs = _both_sides(_A_T, _stored(products))
    y = jnp.stack([jnp.stack(row, axis=4) for row in outputs], axis=2)  # [b tile 2 phase tile2 2 phase2 d]
    wide = y.reshape(*y.shape[:4], -1, y.shape[-1])
    return wide.reshape(y.shape[0], -1, *wide.shape[4:])[:, : size[0], : size[1]]


def _transformed(matrix: np.ndarray, grid: _Grid) -> list[list[Array]]:
    """matrix @ grid @ matrix^T, stored in memory."""
    return _stored(_both_sides(matrix, grid))


def _both_sides(matrix: np.ndarray, grid: _Grid) -> list[list[Array]]:
    columns = [_combined(matrix, column) for column in zip(*grid, strict=True)]
    return [_combined(matrix, row) for row in zip(*columns, strict=True)]


def _combined(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """matrix @ arrays."""
    return [_weighted_sum(row, arrays) for row in matrix.tolist()]


def _weighted_sum(weights: Sequence[float], arrays: Sequence[Array]) -> Array:
    """A weighted sum that skips zeros and does not multiply by ones."""
    terms = [
        array * weight if abs(weight) != 1 else array if weight > 0 else -array
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return functools.reduce(operator.add, terms)


def _pixels(x: Array, count: int, padding: Padding, rate: tuple[int, int], num_tiles: tuple[int, int]) -> _Grid:
    """The first `count` pixels along both axes of all tiles, each [b, tile, phase, tile2, phase2, c].

    A tile covers two outputs along an axis, `rate` apart, of each of `rate` phases: a block of 2 x `rate` pixels. Two
    of its pixels are in its own block, the third and fourth in the next.
    """
    num_blocks = [tiles + (count - 1) // 2 for tiles in num_tiles]
    edges = [
        (low, blocks * 2 * step - low - size, 0)
        for (low, _), blocks, step, size in zip(padding, num_blocks, rate, spatial_size(x), strict=True)
    ]
    wide = x.astype(_float32_at_least(x.dtype))
    blocks = _stored(lax.pad(wide, jnp.zeros((), wide.dtype), ((0, 0, 0), *edges, (0, 0, 0))))
    blocks = blocks.reshape(x.shape[0], num_blocks[0], 2, rate[0], num_blocks[1], 2, rate[1], x.shape[3])

    def pixel(i: int, j: int) -> Array:
        rows, columns = (slice(at // 2, at // 2 + tiles) for at, tiles in zip((i, j), num_tiles, strict=True))
        return blocks[:, rows, i % 2, :, columns, j % 2]

    return [[pixel(i, j) for j in range(count)] for i in range(count)]


def _channel_products(v: Array, d: Array) -> Float[Array, "c d"]:
    """Products of all pairs of channels, summed over all pixels."""
    return lax.dot_general(v.reshape(-1, v.shape[-1]), d.reshape(-1, d.shape[-1]), (((0,), (0,)), ((), ())))


def _num_tiles(size: tuple[int, int], rate: tuple[int, int]) -> tuple[int, int]:
    """Tiles along each axis, for outputs of `size`."""
    height, width = (-(-each // (2 * step)) for each, step in zip(size, rate, strict=True))
    return height, width


def _float32_at_least(dtype: DTypeLike) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _stored(x: Any) -> Any:
    """Forces an array to memory: XLA would otherwise recompute it wherever it is read."""
    return lax.optimization_barrier(x)
