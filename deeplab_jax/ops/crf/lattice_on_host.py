"""The permutohedral lattice built in NumPy: faster than the compiled builder on CPU, and exact in its capacity.

Most of the work is one sort of 64-bit words that hold a vertex and a point each, for which NumPy uses the processor's
vector instructions.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from deeplab_jax.ops.crf.fan_in import Sizes, level_counts, safe_sizes, typical_sizes
from deeplab_jax.ops.crf.lattice_geometry import Simplices, axis_at_rank, simplices
from deeplab_jax.ops.crf.permutohedral import SortedVertices

_WORD_BITS = 63


def build_on_host(
    features: Float[np.ndarray, "d n"], num_points: int | None = None, *, touch_origin: bool = False
) -> tuple[SortedVertices, Sizes]:
    """The lattice around points, and sizes of tables that hold it.

    Args:
      features: the points, in units of the Gaussian's standard deviation.
      num_points: number of rows of values that the filter takes, if larger than the number of points; additional rows
        are left out of the lattice. Rounding it with `round_up` saves compilations.
      touch_origin: whether to add the vertices around the origin even if no point touches them.

    Returns:
      (vertices, sizes): for `finish_lattice`. Sizes are rounded up, so that similar images share a program.

    Raises:
      ValueError: if the points spread over more cells than a 64-bit word can distinguish.
    """
    num_real = features.shape[1]
    num_points = num_points or num_real
    found = simplices(np.pad(features, ((0, 0), (0, 1))) if touch_origin else features)
    num_remainders = len(found.weight)
    words, digits, point_bits = _words(found)
    words = words.ravel()
    words.sort()
    point = (words & ((1 << point_bits) - 1)).astype(np.int32)
    code = words >> point_bits
    is_first = np.empty(code.size, bool)
    is_first[0] = True
    np.not_equal(code[1:], code[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    codes, lengths = code[first], np.diff(first, append=code.size)
    sizes = _sizes(lengths, num_remainders * (num_points + 1), num_points + 1)

    visits = _in_order_of_visit(point[first])
    number = np.empty_like(visits)
    number[visits] = np.arange(visits.size)
    num_rows = num_points + touch_origin  # the origin's row, with weight 0, is the last
    weight = np.zeros((num_rows, num_remainders), np.float32)
    np.stack([remainder[:num_real] for remainder in found.weight], axis=1, out=weight[:num_real])
    vertex = np.full((num_rows, num_remainders), sizes.runs, np.int32)
    entry = point * num_remainders + np.repeat((codes % num_remainders).astype(np.int32), lengths)
    vertex.ravel()[entry] = np.repeat(number.astype(np.int32), lengths)
    padding = sizes.runs + 1 - codes.size
    return (
        SortedVertices(
            np.minimum(point, num_points - 1),
            weight.ravel()[entry],
            np.pad(first[visits], (0, padding)).astype(np.int32),
            np.pad(lengths[visits], (0, padding)).astype(np.int32),
            vertex[:num_points],
            weight[:num_points],
            _neighbours(codes, digits, num_remainders, number, sizes.runs),
            np.asarray(codes.size, np.int32),
            np.asarray(True),
        ),
        sizes,
    )


def _in_order_of_visit(first_point: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
    """Vertices in the order in which the points first touch them: neighbours in the image are close in memory."""
    words = (first_point.astype(np.int64) << 32) | np.arange(first_point.size)
    words.sort()
    return words & 0xFFFFFFFF


def round_up(size: int, steps: int) -> int:
    """Rounds up to a grid of `steps` steps between powers of two: few distinct sizes, little waste."""
    unit = max(1, 2 ** max(size - 1, 1).bit_length() // (2 * steps))
    return -(-size // unit) * unit


def _words(found: Simplices) -> tuple[Int[np.ndarray, "v n"], Int[np.ndarray, " d"], int]:
    """A word per remainder and point: the vertex in the high bits, the point in the low ones.

    A vertex is encoded in mixed radix: the cells of all axes but the last, which follows from them, with the remainder
    as the last digit. Also returns the increment of a step of each axis's cell, and the number of the point's bits.
    """
    cells = [axis.astype(np.int64) for axis in found.cell[:-1]]
    num_remainders, num_points = len(found.cell), cells[0].size
    low = [int(axis.min()) - 2 for axis in cells]  # margin: one step down within a simplex, one to a neighbour
    spans = [int(axis.max()) + 2 - bottom for axis, bottom in zip(cells, low, strict=True)]
    point_bits = num_points.bit_length()
    if num_remainders * math.prod(spans) >= 1 << (_WORD_BITS - point_bits):
        raise ValueError(
            f"the points spread over {' x '.join(map(str, spans))} cells, more than a 64-bit key holds: use larger "
            "standard deviations"
        )
    digits = np.cumprod([num_remainders, *spans[:0:-1]])[::-1]
    code = sum((axis - bottom) * digit for axis, bottom, digit in zip(cells, low, digits, strict=True))
    digit_of_axis = np.append(digits, 0)
    axes = axis_at_rank(found.rank)
    words = np.empty((num_remainders, num_points), np.int64)
    points = np.arange(num_points)
    for remainder in range(num_remainders):
        if remainder:  # to the next vertex: the axis of the next lower rank steps down
            code = code - digit_of_axis[axes[num_remainders - remainder]] + 1
        words[remainder] = (code << point_bits) | points
    return words, digits, point_bits


def _neighbours(
    codes: np.ndarray, digits: np.ndarray, num_remainders: int, number: np.ndarray, runs: int
) -> tuple[Int[np.ndarray, "r 2"], ...]:
    """The indices of each vertex's neighbours along each axis; `runs` if there is none."""
    # A step along an axis changes its own coordinate by d, all others by -1. In cells and remainders: the remainder
    # decreases by one and the axis's cell increases by one; from remainder 0, to d, and all other cells decrease.
    down = np.where(codes % num_remainders > 0, codes - 1, codes - digits.sum() + num_remainders - 1)
    neighbours = []
    for axis in range(num_remainders):
        wanted = down + (digits[axis] if axis < len(digits) else 0)
        place = np.searchsorted(codes, wanted)
        place[place == codes.size] = 0
        has_one = np.flatnonzero(codes[place] == wanted)
        pair = np.full((runs + 1, 2), runs, np.int32)
        own, other = number[has_one], number[place[has_one]]
        pair[own, 0] = other
        pair[other, 1] = own
        neighbours.append(pair)
    return tuple(neighbours)


def _sizes(lengths: np.ndarray, num_entries: int, longest_run: int) -> Sizes:
    runs = min(round_up(lengths.size, 4), num_entries)
    typical = typical_sizes(num_entries, longest_run, runs)
    counts = level_counts(lengths, len(typical.levels))
    if all(count.sum() <= capacity for count, capacity in zip(counts, typical.levels, strict=True)):
        return typical
    return safe_sizes(num_entries, longest_run, runs)
