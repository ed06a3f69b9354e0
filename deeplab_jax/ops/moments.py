"""Mean and variance of each channel over the pixels of a group of examples, with a gradient rule of their own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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


@jax.custom_vjp
def _moments(x: Float[Array, "g n h w c"], shift: Float[Array, "c"]) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    shifted = x.astype(jnp.float32) - shift[None, None, None, None]
    mean, mean_square = shifted.mean((1, 2, 3)), jnp.square(shifted).mean((1, 2, 3))
    return mean + shift[None], jnp.maximum(mean_square - jnp.square(mean), 0.0)


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
