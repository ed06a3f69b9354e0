"""Layers shared by all networks of the family: atrous convolution with batch norm and activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer, normal, variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplab_jax.nn.norm import BatchNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.ops.convolution.atrous import atrous_conv, atrous_depthwise_conv

he_normal = variance_scaling(2.0, "fan_out", "normal")
# A depthwise kernel has one input per output, so its fan is its number of taps.
he_normal_depthwise = variance_scaling(2.0, "fan_in", "normal")

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_swish": nn.hard_swish,
    "swish": nn.swish,
    "none": lambda x: x,
}


class AtrousConv(nn.Module):
    """`atrous_conv` with its weights; `kernel_size`, `stride` and a single `rate` apply to both axes."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    rate: int | tuple[int, int] = 1  # (vertical, horizontal)
    groups: int = 1
    padding: str = "tf_same"
    use_bias: bool = False
    kernel_init: Initializer = he_normal
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = atrous_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=(self.stride, self.stride),
            rate=_pair(self.rate),
            padding=self.padding,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y


class AtrousDepthwiseConv(nn.Module):
    """`atrous_depthwise_conv` with its weights."""

    kernel_size: int = 3
    stride: int = 1
    rate: int | tuple[int, int] = 1
    padding: str = "tf_same"
    kernel_init: Initializer = he_normal_depthwise
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("depthwise_kernel", self.kernel_init, shape, jnp.float32)
        return atrous_depthwise_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=(self.stride, self.stride),
            rate=_pair(self.rate),
            padding=self.padding,
        )


class ConvNorm(nn.Module):
    """Convolution (depthwise if `features` is 0), batch norm, activation."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    rate: int | tuple[int, int] = 1
    groups: int = 1  # of a convolution that is not depthwise
    use_bias: bool = False  # likewise; batch norm makes it redundant, but some files have it
    padding: str = "tf_same"
    activation: str = "relu"
    epsilon: float = 1e-5
    kernel_init: Initializer | None = None  # None: He initialisation for the kind of kernel
    options: LayerOptions = LayerOptions()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        shared: dict[str, Any] = {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "rate": self.rate,
            "padding": self.padding,
            "kernel_init": self.kernel_init or (he_normal if self.features else he_normal_depthwise),
            "dtype": self.options.dtype,
            "name": "conv",
        }
        if self.features:
            x = AtrousConv(self.features, groups=self.groups, use_bias=self.use_bias, **shared)(x)
        else:
            x = AtrousDepthwiseConv(**shared)(x)
        x = BatchNorm(self.epsilon, self.options, name="norm")(x, train=train)
        return ACTIVATIONS[self.activation](x)


class SeparableConvNorm(nn.Module):
    """Depthwise convolution, batch norm, ReLU, then pointwise, batch norm, ReLU.

    Attributes:
      inner_norm: batch norm and ReLU between the two, as in the paper; segmentation_models.pytorch has none.

    Source: DeepLab v3+ (1802.02611), sec. 3.1 and fig. 3; initial values as in TF deeplab.
    """

    features: int
    kernel_size: int = 3
    rate: int | tuple[int, int] = 1
    epsilon: float = 1e-5
    inner_norm: bool = True
    options: LayerOptions = LayerOptions()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        depthwise: dict[str, Any] = {"kernel_size": self.kernel_size, "rate": self.rate, "kernel_init": normal(0.33)}
        if self.inner_norm:
            x = ConvNorm(0, name="depthwise", **depthwise, **shared)(x, train=train)
        else:
            x = AtrousDepthwiseConv(dtype=self.options.dtype, name="depthwise", **depthwise)(x)
        return ConvNorm(self.features, kernel_init=normal(0.06), name="pointwise", **shared)(x, train=train)


def _pair(rate: int | tuple[int, int]) -> tuple[int, int]:
    return (rate, rate) if isinstance(rate, int) else rate
