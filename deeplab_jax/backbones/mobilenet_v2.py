"""MobileNetV2 with atrous inverted residuals (1801.04381, sec. 3 and 6.3), at any width and output stride."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import UnitPlan, atrous_plan
from deeplab_jax.types import FeatureInfo, Features, WeightLayout, WeightRule

# expansion, channels, repeats, stride of the first: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32


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
      epsilon: of batch norm; 1e-3 in TF-slim, 1e-5 in GluonCV.
    """

    output_stride: int
    options: LayerOptions = LayerOptions()
    width: float = 1.0
    padding: str = "tf_same"
    expand_first: bool = False
    epsilon: float = 1e-3

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        last = {plan.output_stride: self._channels(unit[1]) for unit, plan in self._units()}
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
        return {info.name: features[info.name] for info in self.feature_info}

    def _units(self) -> list[tuple[tuple[int, int], UnitPlan]]:
        """(expansion, nominal channels) and plan of each block."""
        units, strides = [], []
        for expansion, channels, repeats, stride in _STAGES:
            units += [(expansion, channels)] * repeats
            strides += [stride] + [1] * (repeats - 1)
        return list(zip(units, atrous_plan(strides, output_stride=self.output_stride, stem_stride=2), strict=True))

    def _channels(self, nominal: int) -> int:
        """The nearest multiple of 8, at least 8 and never less than 90 % of the exact width."""
        exact = nominal * self.width
        rounded = max(8, int(exact + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * exact else rounded + 8


mobilenet_v2 = MobileNetV2  # spelled as configs spell it


def _tfslim_rules() -> tuple[WeightRule, ...]:
    layers = (
        (r"MobilenetV2_Conv_Conv2D", "stem", "ohwi"),
        (r"MobilenetV2_expanded_conv_(expand|project)_Conv2D", r"block0/\1", "ohwi"),
        (r"MobilenetV2_expanded_conv_depthwise_depthwise", "block0/depthwise", "1hwc"),
        (r"MobilenetV2_expanded_conv_(\d+)_(expand|project)_Conv2D", r"block\1/\2", "ohwi"),
        (r"MobilenetV2_expanded_conv_(\d+)_depthwise_depthwise", r"block\1/depthwise", "1hwc"),
    )
    kernels = tuple(
        WeightRule(f"{name}_weights", f"params/{module}/conv/{_kernel_name(module)}", transform)
        for name, module, transform in layers
    )
    biases = tuple(WeightRule(f"{name}_bias", f"params/{module}/norm/bias", "copy") for name, module, _ in layers)
    return kernels + biases


def _gluon_rules() -> tuple[WeightRule, ...]:
    parts = (("0", "expand"), ("1", "depthwise"), ("2", "project"))
    layers = [("features_{}0", "stem")]
    layers += [(rf"features_linearbottleneck(\d+)_{{}}{part_id}", rf"block\1/{part}") for part_id, part in parts]
    statistics = (
        ("gamma", "params", "scale"),
        ("beta", "params", "bias"),
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    )
    rules = []
    for name, module in layers:
        kernel = f"params/{module}/conv/{_kernel_name(module)}"
        rules.append(WeightRule(f"mobilenetv20_{name.format('conv')}_weight", kernel, "oihw"))
        for leaf, collection, target in statistics:
            source = f"mobilenetv20_{name.format('batchnorm')}_{leaf}"
            rules.append(WeightRule(source, f"{collection}/{module}/norm/{target}", "copy"))
    return tuple(rules)


def _kernel_name(module: str) -> str:
    return "depthwise_kernel" if module.endswith("depthwise") else "kernel"


LAYOUTS = {
    "tfslim_folded": WeightLayout(
        rules=_tfslim_rules(),
        ignored=(r"MobilenetV2_Conv_1_.*", r"MobilenetV2_Logits_.*"),
        folded=True,
        arguments={"padding": "tf_same", "expand_first": False, "epsilon": 1e-3},
        normalization="minus_one_to_one",
    ),
    "gluon": WeightLayout(
        rules=_gluon_rules(),
        ignored=(r"mobilenetv20_features_(conv|batchnorm)1_.*", r"mobilenetv20_output_.*"),
        folded=False,
        arguments={"padding": "symmetric", "expand_first": True, "epsilon": 1e-5},
        normalization="imagenet",
    ),
}
