"""Winograd's minimal filtering for dense 3x3 convolution, at any rate: 16 products for 2x2 outputs where 36 are plain.

    Y = A^T [(G k G^T) * (B^T d B)] A      Lavin and Gray (1509.09308), F(2x2, 3x3); d: 4x4 inputs, k: 3x3 taps

The sum over channels makes each of the 16 products a matmul over all tiles. At rate r a tile's pixels are r apart.
Tiles of 2x2 outputs, because larger ones, which save more, lose digits: the error of F(2x2, 3x3) is 1.7 times that of
plain sums in float32, of F(3x3, 3x3) 6 times. All is computed in float32 at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from deeplab_jax.ops.convolution import Geometry, Padding, output_size, spatial_size

_A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_GG = np.kron(_G, _G)  # taps [9] -> tiles [16]


def share_needed(x: Array, kernel: Array, geometry: Geometry) -> float:
    """Products here over those of the plain call, padding included in both; infinite where this cannot serve."""
    size = output_size(x, kernel, geometry)
    if kernel.shape[:2] != (3, 3) or geometry.strides != (1, 1) or not all(isinstance(each, int) for each in size):
        return float("inf")
    rows, columns = _num_tiles(size, geometry.rate)
    return 16 * rows * columns * geometry.rate[0] * geometry.rate[1] / (9 * size[0] * size[1])


def dense_winograd(x: Array, kernel: Array, geometry: Geometry) -> Array:
    size = output_size(x, kernel, geometry)
    return _convolved(x, geometry.padding, geometry.rate, _kernel_tiles(kernel), size).astype(x.dtype)


def dense_input_winograd(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    rows, columns = (
        (2 * rate - low, 2 * rate - high) for (low, high), rate in zip(geometry.padding, geometry.rate, strict=True)
    )
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _convolved(dy, (rows, columns), geometry.rate, _kernel_tiles(flipped), spatial_size(x)).astype(x.dtype)


def dense_kernel_winograd(x: Array, kernel: Array, dy: Array, geometry: Geometry) -> Array:
    tiles = _num_tiles(spatial_size(dy), geometry.rate)
    inputs = _transformed(_B_T, x, geometry.padding, geometry.rate, tiles)
    outputs = _transformed(_A_T.T, dy, ((0, 0), (0, 0)), geometry.rate, tiles)
    products = [
        lax.dot_general(v.reshape(-1, v.shape[-1]), d.reshape(-1, d.shape[-1]), (((0,), (0,)), ((), ())))
        for v, d in zip(inputs, outputs, strict=True)
    ]
    return _mixed(_GG.T, jnp.stack(products)).reshape(kernel.shape).astype(kernel.dtype)


def _convolved(
    x: Array, padding: Padding, rate: tuple[int, int], kernels: Float[Array, "16 c d"], size: tuple[int, int]
) -> Array:
    """A^T [products] A, the pixels put in place."""
    inputs = _transformed(_B_T, x, padding, rate, _num_tiles(size, rate))
    products = [tiles @ kernel for tiles, kernel in zip(inputs, kernels, strict=True)]
    rows = []
    for i in range(4):
        row = jnp.stack(_combined(_A_T, _stored(products[4 * i : 4 * i + 4])), axis=4)
        rows.append(row.reshape(*row.shape[:3], -1, row.shape[-1]))
    y = jnp.stack(_combined(_A_T, _stored(rows)), axis=2)
    return y.reshape(y.shape[0], -1, *y.shape[4:])[:, : size[0], : size[1]]


def _transformed(
    matrix: np.ndarray, x: Array, padding: Padding, rate: tuple[int, int], tiles: tuple[int, int]
) -> list[Float[Array, "b tile phase tile2 phase2 c"]]:
    """matrix @ (the pixels of a tile) @ matrix^T, for all tiles: 16 arrays, row by row."""
    rows = _stored(_combined(matrix, _pixels(x, 1, matrix.shape[1], padding[0][0], rate[0], tiles[0])))
    found: list[Array] = []
    for row in rows:
        found += _stored(_combined(matrix, _pixels(row, 3, matrix.shape[1], padding[1][0], rate[1], tiles[1])))
    return found


def _pixels(x: Array, axis: int, count: int, pad: int, rate: int, num_tiles: int) -> list[Array]:
    """The first, second, ... pixel along an axis of all tiles: that axis becomes [tile, phase].

    A tile covers two outputs, `rate` apart, of each of `rate` phases: a block of 2 x `rate` pixels. Two of its pixels
    are in its own block, the third and fourth in the next.
    """
    num_blocks = num_tiles + (count - 1) // 2
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (pad, num_blocks * 2 * rate - pad - x.shape[axis], 0)
    wide = x.astype(_float32_at_least(x.dtype))
    blocks = lax.pad(wide, jnp.zeros((), wide.dtype), edges)
    blocks = blocks.reshape(*x.shape[:axis], num_blocks, 2, rate, *x.shape[axis + 1 :])
    every = (slice(None),) * axis
    return [blocks[(*every, slice(i // 2, i // 2 + num_tiles), i % 2)] for i in range(count)]


def _num_tiles(size: tuple[int, int], rate: tuple[int, int]) -> tuple[int, int]:
    """Along each axis, for outputs of `size`."""
    height, width = (-(-each // (2 * step)) for each, step in zip(size, rate, strict=True))
    return height, width


def _kernel_tiles(kernel: Array) -> Float[Array, "16 c d"]:
    """G k G^T."""
    return _stored(_mixed(_GG, kernel.reshape(9, *kernel.shape[2:])))


def _mixed(matrix: np.ndarray, x: Array) -> Array:
    """The first axis of `x` multiplied by a constant matrix."""
    dtype = _float32_at_least(x.dtype)
    weights = jnp.asarray(matrix, dtype)
    return lax.dot_general(weights, x.astype(dtype), (((1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)


def _combined(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """matrix @ arrays, for entries of 0 and +-1."""

    def total(signs: np.ndarray) -> Array:
        terms = [array if sign > 0 else -array for sign, array in zip(signs, arrays, strict=True) if sign]
        return sum(terms[1:], start=terms[0])

    return [total(row) for row in matrix]


def _float32_at_least(dtype: DTypeLike) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _stored(x: Any) -> Any:
    """Written to memory: XLA would otherwise compute an array anew wherever it is read."""
    return lax.optimization_barrier(x)
