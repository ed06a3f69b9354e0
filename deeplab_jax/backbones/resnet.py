"""Residual networks with atrous bottlenecks (1512.03385; DeepLab v3, 1706.05587, sec. 3.2)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.ops.pooling import max_pool
from deeplab_jax.types import FeatureInfo, Features

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4
# Channels of the 3x3 convolutions that replace the 7x7 one.
_DEEP_STEMS = {"beta": (64, 64, 128), "v1c": (32, 32, 64)}
_OPTIONS = {
    "stem": ("plain", *_DEEP_STEMS),
    "strided_unit": ("first", "last"),
    "strided_conv": ("conv1", "conv2"),
    "low_level_tap": ("unit", "pre_add"),
}


class Bottleneck(nn.Module):
    """1x1, atrous 3x3, 1x1; plus the input, projected if shapes differ.

    Attributes:
      strided_conv: which convolution carries the stride, 'conv1' or 'conv2'.

    Returns:
      The unit's output, and its residual branch before the addition.
    """

    width: int
    plan: UnitPlan
    strided_conv: str
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 d"]]:
        features = _EXPANSION * self.width
        stride, rate, _ = self.plan
        strides = (stride, 1) if self.strided_conv == "conv1" else (1, stride)
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        y = ConvNorm(self.width, stride=strides[0], name="conv1", **shared)(x, train=train)
        y = ConvNorm(self.width, 3, stride=strides[1], rate=rate, name="conv2", **shared)(y, train=train)
        y = ConvNorm(features, activation="none", name="conv3", **shared)(y, train=train)
        if x.shape[-1] != features:
            x = ConvNorm(features, stride=stride, activation="none", name="shortcut", **shared)(x, train=train)
        elif stride > 1:
            x = x[:, ::stride, ::stride]
        return nn.relu(x + y), y


class ResNet(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last unit of its stride, and 'penultimate'.

    'penultimate' is the output of the third stage, read by auxiliary heads.

    Attributes:
      num_units: of the four stages.
      output_stride: 8, 16, 32 (or more, with cascaded blocks); further strides become atrous rates.
      stem: 'plain' (one 7x7), 'beta' (three 3x3 of 64, 64, 128 channels) or 'v1c' (of 32, 32, 64).
      strided_unit: the unit of a stage with the stride: 'last' (TF-slim) or 'first' (all others).
      strided_conv: its strided convolution: 'conv2', the 3x3, or 'conv1' (Caffe).
      carrier_rate: 'old' or 'new'; see `atrous_plan`.
      multi_grid: factors on the rates of the units of the fourth stage and its copies.
      num_cascaded: copies of the fourth stage after it: DeepLab v3's blocks 5, 6, 7 (sec. 3.2).
      padding: of strided convolutions, 'tf_same' or 'symmetric'.
      pool_padding: of the pooling: the same or 'ceil' (Caffe); '': as `padding`.
      low_level_tap: stride 4 features: 'unit', a unit's output, or 'pre_add', its residual branch before the addition
        (TF deeplab).
      width: multiplier on all channels.

    Raises:
      ValueError: from `feature_info` and the call, for an unknown option or a multi-grid without one factor for each
        unit of the last stage.
    """

    num_units: tuple[int, int, int, int]
    output_stride: int
    options: LayerOptions = LayerOptions()
    stem: str = "plain"
    strided_unit: str = "last"
    strided_conv: str = "conv2"
    carrier_rate: str = "old"
    multi_grid: tuple[int, ...] = (1, 1, 1)
    num_cascaded: int = 0
    padding: str = "symmetric"
    pool_padding: str = ""
    low_level_tap: str = "unit"
    epsilon: float = 1e-5
    width: float = 1.0

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        units = self._units()
        last = {plan.output_stride: _EXPANSION * width for _, width, plan in units}
        *earlier, deepest = (FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items())
        _, width, plan = units[sum(self.num_units[:3]) - 1]
        return *earlier, FeatureInfo("penultimate", _EXPANSION * width, plan.output_stride), deepest

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        units = self._units()
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        x = max_pool(self._stem(x, train=train, **shared), 3, stride=2, padding=self.pool_padding or self.padding)
        features = {}
        for unit_id, (name, width, plan) in enumerate(units, start=1):
            x, residual = Bottleneck(width, plan, self.strided_conv, name=name, **shared)(x, train=train)
            tapped = plan.output_stride == 4 and self.low_level_tap == "pre_add"
            features[f"stride{plan.output_stride}"] = residual if tapped else x
            if unit_id == sum(self.num_units[:3]):
                features["penultimate"] = x
        return features

    def _stem(self, x: Float[Array, "b h w bands"], *, train: bool, **shared: Any) -> Float[Array, "b h2 w2 c"]:
        if self.stem == "plain":
            return ConvNorm(self._channels(64), 7, stride=2, name="stem", **shared)(x, train=train)
        for conv_id, channels in enumerate(_DEEP_STEMS[self.stem], start=1):
            stride = 2 if conv_id == 1 else 1
            conv = ConvNorm(self._channels(channels), 3, stride=stride, name=f"stem{conv_id}", **shared)
            x = conv(x, train=train)
        return x

    def _units(self) -> list[tuple[str, int, UnitPlan]]:
        """Name, width and plan of each bottleneck."""
        self._check()
        units, strides, rates = [], [], []
        for stage_id, count in enumerate(self._stages, start=1):
            width = self._channels(_WIDTHS[min(stage_id, 4) - 1])
            units += [(f"block{stage_id}_unit{unit_id}", width) for unit_id in range(1, count + 1)]
            strides += self._stage_strides(stage_id, count)
            rates += list(self.multi_grid) if stage_id >= 4 else [1] * count
        plans = atrous_plan(strides, output_stride=self.output_stride, unit_rates=rates, carrier_rate=self.carrier_rate)
        return [(name, width, plan) for (name, width), plan in zip(units, plans, strict=True)]

    @property
    def _stages(self) -> tuple[int, ...]:
        """Units of each stage, including the cascaded ones."""
        return self.num_units + (self.num_units[3],) * self.num_cascaded

    def _channels(self, nominal: int) -> int:
        return max(1, round(nominal * self.width))

    def _check(self) -> None:
        if len(self.multi_grid) != self.num_units[3]:
            wanted = f"{self.num_units[3]} factors, one for each unit of the last stage"
            raise ValueError(f"multi_grid={tuple(self.multi_grid)} must have {wanted}")
        for option, known in _OPTIONS.items():
            if getattr(self, option) not in known:
                raise ValueError(f"{option}='{getattr(self, option)}' must be {' or '.join(map(repr, known))}")

    def _stage_strides(self, stage_id: int, count: int) -> list[int]:
        """Unit strides of a stage; all stages but the last end with 2 (TF-slim), or all but the first begin with 2."""
        strides = [1] * count
        if self.strided_unit == "last" and stage_id < len(self._stages):
            strides[-1] = 2
        if self.strided_unit == "first" and stage_id > 1:
            strides[0] = 2
        return strides


resnet50 = functools.partial(ResNet, num_units=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, num_units=(3, 4, 23, 3))
resnet50_beta = functools.partial(resnet50, stem="beta")
resnet101_beta = functools.partial(resnet101, stem="beta")
