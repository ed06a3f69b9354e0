"""Mean and variance of each channel over the pixels of a group of examples, with a custom gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


# Jitted so that equal layers are traced once; inlined because the TPU partitioner loses spatial sharding at calls.
@functools.partial(jax.jit, static_argnames="num_groups", inline=True)
def channel_moments(
    x: Float[Array, "b h w c"], shift: Float[Array, "c"], num_groups: int = 1
) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
    """Mean and biased variance of each b / num_groups consecutive examples, in float32 and one pass.

    E[(x - shift)^2] - E[x - shift]^2 loses no digits if the shift is near the mean, as a running mean is; the shift
    gets no gradient.
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
    """d mean / dx = 1 / n, d var / dx = 2 (x - mean) / n: one pass over x, where autodiff takes two."""
    x, mean = saved
    num_pixels = x.size // (x.shape[0] * x.shape[-1])
    of_mean, of_var = (gradient[:, None, None, None] / num_pixels for gradient in gradients)
    dx = of_mean + 2.0 * of_var * (x.astype(jnp.float32) - mean[:, None, None, None])
    return dx.astype(x.dtype), jnp.zeros(x.shape[-1:], jnp.float32)


_moments.defvjp(_moments_forward, _moments_backward)
