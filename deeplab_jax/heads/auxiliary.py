"""A light head on one feature map: auxiliary, or a network's only head."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax.heads.aspp import logits_layer
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.types import FeatureInfo, Features, Logits, find_feature


class AuxiliaryHead(nn.Module):
    """3x3 convolutions, dropout, logits: torchvision's and mmsegmentation's FCN head.

    Attributes:
      feature: name of the input map; '': the deepest.
      channels: of the convolution; 0: a quarter of the map's.
      num_convs: 3x3 convolutions; 0: only the logits, as after DeepLab v3's cascaded blocks.
      concat_input: whether one more, 'concat', reads the map and the last of these convolutions (mmsegmentation).

    Raises:
      ValueError: when the backbone has no map called `feature`.

    Source: PSPNet (1612.01105), sec. 3.3, for training; torchvision and mmsegmentation for its form.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    feature: str = ""
    channels: int = 0
    num_convs: int = 1
    concat_input: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-5
    logits_stddev: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read()  # rejects a missing feature map when the head is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        info = self._read()
        x = features[info.name]
        conv = functools.partial(
            ConvNorm, self.channels or info.channels // 4, 3, epsilon=self.epsilon, options=self.options
        )
        for conv_id in range(self.num_convs):
            x = conv(name=f"conv{conv_id}")(x, train=train)
        if self.concat_input:
            x = conv(name="concat")(jnp.concatenate([features[info.name], x], axis=-1), train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return logits_layer(self.num_classes, self.logits_stddev)(x)

    def _read(self) -> FeatureInfo:
        return find_feature(self.feature_info, self.feature) if self.feature else self.feature_info[-1]


auxiliary = AuxiliaryHead  # spelled as configs spell it
