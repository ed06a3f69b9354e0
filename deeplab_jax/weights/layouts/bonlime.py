"""bonlime/keras-deeplab-v3-plus: TF deeplab's networks in Keras, Xception-65 with decoder and MobileNetV2 without.

Source: model.py there.
"""

from __future__ import annotations

from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import Naming, require
from deeplab_jax.weights.slim_parts import (
    head_config,
    head_rules,
    mobilenet_v2_args,
    mobilenet_v2_rules,
    normed_layers,
    xception_rules,
)

_PRESET = PRESETS["bonlime"]
_NAMING = Naming(
    kernel="/kernel",
    depthwise_kernel="/depthwise_kernel",
    bias="/bias",
    norm=("/gamma", "/beta", "/moving_mean", "/moving_variance"),
    axes="copy",
    depthwise_axes="hwc1",
)
_LAYERS = normed_layers(_NAMING, "_BN")
# Name prefix of each flow's units -> our name of the unit.
_FLOWS = (
    (r"entry_flow_block(\d)_", "entry_block{1}"),
    (r"middle_flow_unit_(\d+)_", "middle_unit{1}"),
    (r"exit_flow_block(\d)_", "exit_block{1}"),
)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not bonlime's.
    """
    # 'custom' if the number of classes differs from the published weights.
    logits = "custom_logits_semantic" if "custom_logits_semantic/kernel" in shapes else "logits_semantic"
    num_classes = require(shapes, f"{logits}/kernel")[3]
    fields, backbone_rules = _backbone(shapes)
    rules = (*backbone_rules, *head_rules(_LAYERS), *_NAMING.conv(logits, "head/logits", bias=True))
    return WeightLayout(rules, (), _PRESET.model(num_classes=num_classes, head=head_config(shapes, _PRESET), **fields))


def _backbone(shapes: ArrayShapes) -> tuple[dict[str, Any], tuple[WeightRule, ...]]:
    """Config and rules of the backbone, at the output stride the system uses it with."""
    if "entry_flow_conv1_1/kernel" in shapes:
        stem = _LAYERS(r"entry_flow_conv1_(\d)", "backbone/entry_conv{1}", False)
        rules = stem + xception_rules(_LAYERS, _FLOWS)
        return {"backbone": _PRESET.part("xception.xception65"), "output_stride": 16}, rules
    require(shapes, "Conv/kernel")
    args = mobilenet_v2_args(shapes, r"expanded_conv_(\d+)_project/kernel", axis=3)
    rules = mobilenet_v2_rules(_LAYERS, "", "_")
    return {"backbone": _PRESET.part("mobilenet_v2.mobilenet_v2", **args), "output_stride": 8}, rules
