"""Residual networks with atrous bottlenecks (1512.03385; DeepLab v3, 1706.05587, sec. 3.2)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.ops.convolution import same_padding
from deeplab_jax.types import FeatureInfo, Features

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4
_BETA_STEM = (64, 64, 128)


class Bottleneck(nn.Module):
    """1x1, atrous 3x3 (which carries the stride), 1x1; plus the input, projected where shapes differ."""

    width: int
    plan: UnitPlan
    padding: str
    epsilon: float
    options: LayerOptions

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        features = _EXPANSION * self.width
        stride, rate, _ = self.plan
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        y = ConvNorm(self.width, name="conv1", **shared)(x, train=train)
        y = ConvNorm(self.width, 3, stride=stride, rate=rate, name="conv2", **shared)(y, train=train)
        y = ConvNorm(features, activation="none", name="conv3", **shared)(y, train=train)
        if x.shape[-1] != features:
            x = ConvNorm(features, stride=stride, activation="none", name="shortcut", **shared)(x, train=train)
        elif stride > 1:
            x = x[:, ::stride, ::stride]
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Features at strides 4, 8, ... up to `output_stride`; each the last unit's of its stride.

    Attributes:
      num_units: of the four stages.
      output_stride: 8, 16 or 32; what would be stride beyond it becomes atrous rate.
      stem: 'plain' (one 7x7) or 'beta' (three 3x3 of 64, 64, 128 channels).
      strided_unit: of a stage: 'last' (TF-slim) or 'first' (torchvision).
      multi_grid: factors on the rates of the last stage's units.
      padding: of strided convolutions and the pooling, 'tf_same' or 'symmetric'.
      epsilon: of batch norm.
      width: multiplier on all channels.

    Raises:
      ValueError: by `feature_info` and the call, for an option that does not exist or a multi-grid that does
        not name one factor for each unit of the last stage.
    """

    num_units: tuple[int, int, int, int]
    output_stride: int
    options: LayerOptions = LayerOptions()
    stem: str = "plain"
    strided_unit: str = "last"
    multi_grid: tuple[int, ...] = (1, 1, 1)
    padding: str = "symmetric"
    epsilon: float = 1e-5
    width: float = 1.0

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {plan.output_stride: _EXPANSION * width for _, width, plan in self._units()}
        return tuple(FeatureInfo(f"stride{s}", channels, s) for s, channels in last.items())

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> Features:
        shared: dict[str, Any] = {"padding": self.padding, "epsilon": self.epsilon, "options": self.options}
        if self.stem == "plain":
            x = ConvNorm(self._channels(64), 7, stride=2, name="stem", **shared)(x, train=train)
        else:
            for conv_id, channels in enumerate(_BETA_STEM, start=1):
                stride = 2 if conv_id == 1 else 1
                x = ConvNorm(self._channels(channels), 3, stride=stride, name=f"stem{conv_id}", **shared)(
                    x, train=train
                )
        x = _max_pool(x, self.padding)
        features = {}
        for name, width, plan in self._units():
            x = Bottleneck(width, plan, name=name, **shared)(x, train=train)
            features[f"stride{plan.output_stride}"] = x
        return features

    def _units(self) -> list[tuple[str, int, UnitPlan]]:
        """Name, width and plan of each bottleneck."""
        self._check()
        units, strides, rates = [], [], []
        for stage_id, (count, width) in enumerate(zip(self.num_units, _WIDTHS, strict=True), start=1):
            units += [(f"block{stage_id}_unit{unit_id}", self._channels(width)) for unit_id in range(1, count + 1)]
            strides += self._stage_strides(stage_id, count)
            rates += list(self.multi_grid) if stage_id == 4 else [1] * count
        plans = atrous_plan(strides, output_stride=self.output_stride, unit_rates=rates)
        return [(name, width, plan) for (name, width), plan in zip(units, plans, strict=True)]

    def _channels(self, nominal: int) -> int:
        return max(1, round(nominal * self.width))

    def _check(self) -> None:
        if len(self.multi_grid) != self.num_units[-1]:
            wanted = f"{self.num_units[-1]} factors, one for each unit of the last stage"
            raise ValueError(f"multi_grid={tuple(self.multi_grid)} must have {wanted}")
        if self.stem not in ("plain", "beta"):
            raise ValueError(f"stem='{self.stem}' must be 'plain' or 'beta'")
        if self.strided_unit not in ("first", "last"):
            raise ValueError(f"strided_unit='{self.strided_unit}' must be 'first' or 'last'")

    def _stage_strides(self, stage_id: int, count: int) -> list[int]:
        """The step to the next stride: behind stages 1 to 3 (TF-slim), or before stages 2 to 4 (torchvision)."""
        strides = [1] * count
        if self.strided_unit == "last" and stage_id < 4:
            strides[-1] = 2
        if self.strided_unit == "first" and stage_id > 1:
            strides[0] = 2
        return strides


def _max_pool(x: Float[Array, "b h w c"], padding: str) -> Float[Array, "b h2 w2 c"]:
    edges = tuple(same_padding(size, 3, 2, 1, padding) for size in x.shape[1:3])
    # After a ReLU nothing is below 0, so zero padding never wins.
    return nn.max_pool(jnp.pad(x, ((0, 0), *edges, (0, 0))), (3, 3), (2, 2), "VALID")


resnet50 = functools.partial(ResNet, num_units=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, num_units=(3, 4, 23, 3))
resnet50_beta = functools.partial(resnet50, stem="beta")
resnet101_beta = functools.partial(resnet101, stem="beta")
