"""Atrous (dilated) convolution: one operation, its gradients, and the formulation each platform runs fast.

    y[o] = sum_t x[o * stride + t * rate - pad] k[t]            DeepLab v3 (1706.05587), eq. 1

`lax.conv_general_dilated` with `rhs_dilation` computes it everywhere and is the reference in the tests, but
two compilers are weak at it. XLA on CPU multiplies the padding of dilated kernels and expands depthwise
kernels to dense ones (10 to 1000 times slower than need be), and XLA on GPU turns the kernel gradient of a
dilated convolution into a convolution with a huge window. So the operation carries its own gradient rules,
and each of its three directions is lowered as the platform likes it:

                    CPU                             CUDA                             other
    dense           1x1 and rates from 3: a         lax                              lax
                    matmul per tap; else lax
      its kernel    a matmul per tap (lax for the   rate 1: lax; dilated: pixels     lax
      gradient      few channels of an image)       sorted into phases, or a
                                                    matmul per tap, whichever
                                                    moves fewer bytes
    depthwise       shifted multiply-adds           lax                              lax
      its kernel    a scan over rows                rate 1: lax; dilated: a          lax
      gradient                                      reduction per tap

A tap of a dense kernel is clipped: only what falls inside the image is multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax import lax
from jaxtyping import Array, Float

from deeplab_jax.ops import convolution, space_to_batch, taps
from deeplab_jax.ops.convolution import Geometry, geometry_of, spatial_size

_FEW_CHANNELS = 16  # below it a matmul per tap has too little to do


def atrous_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 d"]:
    """Dense convolution with `rate` - 1 holes between kernel taps.

    Args:
      x: images or features.
      kernel: weights, taps first.
      strides: output steps, in input pixels.
      rate: distance of neighbouring taps, in input pixels.
      padding: a name that `ops.convolution.same_padding` knows.

    Raises:
      ValueError: for an unknown padding.
    """
    return _dense(x, kernel, geometry_of(x, kernel, strides, rate, padding))


def atrous_depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    strides: tuple[int, int] = (1, 1),
    rate: tuple[int, int] = (1, 1),
    padding: str = "tf_same",
) -> Float[Array, "b h2 w2 c"]:
    """Convolution of each channel with its own kernel; arguments as in `atrous_conv`."""
    return _depthwise(x, kernel, geometry_of(x, kernel, strides, rate, padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Array, kernel: Array, geometry: Geometry) -> Array:
    on_cpu = convolution.lax_dense
    if _cpu_prefers_taps(kernel, geometry):
        on_cpu = taps.dense_taps if all(isinstance(axis, int) for axis in spatial_size(x)) else taps.dense_windows
    return _by_platform(on_cpu, convolution.lax_dense, geometry)(x, kernel)


def _dense_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _dense(x, kernel, geometry), (x, kernel)


def _dense_backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    input_on_cpu = taps.dense_input_taps if _cpu_prefers_taps(kernel, geometry) else convolution.lax_dense_input
    dx = _by_platform(input_on_cpu, convolution.lax_dense_input, geometry)(x, kernel, dy)
    kernel_on_cpu = convolution.lax_dense_kernel if x.shape[-1] < _FEW_CHANNELS else taps.dense_kernel_taps
    kernel_on_cuda = convolution.lax_dense_kernel
    if max(geometry.rate) > 1:
        phases_pay = space_to_batch.phases_pay(x, kernel, dy, geometry)
        kernel_on_cuda = space_to_batch.phased_dense_kernel if phases_pay else taps.dense_kernel_taps
    dk = _by_platform(kernel_on_cpu, convolution.lax_dense_kernel, geometry, kernel_on_cuda)(x, kernel, dy)
    return dx, dk


_dense.defvjp(_dense_forward, _dense_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    return _by_platform(taps.depthwise_taps, convolution.lax_depthwise, geometry)(x, kernel)


def _depthwise_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, geometry), (x, kernel)


def _depthwise_backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = _by_platform(taps.depthwise_input_taps, convolution.lax_depthwise_input, geometry)(x, kernel, dy)
    lax_kernel = convolution.lax_depthwise_kernel
    kernel_on_cuda = taps.depthwise_kernel_taps if max(geometry.rate) > 1 else lax_kernel
    dk = _by_platform(taps.depthwise_kernel_scan, lax_kernel, geometry, kernel_on_cuda)(x, kernel, dy)
    return dx, dk


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _by_platform(
    cpu: Callable[..., Array],
    other: Callable[..., Array],
    geometry: Geometry,
    cuda: Callable[..., Array] | None = None,
) -> Callable[..., Array]:
    """The formulation is chosen when the program is lowered, so that one trace serves every platform."""
    return functools.partial(_lowered_by_platform, geometry=geometry, cpu=cpu, cuda=cuda or other, other=other)


@functools.partial(jax.jit, static_argnames=("geometry", "cpu", "cuda", "other"))
def _lowered_by_platform(
    *arrays: Array,
    geometry: Geometry,
    cpu: Callable[..., Array],
    cuda: Callable[..., Array],
    other: Callable[..., Array],
) -> Array:
    """A function of its own in the program, so that the equal layers of a network are traced and lowered once."""
    if cpu is other and cuda is other:
        return other(*arrays, geometry=geometry)
    return lax.platform_dependent(
        *arrays,
        cpu=functools.partial(cpu, geometry=geometry),
        cuda=functools.partial(cuda, geometry=geometry),
        default=functools.partial(other, geometry=geometry),
    )


def _cpu_prefers_taps(kernel: Array, geometry: Geometry) -> bool:
    """Measured: the library's own convolution wins on CPU where kernels have few holes to waste work on."""
    return kernel.shape[:2] == (1, 1) or max(geometry.rate) >= 3
