"""Locates points in the permutohedral lattice: simplices and barycentric weights (Adams et al. 2010, sec. 3).

The lattice of dimension d lies in the hyperplane of R^(d+1) whose coordinates sum to zero. Its vertices are the integer
points of the hyperplane whose coordinates are all equal modulo d + 1; that common value is the vertex's remainder. A
point lies in a simplex with one vertex of each remainder 0 ... d.

Everything works on NumPy and JAX arrays, followed by a sort and search of each builder's own, so that the host and the
compiled program build the same lattice. Operations and their order are those of the published C++ (float32, round half
to even, ties of ranks to the later axis): NumPy then agrees with it bit for bit in nearly every pixel; XLA may contract
a product and a sum, which then differs by a rounding.
"""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

AnyArray = Any  # NumPy or JAX


class Simplices(NamedTuple):
    """The simplex around each of n points; lists over axes, since each axis is computed separately.

    Attributes:
      cell: per axis of R^(d+1): the remainder-0 vertex's coordinate over d + 1, an integer in float32.
      rank: per axis, 0 ... d: its position when the distances to that vertex are sorted in descending order.
      weight: per remainder, the barycentric weight of the simplex's vertex; they sum to 1.
    """

    cell: list[Float[AnyArray, " n"]]
    rank: list[Int[AnyArray, " n"]]
    weight: list[Float[AnyArray, " n"]]


def position_features(height: int, width: int, std: Any, xp: ModuleType) -> Float[AnyArray, "2 n"]:
    """x and y of each pixel in row-major order, in units of `std` pixels."""
    y, x = xp.meshgrid(xp.arange(height, dtype=xp.float32), xp.arange(width, dtype=xp.float32), indexing="ij")
    return xp.stack([x.ravel(), y.ravel()]) / xp.asarray(std, xp.float32)


def bilateral_features(image: AnyArray, xy_std: Any, rgb_std: Any, xp: ModuleType) -> Float[AnyArray, "5 n"]:
    """x, y, red, green, blue of each pixel of an [h, w, 3] image, in units of the standard deviations."""
    height, width = image.shape[:2]
    color = xp.reshape(xp.asarray(image, xp.float32), (height * width, 3)).T / xp.asarray(rgb_std, xp.float32)
    return xp.concatenate([position_features(height, width, xy_std, xp), color])


def simplices(features: Float[AnyArray, "d n"]) -> Simplices:
    """The simplex around each point, with features in units of the Gaussian's standard deviation.

    Source: Adams, Baek and Davis 2010, sec. 3.1-3.2; Conway and Sloane, "Sphere packings", ch. 20 (the rounding).
    """
    xp = features.__array_namespace__()
    num_axes = features.shape[0] + 1
    elevated = _elevate(features)
    cell = [xp.rint(np.float32(1 / num_axes) * e) for e in elevated]
    excess = sum(cell[1:], cell[0]).astype(xp.int8)  # distance of the rounded point from the hyperplane
    distance = [e - c * np.float32(num_axes) for e, c in zip(elevated, cell, strict=True)]
    rank = [r + excess for r in _ranks(distance)]
    for axis in range(num_axes):  # move it back along the axes with the largest rounding errors
        step = (rank[axis] < 0).astype(xp.int8) - (rank[axis] >= num_axes).astype(xp.int8)
        rank[axis] = rank[axis] + np.int8(num_axes) * step
        cell[axis] = cell[axis] + step
    return Simplices(cell, rank, _barycentric(elevated, cell, rank))


def axis_at_rank(rank: list[Int[AnyArray, " n"]]) -> list[Int[AnyArray, " n"]]:
    """The inverse of `rank`: the axis of each rank."""
    return [sum((rank[axis] == place) * np.int8(axis) for axis in range(1, len(rank))) for place in range(len(rank))]


def _elevate(features: Float[AnyArray, "d n"]) -> list[Float[AnyArray, " n"]]:
    """Points embedded in the hyperplane, scaled so that the lattice's filter has unit standard deviation."""
    num_axes = features.shape[0] + 1
    std = np.float32(math.sqrt(2 / 3) * num_axes)  # of splat, blur and slice together: sec. 3.3
    elevated = []
    total = 0 * features[0]
    for axis in range(num_axes - 1, 0, -1):
        scaled = features[axis - 1] * np.float32(float(std) / math.sqrt(axis * (axis + 1)))
        elevated.append(total - np.float32(axis) * scaled)
        total = total + scaled
    return [total, *reversed(elevated)]


def _ranks(distance: list[Float[AnyArray, " n"]]) -> list[Int[AnyArray, " n"]]:
    """Each axis's position in descending order of distance; of equal ones the earlier comes first."""
    xp = distance[0].__array_namespace__()
    num_axes = len(distance)
    rank = [xp.zeros(distance[0].shape, xp.int8)] * num_axes
    for i in range(num_axes):
        for j in range(i + 1, num_axes):
            later = distance[i] < distance[j]
            rank[i] = rank[i] + later
            rank[j] = rank[j] + ~later
    return rank


def _barycentric(
    elevated: list[Float[AnyArray, " n"]], cell: list[Float[AnyArray, " n"]], rank: list[Int[AnyArray, " n"]]
) -> list[Float[AnyArray, " n"]]:
    """Differences of consecutive distances in ascending order; the first makes the sum 1."""
    num_axes = len(rank)
    offset = [(e - c * np.float32(num_axes)) * np.float32(1 / num_axes) for e, c in zip(elevated, cell, strict=True)]
    ascending = [
        sum(((rank[axis] == place) * offset[axis] for axis in range(1, num_axes)), (rank[0] == place) * offset[0])
        for place in range(num_axes - 1, -1, -1)
    ]
    rest = [high - low for low, high in itertools.pairwise(ascending)]
    return [ascending[0] + (1 - ascending[-1]), *rest]
