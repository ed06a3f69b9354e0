"""EfficientNet (1905.11946): MobileNetV2's inverted residuals with squeeze-and-excite, scaled in depth and width."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.inverted_residual import SqueezedResidual, divisible
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features


class NominalStage(NamedTuple):
    """A row of the paper's table 1, at width and depth 1."""

    expansion: int
    channels: int
    repeats: int
    stride: int  # of its first block
    kernel_size: int


_STAGES = (
    NominalStage(1, 16, 1, 1, 3),
    NominalStage(6, 24, 2, 2, 3),
    NominalStage(6, 40, 2, 2, 5),
    NominalStage(6, 80, 3, 2, 3),
    NominalStage(6, 112, 3, 1, 5),
    NominalStage(6, 192, 4, 2, 5),
    NominalStage(6, 320, 1, 1, 3),
)
_NOMINAL_STRIDE = 32
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280
_SQUEEZE_FACTOR = 4  # of a block's input, not of its expansion as in MobileNetV3


class ScaledBlock(NamedTuple):
    """One inverted residual at this width."""

    expansion: int
    channels_in: int
    channels: int
    kernel_size: int
    plan: UnitPlan


class EfficientNet(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last block of its stride.

    Attributes:
      output_stride: 8, 16 or 32; further strides become atrous rates.
      width: multiplier on all channels; they are rounded to multiples of 8.
      depth: multiplier on the blocks of each stage, rounded up.
      padding: of strided convolutions, 'symmetric' (torchvision, timm) or 'tf_same' (TensorFlow).
      padded_for: (segmentation_models.pytorch) with padding='tf_same': the size of images by which the padding of each
        convolution is fixed, whatever the size of the images that come; 0: by their own.
      last_conv: the deepest features are those of the classifier's 1x1 convolution after the blocks.
      early_blocks: (segmentation_models.pytorch's B0: 2) how many blocks before the last stride already have the rate
        that it becomes.
      carrier_rate: 'old', or 'new' (segmentation_models.pytorch); see `atrous_plan`.
      epsilon: of batch norm; 1e-3 in TensorFlow and segmentation_models.pytorch, 1e-5 in torchvision and timm.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    depth: float = 1.0
    padding: str = "symmetric"
    padded_for: int = 0
    last_conv: bool = False
    early_blocks: int = 0
    carrier_rate: str = "old"
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {block.plan.output_stride: block.channels for block in self._blocks()}
        if self.last_conv:
            last[self.output_stride] = self._channels(_LAST_CHANNELS)
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items() if s >= 4)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options}
        stem: dict[str, Any] = {"stride": 2, "padding": self._padding(1), "activation": "swish", "name": "stem"}
        x = ConvNorm(self._channels(_STEM_CHANNELS), 3, **stem, **shared)(x, train=train)
        features = {}
        for block_id, block in enumerate(self._blocks()):
            residual = SqueezedResidual(
                block.kernel_size,
                block.expansion * block.channels_in,
                block.channels,
                squeezed=max(1, block.channels_in // _SQUEEZE_FACTOR),
                activation="swish",
                squeeze_activation="swish",
                gate="sigmoid",
                plan=block.plan,
                padding=self._padding(block.plan.output_stride // block.plan.stride),
                name=f"block{block_id}",
                **shared,
            )
            x, _ = residual(x, train=train)
            features[f"stride{block.plan.output_stride}"] = x
        if self.last_conv:
            last = ConvNorm(self._channels(_LAST_CHANNELS), activation="swish", name="last", **shared)
            features[f"stride{self.output_stride}"] = last(x, train=train)
        return {info.name: features[info.name] for info in self.feature_info}

    def _padding(self, stride: int) -> str:
        """Of a strided convolution whose input has this stride."""
        if self.padding != "tf_same" or not self.padded_for:
            return self.padding
        return "symmetric" if math.ceil(self.padded_for / stride) % 2 else "tf_same_even"

    def _blocks(self) -> list[ScaledBlock]:
        blocks, strides, channels_in = [], [], self._channels(_STEM_CHANNELS)
        for stage in _STAGES:
            channels = self._channels(stage.channels)
            for block_id in range(math.ceil(stage.repeats * self.depth)):
                blocks.append((stage.expansion, channels_in, channels, stage.kernel_size))
                strides.append(1 if block_id else stage.stride)
                channels_in = channels
        last = max(block_id for block_id, stride in enumerate(strides) if stride > 1)
        early = range(last - self.early_blocks, last) if self.output_stride < _NOMINAL_STRIDE else ()
        plans = atrous_plan(
            strides,
            output_stride=self.output_stride,
            stem_stride=2,
            unit_rates=[strides[last] if block_id in early else 1 for block_id in range(len(strides))],
            carrier_rate=self.carrier_rate,
        )
        return [ScaledBlock(*block, plan) for block, plan in zip(blocks, plans, strict=True)]

    def _channels(self, nominal: int) -> int:
        return divisible(nominal * self.width)


# Width and depth as in the authors' code.
efficientnet_b0 = EfficientNet
efficientnet_b1 = functools.partial(EfficientNet, depth=1.1)
efficientnet_b2 = functools.partial(EfficientNet, width=1.1, depth=1.2)
efficientnet_b3 = functools.partial(EfficientNet, width=1.2, depth=1.4)
efficientnet_b4 = functools.partial(EfficientNet, width=1.4, depth=1.8)
efficientnet_b5 = functools.partial(EfficientNet, width=1.6, depth=2.2)
efficientnet_b6 = functools.partial(EfficientNet, width=1.8, depth=2.6)
efficientnet_b7 = functools.partial(EfficientNet, width=2.0, depth=3.1)
