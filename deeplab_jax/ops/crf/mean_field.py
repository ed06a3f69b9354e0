"""Mean-field inference in the fully connected CRF (Kraehenbuehl and Koltun 2011), which refines DeepLab v1 and v2.

    Q_i(l) ~ exp( unary_i(l) - sum_l' mu(l, l') sum_m w_m sum_j k_m(f_i, f_j) Q_j(l') )        sec. 3, alg. 1

with a smoothness kernel over position and an appearance kernel over position and colour. Unaries are log-probabilities
up to a constant per pixel, logits for example: the higher, the likelier (pydensecrf's energies, negated).

Ordinary operations: call them on arrays, or within `jit`, `grad` and `vmap`. There are three ways of filtering:

    'host'     permutohedral lattices built in NumPy, filtered in a compiled program: the fastest on CPU
    'program'  lattices built in the compiled program too: for accelerators and traced arrays
    'exact'    all pairs of pixels: for small images, and gradients with respect to the kernel widths
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Num

from deeplab_jax.ops.crf import filters as crf_filters
from deeplab_jax.ops.crf.gaussian_filter import Filter
from deeplab_jax.ops.crf.lattice_on_host import round_up
from deeplab_jax.ops.crf.parameters import CRFParams, KernelWeight, check_crf_inputs
from deeplab_jax.ops.crf.permutohedral import Lattice, filter_lattice, normalize

FILTERINGS = ("auto", "host", "program", "exact")


def mean_field(
    unary: Float[Array, "h w c"],
    image: Num[Array, "h w 3"],
    params: CRFParams,
    *,
    num_iterations: int = 10,
    mask: Bool[Array, "h w"] | None = None,
    filtering: str = "auto",
    max_vertices: int | None = None,
) -> Float[Array, "h w c"]:
    """Marginals of the CRF after `num_iterations` mean-field iterations.

    Differentiable with respect to the unary, kernel weights and compatibility, and if `filtering` is 'exact' also with
    respect to the kernel widths; otherwise these and the image count as constants.

    Args:
      unary: log-probabilities up to a constant per pixel; see `parameters` for those of labels.
      image: RGB in [0, 255].
      params: kernels and compatibility.
      num_iterations: 0 gives softmax(unary).
      mask: False for padding, which is excluded and gets the marginal softmax(unary).
      filtering: 'host', 'program' or 'exact', see above; 'auto' is 'program' for traced arrays and on accelerators,
        'host' on CPU.
      max_vertices: capacity of a traced bilateral lattice, by default 3 per pixel. If it is exceeded, the result is
        NaN. Calls on concrete arrays determine the capacity themselves.

    Raises:
      ValueError: for mismatched shapes, an unknown filtering, a capacity or widths that are not positive, or a unary
        that is not finite (the last two only if they are not traced).

    Source: Kraehenbuehl and Koltun 2011, alg. 1; DeepLab v1 (1412.7062), sec. 3.2.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> image = np.zeros((6, 8, 3), np.float32)
      >>> probabilities = np.full((6, 8, 2), 0.5, np.float32)
      >>> probabilities[:, 4:] = 0.1, 0.9
      >>> unary = dl.ops.unary_from_probabilities(probabilities)
      >>> params = dl.ops.CRFParams(pos_w=3.0, pos_xy_std=3.0, bi_w=4.0, bi_xy_std=50.0, bi_rgb_std=3.0)
      >>> marginals = dl.ops.mean_field(unary, image, params, num_iterations=5)
      >>> print(marginals.argmax(-1)[0])  # what is undecided takes the class of its neighbours
      [1 1 1 1 1 1 1 1]
    """
    with _at_once_if_known(unary, image, params, mask):
        return mean_field_batch(
            unary[None],
            image[None],
            params,
            num_iterations=num_iterations,
            mask=None if mask is None else mask[None],
            filtering=filtering,
            max_vertices=max_vertices,
        )[0]


def mean_field_batch(
    unary: Float[Array, "b h w c"],
    image: Num[Array, "b h w 3"],
    params: CRFParams,
    *,
    num_iterations: int = 10,
    mask: Bool[Array, "b h w"] | None = None,
    filtering: str = "auto",
    max_vertices: int | None = None,
) -> Float[Array, "b h w c"]:
    """`mean_field` of each image of a batch, one after the other, since each fills a device; same arguments."""
    check_crf_inputs(unary, image, params, mask, num_iterations, max_vertices)
    if filtering not in FILTERINGS:
        raise ValueError(f"unknown filtering '{filtering}'; there are {', '.join(FILTERINGS)}")
    traced = _is_traced(unary, image, params, mask)
    if filtering == "auto":
        filtering = "host" if jax.default_backend() == "cpu" and not traced else "program"
    if filtering == "host":
        if traced:
            raise ValueError("filtering='host' cannot run within a compiled program: use 'program' or 'auto' there")
        with _at_once_if_known(unary, image, params, mask):
            return _on_host(unary, image, params, mask, num_iterations)
    run = functools.partial(_in_program, num_iterations=num_iterations)
    if filtering == "exact":
        return run(unary, image, params, mask, capacities=None)
    if traced:
        capacities = (_count_position_vertices(image, params), max_vertices or 3 * image.shape[1] * image.shape[2])
        return run(unary, image, params, mask, capacities=capacities)
    with _at_once_if_known(unary, image, params, mask):
        return _with_capacity(run, unary, image, params, mask)


def _is_traced(*operands: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operands))


def _at_once_if_known(*operands: Any) -> contextlib.AbstractContextManager[None]:
    """A context in which operations on concrete arrays run immediately, even during tracing."""
    return contextlib.nullcontext() if _is_traced(*operands) else jax.ensure_compile_time_eval()


def iterate(
    unary: Float[Array, "n c"], position: Filter, bilateral: Filter, params: CRFParams, *, num_iterations: int
) -> Float[Array, "n c"]:
    """Mean-field iterations with two given normalized filters; differentiable up to what these hold constant."""

    def step(marginals: Array, _: None) -> tuple[Array, None]:
        messages = _weigh(params.pos_w, position(marginals)) + _weigh(params.bi_w, bilateral(marginals))
        return jax.nn.softmax(unary + _pairwise(params.compatibility, messages)), None

    return lax.scan(step, jax.nn.softmax(unary), None, length=num_iterations)[0]


def _weigh(weight: KernelWeight, messages: Float[Array, "n c"]) -> Float[Array, "n c"]:
    weight = jnp.asarray(weight, messages.dtype)
    return messages @ weight.T if weight.ndim == 2 else messages * weight.reshape((1, -1))


def _pairwise(compatibility: Array | None, messages: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """Minus the cost of the neighbours' classes; the Potts model up to a constant per pixel, which softmax cancels."""
    return messages if compatibility is None else -messages @ jnp.asarray(compatibility, messages.dtype).T


@functools.partial(jax.jit, static_argnames=("num_iterations", "capacities"))
def _in_program(
    unary: Array,
    image: Array,
    params: CRFParams,
    mask: Array | None,
    *,
    num_iterations: int,
    capacities: tuple[int, int] | None,
) -> Array:
    """The whole inference in one program, image by image; exact filters if no capacities are given."""
    height, width, num_classes = unary.shape[1:]
    unary = unary.astype(jnp.float32)
    mask = None if mask is None else mask.astype(bool)
    shared: Lattice | None = None  # unpadded images share the lattice over positions
    if capacities is not None and mask is None:
        shared = crf_filters.position_lattice((height, width), params, None, capacity=capacities[0])

    def filters(image: Array, mask: Array | None) -> tuple[Filter, Filter]:
        if capacities is None:
            return crf_filters.exact_filters(image, params, mask)
        position = shared
        if position is None:
            position = crf_filters.position_lattice((height, width), params, mask, capacity=capacities[0])
        bilateral = crf_filters.bilateral_lattice(image, params, mask, capacity=capacities[1])
        return functools.partial(filter_lattice, position), functools.partial(filter_lattice, bilateral)

    def one(operands: tuple[Array, Array, Array | None]) -> Array:
        unary, image, mask = operands
        flat = unary.reshape(height * width, num_classes)
        marginals = iterate(flat, *filters(image, mask), params, num_iterations=num_iterations)
        return marginals.reshape(unary.shape)

    return lax.map(one, (unary, image, mask))


def _with_capacity(run: Any, unary: Array, image: Array, params: CRFParams, mask: Array | None) -> Array:
    """`run` with lattices of the size that the images need: vertices are counted first, then `run` is compiled."""
    num_vertices, in_range = _count_bilateral_vertices(image, params, mask)
    if not in_range:
        raise ValueError(
            f"bi_xy_std={params.bi_xy_std} and bi_rgb_std={params.bi_rgb_std} spread {image.shape[1]}x{image.shape[2]} "
            "pixels over too many cells for the lattice's keys: use larger ones, or filtering='host'"
        )
    capacity = round_up(int(num_vertices), 4)
    return run(unary, image, params, mask, capacities=(_count_position_vertices(image, params), capacity))


@jax.jit
def _count_bilateral_vertices(image: Array, params: CRFParams, mask: Array | None) -> tuple[Array, Array]:
    def one(operands: tuple[Array, Array | None]) -> tuple[Array, Array]:
        image, mask = operands
        return crf_filters.count_bilateral(image, params, None if mask is None else mask.astype(bool))

    num_vertices, in_range = lax.map(one, (image, mask))
    return num_vertices.max(), in_range.all()


def _count_position_vertices(image: Array, params: CRFParams) -> int:
    """The number of vertices if the width is known, else its upper bound."""
    height, width = image.shape[1:3]
    if isinstance(params.pos_xy_std, jax.core.Tracer):
        return 3 * (height * width + 1)
    return int(crf_filters.position_on_host((height, width), params, None, height * width).num_vertices)


def _on_host(unary: Array, image: Array, params: CRFParams, mask: Array | None, num_iterations: int) -> Array:
    """Builds the next image's lattices while the program runs on the previous one."""
    batch_size, height, width, num_classes = unary.shape
    num_pixels = height * width
    flat_unary = np.asarray(unary, np.float32).reshape(batch_size, num_pixels, num_classes)
    images, masks = np.asarray(image), None if mask is None else np.asarray(mask, bool)
    running = []
    for index in range(batch_size):
        inside = None if masks is None else masks[index]
        if inside is not None and not inside.any():
            continue
        pixels = slice(0, num_pixels) if inside is None else np.flatnonzero(inside)
        num_points = round_up(num_pixels, 16)
        lattices = (
            crf_filters.position_on_host((height, width), params, inside, num_points),
            crf_filters.bilateral_on_host(images[index], params, inside, num_points),
        )
        values = flat_unary[index, pixels]
        values = np.pad(values, ((0, num_points - len(values)), (0, 0)))
        running.append((index, pixels, _on_lattices(values, lattices, params, num_iterations=num_iterations)))
    result = np.empty_like(flat_unary) if mask is None else np.array(jax.nn.softmax(flat_unary))
    for index, pixels, marginals in running:
        result[index, pixels] = np.asarray(marginals)[: len(result[index, pixels])]
    return jnp.asarray(result.reshape(unary.shape))


@functools.partial(jax.jit, static_argnames="num_iterations")
def _on_lattices(
    unary: Float[Array, "n c"], lattices: tuple[Lattice, Lattice], params: CRFParams, *, num_iterations: int
) -> Float[Array, "n c"]:
    position, bilateral = (
        functools.partial(filter_lattice, normalize(lattice, params.normalization)) for lattice in lattices
    )
    return iterate(unary, position, bilateral, params, num_iterations=num_iterations)
