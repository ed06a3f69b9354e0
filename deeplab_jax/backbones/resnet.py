"""Residual networks with atrous units (1512.03385; DeepLab v3, 1706.05587, sec. 3.2), and their common variants."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.ops.pooling import average_pool, max_pool
from deeplab_jax.types import FeatureInfo, Features

_WIDTHS = (64, 128, 256, 512)
_EXPANSIONS = {"bottleneck": 4, "basic": 1}  # output channels of a unit over its width
# Channels of the 3x3 convolutions that replace the 7x7 one.
_DEEP_STEMS = {"beta": (64, 64, 128), "v1c": (32, 32, 64)}
_OPTIONS = {
    "unit": tuple(_EXPANSIONS),
    "stem": ("plain", *_DEEP_STEMS),
    "strided_unit": ("first", "last"),
    "strided_conv": ("conv1", "conv2"),
    "shortcut": ("conv", "average", "average_dense", "average_strided"),
    "low_level_tap": ("unit", "pre_add"),
}


class Bottleneck(nn.Module):
    """1x1, atrous 3x3, 1x1; plus the input, projected if shapes differ.

    Attributes:
      inner: channels of the first two convolutions.
      groups: of the 3x3 convolution.
      strided_conv: which convolution carries the stride, 'conv1' or 'conv2'.
      shortcut: how the input is projected; see ResNet.

    Returns:
      The unit's output, and its residual branch before the addition.
    """

    features: int
    inner: int
    plan: UnitPlan
    groups: int
    strided_conv: str
    shortcut: str
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 d"]]:
        stride, rate = self.plan.stride, self.plan.rate
        strides = (stride, 1) if self.strided_conv == "conv1" else (1, stride)
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        middle = ConvNorm(self.inner, 3, stride=strides[1], rate=rate, groups=self.groups, name="conv2", **shared)
        y = ConvNorm(self.inner, stride=strides[0], name="conv1", **shared)(x, train=train)
        y = middle(y, train=train)
        y = ConvNorm(self.features, activation="none", name="conv3", **shared)(y, train=train)
        x = _shortcut(x, self.features, self.plan, self.shortcut, shared, train=train)
        return nn.relu(x + y), y


class BasicUnit(nn.Module):
    """Two atrous 3x3 convolutions, the first one strided; plus the input, projected if shapes differ.

    Attributes:
      atrous_conv2: whether the second is atrous too; it reads the strided grid, so its rate is already the next unit's.
      shortcut: how the input is projected; see ResNet.

    Returns:
      The unit's output, and its residual branch before the addition.
    """

    features: int
    plan: UnitPlan
    atrous_conv2: bool
    shortcut: str
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 d"]]:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        first = ConvNorm(self.features, 3, stride=self.plan.stride, rate=self.plan.rate, name="conv1", **shared)
        rate = self.plan.next_rate if self.atrous_conv2 else 1
        y = ConvNorm(self.features, 3, rate=rate, activation="none", name="conv2", **shared)(
            first(x, train=train), train=train
        )
        x = _shortcut(x, self.features, self.plan, self.shortcut, shared, train=train)
        return nn.relu(x + y), y


def _shortcut(
    x: Float[Array, "b h w c"], features: int, plan: UnitPlan, kind: str, shared: dict[str, Any], *, train: bool
) -> Float[Array, "b h2 w2 d"]:
    """A unit's input in the shape of its output; call it inside the unit's compact method."""
    stride = plan.stride
    if x.shape[-1] == features:
        return x[:, ::stride, ::stride] if stride > 1 else x
    if kind != "conv":
        x, stride = _average(x, plan, kind), 1
    return ConvNorm(features, stride=stride, activation="none", name="shortcut", **shared)(x, train=train)


def _average(x: Float[Array, "b h w c"], plan: UnitPlan, kind: str) -> Float[Array, "b h2 w2 c"]:
    """The mean of 2x2 cells where a unit's stride is 2 or was, before it became a rate."""
    if plan.nominal_stride == 1 or (plan.stride == 1 and kind == "average_strided"):
        return x
    if plan.stride == 1 and kind == "average_dense":
        return average_pool(x, (2, 2), padding="symmetric")
    return average_pool(x, (2, 2), stride=plan.stride, rate=plan.grid, padding="symmetric", count_padding=False)


class ResNet(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`, each from the last unit of its stride, and 'penultimate'.

    'penultimate' is the output of the third stage, read by auxiliary heads.

    Attributes:
      num_units: of the four stages.
      output_stride: 8, 16, 32 (or more, with cascaded blocks); further strides become atrous rates.
      unit: 'bottleneck' or 'basic'.
      groups, group_width: of a bottleneck's 3x3 convolution: their number (ResNeXt, 1611.05431), and the channels of
        each in the first stage, which double from stage to stage; 1 x 64, wide networks (1605.07146) have 1 x 128.
      stem: 'plain' (one 7x7), 'beta' (three 3x3 of 64, 64, 128 channels) or 'v1c' (of 32, 32, 64).
      strided_unit: the unit of a stage with the stride: 'last' (TF-slim) or 'first' (all others).
      strided_conv: a bottleneck's strided convolution: 'conv2', the 3x3, or 'conv1' (Caffe).
      atrous_conv2: see BasicUnit; False in mmsegmentation.
      shortcut: 'conv': a 1x1 convolution projects the input, with the unit's stride; 'average': it comes after the mean
        of 2x2 cells (ResNet-D, 1812.01187, sec. 4.1). Where the stride became a rate, 'average' takes the same four
        cells as before, 'average_dense' neighbouring ones, and zeros beyond the border (timm), 'average_strided' none
        (mmsegmentation).
      carrier_rate: 'old' or 'new'; see `atrous_plan`.
      multi_grid: factors on the rates of the units of the fourth stage and its copies; empty: 1.
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
    unit: str = "bottleneck"
    groups: int = 1
    group_width: int = 64
    stem: str = "plain"
    strided_unit: str = "last"
    strided_conv: str = "conv2"
    atrous_conv2: bool = True
    shortcut: str = "conv"
    carrier_rate: str = "old"
    multi_grid: tuple[int, ...] = ()
    num_cascaded: int = 0
    padding: str = "symmetric"
    pool_padding: str = ""
    low_level_tap: str = "unit"
    epsilon: float = 1e-5
    width: float = 1.0

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        units = self._units()
        last = {plan.output_stride: self._expansion * width for _, width, plan in units}
        *earlier, deepest = (FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items())
        _, width, plan = units[sum(self.num_units[:3]) - 1]
        return *earlier, FeatureInfo("penultimate", self._expansion * width, plan.output_stride), deepest

    @nn.compact
    def __call__(self, x: Float[Array, "b h w bands"], *, train: bool) -> Features:
        units = self._units()
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        x = max_pool(self._stem(x, train=train, **shared), 3, stride=2, padding=self.pool_padding or self.padding)
        features = {}
        for unit_id, (name, width, plan) in enumerate(units, start=1):
            x, residual = self._make_unit(width, plan, name, shared)(x, train=train)
            tapped = plan.output_stride == 4 and self.low_level_tap == "pre_add"
            features[f"stride{plan.output_stride}"] = residual if tapped else x
            if unit_id == sum(self.num_units[:3]):
                features["penultimate"] = x
        return features

    def _make_unit(self, width: int, plan: UnitPlan, name: str, shared: dict[str, Any]) -> nn.Module:
        shared = {"plan": plan, "shortcut": self.shortcut, "name": name, **shared}
        if self.unit == "basic":
            return BasicUnit(width, atrous_conv2=self.atrous_conv2, **shared)
        inner = max(1, width * self.group_width // 64) * self.groups
        options: dict[str, Any] = {"groups": self.groups, "strided_conv": self.strided_conv}
        return Bottleneck(self._expansion * width, inner, **options, **shared)

    def _stem(self, x: Float[Array, "b h w bands"], *, train: bool, **shared: Any) -> Float[Array, "b h2 w2 c"]:
        if self.stem == "plain":
            return ConvNorm(self._channels(64), 7, stride=2, name="stem", **shared)(x, train=train)
        for conv_id, channels in enumerate(_DEEP_STEMS[self.stem], start=1):
            stride = 2 if conv_id == 1 else 1
            conv = ConvNorm(self._channels(channels), 3, stride=stride, name=f"stem{conv_id}", **shared)
            x = conv(x, train=train)
        return x

    def _units(self) -> list[tuple[str, int, UnitPlan]]:
        """Name, width and plan of each unit."""
        self._check()
        units, strides, rates = [], [], []
        for stage_id, count in enumerate(self._stages, start=1):
            width = self._channels(_WIDTHS[min(stage_id, 4) - 1])
            units += [(f"block{stage_id}_unit{unit_id}", width) for unit_id in range(1, count + 1)]
            strides += self._stage_strides(stage_id, count)
            rates += list(self.multi_grid) if stage_id >= 4 and self.multi_grid else [1] * count
        plans = atrous_plan(strides, output_stride=self.output_stride, unit_rates=rates, carrier_rate=self.carrier_rate)
        return [(name, width, plan) for (name, width), plan in zip(units, plans, strict=True)]

    @property
    def _expansion(self) -> int:
        return _EXPANSIONS[self.unit]

    @property
    def _stages(self) -> tuple[int, ...]:
        """Units of each stage, including the cascaded ones."""
        return self.num_units + (self.num_units[3],) * self.num_cascaded

    def _channels(self, nominal: int) -> int:
        return max(1, round(nominal * self.width))

    def _check(self) -> None:
        if self.multi_grid and len(self.multi_grid) != self.num_units[3]:
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


resnet18 = functools.partial(ResNet, num_units=(2, 2, 2, 2), unit="basic")
resnet34 = functools.partial(ResNet, num_units=(3, 4, 6, 3), unit="basic")
resnet26 = functools.partial(ResNet, num_units=(2, 2, 2, 2))
resnet50 = functools.partial(ResNet, num_units=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, num_units=(3, 4, 23, 3))
resnet152 = functools.partial(ResNet, num_units=(3, 8, 36, 3))
resnet50_beta = functools.partial(resnet50, stem="beta")
resnet101_beta = functools.partial(resnet101, stem="beta")
resnet50_d = functools.partial(resnet50, stem="v1c", shortcut="average")
resnet101_d = functools.partial(resnet101, stem="v1c", shortcut="average")
wide_resnet50_2 = functools.partial(resnet50, group_width=128)
wide_resnet101_2 = functools.partial(resnet101, group_width=128)
resnext50_32x4d = functools.partial(resnet50, groups=32, group_width=4)
resnext101_32x8d = functools.partial(resnet101, groups=32, group_width=8)
