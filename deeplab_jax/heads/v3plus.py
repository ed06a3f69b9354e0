"""DeepLab v3+'s head: ASPP and a decoder that adds low-level features (1802.02611, sec. 3.1 and 4.1)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.heads.aspp import ASPPHead, conv3x3, logits_layer
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits, find_feature


class V3PlusHead(ASPPHead):
    """Upsampled ASPP concatenated with projected low-level features, 3x3 convolutions, logits at stride 4.

    Attributes:
      decoder_channels, decoder_kernel_size, num_decoder_convs: of the convolutions after the concatenation.
      low_level_channels: of the projected low-level features, few so that they do not outweigh ASPP's.
      low_level_stride: of the low-level features.
      others: as for `ASPPHead`; `separable` applies to the decoder too.

    Raises:
      ValueError: when the backbone has no features at `low_level_stride`.
    """

    decoder_channels: int = 256
    decoder_kernel_size: int = 3
    num_decoder_convs: int = 2
    low_level_channels: int = 48
    low_level_stride: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._low_level()  # rejects a missing feature map when the head is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        x = self.encode(features, train=train)
        x = self._decode(x, features[self._low_level().name], train=train)
        return logits_layer(self.num_classes, self.logits_stddev)(x)

    def _low_level(self) -> FeatureInfo:
        return find_feature(self.feature_info, f"stride{self.low_level_stride}")

    def _decode(
        self, x: Float[Array, "b h w c"], low_level: Float[Array, "b h4 w4 l"], *, train: bool
    ) -> Float[Array, "b h4 w4 d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        low_level = ConvNorm(self.low_level_channels, name="low_level", **shared)(low_level, train=train)
        x = resize_bilinear(x, (low_level.shape[1], low_level.shape[2]), align_corners=self.align_corners)
        x = jnp.concatenate([x, low_level], axis=-1)
        conv = conv3x3(self.separable, self.inner_norm)
        for conv_id in range(self.num_decoder_convs):
            layer = conv(
                self.decoder_channels, kernel_size=self.decoder_kernel_size, name=f"decoder{conv_id}", **shared
            )
            x = layer(x, train=train)
        return x


v3plus = V3PlusHead  # spelled as configs spell it
