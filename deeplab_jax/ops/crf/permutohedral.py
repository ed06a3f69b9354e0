"""Gaussian filtering of values at scattered points on the permutohedral lattice (Adams, Baek and Davis 2010).

    out[i] = sum_j exp(-|f_i - f_j|^2 / 2) values[j]        approximately, up to a factor; n points in R^d: O(n d^2)

Values are splatted onto the vertices of the simplices around their points, blurred along each of the d + 1 axes by (1,
2, 1) / 2, and sliced back. Vertices exist only where some point touches them, and a missing neighbour counts as zero:
because of that and the blur, the result is close to the Gaussian sum but not equal to it.

Two builders make the same `Lattice`: `lattice_in_program` within a compiled program, for accelerators, and
`lattice_on_host` in NumPy, faster on CPU. The filter is one program for all platforms, only gathers, and linear in the
values: its gradient is the exact transpose, a filter with the axes in reverse order. It has no gradient with respect to
the points (`gaussian_filter` has one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Bool, Float, Int

from deeplab_jax.ops.crf.fan_in import AnyArray, FanIn, Sizes, Weights, gather, make_fan_in, sum_runs, weighted_rows

NORMALIZATIONS = ("symmetric", "after")
_TINY = 1e-20  # keeps the norm of masked-out points finite


class SortedVertices(NamedTuple):
    """A builder's result, without masked-out points.

    Attributes:
      entry_point: the point of each (point, vertex) entry; entries sorted by vertex, then by point. e = n (d + 1).
      entry_weight: its barycentric weight; 0 after the last real entry.
      begin: first entry of each vertex; r = capacity + 1 vertices, of which those after the real ones are empty.
      length: number of entries of each vertex.
      vertex: the vertices of each point, by remainder (the last vertex for a masked-out point).
      weight: their barycentric weights.
      neighbours: per axis, the next vertex in either direction (the last vertex if it is missing).
      num_vertices: number of real vertices.
      fits: whether they fit into the capacity, and their coordinates into the keys.
    """

    entry_point: Int[AnyArray, " e"]
    entry_weight: Float[AnyArray, " e"]
    begin: Int[AnyArray, " r"]
    length: Int[AnyArray, " r"]
    vertex: Int[AnyArray, "n v"]
    weight: Float[AnyArray, "n v"]
    neighbours: tuple[Int[AnyArray, "r 2"], ...]
    num_vertices: Int[AnyArray, ""]
    fits: Bool[AnyArray, ""]


class Direction(NamedTuple):
    """The weights of a filter in one direction of differentiation."""

    splat: Weights
    slice: Float[AnyArray, "n v"]


class Lattice(NamedTuple):
    """A filter ready to run: arrays of static shapes, v = d + 1 vertices around each of n points.

    If it is not `complete`, its capacity was too small for the points, and its results are NaN.
    """

    fan_in: FanIn
    vertex: Int[AnyArray, "n v"]
    neighbours: tuple[Int[AnyArray, "r 2"], ...]
    forward: Direction
    backward: Direction
    num_vertices: Int[AnyArray, ""]
    complete: Bool[AnyArray, ""]


def finish_lattice(vertices: SortedVertices, sizes: Sizes) -> Lattice:
    """The gather tables for a builder's result."""
    fan_in, splat, fits = make_fan_in(
        vertices.entry_point, vertices.entry_weight, vertices.begin, vertices.length, sizes
    )
    direction = Direction(splat, vertices.weight)
    return Lattice(
        fan_in,
        vertices.vertex,
        vertices.neighbours,
        direction,
        direction,
        vertices.num_vertices,
        vertices.fits & fits,
    )


def normalize(lattice: Lattice, normalization: str) -> Lattice:
    """The lattice whose filter divides by its response to ones.

    'symmetric': by its square root before and after filtering (pydensecrf's default). 'after': after filtering (the
    DeepLab authors' tool, CRF-as-RNN).

    Raises:
      ValueError: for any other normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"unknown normalization '{normalization}'; there are {', '.join(NORMALIZATIONS)}")
    response = filter_lattice(lattice, jnp.ones((lattice.vertex.shape[0], 1)))[:, 0]
    if normalization == "symmetric":
        scale = lax.rsqrt(response + _TINY)
        both = Direction(_scale_splat(lattice, scale), _scale_slice(lattice, scale))
        return lattice._replace(forward=both, backward=both)
    scale = 1 / (response + _TINY)
    plain = lattice.forward
    return lattice._replace(
        forward=Direction(plain.splat, _scale_slice(lattice, scale)),
        backward=Direction(_scale_splat(lattice, scale), plain.slice),
    )


@jax.custom_vjp
def filter_lattice(lattice: Lattice, values: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """Filters each channel; NaN if the lattice is not complete.

    The gradient with respect to the values is exact; the lattice counts as constant.
    """
    return _filter_forward(lattice, values)


def _filter_vjp_forward(lattice: Lattice, values: Array) -> tuple[Array, Lattice]:
    return _filter_forward(lattice, values), lattice


def _filter_vjp_backward(lattice: Lattice, cotangent: Array) -> tuple[None, Array]:
    return None, _filter_backward(lattice, cotangent)


filter_lattice.defvjp(_filter_vjp_forward, _filter_vjp_backward)


# A batch is filtered image by image: each fills a device, and the CPU's stages are not fused (see `_apart`).
@jax.custom_batching.sequential_vmap
def _filter_forward(lattice: Lattice, values: Array) -> Array:
    return _filter(lattice, values, lattice.forward, reverse=False)


@jax.custom_batching.sequential_vmap
def _filter_backward(lattice: Lattice, values: Array) -> Array:
    return _filter(lattice, values, lattice.backward, reverse=True)


def _filter(lattice: Lattice, values: Array, direction: Direction, *, reverse: bool) -> Array:
    vertices = sum_runs(lattice.fan_in, direction.splat, values, _apart)
    for neighbours in reversed(lattice.neighbours) if reverse else lattice.neighbours:
        vertices = _apart(_blur, vertices, neighbours)
    num_dimensions = len(lattice.neighbours) - 1
    # The published constant that undoes the gain of splat, blur and slice. NaN: the capacity was too small.
    scale = jnp.where(lattice.complete, 1 / (1 + 2.0**-num_dimensions), jnp.nan)
    return _apart(weighted_rows, vertices, lattice.vertex, direction.slice * scale)


def _blur(vertices: Float[Array, "r c"], neighbours: Int[Array, "r 2"]) -> Float[Array, "r c"]:
    return vertices + 0.5 * (gather(vertices, neighbours[:, 0]) + gather(vertices, neighbours[:, 1]))


def _apart(function: Callable[..., Array], *operands: Array) -> Array:
    """function(*operands), never fused with preceding or following operations.

    A gather fused into the gather that reads it recomputes each of its rows whenever it is read: a hundred times after
    a few stages. An optimization barrier prevents this unless XLA ignores it; on CPU it drops barriers before fusing,
    but does not inline calls that are marked.
    """

    def on_cpu(*operands: Array) -> Array:
        with set_xla_metadata(inlineable="false"):
            return jax.jit(function)(*operands)

    def elsewhere(*operands: Array) -> Array:
        return lax.optimization_barrier(function(*operands))

    return lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


def _scale_splat(lattice: Lattice, scale: Float[Array, " n"]) -> Weights:
    splat = lattice.forward.splat
    return Weights(splat.first * scale[lattice.fan_in.first], splat.chunks * scale[lattice.fan_in.chunks])


def _scale_slice(lattice: Lattice, scale: Float[Array, " n"]) -> Float[Array, "n v"]:
    return lattice.forward.slice * scale[:, None]
