"""TFLite: DeepLab v3 and v3+ on MobileNetV2, with folded batch norm, as TensorFlow's converter names its constants.

Output stride and, if ASPP has atrous branches, their rates are in the graph, of which only the constants are read. The
published file (deeplabv3_257_mv_gpu) has output stride 8, its atrous convolutions are dilated depthwise ones with
padding SAME, and it ends in a resize to the image's size with aligned corners, as here. For other files, pass
--config.model.output_stride to the modes that use the import.
"""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import require
from deeplab_jax.weights.slim_parts import (
    folded_layers,
    head_config,
    head_rules,
    mobilenet_v2_args,
    mobilenet_v2_rules,
)

_PRESET = PRESETS["tf_slim"]
_SCOPE, _DECODER = "MobilenetV2/", "decoder/"
_LAYERS = folded_layers(dense=("/weights", "/Conv2D_bias"), depthwise=("/depthwise_weights", "/depthwise_bias"))


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not those of such a model.
    """
    require(shapes, f"{_SCOPE}Conv/Conv2D_bias")
    num_classes = require(shapes, "logits/semantic/Conv2D_bias")[0]
    args = mobilenet_v2_args(shapes, rf"{_SCOPE}expanded_conv_(\d+)/project/weights", axis=0)
    head = head_config(shapes, _PRESET, _DECODER)
    if head["name"].startswith("v3plus"):
        args["low_level_tap"] = "depthwise"
    return WeightLayout(
        rules=_rules(),
        ignored=(),
        model=_PRESET.model(
            num_classes=num_classes,
            output_stride=8,
            backbone=_PRESET.part("mobilenet_v2.mobilenet_v2", **args),
            head=head,
        ),
        folded=True,
    )


def _rules() -> tuple[WeightRule, ...]:
    return (
        *mobilenet_v2_rules(_LAYERS, _SCOPE, "/"),
        *head_rules(_LAYERS, _DECODER),
        WeightRule("logits/semantic/weights", "params/head/logits/kernel", "ohwi"),
        WeightRule("logits/semantic/Conv2D_bias", "params/head/logits/bias", "copy"),
    )
