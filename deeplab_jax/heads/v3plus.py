"""DeepLab v3+'s head: ASPP and a decoder that sharpens it with low-level features (1802.02611, sec. 3.1 and 4.1)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.heads.aspp import ASPP, logits_layer
from deeplab_jax.nn.layers import ConvNorm, SeparableConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits


class V3PlusHead(nn.Module):
    """ASPP, upsampled onto the projected low-level features, two 3x3 convolutions, logits at stride 4.

    Attributes:
      feature_info: of the backbone; ASPP reads the deepest, the decoder `low_level_stride`.
      atrous_rates: of ASPP at output stride 16; empty: image pooling and 1x1 alone.
      separable: depthwise separable 3x3 convolutions in ASPP and decoder.
      low_level_channels: to which low-level features are projected, so that they do not outweigh ASPP's.
      logits_stddev: of the last kernel's initial values; TF deeplab's 0.01 suits pretrained backbones and long
        schedules, a network trained from nothing in few steps needs about 1 / sqrt(decoder_channels).

    Raises:
      ValueError: when the backbone has no features at `low_level_stride`.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    aspp_channels: int = 256
    decoder_channels: int = 256
    low_level_channels: int = 48
    low_level_stride: int = 4
    separable: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-5
    logits_stddev: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._low_level()  # a decoder that has nothing to read is refused when it is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        deepest, low_level = self.feature_info[-1], self._low_level()
        x = ASPP(
            deepest.stride,
            self.atrous_rates,
            self.aspp_channels,
            self.separable,
            self.dropout,
            self.epsilon,
            self.align_corners,
            self.options,
            name="aspp",
        )(features[deepest.name], train=train)
        x = self._decode(x, features[low_level.name], train=train)
        return logits_layer(self.num_classes, self.logits_stddev)(x)

    def _low_level(self) -> FeatureInfo:
        for info in self.feature_info:
            if info.stride == self.low_level_stride:
                return info
        strides = ", ".join(str(info.stride) for info in self.feature_info)
        raise ValueError(f"low_level_stride={self.low_level_stride}: the backbone has features at strides {strides}")

    def _decode(
        self, x: Float[Array, "b h w c"], low_level: Float[Array, "b h4 w4 l"], *, train: bool
    ) -> Float[Array, "b h4 w4 d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        low_level = ConvNorm(self.low_level_channels, name="low_level", **shared)(low_level, train=train)
        x = resize_bilinear(x, (low_level.shape[1], low_level.shape[2]), align_corners=self.align_corners)
        x = jnp.concatenate([x, low_level], axis=-1)
        conv = SeparableConvNorm if self.separable else functools.partial(ConvNorm, kernel_size=3)
        for conv_id in range(2):
            x = conv(self.decoder_channels, name=f"decoder{conv_id}", **shared)(x, train=train)
        return x


v3plus = V3PlusHead  # spelled as configs spell it
