"""VainF/DeepLabV3Plus-Pytorch: DeepLab v3 and v3+ on ResNet-50, ResNet-101 and MobileNetV2, output stride 16.

Its ResNet is torchvision's. Its MobileNetV2 has torchvision's weights but pads differently: not in the stem, and before
the expansion of each block; see backbones/mobilenet_v2.py.

Source: network/{_deeplab,modeling,backbone/mobilenetv2}.py there.
"""

from __future__ import annotations

from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import Backbone, aspp_rules, mobilenet_v2_rules
from deeplab_jax.weights.torch_resnets import resnet

_PRESET = PRESETS["vainf"]
_BACKBONE = "backbone."


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not VainF's, or the network is not supported.
    """
    num_classes, head, head_rules = _head(shapes)
    if f"{_BACKBONE}low_level_features.0.0.weight" in shapes:
        rules = mobilenet_v2_rules(r"backbone\.(?:low|high)_level_features\.")
        found = Backbone("mobilenet_v2.mobilenet_v2", {}, rules)
    else:
        found = resnet(shapes, _BACKBONE)
    backbone = _PRESET.part(found.name, **found.arguments)
    model = _PRESET.model(num_classes=num_classes, output_stride=16, backbone=backbone, head=head)
    return WeightLayout((*found.rules, *head_rules), (TORCH_COUNTERS,), model)


def _head(shapes: ArrayShapes) -> tuple[int, dict[str, Any], tuple[WeightRule, ...]]:
    """Number of classes, config and rules of the head."""
    conv = r"classifier\.classifier\."
    if "classifier.project.0.weight" not in shapes:
        num_classes = require(shapes, "classifier.classifier.4.weight")[0]
        rules = (
            *aspp_rules(rf"{conv}0\."),
            *TORCH.conv_norm(f"{conv}1", f"{conv}2", "head/refine0"),
            *TORCH.conv(f"{conv}4", "head/logits", bias=True),
        )
        return num_classes, _PRESET.part("aspp.aspp"), rules
    num_classes = require(shapes, "classifier.classifier.3.weight")[0]
    rules = (
        *aspp_rules(r"classifier\.aspp\."),
        *TORCH.conv_norm(r"classifier\.project\.0", r"classifier\.project\.1", "head/low_level"),
        *TORCH.conv_norm(f"{conv}0", f"{conv}1", "head/decoder0", channels="low_level_first"),
        *TORCH.conv(f"{conv}3", "head/logits", bias=True),
    )
    return num_classes, _PRESET.part("v3plus.v3plus"), rules
