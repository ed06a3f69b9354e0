"""torchvision: DeepLab v3 and FCN on ResNet, and its ImageNet classifiers as backbones."""

from __future__ import annotations

from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import RESNET_CLASSIFIER, aspp_rules, resnet_name, resnet_rules

_PRESET = PRESETS["torchvision"]


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    Raises:
      ValueError: where they are not torchvision's, or of a network that is not here.
    """
    if "conv1.weight" in shapes:
        model = _PRESET.model(backbone=_PRESET.part(resnet_name(shapes, "")))
        return WeightLayout(resnet_rules(""), (RESNET_CLASSIFIER, TORCH_COUNTERS), model)
    backbone = _PRESET.part(resnet_name(shapes, "backbone."))
    num_classes, head, head_rules = _head(shapes)
    fields: dict[str, Any] = {"num_classes": num_classes, "output_stride": 8, "backbone": backbone, "head": head}
    rules = (*resnet_rules("backbone."), *head_rules)
    if "aux_classifier.4.weight" in shapes:
        fields["auxiliary"] = _PRESET.part("auxiliary.auxiliary", feature="penultimate")
        rules += _fcn_rules("aux_classifier", "auxiliary")
    return WeightLayout(rules, (TORCH_COUNTERS,), _PRESET.model(**fields))


def _head(shapes: ArrayShapes) -> tuple[int, dict[str, Any], tuple[WeightRule, ...]]:
    """Number of classes, config and rules of the head."""
    num_classes = require(shapes, "classifier.4.weight")[0]
    if "classifier.0.project.0.weight" not in shapes:
        return num_classes, _PRESET.part("auxiliary.auxiliary"), _fcn_rules("classifier", "head")
    rules = (
        *aspp_rules(r"classifier\.0\."),
        *TORCH.conv_norm(r"classifier\.1", r"classifier\.2", "head/refine0"),
        *TORCH.conv(r"classifier\.4", "head/logits", bias=True),
    )
    return num_classes, _PRESET.part("aspp.aspp"), rules


def _fcn_rules(source: str, target: str) -> tuple[WeightRule, ...]:
    return (
        *TORCH.conv_norm(rf"{source}\.0", rf"{source}\.1", f"{target}/conv0"),
        *TORCH.conv(rf"{source}\.4", f"{target}/logits", bias=True),
    )
