"""TensorFlow's DeepLab (tensorflow/models, research/deeplab): its checkpoints, and the ImageNet ones it starts from.

Networks: ResNet v1 (also 'beta'), the aligned Xception, MobileNetV2 and V3; heads: DeepLab v3, v3+ with a decoder at
stride 4, the dense prediction cell with that decoder, and LR-ASPP on MobileNetV3.

A checkpoint holds only variables, not its output stride and atrous rates. Those here are 16 and (6, 12, 18), as in the
authors' training, and 32 for LR-ASPP; a network trained differently needs --config.model.output_stride (and the head's
atrous_rates, which are given at output stride 16) in the modes that use the import. ASPP's image pooling averages over
windows of their evaluation crop size; here it averages over the whole image.

Source: research/deeplab/{model,core/{feature_extractor,xception,resnet_v1_beta}}.py and research/slim/nets there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import SLIM, require
from deeplab_jax.weights.slim_parts import (
    head_config,
    head_rules,
    mobilenet_v2_args,
    mobilenet_v2_rules,
    normed_layers,
    xception_rules,
)

Part = Callable[..., dict[str, Any]]  # from the preset: its conventions for a network or a classifier
Backbone = tuple[dict[str, Any], tuple[WeightRule, ...]]  # config and rules

_PRESET = PRESETS["tf_slim"]
_LAYERS = normed_layers(SLIM, "/BatchNorm")
_DECODER = "decoder/"
_OUTPUT_STRIDE, _LR_ASPP_OUTPUT_STRIDE = 16, 32
# Training state other than the weights, and ImageNet classifiers.
_IGNORED = (
    r"global_step|.*/mean_rgb|(.*/)?beta[12]_power",
    r".*/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|ExponentialMovingAverage)",
    r"(xception|resnet_v1)_\d+/logits/.*|MobilenetV[23]/(Logits|Conv_2)/.*|MobilenetV2/Conv_1/.*",
)
# Of MobileNetV3: name, number of blocks, channels of the last convolution at width 1.
_MOBILENETS_V3 = {15: ("mobilenet_v3.mobilenet_v3_large", 960), 11: ("mobilenet_v3.mobilenet_v3_small", 576)}


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a checkpoint with these variable names.

    Raises:
      ValueError: when the names are not those of TF deeplab or TF-slim, or the network is not supported.
    """
    shapes = {name: shape for name, shape in shapes.items() if not any(re.fullmatch(p, name) for p in _IGNORED)}
    if not any(name.startswith(("logits/", _DECODER)) for name in shapes):
        backbone, rules = _backbone(shapes, _PRESET.classifier)
        return WeightLayout(rules, _IGNORED, _model(backbone))
    backbone, rules = _backbone(shapes, _PRESET.part)
    num_classes, head, head_rules = _head(shapes)
    is_lr_aspp = head["name"].startswith("lr_aspp.")
    if backbone["name"].startswith("mobilenet") and not head["name"].startswith("aspp."):
        backbone["args"]["low_level_tap"] = "depthwise"  # where its decoders read MobileNets
    output_stride = _LR_ASPP_OUTPUT_STRIDE if is_lr_aspp else _OUTPUT_STRIDE
    model = _model(backbone, num_classes=num_classes, output_stride=output_stride, head=head)
    return WeightLayout((*rules, *head_rules), _IGNORED, model)


def _model(backbone: dict[str, Any], **fields: Any) -> dict[str, Any]:
    is_plain = backbone["name"] in ("resnet.resnet50", "resnet.resnet101")
    return _PRESET.model(backbone=backbone, **({"normalization": "slim_mean"} if is_plain else {}), **fields)


def _backbone(shapes: ArrayShapes, part: Part) -> Backbone:
    """Config and rules of the backbone."""
    for first_layer, read_backbone in _BACKBONES.items():
        for name in shapes:
            if match := re.fullmatch(first_layer, name):
                return read_backbone(shapes, match, part)
    raise ValueError("there is no first batch norm of ResNet v1, Xception or MobileNet in TF-slim's names")


def _resnet(shapes: ArrayShapes, match: re.Match[str], part: Part) -> Backbone:
    scope, depth, is_beta = match[1], match[2], match[3] == "conv1_1"
    rules = (
        *_LAYERS(rf"{scope}/conv1_(\d)", "backbone/stem{1}", False),
        *_LAYERS(f"{scope}/conv1", "backbone/stem", False),
        *_LAYERS(
            rf"{scope}/block(\d)/unit_(\d+)/bottleneck_v1/(conv\d|shortcut)", "backbone/block{1}_unit{2}/{3}", False
        ),
    )
    return part(f"resnet.resnet{depth}{'_beta' if is_beta else ''}"), rules


def _xception(shapes: ArrayShapes, match: re.Match[str], part: Part) -> Backbone:
    scope, depth = match[1], match[2]
    module = "xception_module/"
    flows = (
        (rf"{scope}/entry_flow/block(\d)/unit_1/{module}", "entry_block{1}"),
        (rf"{scope}/middle_flow/block1/unit_(\d+)/{module}", "middle_unit{1}"),
        (rf"{scope}/exit_flow/block(\d)/unit_1/{module}", "exit_block{1}"),
    )
    rules = _LAYERS(rf"{scope}/entry_flow/conv1_(\d)", "backbone/entry_conv{1}", False)
    return part(f"xception.xception{depth}"), rules + xception_rules(_LAYERS, flows)


def _mobilenet_v2(shapes: ArrayShapes, match: re.Match[str], part: Part) -> Backbone:
    args = mobilenet_v2_args(shapes, r"MobilenetV2/expanded_conv_(\d+)/project/weights", axis=3)
    rules = mobilenet_v2_rules(_LAYERS, "MobilenetV2/", "/")
    return part("mobilenet_v2.mobilenet_v2", **args), rules


def _mobilenet_v3(shapes: ArrayShapes, match: re.Match[str], part: Part) -> Backbone:
    scope = "MobilenetV3/"
    blocks = {name.split("/")[1] for name in shapes if name.startswith(f"{scope}expanded_conv")}
    if len(blocks) not in _MOBILENETS_V3:
        raise ValueError(f"MobilenetV3 has {len(blocks)} blocks; there are 15 (large) and 11 (small)")
    name, last_channels = _MOBILENETS_V3[len(blocks)]
    # Names do not reveal the halved tail: DeepLab's networks have it, the classifiers do not.
    tail = "seg" if f"{_DECODER}decoder_conv0/weights" in shapes else "full"
    width = require(shapes, f"{scope}Conv_1/weights")[3] / (last_channels // 2 if tail == "seg" else last_channels)
    minimalistic = not any("/squeeze_excite/" in name for name in shapes)
    gates = tuple(
        rule
        for block, module in ((r"expanded_conv_(\d+)", "block{1}"), ("expanded_conv", "block0"))
        for conv, ours in (("Conv", "reduce"), ("Conv_1", "expand"))
        for rule in SLIM.conv(
            f"{scope}{block}/squeeze_excite/{conv}", f"backbone/{module}/squeeze_excite/{ours}", bias=True
        )
    )
    rules = (*mobilenet_v2_rules(_LAYERS, scope, "/"), *_LAYERS(f"{scope}Conv_1", "backbone/last", False), *gates)
    return part(name, width=width, tail=tail, minimalistic=minimalistic), rules


# Pattern of the first batch norm's scale, which TFLite models with the same names lack -> reader of the rest.
_BACKBONES: dict[str, Callable[[ArrayShapes, re.Match[str], Part], Backbone]] = {
    r"(resnet_v1_(50|101))/(conv1|conv1_1)/BatchNorm/gamma": _resnet,
    r"(xception_(41|65|71))/entry_flow/conv1_1/BatchNorm/gamma": _xception,
    r"MobilenetV2/Conv/BatchNorm/gamma": _mobilenet_v2,
    r"MobilenetV3/Conv/BatchNorm/gamma": _mobilenet_v3,
}


def _head(shapes: ArrayShapes) -> tuple[int, dict[str, Any], tuple[WeightRule, ...]]:
    """Number of classes, config and rules of the head."""
    if f"{_DECODER}decoder_conv0/weights" in shapes:
        return _lr_aspp(shapes)
    num_classes = require(shapes, "logits/semantic/weights")[3]
    if not any(name.startswith("meta_architecture/") for name in shapes):
        require(shapes, "concat_projection/weights")
    rules = (*head_rules(_LAYERS, _DECODER), *SLIM.conv("logits/semantic", "head/logits", bias=True))
    return num_classes, head_config(shapes, _PRESET, _DECODER), rules


def _lr_aspp(shapes: ArrayShapes) -> tuple[int, dict[str, Any], tuple[WeightRule, ...]]:
    """As `_head`; here the decoder's outputs are the logits, and the image pooling is the gate."""
    num_classes, channels = (require(shapes, f"{name}/weights")[3] for name in (f"{_DECODER}decoder_conv0", "aspp0"))
    rules = (
        *_LAYERS("aspp0", "head/high", False),
        *SLIM.conv("image_pooling", "head/gate", bias=True),
        *SLIM.conv(f"{_DECODER}decoder_conv0", "head/high_logits", bias=True),
        *SLIM.conv(f"{_DECODER}feature_projection0", "head/low_logits", bias=True),
    )
    return num_classes, _PRESET.part("lr_aspp.lr_aspp", channels=channels), rules
