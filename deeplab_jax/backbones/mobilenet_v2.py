"""MobileNetV2 with atrous inverted residuals (1801.04381, sec. 3 and 6.3), at any width and output stride."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features

# expansion, channels, repeats, stride of the first: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; the input is added where shapes agree."""

    features: int
    expansion: int
    expand: bool
    plan: UnitPlan
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        y = x
        if self.expand:
            width = self.expansion * x.shape[-1]
            y = ConvNorm(width, activation="relu6", name="expand", **shared)(y, train=train)
        y = ConvNorm(
            0,
            3,
            stride=self.plan.stride,
            rate=self.plan.rate,
            padding=self.padding,
            activation="relu6",
            name="depthwise",
            **shared,
        )(y, train=train)
        y = ConvNorm(self.features, activation="none", name="project", **shared)(y, train=train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`; each the last block's of its stride.

    Attributes:
      output_stride: 8, 16 or 32; what would be stride beyond it becomes atrous rate.
      width: multiplier on all channels; they are rounded to multiples of 8.
      padding: of strided 3x3 convolutions, 'tf_same' or 'symmetric'.
      expand_first: the first block has a 1x1 expansion too (GluonCV), of factor 1.
      last_conv: the deepest features are those of the classifier's 1x1 convolution behind the blocks
        (segmentation_models.pytorch), of 1280 channels, more for a width above 1.
      carrier_rate: 'old', or 'new' (segmentation_models.pytorch), of blocks that carried a stride; see
        `atrous_plan`.
      epsilon: of batch norm; 1e-3 in TF-slim, 1e-5 in GluonCV.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    padding: str = "tf_same"
    expand_first: bool = False
    last_conv: bool = False
    carrier_rate: str = "old"
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {plan.output_stride: self._channels(unit[1]) for unit, plan in self._units()}
        if self.last_conv:
            last[self.output_stride] = self._last_channels()
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items() if s >= 4)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        stem = self._channels(_STEM_CHANNELS)
        x = ConvNorm(stem, 3, stride=2, activation="relu6", name="stem", **shared)(x, train=train)
        features = {}
        for block_id, ((expansion, channels), plan) in enumerate(self._units()):
            expand = expansion > 1 or self.expand_first
            block = InvertedResidual(
                self._channels(channels), expansion, expand, plan, name=f"block{block_id}", **shared
            )
            x = block(x, train=train)
            features[f"stride{plan.output_stride}"] = x
        if self.last_conv:
            last = ConvNorm(self._last_channels(), activation="relu6", name="last", **shared)
            features[f"stride{self.output_stride}"] = last(x, train=train)
        return {info.name: features[info.name] for info in self.feature_info}

    def _units(self) -> list[tuple[tuple[int, int], UnitPlan]]:
        """(expansion, nominal channels) and plan of each block."""
        units, strides = [], []
        for expansion, channels, repeats, stride in _STAGES:
            units += [(expansion, channels)] * repeats
            strides += [stride] + [1] * (repeats - 1)
        plans = atrous_plan(strides, output_stride=self.output_stride, stem_stride=2, carrier_rate=self.carrier_rate)
        return list(zip(units, plans, strict=True))

    def _last_channels(self) -> int:
        return max(_LAST_CHANNELS, self._channels(_LAST_CHANNELS))

    def _channels(self, nominal: int) -> int:
        """The nearest multiple of 8, at least 8 and never less than 90 % of the exact width."""
        exact = nominal * self.width
        rounded = max(8, int(exact + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * exact else rounded + 8


mobilenet_v2 = MobileNetV2  # spelled as configs spell it
