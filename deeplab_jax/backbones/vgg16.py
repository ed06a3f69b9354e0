"""VGG-16 with its last pooling strides converted to rates (1409.1556; DeepLab v1, 1412.7062, sec. 3.1)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import AtrousConv, ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.ops.pooling import max_pool
from deeplab_jax.types import FeatureInfo, Features

_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, channels; each ends in pooling
_POOL_PADDINGS = ("symmetric", "ceil", "tf_same")


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with biases and ReLU, in five stages; returns all pooled maps.

    Features: 'image' (the normalised image), 'pool1' (stride 2), then 'stride4', 'stride8', ... up to `output_stride`.
    If several poolings have one stride, the last is named by the stride and the others keep their own names: at output
    stride 8 there are 'pool3', 'pool4' and 'stride8', which is the fifth.

    Attributes:
      output_stride: 8 (DeepLab v1, v2), 16 or 32 (the original, FCN); further strides become atrous rates: at 8 the
        fourth and fifth poolings have stride 1 and the last convolutions rate 2.
      width: multiplier on all channels.
      pool_size: 3: DeepLab's overlapping windows, centred at multiples of the stride, which matches aligned corners; 2:
        the original's, whose cells are areas.
      pool_padding: 'symmetric', 'ceil' (Caffe) or 'tf_same'; identical on DeepLab's training sizes, output_stride * k +
        1. For even sizes 'ceil' gives 3x3 windows one cell more than size / stride.
      norm: batch norm before each ReLU, as torchvision's vgg16_bn has it.
      epsilon: of batch norm.
      dilated_pooling: dilates pooling windows like kernels, which makes the features exactly those of stride 32 on a
        denser grid; the authors' fifth pooling at output stride 8 is not dilated.

    Raises:
      ValueError: from `feature_info` and the call, for an unknown option.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    pool_size: int = 3
    pool_padding: str = "symmetric"
    dilated_pooling: bool = False
    norm: bool = False
    epsilon: float = 1e-5

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        strides = [pool.output_stride for _, pool in self._plans()]
        infos = [FeatureInfo("image", 3, 1)]
        for stage_id, ((_, channels), stride) in enumerate(zip(_STAGES, strides, strict=True), start=1):
            last = stride >= 4 and stride not in strides[stage_id:]
            name = f"stride{stride}" if last else f"pool{stage_id}"
            infos.append(FeatureInfo(name, max(1, round(channels * self.width)), stride))
        return tuple(infos)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        image, *pooled = self.feature_info
        features = {image.name: x}
        for stage_id, (info, (num_convs, _), (conv_plan, pool_plan)) in enumerate(
            zip(pooled, _STAGES, self._plans(), strict=True), start=1
        ):
            for conv_id in range(1, num_convs + 1):
                x = self._conv(x, info.channels, conv_plan.rate, f"conv{stage_id}_{conv_id}", train=train)
            rate = pool_plan.rate if self.dilated_pooling else 1
            x = max_pool(x, self.pool_size, stride=pool_plan.stride, rate=rate, padding=self.pool_padding)
            features[info.name] = x
        return features

    def _conv(
        self, x: Float[Array, "b h w c"], channels: int, rate: int, name: str, *, train: bool
    ) -> Float[Array, "b h w d"]:
        shared: dict[str, Any] = {"rate": rate, "padding": "symmetric", "use_bias": True, "name": name}
        if self.norm:
            return ConvNorm(channels, 3, epsilon=self.epsilon, options=self.options, **shared)(x, train=train)
        return nn.relu(AtrousConv(channels, 3, dtype=self.options.dtype, **shared)(x))

    def _plans(self) -> list[tuple[UnitPlan, UnitPlan]]:
        """Plans of each stage's convolutions and of its pooling."""
        if self.pool_size not in (2, 3):
            raise ValueError(f"pool_size={self.pool_size} must be 2 or 3")
        if self.pool_padding not in _POOL_PADDINGS:
            raise ValueError(f"pool_padding='{self.pool_padding}' must be {' or '.join(map(repr, _POOL_PADDINGS))}")
        plans = atrous_plan([1, 2] * len(_STAGES), output_stride=self.output_stride, stem_stride=1)
        return list(zip(plans[::2], plans[1::2], strict=True))


vgg16 = VGG16  # spelled as configs spell it
vgg16_bn = functools.partial(VGG16, norm=True)
