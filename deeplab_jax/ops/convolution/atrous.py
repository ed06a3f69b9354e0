"""Atrous (dilated) convolution: one operation, its gradients, and the formulation each platform runs fast.

    y[o] = sum_t x[o * stride + t * rate - pad] k[t]            DeepLab v3 (1706.05587), eq. 1

`lax.conv_general_dilated` with `rhs_dilation` computes it everywhere and is the reference in the tests. Where a
compiler does this badly, another implementation runs: the table in ops/convolution/implementations.py chooses one for
each of forward, input gradient and kernel gradient when the program is lowered.
"""

from __future__ import annotations

import functools

import jax
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops.convolution.geometry import Geometry, geometry_of
from deeplab_jax.ops.convolution.implementations import PLATFORMS, choose


def atrous_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c_in_group d"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 d"]:
    """Convolution with `rate` - 1 holes between neighbouring kernel taps.

    Args:
      kernel: dense, or grouped if it has fewer inputs than `x` has channels: the g-th group of inputs makes the g-th of
        as many groups of outputs.
      strides: in input pixels.
      rate: distance between neighbouring taps, in input pixels.
      padding: 'tf_same', 'symmetric' or 'valid'; see `same_padding`.

    Raises:
      ValueError: for an unknown padding.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> dl.ops.atrous_conv(x, kernel, rate=(2, 2)).shape
      (1, 9, 9, 4)
    """
    operation = "dense" if kernel.shape[2] == x.shape[-1] else "grouped"
    return _convolve(x, kernel, operation, geometry_of(x, kernel, strides, rate, padding))


def atrous_depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 c"]:
    """Convolution of each channel with its own kernel; arguments as in `atrous_conv`.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 1, 2))
      >>> dl.ops.atrous_depthwise_conv(x, kernel, rate=(2, 2)).shape
      (1, 9, 9, 2)
    """
    return _convolve(x, kernel, "depthwise", geometry_of(x, kernel, strides, rate, padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, kernel: Array, operation: str, geometry: Geometry) -> Array:
    return _run(operation, geometry, x, kernel)


def _forward(x: Array, kernel: Array, operation: str, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, operation, geometry), (x, kernel)


def _backward(operation: str, geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return _run(f"{operation}_input", geometry, *saved, dy), _run(f"{operation}_kernel", geometry, *saved, dy)


_convolve.defvjp(_forward, _backward)


# Jitted so that equal layers are traced once; inlined because the TPU partitioner loses spatial sharding at calls.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run(operation: str, geometry: Geometry, x: Array, kernel: Array, *dy: Array) -> Array:
    """Chooses the implementation when the program is lowered, so one trace serves every platform."""

    def chosen(platform: str) -> functools.partial[Array]:
        return functools.partial(choose(platform, operation, x, kernel, geometry), geometry=geometry)

    default, by_platform = chosen("default"), {platform: chosen(platform) for platform in PLATFORMS}
    if all(each.func is default.func for each in by_platform.values()):
        return default(x, kernel, *dy)
    return lax.platform_dependent(x, kernel, *dy, default=default, **by_platform)
