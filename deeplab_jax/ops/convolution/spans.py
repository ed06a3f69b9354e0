"""The outputs that each kernel tap contributes to, so that products with padding are never computed.

A tap is one position of a kernel. Along each axis it serves a span of the outputs: those for which it reads inside the
image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from deeplab_jax.ops.convolution.geometry import Geometry, output_size, spatial_size


class Span(NamedTuple):
    """The outputs [low, high) of one axis that a tap serves, and the first input pixel it reads."""

    low: int
    high: int
    start: int

    @property
    def size(self) -> int:
        return self.high - self.low


Spans = Mapping[int, Span]  # by tap, for the taps of one axis that touch the image


class Stretch(NamedTuple):
    """Outputs [low, high) of one axis that are served by the same taps, and the first pixel each tap reads."""

    low: int
    high: int
    starts: Mapping[int, int]

    @property
    def size(self) -> int:
        return self.high - self.low

    def part(self, low: int, high: int, stride: int) -> Stretch:
        """The part with outputs [low, high), counted from its own first output."""
        starts = {tap: start + low * stride for tap, start in self.starts.items()}
        return Stretch(self.low + low, self.low + high, starts)


def span(offset: int, in_size: int, out_size: int, stride: int) -> Span:
    """The span of a tap that reads pixel `stride * o + offset` for output o."""
    low = max(0, math.ceil(-offset / stride))
    high = min(out_size, (in_size - 1 - offset) // stride + 1)
    return Span(low, max(high, low), low * stride + offset)


def touching(spans: Spans) -> Spans:
    return {tap: each for tap, each in spans.items() if each.size}


def forward_spans(x: Array, kernel: Array, geometry: Geometry) -> tuple[Spans, Spans]:
    """Spans of a kernel's rows and of its columns."""
    rows, columns = (
        touching({tap: span(tap * rate - low, size, count, stride) for tap in range(num_taps)})
        for size, count, num_taps, stride, (low, _), rate in zip(
            spatial_size(x), output_size(x, kernel, geometry), kernel.shape[:2], *geometry, strict=True
        )
    )
    return rows, columns


def stretches(spans: Spans, out_size: int, stride: int) -> list[Stretch]:
    """Cuts an axis wherever a tap's span begins or ends; at most 2n + 1 pieces for n taps."""
    cuts = sorted({0, out_size} | {edge for each in spans.values() for edge in (each.low, each.high)})
    return [
        Stretch(low, high, {tap: each.start + (low - each.low) * stride for tap, each in serving.items()})
        for low, high in itertools.pairwise(cuts)
        for serving in [{tap: each for tap, each in spans.items() if each.low <= low and high <= each.high}]
    ]


def has_fixed_size(x: Array) -> bool:
    """Whether height and width are numbers rather than symbols of an exported program."""
    return all(isinstance(axis, int) for axis in spatial_size(x))


def num_pixels(x: Array) -> float:
    """Pixels of an image; infinite for symbolic sizes."""
    return x.shape[1] * x.shape[2] if has_fixed_size(x) else math.inf


def share_inside(x: Array, kernel: Array, geometry: Geometry) -> float:
    """The share of a convolution's products that are with pixels, not padding; 0 for symbolic sizes."""
    if not has_fixed_size(x):
        return 0.0
    (height, width), (rows, columns) = output_size(x, kernel, geometry), forward_spans(x, kernel, geometry)
    inside = sum(each.size for each in rows.values()) * sum(each.size for each in columns.values())
    return inside / (height * width * kernel.shape[0] * kernel.shape[1])


def read(x: Array, start: tuple[int, int], size: tuple[int, int], strides: tuple[int, int]) -> Array:
    """The pixels that a tap reads for `size` outputs, from pixel `start` on."""
    stop = (first + (count - 1) * step + 1 for first, count, step in zip(start, size, strides, strict=True))
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, *strides, 1))


def stack_taps(gradients: Mapping[tuple[int, int], Array], kernel: Array) -> Array:
    """The kernel's gradient from its taps'; those that never touch the image get zero."""
    zero = jnp.zeros(kernel.shape[2:], kernel.dtype)
    positions = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))
    return jnp.stack([gradients.get(at, zero) for at in positions]).reshape(kernel.shape).astype(kernel.dtype)
