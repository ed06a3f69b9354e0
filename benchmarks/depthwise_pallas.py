"""Depthwise atrous convolution as one GPU kernel per direction, in Pallas for Triton.

    y[o]  = sum_t x[stride o + rate t - pad] k[t]
    dx[p] = sum_t dy[(p + pad - rate t) / stride] k[t]      where that is a pixel of dy
    dk[t] = sum_o x[stride o + rate t - pad] dy[o]

XLA passes the first to cuDNN; at stride 2 it computes the second on a copy of dy expanded with zeros; the third, for a
dilated kernel, becomes a convolution whose window is the whole map, or five passes over both arrays. Here every array
passes through memory once. A program handles a tile of pixels by channels of one image, and what several taps read
comes from the caches. Taps outside the image are masked, nothing is padded. Sums are float32, rounded once, in a fixed
order: no atomics.

Batches split over devices stay split; split images are gathered first. On anything but CUDA the kernels run, slowly,
with `interpret=True`. They join the package once they have been timed on a GPU against its implementations: the
possible gain is in benchmarks/results/convolutions_h100.json.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from deeplab_jax.ops.convolution.geometry import Geometry, output_size, spatial_size
from deeplab_jax.ops.convolution.implementations import IMPLEMENTATIONS, Implementation

_MAX_CHANNELS = 64  # of a tile: 128 bytes in bfloat16, one memory transaction of a GPU
_PIXELS = 32  # of a tile
_TILES = 8  # summed by a program of the kernel gradient; partial sums are then 7 % of the bytes that it reads

# How many pixels of an image a tap finds elsewhere: their numbers, and which of them exist.
_Found = tuple[Int[Array, "pixels"], Bool[Array, "pixels"]]


class _Sizes(NamedTuple):
    """What a kernel needs to know of the convolution, per axis, in addition to its arrays."""

    in_size: tuple[int, int]
    out_size: tuple[int, int]
    taps: tuple[int, int]
    geometry: Geometry


def depthwise_pallas(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    geometry: Geometry,
    *,
    interpret: bool = False,
) -> Float[Array, "b h2 w2 c"]:
    """As `convolution.lax_depthwise`."""
    sizes = _sizes(x, kernel, geometry)
    call = functools.partial(
        _add_taps, sizes=sizes, size=sizes.out_size, find_source=_input_of_output, interpret=interpret
    )
    return _for_each_batch(call, "b h w c, i j o c -> b p q c")(x, kernel)


def depthwise_input_pallas(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
    *,
    interpret: bool = False,
) -> Float[Array, "b h w c"]:
    """As `convolution.lax_depthwise_input`."""
    sizes = _sizes(x, kernel, geometry)
    call = functools.partial(
        _add_taps, sizes=sizes, size=sizes.in_size, find_source=_output_of_input, interpret=interpret
    )
    return _for_each_batch(call, "b p q c, i j o c -> b h w c")(dy, kernel)


def depthwise_kernel_pallas(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
    *,
    interpret: bool = False,
) -> Float[Array, "kh kw 1 c"]:
    """As `convolution.lax_depthwise_kernel`."""
    call = functools.partial(_sum_products, sizes=_sizes(x, kernel, geometry), interpret=interpret)
    sums = _for_each_batch(call, "b h w c, b p q c -> b s t c")(x, dy)
    return jnp.sum(sums, axis=(0, 1)).reshape(kernel.shape).astype(kernel.dtype)


def _sizes(x: Array, kernel: Array, geometry: Geometry) -> _Sizes:
    return _Sizes(spatial_size(x), output_size(x, kernel, geometry), (kernel.shape[0], kernel.shape[1]), geometry)


def _for_each_batch(call: Callable[..., Array], rule: str) -> Callable[..., Array]:
    """Tells XLA, to which the kernel is opaque, that each device of a mesh may run it on its own images.

    Args:
      call: a function of two arrays, the first of them a batch; returns a batch.
      rule: the axes of both and of the result. Only 'b' may be split over devices.
    """
    not_shared = dict.fromkeys(axis for axis in re.findall(r"\w", rule) if axis != "b")
    is_batch = [axes.strip().startswith("b") for axes in rule.split("->")[0].split(",")]

    def call_on_part(first: Array, second: Array) -> Array:
        return call(first, second)

    def partition(mesh: Mesh, operands: Any, result: Any) -> tuple[Mesh, Callable[..., Array], Any, Any]:
        # The rule does not make XLA gather axes that arrive split, such as the height of large images.
        images = NamedSharding(mesh, PartitionSpec(*operands[0].sharding.spec[:1]))
        whole = NamedSharding(mesh, PartitionSpec())
        return mesh, call_on_part, images, tuple(images if batch else whole for batch in is_batch)

    partitioned: Any = custom_partitioning(call_on_part)
    partitioned.def_partition(partition, sharding_rule=rule, need_replication_factors=tuple(not_shared))
    return partitioned


def _add_taps(
    source: Float[Array, "b n m c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    sizes: _Sizes,
    size: tuple[int, int],
    find_source: Callable[..., _Found],
    interpret: bool,
) -> Float[Array, "b h w c"]:
    """The sum over all taps of the value each finds in `source` times its weight; for images of `size`."""
    batch, channels = source.shape[0], source.shape[-1]
    num_taps, num_pixels, block = math.prod(sizes.taps), math.prod(size), _block(channels)

    def add_tile(source_ref: Any, kernel_ref: Any, y_ref: Any) -> None:
        numbers = pl.program_id(1) * _PIXELS + jnp.arange(_PIXELS)
        valid = _valid_channels(channels)
        total = jnp.zeros((_PIXELS, block), jnp.float32)
        for tap, position in enumerate(_positions(sizes)):
            weights = triton.load(kernel_ref.at[pl.ds(tap, 1)], mask=valid, other=0.0).astype(jnp.float32)
            total += _load(source_ref, find_source(numbers, position, sizes), valid) * weights
        triton.store(y_ref, total.astype(y_ref.dtype), mask=(numbers < num_pixels)[:, None] & valid)

    y = pl.pallas_call(
        add_tile,
        out_shape=jax.ShapeDtypeStruct((batch, num_pixels, channels), source.dtype),
        grid=(pl.cdiv(channels, block), pl.cdiv(num_pixels, _PIXELS), batch),
        in_specs=[
            _image_of(source),
            pl.BlockSpec((num_taps, block), lambda channel, tile, image: (0, channel)),
        ],
        out_specs=pl.BlockSpec((None, _PIXELS, block), lambda channel, tile, image: (image, tile, channel)),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="depthwise_taps",
    )(_flat(source), kernel.reshape(num_taps, channels))
    return y.reshape(batch, *size, channels)


def _sum_products(
    x: Float[Array, "b h w c"], dy: Float[Array, "b h2 w2 c"], *, sizes: _Sizes, interpret: bool
) -> Float[Array, "b s t c"]:
    """The gradient of each tap's weights, as one partial sum per part of each image."""
    batch, channels = x.shape[0], x.shape[-1]
    num_taps, num_pixels, block = math.prod(sizes.taps), math.prod(sizes.out_size), _block(channels)
    num_shares = pl.cdiv(num_pixels, _PIXELS * _TILES)
    num_tiles = pl.cdiv(num_pixels, _PIXELS * num_shares)

    def sum_share(x_ref: Any, dy_ref: Any, sums_ref: Any) -> None:
        first_tile = pl.program_id(1) * num_tiles
        valid = _valid_channels(channels)

        def add_tile(tile: Int[Array, ""], totals: tuple[Array, ...]) -> tuple[Array, ...]:
            numbers = (first_tile + tile) * _PIXELS + jnp.arange(_PIXELS)
            gradient = _load(dy_ref, (numbers, numbers < num_pixels), valid)
            return tuple(
                total + _load(x_ref, _input_of_output(numbers, position, sizes), valid) * gradient
                for total, position in zip(totals, _positions(sizes), strict=True)
            )

        # Sum over pixels last: that exchanges data between threads.
        totals = lax.fori_loop(0, num_tiles, add_tile, (jnp.zeros((_PIXELS, block), jnp.float32),) * num_taps)
        for tap, total in enumerate(totals):
            triton.store(sums_ref.at[pl.ds(tap, 1)], jnp.sum(total, axis=0)[None], mask=valid)

    return pl.pallas_call(
        sum_share,
        out_shape=jax.ShapeDtypeStruct((batch, num_shares, num_taps, channels), jnp.float32),
        grid=(pl.cdiv(channels, block), num_shares, batch),
        in_specs=[_image_of(x), _image_of(dy)],
        out_specs=pl.BlockSpec((None, None, num_taps, block), lambda channel, share, image: (image, share, 0, channel)),
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=1),
        interpret=interpret,
        name="depthwise_kernel_gradient",
    )(_flat(x), _flat(dy))


def _positions(sizes: _Sizes) -> list[tuple[int, int]]:
    return list(itertools.product(range(sizes.taps[0]), range(sizes.taps[1])))


def _input_of_output(numbers: Array, position: tuple[int, int], sizes: _Sizes) -> _Found:
    """The pixels of x that the tap at `position` multiplies for these pixels of y."""
    found, valid = [], numbers < math.prod(sizes.out_size)
    for cell, tap, stride, (low, _), rate, size in zip(
        _cells(numbers, sizes.out_size), position, *sizes.geometry, sizes.in_size, strict=True
    ):
        found.append(cell * stride + (tap * rate - low))
        valid &= (found[-1] >= 0) & (found[-1] < size)
    return found[0] * sizes.in_size[1] + found[1], valid


def _output_of_input(numbers: Array, position: tuple[int, int], sizes: _Sizes) -> _Found:
    """The pixels of y for which the tap at `position` multiplies these pixels of x."""
    found, valid = [], numbers < math.prod(sizes.in_size)
    for cell, tap, stride, (low, _), rate, size in zip(
        _cells(numbers, sizes.in_size), position, *sizes.geometry, sizes.out_size, strict=True
    ):
        steps = cell + (low - tap * rate)
        found.append(_divide(steps, stride))
        valid &= (steps >= 0) & (found[-1] < size) & (found[-1] * stride == steps)
    return found[0] * sizes.out_size[1] + found[1], valid


def _cells(numbers: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns of the pixels of an image."""
    rows = _divide(numbers, size[1])
    return rows, numbers - rows * size[1]


def _divide(numbers: Array, divisor: int) -> Array:
    """Division rounding towards zero, which is one operation; Python's floor division takes five."""
    return lax.div(numbers, jnp.full_like(numbers, divisor))


def _load(image_ref: Any, found: _Found, valid_channels: Bool[Array, "1 c"]) -> Float[Array, "pixels c"]:
    """A tile in float32; zero where there is no pixel."""
    numbers, valid = found
    mask = valid[:, None] & valid_channels
    rows = jnp.broadcast_to(jnp.where(valid, numbers, 0)[:, None], mask.shape)
    columns = lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    return triton.load(image_ref.at[rows, columns], mask=mask, other=0.0).astype(jnp.float32)


def _block(channels: int) -> int:
    """Channels of a tile: a power of two, as Triton requires."""
    return min(_MAX_CHANNELS, pl.next_power_of_2(channels))


def _valid_channels(channels: int) -> Bool[Array, "1 c"]:
    block = _block(channels)
    return (pl.program_id(0) * block + jnp.arange(block) < channels)[None]


def _flat(x: Float[Array, "b h w c"]) -> Float[Array, "b n c"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _image_of(x: Float[Array, "b h w c"]) -> pl.BlockSpec:
    """All pixels of a program's image, and the channels of its tile."""
    return pl.BlockSpec(
        (None, x.shape[1] * x.shape[2], _block(x.shape[-1])), lambda channel, tile, image: (image, 0, channel)
    )


_KERNELS = {
    "depthwise": depthwise_pallas,
    "depthwise_input": depthwise_input_pallas,
    "depthwise_kernel": depthwise_kernel_pallas,
}


def with_pallas(operation: str) -> Mapping[str, Implementation]:
    """The package's implementations of an operation, and these kernels if they implement it."""
    own = {"pallas": _KERNELS[operation]} if operation in _KERNELS else {}
    return {**IMPLEMENTATIONS[operation], **own}
