"""TF-slim's ImageNet MobileNetV2 from a TFLite file: named arrays with folded batch norm."""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout
from deeplab_jax.weights.names import require
from deeplab_jax.weights.slim_parts import folded_layers, mobilenet_v2_args, mobilenet_v2_rules

_PRESET = PRESETS["tf_slim"]
_SCOPE = "MobilenetV2_"
_LAYERS = folded_layers(dense=("_Conv2D_weights", "_Conv2D_bias"), depthwise=("_depthwise_weights", "_depthwise_bias"))


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not TF-slim's with folded batch norm.
    """
    require(shapes, f"{_SCOPE}Conv_Conv2D_weights")
    args = mobilenet_v2_args(shapes, rf"{_SCOPE}expanded_conv_(\d+)_project_Conv2D_weights", axis=0)
    return WeightLayout(
        rules=mobilenet_v2_rules(_LAYERS, _SCOPE, "_"),
        ignored=(rf"{_SCOPE}Conv_1_.*", rf"{_SCOPE}Logits_.*"),
        model=_PRESET.model(backbone=_PRESET.classifier("mobilenet_v2.mobilenet_v2", **args)),
        folded=True,
    )
