"""Sums of several arrays over the pixels of images in one loop, which XLA on CPU runs at memory bandwidth.

XLA compiles a sum to a loop inside the one over channels, and LLVM vectorises only innermost loops. It unrolls a loop
of few terms and then vectorises the channels, so eight rows are added at a time, then eight of these sums.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_UNROLLED = 8  # terms of a sum; LLVM does not unroll more
_FEW = 64  # sums of an image that do not need another loop


def pixel_sums(
    rows: Callable[[int, int], Sequence[Float[Array, "b rows w c"]]], num_rows: int
) -> Float[Array, "n b c"]:
    """Sums of n float32 arrays of `num_rows` rows, in one pass.

    `rows(low, high)` returns rows [low, high) of the arrays, as expressions to fuse into the loop that adds them. (XLA
    would write an expression of all rows to memory if two loops used parts of it.)
    """
    cut = num_rows // _UNROLLED * _UNROLLED
    blocks = [(0, cut, _UNROLLED), (cut, num_rows, num_rows - cut)]
    sums = [_block_sums(rows(low, high), height) for low, high, height in blocks if low < high]
    return functools.reduce(operator.add, sums)


def _block_sums(arrays: Sequence[Float[Array, "b h w c"]], height: int) -> Float[Array, "n b c"]:
    """Sums of blocks of `height` rows, added eight at a time."""
    batch, num_rows, width, channels = arrays[0].shape
    blocks = _joint_sums([each.reshape(batch, num_rows // height, height, width, channels) for each in arrays])
    sums, rests = [each.reshape(batch, -1, channels) for each in blocks], []
    while (count := sums[0].shape[1]) > _FEW:
        whole = count // _UNROLLED * _UNROLLED
        rests.append([each[:, whole:] for each in sums])
        eights = [each[:, :whole].reshape(batch, -1, _UNROLLED, 1, channels) for each in sums]
        sums = [each.reshape(batch, -1, channels) for each in _joint_sums(eights)]
    few = [jnp.concatenate(parts, axis=1) for parts in zip(sums, *rests, strict=True)]
    return jnp.stack(few).sum(axis=2)


def _joint_sums(arrays: Sequence[Float[Array, "b n terms w c"]]) -> Sequence[Float[Array, "b n w c"]]:
    zeros = [jnp.zeros((), jnp.float32)] * len(arrays)
    sums = lax.reduce(arrays, zeros, lambda left, right: [a + b for a, b in zip(left, right, strict=True)], (2,))
    return lax.optimization_barrier(sums)
