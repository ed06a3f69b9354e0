"""Mean and variance of each channel over the pixels of a group of examples, with a gradient rule of their own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops.pixel_sums import pixel_sums


# Compiled apart so that the equal layers of a network are traced once; inlined because the partitioner for TPU loses
# the strips of images at the border of a called function.
@functools.partial(jax.jit, static_argnames="num_groups", inline=True)
def channel_moments(
    x: Float[Array, "b h w c"], shift: Float[Array, "c"], num_groups: int = 1
) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    """Mean and biased variance of each run of b / num_groups examples, in float32 and one pass.

    E[(x - shift)^2] - E[x - shift]^2 loses no digits where the shift is near the mean, as a running mean is; the shift
    has no gradient.
    """
    grouped = x.reshape(num_groups, -1, *x.shape[1:])
    return _moments(grouped, lax.stop_gradient(shift))


_LARGE = 1 << 20  # values of an image from which on one pass is worth the longer compilation


@jax.custom_vjp
def _moments(x: Float[Array, "g n h w c"], shift: Float[Array, "c"]) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    by_rows = _means_by_rows if x[0, 0].size >= _LARGE else _means
    mean, mean_square = lax.platform_dependent(x, shift, cpu=by_rows, default=_means)
    return mean + shift[None], jnp.maximum(mean_square - jnp.square(mean), 0.0)


def _means(x: Array, shift: Array) -> tuple[Array, Array]:
    """E[x - shift] and E[(x - shift)^2]."""
    shifted = x.astype(jnp.float32) - shift[None, None, None, None]
    return shifted.mean((1, 2, 3)), jnp.square(shifted).mean((1, 2, 3))


def _means_by_rows(x: Array, shift: Array) -> tuple[Array, Array]:
    """As `_means`, in one pass of a CPU's."""
    num_groups, size, height, width, channels = x.shape
    images = x.reshape(-1, height, width, channels)

    def shifted_and_squared(low: int, high: int) -> list[Array]:
        shifted = images[:, low:high].astype(jnp.float32) - shift[None, None, None]
        return [shifted, jnp.square(shifted)]

    sums = pixel_sums(shifted_and_squared, height).reshape(2, num_groups, size, channels).sum(axis=2)
    mean, mean_square = sums / (size * height * width)
    return mean, mean_square


def _moments_forward(x: Array, shift: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    mean, var = _moments(x, shift)
    return (mean, var), (x, mean)


def _moments_backward(saved: tuple[Array, Array], gradients: tuple[Array, Array]) -> tuple[Array, Array]:
    """d mean / dx = 1 / n, d var / dx = 2 (x - mean) / n: one pass over x, where autodiff's would be two."""
    x, mean = saved
    num_pixels = x.size // (x.shape[0] * x.shape[-1])
    of_mean, of_var = (gradient[:, None, None, None] / num_pixels for gradient in gradients)
    dx = of_mean + 2.0 * of_var * (x.astype(jnp.float32) - mean[:, None, None, None])
    return dx.astype(x.dtype), jnp.zeros(x.shape[-1:], jnp.float32)


_moments.defvjp(_moments_forward, _moments_backward)
