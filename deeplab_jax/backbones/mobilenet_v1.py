"""MobileNet (1704.04861, table 1) with atrous depthwise convolutions, at any width and output stride."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import divisible
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features

_STEM_CHANNELS = 32
# Channels and stride of each separable convolution.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last separable convolution of its stride.

    Attributes:
      output_stride: 8, 16 or 32; further strides become atrous rates.
      width: multiplier on all channels; they are rounded to multiples of `divisor`.
      padding: of strided convolutions, 'tf_same' or 'symmetric' (timm).
      epsilon: of batch norm; 1e-3 in TensorFlow and transformers, 1e-5 in timm.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    divisor: int = 8
    padding: str = "tf_same"
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {plan.output_stride: channels for channels, plan in self._units()}
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items() if s >= 4)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"activation": "relu6", "epsilon": self.epsilon, "options": self.options}
        stem: dict[str, Any] = {"stride": 2, "padding": self.padding, "name": "stem"}
        x = ConvNorm(self._channels(_STEM_CHANNELS), 3, **stem, **shared)(x, train=train)
        features = {}
        for block_id, (channels, plan) in enumerate(self._units()):
            convolution: dict[str, Any] = {"stride": plan.stride, "rate": plan.rate, "padding": self.padding}
            x = ConvNorm(0, 3, name=f"block{block_id}_depthwise", **convolution, **shared)(x, train=train)
            x = ConvNorm(channels, name=f"block{block_id}_pointwise", **shared)(x, train=train)
            features[f"stride{plan.output_stride}"] = x
        return {info.name: features[info.name] for info in self.feature_info}

    def _units(self) -> list[tuple[int, UnitPlan]]:
        """Channels and plan of each separable convolution."""
        plans = atrous_plan([stride for _, stride in _BLOCKS], output_stride=self.output_stride, stem_stride=2)
        return [(self._channels(channels), plan) for (channels, _), plan in zip(_BLOCKS, plans, strict=True)]

    def _channels(self, nominal: int) -> int:
        return divisible(nominal * self.width, self.divisor)


mobilenet_v1 = MobileNetV1  # spelled as configs spell it
