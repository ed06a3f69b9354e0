"""Depthwise atrous convolution as sums over kernel taps, in loops that XLA on CPU runs at memory bandwidth.

The map is cut into regions whose outputs use the same taps: the middle uses all of them, the edges fewer. Each region
is a sum of shifted views, and together they are one loop that writes every output once. Nothing is padded: padding in
memory would cost as much as the convolution, and products with padding dominate at rates near the map's size.

The kernel gradient is one pass for all taps (ops/convolution/pixel_sums.py).
"""

from __future__ import annotations

import collections
import functools
import itertools
import operator
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops.convolution.geometry import Geometry, output_size, spatial_size
from deeplab_jax.ops.convolution.pixel_sums import pixel_sums
from deeplab_jax.ops.convolution.spans import (
    Spans,
    Stretch,
    forward_spans,
    has_fixed_size,
    read,
    span,
    stack_taps,
    stretches,
    touching,
)
from deeplab_jax.ops.convolution.tap_windows import depthwise_windows


def depthwise_regions(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], geometry: Geometry
) -> Float[Array, "b h2 w2 c"]:
    """As `convolution.lax_depthwise`."""
    if not has_fixed_size(x):
        return depthwise_windows(x, kernel, geometry)
    rows, columns = forward_spans(x, kernel, geometry)
    size = output_size(x, kernel, geometry)
    return _by_regions(lax.optimization_barrier(x), kernel, (rows, columns), size, geometry.strides)


def depthwise_input_regions(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
) -> Float[Array, "b h w c"]:
    """As `convolution.lax_depthwise_input`.

    Pixel `stride * q + phase` is read only by the taps that hit this phase, so each phase is a convolution of dy with
    stride 1.
    """
    size, strides = spatial_size(x), geometry.strides
    num_cells = (-(-size[0] // strides[0]), -(-size[1] // strides[1]))
    row_phases, column_phases = (
        [
            touching(
                {
                    tap: span((phase + low - tap * rate) // stride, count, cells, 1)
                    for tap in range(num_taps)
                    if (phase + low - tap * rate) % stride == 0
                }
            )
            for phase in range(stride)
        ]
        for cells, count, num_taps, stride, (low, _), rate in zip(
            num_cells, spatial_size(dy), kernel.shape[:2], *geometry, strict=True
        )
    )
    dy = lax.optimization_barrier(dy)
    phases = [
        [_by_regions(dy, kernel, (rows, columns), num_cells, (1, 1)) for columns in column_phases]
        for rows in row_phases
    ]
    interleaved = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    shape = (x.shape[0], num_cells[0] * strides[0], num_cells[1] * strides[1], x.shape[3])
    return interleaved.reshape(shape)[:, : size[0], : size[1]]


def depthwise_kernel_taps(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
) -> Float[Array, "kh kw 1 c"]:
    """As `convolution.lax_depthwise_kernel`, with one reduction per tap."""
    rows, columns = forward_spans(x, kernel, geometry)
    gradients = {}
    for i, j in itertools.product(rows, columns):
        start, size = (rows[i].start, columns[j].start), (rows[i].size, columns[j].size)
        served = dy[:, rows[i].low : rows[i].high, columns[j].low : columns[j].high]
        gradients[i, j] = jnp.sum(read(x, start, size, geometry.strides) * served, axis=(0, 1, 2))[None]
    return stack_taps(gradients, kernel)


def depthwise_kernel_joint(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    dy: Float[Array, "b h2 w2 c"],
    geometry: Geometry,
) -> Float[Array, "kh kw 1 c"]:
    """As `convolution.lax_depthwise_kernel`, in one pass for all taps; sums are float32."""
    x, dy = lax.optimization_barrier((x, dy))
    rows, columns = forward_spans(x, kernel, geometry)
    row_stretches, column_stretches = (
        stretches(spans, count, stride)
        for spans, count, stride in zip((rows, columns), spatial_size(dy), geometry.strides, strict=True)
    )
    sums: dict[tuple[int, int], list[Array]] = collections.defaultdict(list)
    for stretch in row_stretches:
        positions = list(itertools.product(stretch.starts, columns))
        if not positions:
            continue

        def products(
            low: int, high: int, stretch: Stretch = stretch, positions: list[tuple[int, int]] = positions
        ) -> list[Array]:
            block = stretch.part(low, high, geometry.strides[0])
            return [_products(x, dy, block, column_stretches, at, geometry.strides) for at in positions]

        for at, total in zip(positions, pixel_sums(products, stretch.size).sum(axis=1), strict=True):
            sums[at].append(total)
    return stack_taps({at: _total(parts)[None] for at, parts in sums.items()}, kernel)


def _products(
    x: Array,
    dy: Array,
    rows: Stretch,
    columns: Sequence[Stretch],
    position: tuple[int, int],
    strides: tuple[int, int],
) -> Float[Array, "b rows w c"]:
    """Products of one tap, with zeros where its columns are outside the image."""
    parts = []
    for each in columns:
        served = dy[:, rows.low : rows.high, each.low : each.high].astype(jnp.float32)
        if position[1] in each.starts:
            start = (rows.starts[position[0]], each.starts[position[1]])
            parts.append(read(x, start, (rows.size, each.size), strides).astype(jnp.float32) * served)
        else:
            parts.append(jnp.zeros_like(served))
    return jnp.concatenate(parts, axis=2)


def _by_regions(
    x: Array, kernel: Array, spans: tuple[Spans, Spans], size: tuple[int, int], strides: tuple[int, int]
) -> Array:
    """The sum over all taps, for outputs of `size`, computed per region over the taps that serve it."""
    rows, columns = (stretches(*each) for each in zip(spans, size, strides, strict=True))
    parts = [[_region(x, kernel, across, along, strides) for along in columns] for across in rows]
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in parts], axis=1)


def _region(x: Array, kernel: Array, rows: Stretch, columns: Stretch, strides: tuple[int, int]) -> Array:
    size = (rows.size, columns.size)
    if not (rows.starts and columns.starts):
        return jnp.zeros((x.shape[0], *size, x.shape[3]), x.dtype)
    return _total(
        [
            read(x, (top, left), size, strides) * kernel[i, j][None, None]
            for (i, top), (j, left) in itertools.product(rows.starts.items(), columns.starts.items())
        ]
    )


def _total(parts: Sequence[Array]) -> Array:
    return functools.reduce(operator.add, parts)
