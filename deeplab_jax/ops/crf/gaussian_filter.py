"""Exact Gaussian filtering: over every pair of points, in blocks; on a grid of pixels, one axis after the other.

    out[i] = sum_j exp(-|f_i - f_j|^2 / 2) values[j]

The reference for the permutohedral lattice, also differentiable with respect to the points and so to the kernel widths.
The general form costs n^2 exponentials: for small images, or for a fast accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Filter = Callable[[Float[Array, "n c"]], Float[Array, "n c"]]

_BLOCK = 2**25  # pairs at a time: 128 MiB of kernel values unless they are fused away


def filter_exactly(
    features: Float[Array, "d n"], values: Float[Array, "n c"], *, block: int = _BLOCK
) -> Float[Array, "n c"]:
    """The sum over all pairs, about `block` of them at a time; the gradient is computed in blocks as well.

    Args:
      features: the points, in units of the Gaussian's standard deviation.
      values: the summands; zero for points to be left out.
      block: number of pairs whose kernel values exist at a time.
    """
    num_points = features.shape[1]
    num_blocks = min(-(-(num_points**2) // block), num_points)
    size = -(-num_points // num_blocks)
    padded = jnp.pad(features, ((0, 0), (0, num_blocks * size - num_points)))
    blocks = padded.reshape(features.shape[0], num_blocks, size).swapaxes(0, 1)

    @jax.checkpoint
    def one_block(points: Float[Array, "d m"]) -> Float[Array, "m c"]:
        squared = sum((a[:, None] - b[None]) ** 2 for a, b in zip(points, features, strict=True))
        return jnp.exp(-0.5 * squared) @ values

    return lax.map(one_block, blocks).reshape(num_blocks * size, -1)[:num_points]


def filter_positions(values: Float[Array, "h w c"], std: Any) -> Float[Array, "h w c"]:
    """The exact filter over pixel positions: a matrix for rows and one for columns, `std` in pixels."""
    rows, columns = (_gaussian_matrix(size, std) for size in values.shape[:2])
    return jnp.einsum("Hh,hwc,Ww->HWc", rows, values, columns)


def normalized(gaussian: Filter, num_points: int, mask: Bool[Array, " n"] | None, normalization: str) -> Filter:
    """`gaussian` restricted to points where the mask is True, divided by its response to ones.

    Normalizations as in `permutohedral.normalize`, but differentiable.
    """
    inside = jnp.ones((num_points, 1)) if mask is None else mask[:, None].astype(jnp.float32)
    response = jnp.where(inside > 0, gaussian(inside), 1.0)
    before, after = {
        "symmetric": (lax.rsqrt(response), lax.rsqrt(response)),
        "after": (jnp.ones_like(response), 1 / response),
    }[normalization]
    return lambda values: inside * after * gaussian(inside * before * values)


def _gaussian_matrix(size: int, std: Any) -> Float[Array, "n n"]:
    position = jnp.arange(size, dtype=jnp.float32) / std
    return jnp.exp(-0.5 * (position[:, None] - position[None]) ** 2)
