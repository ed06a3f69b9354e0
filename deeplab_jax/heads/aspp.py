"""DeepLab v3's head: atrous spatial pyramid pooling with image-level features (1706.05587, sec. 3.3)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import AtrousConv, ConvNorm, SeparableConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits

_RATES_OUTPUT_STRIDE = 16  # the output stride for which rates are given, as in the papers


class ASPP(nn.Module):
    """Image pooling, a 1x1 and several atrous 3x3 convolutions side by side, concatenated and projected.

    Attributes:
      output_stride: of the features it reads; the rates grow and shrink with it, so that they stay the same
        in pixels of the image (doubled at 8, halved at 32).
      atrous_rates: of the 3x3 branches, at output stride 16; empty: image pooling and 1x1 alone, the
        MobileNet form.
      separable: depthwise separable 3x3 branches (v3+).
      dropout: of the projected features, in training.
    """

    output_stride: int
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    channels: int = 256
    separable: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-5
    align_corners: bool = True
    options: LayerOptions = LayerOptions()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        branches = [
            self._image_pooling(x, train=train),
            ConvNorm(self.channels, name="aspp0", **shared)(x, train=train),
        ]
        for branch_id, nominal_rate in enumerate(self.atrous_rates, start=1):
            rate = nominal_rate * _RATES_OUTPUT_STRIDE // self.output_stride
            conv = SeparableConvNorm if self.separable else functools.partial(ConvNorm, kernel_size=3)
            branches.append(conv(self.channels, rate=rate, name=f"aspp{branch_id}", **shared)(x, train=train))
        x = ConvNorm(self.channels, name="projection", **shared)(jnp.concatenate(branches, axis=-1), train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    def _image_pooling(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        pooled = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        conv = ConvNorm(self.channels, epsilon=self.epsilon, options=self.options, name="image_pooling")
        return resize_bilinear(conv(pooled, train=train), (x.shape[1], x.shape[2]), align_corners=self.align_corners)


class ASPPHead(nn.Module):
    """DeepLab v3: ASPP on the deepest features, then logits at their stride."""

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    channels: int = 256
    separable: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-5
    logits_stddev: float = 0.01

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        deepest = self.feature_info[-1]
        x = ASPP(
            deepest.stride,
            self.atrous_rates,
            self.channels,
            self.separable,
            self.dropout,
            self.epsilon,
            self.align_corners,
            self.options,
            name="aspp",
        )(features[deepest.name], train=train)
        return logits_layer(self.num_classes, self.logits_stddev)(x)


def logits_layer(num_classes: int, stddev: float) -> AtrousConv:
    """The last 1x1 convolution, in float32 whatever the compute dtype."""
    return AtrousConv(num_classes, use_bias=True, kernel_init=normal(stddev), name="logits")


aspp = ASPPHead  # spelled as configs spell it
