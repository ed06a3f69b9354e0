"""Decodes COCO's regions, polygons and run lengths, to masks (sec. 4.3 of the paper, maskApi of its code).

Coordinates are (x, y) in pixels with the image's corner at (0, 0); a pixel belongs to a polygon if its centre does.
COCO's own code rounds the corners, so it may differ for centres within a fifth of a pixel of an edge.

Source: Lin et al. 2014 (arXiv:1405.0312); https://github.com/cocodataset/cocoapi
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

Mask = Bool[np.ndarray, "h w"]
Polygon = Float[np.ndarray, "n 2"]  # (x, y) of the corners, in order


def fill_polygons(polygons: Iterable[Polygon], size: tuple[int, int]) -> Mask:
    """The pixels whose centre lies inside any of the polygons, each filled by the even-odd rule.

    Args:
      polygons: the parts of one region.
      size: (height, width) of the image.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        rows, columns = _crossings(polygon, size)
        if not rows.size:
            continue
        left, right = columns.min(), columns.max() + 1
        top, bottom = rows.min(), rows.max()
        shape = (bottom - top + 1, right - left)
        flips = np.bincount((rows - top) * shape[1] + columns - left, minlength=shape[0] * shape[1]).reshape(shape)
        mask[top:bottom, left:right] |= np.cumsum(flips[:-1], axis=0) % 2 == 1
    return mask


def _crossings(polygon: Polygon, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the outline crosses the centre line of a pixel column: (first row with its centre below, column)."""
    height, width = size
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(x0, x1) - 0.5), 0, width).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(x0, x1) - 0.5), 0, width).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(polygon)), counts)
    columns = first[edge] + np.arange(len(edge)) - (np.cumsum(counts) - counts)[edge]
    y = y0[edge] + (columns + 0.5 - x0[edge]) * (y1 - y0)[edge] / (x1 - x0)[edge]
    return np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64), columns


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
