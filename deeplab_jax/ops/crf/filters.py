"""The two normalized filters of the fully connected CRF, over position and over position and colour, in three forms."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Num

from deeplab_jax.ops.crf.fan_in import safe_sizes
from deeplab_jax.ops.crf.gaussian_filter import Filter, filter_exactly, filter_positions, normalized
from deeplab_jax.ops.crf.lattice_geometry import bilateral_features, position_features
from deeplab_jax.ops.crf.lattice_in_program import build_in_program, count_vertices
from deeplab_jax.ops.crf.lattice_on_host import build_on_host
from deeplab_jax.ops.crf.parameters import CRFParams
from deeplab_jax.ops.crf.permutohedral import Lattice, finish_lattice, normalize

Mask = Bool[Array, "h w"] | None


def position_lattice(shape: tuple[int, int], params: CRFParams, mask: Mask, *, capacity: int) -> Lattice:
    """The filter over pixel positions for images of `shape`, built in the program."""
    return _lattice_in_program(position_features(*shape, params.pos_xy_std, jnp), mask, params, capacity)


def bilateral_lattice(image: Num[Array, "h w 3"], params: CRFParams, mask: Mask, *, capacity: int) -> Lattice:
    """The filter over position and colour, built in the program."""
    features = bilateral_features(image, params.bi_xy_std, params.bi_rgb_std, jnp)
    return _lattice_in_program(features, mask, params, capacity)


def position_on_host(shape: tuple[int, int], params: CRFParams, mask: np.ndarray | None, num_points: int) -> Lattice:
    """The unnormalized filter over pixel positions, built in NumPy; cached, since all images share it."""
    std = float(params.pos_xy_std)
    if mask is None:
        return whole_position_on_host(shape, std, num_points)
    return _lattice_on_host(position_features(*shape, std, np)[:, mask.ravel()], num_points)


def bilateral_on_host(image: np.ndarray, params: CRFParams, mask: np.ndarray | None, num_points: int) -> Lattice:
    """The unnormalized filter over position and colour, built in NumPy."""
    features = bilateral_features(image, float(params.bi_xy_std), float(params.bi_rgb_std), np)
    return _lattice_on_host(features if mask is None else features[:, mask.ravel()], num_points)


def count_bilateral(image: Num[Array, "h w 3"], params: CRFParams, mask: Mask) -> tuple[Array, Array]:
    """The capacity that `bilateral_lattice` needs, and whether its keys can distinguish the vertices."""
    features = bilateral_features(image, params.bi_xy_std, params.bi_rgb_std, jnp)
    flat_mask = None if mask is None else mask.reshape(-1)
    return count_vertices(features, flat_mask, touch_origin=_touches_origin(features.shape[1], flat_mask))


def exact_filters(image: Num[Array, "h w 3"], params: CRFParams, mask: Mask) -> tuple[Filter, Filter]:
    """Both filters over all pairs of pixels, differentiable with respect to their widths."""
    height, width = image.shape[:2]
    flat_mask = None if mask is None else mask.reshape(-1)
    features = bilateral_features(image, params.bi_xy_std, params.bi_rgb_std, jnp)

    def over_position(values: Array) -> Array:
        return filter_positions(values.reshape(height, width, -1), params.pos_xy_std).reshape(values.shape)

    def over_color(values: Array) -> Array:
        return filter_exactly(features, values)

    position, bilateral = (
        normalized(gaussian, height * width, flat_mask, params.normalization)
        for gaussian in (over_position, over_color)
    )
    return position, bilateral


def _lattice_in_program(features: Float[Array, "d n"], mask: Mask, params: CRFParams, capacity: int) -> Lattice:
    num_dimensions, num_points = features.shape
    num_entries = (num_dimensions + 1) * (num_points + 1)
    capacity = min(capacity, num_entries)
    flat_mask = None if mask is None else mask.reshape(-1)
    vertices = build_in_program(
        lax.stop_gradient(features),
        flat_mask,
        capacity=capacity,
        touch_origin=_touches_origin(num_points, flat_mask),
    )
    lattice = finish_lattice(vertices, safe_sizes(num_entries, num_points + 1, capacity))
    return normalize(lattice, params.normalization)


@functools.lru_cache(maxsize=8)
def whole_position_on_host(shape: tuple[int, int], std: float, num_points: int) -> Lattice:
    """`position_on_host` of an image without padding; `cache_clear()` empties the cache."""
    return _lattice_on_host(position_features(*shape, std, np), num_points)


def _lattice_on_host(features: Float[np.ndarray, "d n"], num_points: int) -> Lattice:
    origin = bool(_touches_origin(features.shape[1], None))
    return finish_lattice(*build_on_host(features, num_points, touch_origin=origin))


def _touches_origin(num_points: int, mask: Bool[Array, " n"] | None) -> Bool[Array, ""] | bool:
    """Whether to add the vertices around the origin (position 0, black), which no pixel touches.

    The published C++ reads points four at a time and pads the last four with the origin. These vertices hold no value
    but pass the blur on; all published results include them, which matters if the image's corner is dark.
    """
    return (num_points if mask is None else mask.sum()) % 4 != 0
