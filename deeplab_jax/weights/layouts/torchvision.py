"""torchvision: DeepLab v3, FCN and LR-ASPP, and its ImageNet classifiers (and timm's with the same names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, PeerNetwork, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_efficientnets import torchvision_efficientnet
from deeplab_jax.weights.torch_parts import (
    Backbone,
    aspp_rules,
    mobilenet_v2_rules,
    mobilenet_v2_width,
    mobilenet_v3_name,
    mobilenet_v3_rules,
)
from deeplab_jax.weights.torch_resnets import CLASSIFIER, resnet, resnet_rules

_PRESET = PRESETS["torchvision"]
_BACKBONE = "backbone."
_NETWORKS = {  # (our head, our backbone) -> its name
    ("aspp.aspp", "resnet.resnet50"): "deeplabv3_resnet50",
    ("aspp.aspp", "resnet.resnet101"): "deeplabv3_resnet101",
    ("aspp.aspp", "mobilenet_v3.mobilenet_v3_large"): "deeplabv3_mobilenet_v3_large",
    ("auxiliary.auxiliary", "resnet.resnet50"): "fcn_resnet50",
    ("auxiliary.auxiliary", "resnet.resnet101"): "fcn_resnet101",
    ("lr_aspp.lr_aspp", "mobilenet_v3.mobilenet_v3_large"): "lraspp_mobilenet_v3_large",
}
_RATES = (12, 24, 36)  # of DeepLab v3, at any output stride
_LARGE_EFFICIENTNETS = ("b5", "b6", "b7")  # their batch norm has TensorFlow's epsilon
_LR_ASPP_CHANNELS = 128
_CONV = 4  # axes of a kernel
_VGG16_STAGES = (2, 2, 3, 3, 3)  # convolutions per stage


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not torchvision's, or the network is not supported.
    """
    if "conv1.weight" in shapes:
        found = resnet(shapes, "", average="average_dense")
        model = _PRESET.model(backbone=_PRESET.classifier(found.name, **found.arguments))
        return WeightLayout(found.rules, (CLASSIFIER, TORCH_COUNTERS), model)
    if "features.1.0.block.0.0.weight" in shapes:
        return _efficientnet(shapes)
    if "features.1.conv.0.0.weight" in shapes:
        return _mobilenet_v2(shapes)
    if "features.1.block.0.0.weight" in shapes:
        return _mobilenet_v3(shapes)
    if "features.0.weight" in shapes:
        return _vgg16(shapes)
    return _segmentation(shapes)


def peer(model: Mapping[str, Any], channels: int) -> PeerNetwork:
    """torchvision's counterpart of our network with these settings.

    Args:
      model: our settings, as nested dicts.
      channels: of the images.

    Raises:
      ValueError: when there is none, whatever the other settings.
    """
    backbone, head = model["backbone"]["name"], model["head"]["name"]
    if (head, backbone) not in _NETWORKS:
        raise ValueError(f"head {head} on backbone {backbone}: there are {', '.join(_NETWORKS.values())}")
    if channels != 3:
        raise ValueError(f"images of {channels} channels: its networks take 3")
    has_auxiliary = bool(model["auxiliary"]["name"]) and head != "lr_aspp.lr_aspp"
    arguments: dict[str, Any] = {"channels": _LR_ASPP_CHANNELS} if head == "lr_aspp.lr_aspp" else {}
    if head == "aspp.aspp" and model["head"]["args"].get("rates_output_stride") == 0:  # of a network that was imported
        arguments |= {"atrous_rates": _RATES, "rates_output_stride": 0}
    is_resnet = backbone.startswith("resnet.")
    rules = resnet_rules(_BACKBONE) if is_resnet else mobilenet_v3_rules(backbone, _BACKBONE)
    found = Backbone(backbone, {}, rules)
    layout = _network(found, head, model["num_classes"], has_auxiliary=has_auxiliary, **arguments)
    options = f"weights=None, weights_backbone=None, num_classes={model['num_classes']}"
    options += ", aux_loss=True" * has_auxiliary
    return PeerNetwork(layout, f"torchvision.models.segmentation.{_NETWORKS[head, backbone]}({options})")


def _mobilenet_v2(shapes: ArrayShapes) -> WeightLayout:
    width = mobilenet_v2_width(shapes, "features.17.conv.2.weight")
    model = _PRESET.model(backbone=_PRESET.classifier("mobilenet_v2.mobilenet_v2", width=width))
    ignored = (r"features\.18\..*", r"classifier\.1\..*", TORCH_COUNTERS)
    return WeightLayout(mobilenet_v2_rules(r"features\."), ignored, model)


def _efficientnet(shapes: ArrayShapes) -> WeightLayout:
    found = torchvision_efficientnet(shapes, "features.")
    arguments = {"epsilon": 1e-3} if found.name.endswith(_LARGE_EFFICIENTNETS) else {}
    model = _PRESET.model(backbone=_PRESET.classifier(found.name, **arguments))
    return WeightLayout(found.rules, (r"features\.8\..*", r"classifier\.1\..*", TORCH_COUNTERS), model)


def _mobilenet_v3(shapes: ArrayShapes) -> WeightLayout:
    name = mobilenet_v3_name(shapes, "features.")
    ignored = (r"classifier\.[03]\..*", TORCH_COUNTERS)
    return WeightLayout(
        mobilenet_v3_rules(name, "features."), ignored, _PRESET.model(backbone=_PRESET.classifier(name))
    )


def _vgg16(shapes: ArrayShapes) -> WeightLayout:
    """The fully connected layers fit the FCN heads, to start from with scope 'fitting'."""
    has_norm = "features.1.running_mean" in shapes
    rules: list[WeightRule] = []
    layer_id, known = 0, set()
    for stage_id, num_convs in enumerate(_VGG16_STAGES, start=1):
        for conv_id in range(1, num_convs + 1):
            source, target = rf"features\.{layer_id}", f"backbone/conv{stage_id}_{conv_id}"
            known.add(f"features.{layer_id}.weight")
            if has_norm:
                rules += TORCH.conv(source, f"{target}/conv", bias=True)
                rules += TORCH.batch_norm(rf"features\.{layer_id + 1}", f"{target}/norm")
            else:
                rules += TORCH.conv(source, target, bias=True)
            layer_id += 3 if has_norm else 2  # the ReLU is numbered too
        layer_id += 1  # and so is the pooling
    if known != {name for name, shape in shapes.items() if name.startswith("features.") and len(shape) == _CONV}:
        raise ValueError("of VGG there is VGG-16 alone, with and without batch norm")
    for number, layer, axes in ((0, "fc6", "oi+7x7"), (3, "fc7", "oi")):
        rules.append(WeightRule(rf"classifier\.{number}\.weight", f"params/head/{layer}/kernel", axes))
        rules.append(WeightRule(rf"classifier\.{number}\.bias", f"params/head/{layer}/bias", "copy"))
    model = _PRESET.model(backbone=_PRESET.classifier("vgg16.vgg16_bn" if has_norm else "vgg16.vgg16"))
    return WeightLayout(tuple(rules), (r"classifier\.6\..*", TORCH_COUNTERS), model)


def _segmentation(shapes: ArrayShapes) -> WeightLayout:
    if f"{_BACKBONE}conv1.weight" in shapes:
        found = resnet(shapes, _BACKBONE)
    else:
        name = mobilenet_v3_name(shapes, _BACKBONE)
        found = Backbone(name, {}, mobilenet_v3_rules(name, _BACKBONE))
    arguments = {}
    if "classifier.cbr.0.weight" in shapes:
        head, num_classes = "lr_aspp.lr_aspp", require(shapes, "classifier.low_classifier.weight")[0]
        arguments["channels"] = shapes["classifier.cbr.0.weight"][0]
    else:
        head = "aspp.aspp" if "classifier.0.project.0.weight" in shapes else "auxiliary.auxiliary"
        num_classes = require(shapes, "classifier.4.weight")[0]
    has_auxiliary = "aux_classifier.4.weight" in shapes
    return _network(found, head, num_classes, has_auxiliary=has_auxiliary, **arguments)


def _network(backbone: Backbone, head: str, num_classes: int, *, has_auxiliary: bool, **arguments: Any) -> WeightLayout:
    """The layout of the network with our `head` with these arguments."""
    is_resnet, rules = backbone.name.startswith("resnet."), backbone.rules
    if head == "aspp.aspp":  # at its stride; ours are given at 16
        arguments.setdefault("atrous_rates", (6, 12, 18) if is_resnet else _RATES)
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "output_stride": 8 if is_resnet else 16,
        "backbone": _PRESET.part(backbone.name, **backbone.arguments),
        "head": _PRESET.part(head, **arguments),
    }
    rules += _head_rules(head)
    if has_auxiliary:
        fields["auxiliary"] = _PRESET.part("auxiliary.auxiliary", feature="penultimate" if is_resnet else "stride8")
        rules += _fcn_rules("aux_classifier", "auxiliary")
    return WeightLayout(rules, (TORCH_COUNTERS,), _PRESET.model(**fields))


def _head_rules(head: str) -> tuple[WeightRule, ...]:
    if head == "lr_aspp.lr_aspp":
        return (
            *TORCH.conv_norm(r"classifier\.cbr\.0", r"classifier\.cbr\.1", "head/high"),
            *TORCH.conv(r"classifier\.scale\.1", "head/gate"),
            *TORCH.conv(r"classifier\.(low|high)_classifier", "head/{1}_logits", bias=True),
        )
    if head == "auxiliary.auxiliary":
        return _fcn_rules("classifier", "head")
    return (
        *aspp_rules(r"classifier\.0\."),
        *TORCH.conv_norm(r"classifier\.1", r"classifier\.2", "head/refine0"),
        *TORCH.conv(r"classifier\.4", "head/logits", bias=True),
    )


def _fcn_rules(source: str, target: str) -> tuple[WeightRule, ...]:
    return (
        *TORCH.conv_norm(rf"{source}\.0", rf"{source}\.1", f"{target}/conv0"),
        *TORCH.conv(rf"{source}\.4", f"{target}/logits", bias=True),
    )
