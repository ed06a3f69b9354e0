"""The permutohedral lattice built within a compiled program, in static shapes: for accelerators, and under `jit`.

Vertices are found by sorting one key per (point, vertex) entry. A key has 64 bits in two words, since JAX has no 64-bit
integers by default; two stable sorts by one word each order them, so that vendors' radix sorts, which take one key,
apply. Neighbours are found by binary search in the sorted keys.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from deeplab_jax.ops.crf.lattice_geometry import simplices
from deeplab_jax.ops.crf.permutohedral import SortedVertices

_NOWHERE = np.uint32(0xFFFFFFFF)  # in both words: an entry of a masked-out point; sorts after all others


class _Key(NamedTuple):
    """A 64-bit number in two words."""

    high: UInt32[Array, "..."]
    low: UInt32[Array, "..."]


def build_in_program(
    features: Float[Array, "d n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    capacity: int,
    touch_origin: Bool[Array, ""] | bool = False,
) -> SortedVertices:
    """The lattice around points, for `permutohedral.finish_lattice`.

    Args:
      features: the points, in units of the Gaussian's standard deviation.
      mask: False for points left out of the lattice.
      capacity: maximum number of vertices. If there are more, or if the points spread over more cells than a key can
        hold (12 bits per axis for d = 5), `fits` is False; there are never more than (d + 1) (n + 1).
      touch_origin: whether to add the vertices around the origin even if no point touches them.
    """
    num_dimensions, num_points = features.shape
    num_remainders = num_dimensions + 1
    entries = _sorted_entries(features, mask, touch_origin)
    entry = jnp.arange(entries.order.size)
    is_real = entry < entries.num_real
    num_vertices = entries.is_first.sum()
    vertex = jnp.where(is_real, jnp.minimum(jnp.cumsum(entries.is_first) - 1, capacity), capacity)
    start = jnp.full(capacity + 2, entries.num_real)
    start = start.at[jnp.where(entries.is_first, vertex, capacity + 2)].set(entry, mode="drop")
    start = start.at[capacity:].set(entries.num_real)  # the last vertex stays unused, even if there are too many
    begin, length = start[:-1], jnp.diff(start)
    vertex_keys = _Key(*(jnp.where(length > 0, word[begin], _NOWHERE) for word in entries.key))
    vertex_of_entry = jnp.zeros_like(entries.order).at[entries.order].set(vertex, unique_indices=True)
    return SortedVertices(
        jnp.minimum(entries.order % (num_points + 1), num_points - 1),
        entries.weight.ravel()[entries.order],
        begin,
        length,
        vertex_of_entry.reshape(num_remainders, num_points + 1)[:, :num_points].T,
        entries.weight[:, :num_points].T,
        _neighbours(vertex_keys, num_remainders),
        num_vertices,
        entries.in_range & (num_vertices <= capacity),
    )


def count_vertices(
    features: Float[Array, "d n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    touch_origin: Bool[Array, ""] | bool = False,
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The capacity that the lattice around points needs, and whether its keys can distinguish them."""
    entries = _sorted_entries(features, mask, touch_origin)
    return entries.is_first.sum(), entries.in_range


class _Entries(NamedTuple):
    """All pairs of a remainder and a point, and of a remainder and the origin, sorted by vertex: e = v (n + 1).

    Attributes:
      key: of the vertices; those of masked-out pairs come last.
      order: the pair of each, numbered remainder by remainder, the origin last.
      weight: of all pairs, unsorted; 0 for the origin and for masked-out points.
      is_first: True where the next vertex begins.
      num_real: number of pairs that are not masked out.
      in_range: whether keys can distinguish all vertices.
    """

    key: _Key
    order: Int[Array, " e"]
    weight: Float[Array, "v n1"]
    is_first: Bool[Array, " e"]
    num_real: Int[Array, ""]
    in_range: Bool[Array, ""]


def _sorted_entries(
    features: Float[Array, "d n"], mask: Bool[Array, " n"] | None, touch_origin: Bool[Array, ""] | bool
) -> _Entries:
    num_dimensions, num_points = features.shape
    num_remainders, bits = num_dimensions + 1, _bits(num_dimensions)
    takes_part, num_parts = _parts(num_points, mask, touch_origin)
    found = simplices(jnp.pad(features, ((0, 0), (0, 1))))
    fields, in_range = _fields(jnp.stack(found.cell[:-1]), takes_part, bits)
    remainder = jnp.arange(num_remainders, dtype=jnp.int32)[:, None]
    steps_down = jnp.stack(found.rank[:-1])[:, None] > num_dimensions - remainder[None]
    key = _pack(fields[:, None] - steps_down, remainder, bits)
    key = _Key(*(jnp.where(takes_part[None], word, _NOWHERE).ravel() for word in key))
    key, order = _sort(key)
    num_real = num_remainders * num_parts
    weight = jnp.stack(found.weight) * (takes_part & (lax.iota(jnp.int32, num_points + 1) < num_points))[None]
    return _Entries(key, order, weight, _is_first(key, num_real), num_real, in_range)


def _parts(
    num_points: int, mask: Bool[Array, " n"] | None, touch_origin: Bool[Array, ""] | bool
) -> tuple[Bool[Array, " n1"], Int[Array, ""]]:
    """Which of all points, followed by the origin, are in the lattice, and their number."""
    touch_origin = jnp.asarray(touch_origin)
    if mask is None:  # no sum over constants: the compiler would fold it, slowly
        place = lax.iota(jnp.int32, num_points + 1)
        return (place < num_points) | touch_origin, num_points + touch_origin.astype(jnp.int32)
    takes_part = jnp.append(mask, touch_origin)
    return takes_part, takes_part.sum()


def _is_first(key: _Key, num_entries: Int[Array, ""]) -> Bool[Array, " e"]:
    """Where the next vertex begins in sorted keys of which `num_entries` are real."""
    changes = (key.high[1:] != key.high[:-1]) | (key.low[1:] != key.low[:-1])
    return jnp.pad(changes, (1, 0), constant_values=True) & (jnp.arange(key.low.size) < num_entries)


def _bits(num_dimensions: int) -> int:
    """Bits of a key per axis: what the remainder leaves of 63, at most 28."""
    return min((63 - (num_dimensions + 1).bit_length()) // num_dimensions, 28)


def _fields(
    cells: Float[Array, "d n"], mask: Bool[Array, " n"], bits: int
) -> tuple[Int[Array, "d n"], Bool[Array, ""]]:
    """Cells as small integers with a margin on either side for neighbours, and whether they are small enough."""
    low = jnp.where(mask[None], cells, jnp.inf).min(axis=1, keepdims=True)
    fields = jnp.where(mask[None], cells - low + 2, 2)
    return jnp.clip(fields, 0, 2**bits - 1).astype(jnp.int32), fields.max() < 2**bits - 2


def _pack(fields: Int[Array, "d v n"], remainder: Int[Array, "v 1"], bits: int) -> _Key:
    """From the highest bits down: each axis's field, then the remainder."""
    num_remainders = remainder.size
    high, low = jnp.zeros(fields.shape[1:], jnp.uint32), jnp.zeros(fields.shape[1:], jnp.uint32)
    widths = [bits] * len(fields) + [num_remainders.bit_length()]
    for field, width in zip([*fields, remainder], widths, strict=True):
        high = (high << width) | (low >> (32 - width))
        low = (low << width) | field.astype(jnp.uint32)
    return _Key(high, low)


def _sort(key: _Key) -> tuple[_Key, Int[Array, " e"]]:
    """Keys in ascending order and their original positions; the sort is stable."""
    _, order = lax.sort((key.low, lax.iota(jnp.int32, key.low.size)), num_keys=1, is_stable=True)
    high, order = lax.sort((key.high[order], order), num_keys=1, is_stable=True)
    return _Key(high, key.low[order]), order


def _neighbours(keys: _Key, num_remainders: int) -> tuple[Int[Array, "r 2"], ...]:
    """Each vertex's neighbours along each axis; the last vertex if there is none, and in unused rows."""
    num_dimensions, nobody = num_remainders - 1, keys.low.size - 1
    bits, remainder_bits = _bits(num_dimensions), num_remainders.bit_length()
    one = [1 << (remainder_bits + bits * (num_dimensions - 1 - axis)) for axis in range(num_dimensions)]
    # A step along an axis changes its own coordinate by d, all others by -1. In cells and remainders: the remainder
    # decreases by one and the axis's cell increases by one; from remainder 0, to d, and all other cells decrease.
    at_zero = (keys.low & np.uint32(2**remainder_bits - 1)) == 0
    exists = ~_equal(keys, _Key(jnp.asarray(_NOWHERE), jnp.asarray(_NOWHERE)))
    own_axis = np.array([*one, 0], object)
    usual, wrapped = _constant(own_axis - 1), _constant(own_axis - sum(one) + num_dimensions)
    step = _Key(*(jnp.where(at_zero[None], w, u) for w, u in zip(wrapped, usual, strict=True)))
    place, found = _search(keys, _add(_Key(keys.high[None], keys.low[None]), step))
    found &= exists[None]
    before = jnp.where(found, place, nobody)
    own = lax.iota(place.dtype, keys.low.size)
    behind = jax.vmap(lambda target: jnp.full_like(target, nobody).at[target].set(own, mode="drop"))(
        jnp.where(found, place, keys.low.size)
    )
    return tuple(jnp.stack([before, behind], axis=-1))


def _search(keys: _Key, wanted: _Key) -> tuple[Int[Array, "v r"], Bool[Array, "v r"]]:
    """For each wanted key, the last position whose key is not above it (or the first), and whether the key is there."""
    num_keys = keys.low.size
    steps = num_keys.bit_length()

    def at(place: Array) -> _Key:
        return _Key(keys.high[place], keys.low[place])

    def halve(step: Array, place: Array) -> Array:
        further = place + (jnp.asarray(1 << steps, place.dtype) >> (step + 1))
        high, low = at(jnp.minimum(further, num_keys - 1))
        not_above = (high < wanted.high) | ((high == wanted.high) & (low <= wanted.low))
        return jnp.where((further < num_keys) & not_above, further, place)

    place = lax.fori_loop(0, steps, halve, jnp.zeros(wanted.low.shape, jnp.int32))
    return place, _equal(at(place), wanted)


def _add(a: _Key, b: _Key) -> _Key:
    low = a.low + b.low
    return _Key(a.high + b.high + (low < a.low).astype(jnp.uint32), low)


def _constant(numbers: np.ndarray) -> _Key:
    """One integer per row, modulo 2^64."""
    words = [[number >> 32 & 0xFFFFFFFF, number & 0xFFFFFFFF] for number in numbers.tolist()]
    high, low = np.array(words, np.uint32).T
    return _Key(jnp.asarray(high)[:, None], jnp.asarray(low)[:, None])


def _equal(a: _Key, b: _Key) -> Bool[Array, "..."]:
    return (a.high == b.high) & (a.low == b.low)
