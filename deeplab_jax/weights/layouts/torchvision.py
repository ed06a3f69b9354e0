"""torchvision: DeepLab v3, FCN and LR-ASPP, and its ImageNet classifiers (timm's too, where named the same)."""

from __future__ import annotations

from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import (
    RESNET_CLASSIFIER,
    aspp_rules,
    mobilenet_v2_rules,
    mobilenet_v2_width,
    mobilenet_v3_name,
    mobilenet_v3_rules,
    resnet_name,
    resnet_rules,
)

_PRESET = PRESETS["torchvision"]
_VGG16_STAGES = (2, 2, 3, 3, 3)  # convolutions of each


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    Raises:
      ValueError: where they are not torchvision's, or of a network that is not here.
    """
    if "conv1.weight" in shapes:
        model = _PRESET.model(backbone=_PRESET.classifier(resnet_name(shapes, "")))
        return WeightLayout(resnet_rules(""), (RESNET_CLASSIFIER, TORCH_COUNTERS), model)
    if "features.1.conv.0.0.weight" in shapes:
        return _mobilenet_v2(shapes)
    if "features.1.block.0.0.weight" in shapes:
        return _mobilenet_v3(shapes)
    if "features.0.weight" in shapes:
        return _vgg16(shapes)
    return _segmentation(shapes)


def _mobilenet_v2(shapes: ArrayShapes) -> WeightLayout:
    width = mobilenet_v2_width(shapes, "features.17.conv.2.weight")
    model = _PRESET.model(backbone=_PRESET.classifier("mobilenet_v2.mobilenet_v2", width=width))
    ignored = (r"features\.18\..*", r"classifier\.1\..*", TORCH_COUNTERS)
    return WeightLayout(mobilenet_v2_rules(r"features\."), ignored, model)


def _mobilenet_v3(shapes: ArrayShapes) -> WeightLayout:
    backbone = _PRESET.classifier(mobilenet_v3_name(shapes, "features."))
    rules, ignored = mobilenet_v3_rules(shapes, "features."), (r"classifier\.[03]\..*", TORCH_COUNTERS)
    return WeightLayout(rules, ignored, _PRESET.model(backbone=backbone))


def _vgg16(shapes: ArrayShapes) -> WeightLayout:
    """Its connected layers fit the FCN heads, for a start with scope 'fitting'."""
    if "features.28.weight" not in shapes or {"features.1.weight", "features.30.weight"} & set(shapes):
        raise ValueError("there is VGG-16 without batch norm alone")
    rules: list[WeightRule] = []
    layer_id = 0
    for stage_id, num_convs in enumerate(_VGG16_STAGES, start=1):
        for conv_id in range(1, num_convs + 1):
            rules += TORCH.conv(rf"features\.{layer_id}", f"backbone/conv{stage_id}_{conv_id}", bias=True)
            layer_id += 2  # its ReLU has a number too
        layer_id += 1  # and so has the pooling
    for source, layer, axes in ((0, "fc6", "oi+7x7"), (3, "fc7", "oi")):
        rules.append(WeightRule(rf"classifier\.{source}\.weight", f"params/head/{layer}/kernel", axes))
        rules.append(WeightRule(rf"classifier\.{source}\.bias", f"params/head/{layer}/bias", "copy"))
    model = _PRESET.model(backbone=_PRESET.classifier("vgg16.vgg16"))
    return WeightLayout(tuple(rules), (r"classifier\.6\..*",), model)


def _segmentation(shapes: ArrayShapes) -> WeightLayout:
    is_resnet = "backbone.conv1.weight" in shapes
    name = (resnet_name if is_resnet else mobilenet_v3_name)(shapes, "backbone.")
    rules = resnet_rules("backbone.") if is_resnet else mobilenet_v3_rules(shapes, "backbone.")
    num_classes, head, head_rules = _head(shapes, is_resnet)
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "output_stride": 8 if is_resnet else 16,
        "backbone": _PRESET.part(name),
        "head": head,
    }
    if "aux_classifier.4.weight" in shapes:
        fields["auxiliary"] = _PRESET.part("auxiliary.auxiliary", feature="penultimate" if is_resnet else "stride8")
        head_rules += _fcn_rules("aux_classifier", "auxiliary")
    return WeightLayout((*rules, *head_rules), (TORCH_COUNTERS,), _PRESET.model(**fields))


def _head(shapes: ArrayShapes, is_resnet: bool) -> tuple[int, dict[str, Any], tuple[WeightRule, ...]]:
    """Number of classes, config and rules of the head."""
    if "classifier.cbr.0.weight" in shapes:
        rules = (
            *TORCH.conv_norm(r"classifier\.cbr\.0", r"classifier\.cbr\.1", "head/high"),
            *TORCH.conv(r"classifier\.scale\.1", "head/gate"),
            *TORCH.conv(r"classifier\.(low|high)_classifier", "head/{1}_logits", bias=True),
        )
        channels = shapes["classifier.cbr.0.weight"][0]
        num_classes = require(shapes, "classifier.low_classifier.weight")[0]
        return num_classes, _PRESET.part("lr_aspp.lr_aspp", channels=channels), rules
    num_classes = require(shapes, "classifier.4.weight")[0]
    if "classifier.0.project.0.weight" not in shapes:
        return num_classes, _PRESET.part("auxiliary.auxiliary"), _fcn_rules("classifier", "head")
    rules = (
        *aspp_rules(r"classifier\.0\."),
        *TORCH.conv_norm(r"classifier\.1", r"classifier\.2", "head/refine0"),
        *TORCH.conv(r"classifier\.4", "head/logits", bias=True),
    )
    # 12, 24 and 36 whatever the stride is; ours are given at 16.
    rates = (6, 12, 18) if is_resnet else (12, 24, 36)
    return num_classes, _PRESET.part("aspp.aspp", atrous_rates=rates), rules


def _fcn_rules(source: str, target: str) -> tuple[WeightRule, ...]:
    return (
        *TORCH.conv_norm(rf"{source}\.0", rf"{source}\.1", f"{target}/conv0"),
        *TORCH.conv(rf"{source}\.4", f"{target}/logits", bias=True),
    )
