"""MobileNetV2 with atrous inverted residuals (1801.04381, sec. 3 and 6.3), at any width and output stride."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import divisible
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features

# Expansion, channels, repeats, stride of the first block: table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; adds the input if shapes match.

    Returns:
      The block's output, and that of its depthwise convolution after the activation.
    """

    features: int
    expansion: int
    expand: bool
    plan: UnitPlan
    padding: str
    padded_expansion: bool
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 e"]]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        stride, rate = self.plan.stride, self.plan.rate
        y, padding = x, self.padding
        if self.padded_expansion:
            y, padding = jnp.pad(x, ((0, 0), (rate, rate), (rate, rate), (0, 0))), "valid"
        if self.expand:
            width = self.expansion * x.shape[-1]
            y = ConvNorm(width, activation="relu6", name="expand", **shared)(y, train=train)
        depthwise = ConvNorm(
            0, 3, stride=stride, rate=rate, padding=padding, activation="relu6", name="depthwise", **shared
        )(y, train=train)
        y = ConvNorm(self.features, activation="none", name="project", **shared)(depthwise, train=train)
        return (x + y if x.shape == y.shape else y), depthwise


class MobileNetV2(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last block of its stride.

    Attributes:
      output_stride: 8, 16 or 32; further strides become atrous rates.
      width: multiplier on all channels.
      divisor: channels are rounded to multiples of it; usually 8, in TF deeplab 1 at any width other than 1.
      padding: of strided 3x3 convolutions, 'tf_same' or 'symmetric'.
      stem_padding: of the first of them; '': as `padding`; 'valid' (VainF): none, which makes all maps smaller.
      padded_expansion: True: a block's input is padded before the expansion, so the depthwise convolution sees zeros
        transformed by batch norm and activation (VainF, with symmetric padding); False: it sees zeros.
      low_level_tap: the feature map of each stride before the deepest: the output of its 'last' block, or of that
        block's 'depthwise' convolution (TF deeplab's decoder).
      expand_first: the first block has a 1x1 expansion too, of factor 1 (GluonCV).
      last_conv: the deepest features are those of the classifier's 1x1 convolution after the blocks
        (segmentation_models.pytorch), with 1280 channels, more for a width above 1.
      carrier_rate: 'old', or 'new' (segmentation_models.pytorch); see `atrous_plan`.
      epsilon: of batch norm; 1e-3 in TF-slim, 1e-5 in GluonCV.

    Raises:
      ValueError: from `feature_info` and the call, for an unknown tap.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    divisor: int = 8
    padding: str = "tf_same"
    stem_padding: str = ""
    padded_expansion: bool = False
    low_level_tap: str = "last"
    expand_first: bool = False
    last_conv: bool = False
    carrier_rate: str = "old"
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last, channels_in = {}, self._channels(_STEM_CHANNELS)
        for (expansion, nominal), plan in self._units():
            channels = self._channels(nominal)
            last[plan.output_stride] = expansion * channels_in if self._is_depthwise(plan) else channels
            channels_in = channels
        if self.last_conv:
            last[self.output_stride] = self._last_channels()
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items() if s >= 4)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        stem = self._channels(_STEM_CHANNELS)
        stem_padding = {"padding": self.stem_padding or self.padding}
        x = ConvNorm(stem, 3, stride=2, activation="relu6", name="stem", **shared | stem_padding)(x, train=train)
        features = {}
        for block_id, ((expansion, channels), plan) in enumerate(self._units()):
            expand = expansion > 1 or self.expand_first
            block = InvertedResidual(
                self._channels(channels),
                expansion,
                expand,
                plan,
                padded_expansion=self.padded_expansion,
                name=f"block{block_id}",
                **shared,
            )
            x, depthwise = block(x, train=train)
            features[f"stride{plan.output_stride}"] = depthwise if self._is_depthwise(plan) else x
        if self.last_conv:
            last = ConvNorm(self._last_channels(), activation="relu6", name="last", **shared)
            features[f"stride{self.output_stride}"] = last(x, train=train)
        return {info.name: features[info.name] for info in self.feature_info}

    def _is_depthwise(self, plan: UnitPlan) -> bool:
        """Whether this block's feature map is the output of its depthwise convolution."""
        if self.low_level_tap not in ("last", "depthwise"):
            raise ValueError(f"low_level_tap='{self.low_level_tap}' must be 'last' or 'depthwise'")
        return self.low_level_tap == "depthwise" and plan.output_stride < self.output_stride

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
        """The nearest multiple of the divisor, never 0 and never less than 90 % of the exact width."""
        return divisible(nominal * self.width, self.divisor)


mobilenet_v2 = MobileNetV2  # spelled as configs spell it
