"""Decodes COCO's regions, polygons and run lengths, to masks (sec. 4.3 of the paper), as maskApi.c of its code does.

Coordinates are (x, y) in pixels with the image's corner at (0, 0). COCO's own code rounds corners to fifths of a pixel
and walks along the outline in steps of a fifth; so does this, and its masks are the same pixel by pixel.

Source: Lin et al. 2014 (arXiv:1405.0312); https://github.com/cocodataset/cocoapi
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Mask = Bool[np.ndarray, "h w"]
Polygon = Float[np.ndarray, "_n 2"]  # (x, y) of the corners, in order; regions have parts of several lengths
_STEPS = 5  # per pixel


def fill_polygons(polygons: Iterable[Polygon], size: tuple[int, int]) -> Mask:
    """The pixels inside any of the polygons, each filled by the even-odd rule.

    Args:
      polygons: the parts of one region.
      size: (height, width) of the image.
    """
    height, width = size
    mask = np.zeros(size, bool)
    for polygon in polygons:
        # Runs of inside and outside, down the columns, change at each crossing; the last would be at the end.
        flips = np.bincount(_crossings(polygon, size), minlength=height * width + 1)[: height * width]
        mask |= (np.cumsum(flips) % 2 == 1).reshape(width, height).T
    return mask


def _crossings(polygon: Polygon, size: tuple[int, int]) -> Int[np.ndarray, "crossings"]:
    """Where the outline crosses a pixel column: the index, down the columns, of the first pixel below it."""
    height, width = size
    u, v = _outline(np.trunc(_STEPS * polygon + 0.5).astype(np.int64))
    moved = np.flatnonzero(np.diff(u)) + 1
    x = (np.where(u[moved] < u[moved - 1], u[moved], u[moved] - 1) + 0.5) / _STEPS - 0.5
    y = np.ceil(np.clip((np.minimum(v[moved], v[moved - 1]) + 0.5) / _STEPS - 0.5, 0, height))
    at_center = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    return (x[at_center] * height + y[at_center]).astype(np.int64)


def _outline(corners: Int[np.ndarray, "n 2"]) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """(x, y) of all points of a grid of fifths along the closed outline, edge by edge, both corners included."""
    starts, ends = corners, np.roll(corners, -1, axis=0)
    spans = np.abs(ends - starts)
    is_flat = spans[:, 0] >= spans[:, 1]
    along = np.where(is_flat, 0, 1)[:, None]  # the axis in which an edge is longer
    first, last = np.take_along_axis(starts, along, 1)[:, 0], np.take_along_axis(ends, along, 1)[:, 0]
    other_first, other_last = (np.take_along_axis(each, 1 - along, 1)[:, 0] for each in (starts, ends))
    flipped = first > last  # points are computed from the lower end, so that both directions round alike
    low = np.where(flipped, last, first)
    other_low, other_high = np.where(flipped, other_last, other_first), np.where(flipped, other_first, other_last)
    length = np.abs(last - first)
    slope = (other_high - other_low) / np.maximum(length, 1)
    edge = np.repeat(np.arange(len(corners)), length + 1)
    step = np.arange(len(edge)) - (np.cumsum(length + 1) - length - 1)[edge]
    t = np.where(flipped[edge], length[edge] - step, step)
    main = low[edge] + t
    other = np.trunc(other_low[edge] + slope[edge] * t + 0.5).astype(np.int64)
    return np.where(is_flat[edge], main, other), np.where(is_flat[edge], other, main)


def decode_run_lengths(counts: Sequence[int] | str, size: tuple[int, int]) -> Mask:
    """The mask given by alternating runs of outside and inside pixels, column by column.

    Args:
      counts: the run lengths, or their compressed text.
      size: (height, width) of the mask.

    Raises:
      ValueError: when the runs do not add up to the mask's size.
    """
    height, width = size
    lengths = np.asarray(_decompress(counts) if isinstance(counts, str) else counts, np.int64)
    if lengths.size == 0 or lengths.min() < 0 or lengths.sum() != height * width:
        raise ValueError(f"run lengths of {lengths.sum()} pixels for a mask of {height}x{width}")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Decodes 5 bits per character, lowest first; from the fourth number on, differences to the last but one."""
    numbers: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        number |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:  # the last character of this number
            if bits & 0x10:  # the number is negative
                number -= 1 << shift
            numbers.append(number + numbers[-2] if len(numbers) > 2 else number)
            number = shift = 0
    return numbers


def paint(regions: Iterable[tuple[int, Mask]], size: tuple[int, int], *, ignore_label: int) -> UInt8[np.ndarray, "h w"]:
    """One label map of (class id, mask) pairs: 0 outside all masks, `ignore_label` where classes overlap."""
    label, taken = np.zeros(size, np.uint8), np.zeros(size, bool)
    for class_id, mask in regions:
        label[mask] = class_id
        label[mask & taken] = ignore_label
        taken |= mask
    return label
