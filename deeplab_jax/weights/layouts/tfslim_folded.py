"""TF-slim's MobileNetV2 of ImageNet, taken from a TFLite file: batch norm folded away, as named arrays."""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import require

_PRESET = PRESETS["tf_slim"]


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    Raises:
      ValueError: where they are not TF-slim's, folded.
    """
    stem_channels = require(shapes, "MobilenetV2_Conv_Conv2D_weights")[0]
    return WeightLayout(
        rules=_rules(),
        ignored=(r"MobilenetV2_Conv_1_.*", r"MobilenetV2_Logits_.*"),
        model={
            "backbone": _PRESET.part("mobilenet_v2.mobilenet_v2", width=stem_channels / 32),
            "normalization": _PRESET.normalization,
        },
        folded=True,
    )


def _rules() -> tuple[WeightRule, ...]:
    block = r"MobilenetV2_expanded_conv_(\d+)_"
    first = "MobilenetV2_expanded_conv_"
    return (
        *_layer("MobilenetV2_Conv_Conv2D", "stem"),
        *_layer(f"{first}(expand|project)_Conv2D", "block0/{1}"),
        *_layer(f"{first}depthwise_depthwise", "block0/depthwise", depthwise=True),
        *_layer(f"{block}(expand|project)_Conv2D", "block{1}/{2}"),
        *_layer(f"{block}depthwise_depthwise", "block{1}/depthwise", depthwise=True),
    )


def _layer(source: str, module: str, *, depthwise: bool = False) -> tuple[WeightRule, WeightRule]:
    kernel, axes = ("depthwise_kernel", "1hwc") if depthwise else ("kernel", "ohwi")
    return (
        WeightRule(f"{source}_weights", f"params/backbone/{module}/conv/{kernel}", axes),
        WeightRule(f"{source}_bias", f"params/backbone/{module}/norm/bias", "copy"),
    )
