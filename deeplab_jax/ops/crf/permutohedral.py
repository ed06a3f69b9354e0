"""Gaussian filtering of values at scattered points on the permutohedral lattice (Adams, Baek and Davis 2010).

    out[i] = sum_j exp(-|f_i - f_j|^2 / 2) values[j]        nearly, up to a factor; n points in d dimensions: O(n d^2)

Values are splatted onto the vertices of the simplices around their points, blurred along each of the d + 1 axes by
(1, 2, 1) / 2, and sliced back. Vertices exist only where some point touches them, and a missing neighbour counts as
zero: that, with the blur, is the lattice's own answer, near the Gaussian sum but not equal to it.

Two builders make the same `Lattice`: `lattice_in_program` within a compiled program, for accelerators, and
`lattice_on_host` in NumPy, faster on CPU. The filter is one program for all platforms, gathers only, and linear in
the values: its gradient is the exact transpose, another filter with the axes in reverse order. With respect to the
points it has no gradient here (see `gaussian_filter` for one that has).
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
_TINY = 1e-20  # keeps the norm of points that nobody filters finite


class SortedVertices(NamedTuple):
    """What a builder finds; the rows of points that are masked out have no part in it.

    Attributes:
      entry_point: of each (point, vertex) entry the point; entries sorted by vertex, then by point. e = n (d + 1).
      entry_weight: its barycentric weight; 0 behind the last real entry.
      begin: first entry of each vertex; r = capacity + 1 vertices, of which those behind the real ones have none.
      length: number of its entries.
      vertex: the vertices of each point, by remainder (the last vertex where it is masked out).
      weight: their barycentric weights.
      neighbours: per axis, the next vertex in either direction (the last vertex where it is missing).
      num_vertices: how many there are.
      fits: whether the capacity holds them, and the keys their coordinates.
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

    Where it is not `complete`, its capacity was too small for the points, and all that it filters is NaN.
    """

    fan_in: FanIn
    vertex: Int[AnyArray, "n v"]
    neighbours: tuple[Int[AnyArray, "r 2"], ...]
    forward: Direction
    backward: Direction
    num_vertices: Int[AnyArray, ""]
    complete: Bool[AnyArray, ""]


def finish_lattice(vertices: SortedVertices, sizes: Sizes) -> Lattice:
    """The tables of gathers for what a builder found."""
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

    'symmetric': before and after filtering by the root of it (pydensecrf's default).
    'after': after filtering (the DeepLab authors' tool, CRF-as-RNN).

    Raises:
      ValueError: for another normalization.
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
    """Filters each channel; NaN where the lattice is not complete.

    Differentiable with respect to the values, exactly; the lattice counts as constant.
    """
    return _filter_forward(lattice, values)


def _filter_vjp_forward(lattice: Lattice, values: Array) -> tuple[Array, Lattice]:
    return _filter_forward(lattice, values), lattice


def _filter_vjp_backward(lattice: Lattice, cotangent: Array) -> tuple[None, Array]:
    return None, _filter_backward(lattice, cotangent)


filter_lattice.defvjp(_filter_vjp_forward, _filter_vjp_backward)


# A batch is filtered one by one: each image fills a device, and the CPU's stages stay apart (see `_apart`).
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
    # The published constant that undoes the sum of splat, blur and slice. NaN says that the capacity was too small.
    scale = jnp.where(lattice.complete, 1 / (1 + 2.0**-num_dimensions), jnp.nan)
    return _apart(weighted_rows, vertices, lattice.vertex, direction.slice * scale)


def _blur(vertices: Float[Array, "r c"], neighbours: Int[Array, "r 2"]) -> Float[Array, "r c"]:
    return vertices + 0.5 * (gather(vertices, neighbours[:, 0]) + gather(vertices, neighbours[:, 1]))


def _apart(function: Callable[..., Array], *operands: Array) -> Array:
    """function(*operands), never fused with what comes before or after.

    A gather fused into the gather that reads it computes each of its rows as often as it is read: some hundred
    times after a few stages. A barrier keeps them apart where XLA heeds it; on CPU it drops barriers before it fuses,
    but it leaves calls alone that are marked so.
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
