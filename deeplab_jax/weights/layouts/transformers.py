"""transformers: its MobileNetV2, MobileViT and ResNet, with its DeepLab v3 heads and for ImageNet."""

from __future__ import annotations

import re
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH_COUNTERS, Naming, require
from deeplab_jax.weights.torch_parts import mobilenet_v2_width
from deeplab_jax.weights.torch_resnets import resnet

_NAMING = Naming(
    kernel=r"\.convolution\.weight",
    depthwise_kernel=r"\.convolution\.weight",
    bias=r"\.convolution\.bias",
    norm=(
        r"\.normalization\.weight",
        r"\.normalization\.bias",
        r"\.normalization\.running_mean",
        r"\.normalization\.running_var",
    ),
    axes="oihw",
    depthwise_axes="oihw",
)
_IGNORED = (r"mobilenet_v2\.conv_1x1\..*", r"(?:mobilevit\.)?conv_1x1_exp\..*", r"classifier\.(1\.)?(weight|bias)")
_CLASSIFIER = "segmentation_head.classifier.convolution.weight"
_TRANSFORMER_LAYER = {  # in MobileViT
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attention.output.dense": "attended",
    "intermediate.dense": "dense1",
    "output.dense": "dense2",
}
_MOBILEVIT_NOTES = ("its attention is taken to have 4 heads, as in the published networks",)
_RESNET_NAMES = (  # -> torchvision's
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.", "layer{}.{}.downsample.0."),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.", "layer{}.{}.conv{}."),
    (r"embedder\.embedder\.convolution\.", "conv1."),
)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Its networks end at the head's stride. In MobileNetV2 the system's upsampling has half-pixel centres; ours follows
    TensorFlow, which the weights were trained with.

    Raises:
      ValueError: when the names are not those of transformers.
    """
    for prefix in ("", "resnet."):
        if f"{prefix}embedder.embedder.convolution.weight" in shapes:
            return _resnet(shapes, prefix)
    for prefix in ("", "mobilevit."):
        if f"{prefix}encoder.layer.4.conv_kxk.convolution.weight" in shapes:
            return _mobilevit(shapes, prefix)
    return _mobilenet_v2(shapes)


def _resnet(shapes: ArrayShapes, prefix: str) -> WeightLayout:
    """The ResNet whose names begin with `prefix`; its weights are for a backbone alone."""
    start = re.escape(prefix)
    preset, layer = PRESETS["torchvision"], rf"{start}encoder\.stages\.(\d)\.layers\.(\d+)\."
    found = resnet({_torchvision_name(name, start): shape for name, shape in shapes.items()}, "")
    rules = (
        *_conv_norm(rf"{start}embedder\.embedder", "backbone/stem"),
        *_conv_norm(rf"{layer}shortcut", "backbone/block{1+1}_unit{2+1}/shortcut"),
        *_conv_norm(rf"{layer}layer\.(\d)", "backbone/block{1+1}_unit{2+1}/conv{3+1}"),
    )
    model = preset.model(backbone=preset.classifier(found.name, **found.arguments))
    return WeightLayout(rules, (*_IGNORED, TORCH_COUNTERS), model)


def _torchvision_name(name: str, start: str) -> str:
    """torchvision's for this name of ResNet's; others as they are. Its convolutions count from 1, its stages too."""
    for pattern, spelled in _RESNET_NAMES:
        if match := re.match(start + pattern, name):
            return spelled.format(*(int(group) + (place != 1) for place, group in enumerate(match.groups()))) + "weight"
    return name


def _mobilevit(shapes: ArrayShapes, prefix: str) -> WeightLayout:
    """The MobileViT whose names begin with `prefix`, with or without DeepLab v3's head."""
    preset, encoder = PRESETS["transformers"], f"{prefix}encoder.layer."
    wide, narrow = require(shapes, f"{encoder}0.layer.0.expand_1x1.convolution.weight")[:2]
    ends = ("0.layer.0", "1.layer.0", *(f"{stage}.downsampling_layer" for stage in (2, 3, 4)))
    arguments = {
        "channels": (
            require(shapes, f"{prefix}conv_stem.convolution.weight")[0],
            *(require(shapes, f"{encoder}{end}.reduce_1x1.convolution.weight")[0] for end in ends),
        ),
        "hidden": tuple(require(shapes, f"{encoder}{stage}.conv_1x1.convolution.weight")[0] for stage in (2, 3, 4)),
        "expansion": wide / narrow,
    }
    fields: dict[str, Any] = {"backbone": preset.part("mobilevit.mobilevit_s", **arguments)}
    rules = _mobilevit_rules(re.escape(prefix))
    if _CLASSIFIER in shapes:
        fields["num_classes"] = shapes[_CLASSIFIER][0]
        fields["output_stride"] = 16  # of the published networks
        channels = require(shapes, "segmentation_head.aspp.project.convolution.weight")[0]
        fields["head"] = preset.part("aspp.aspp", atrous_rates=(6, 12, 18), aspp_channels=channels)
        rules += _aspp_rules()
    return WeightLayout(rules, (*_IGNORED, TORCH_COUNTERS), preset.model(**fields), notes=_MOBILEVIT_NOTES)


def _mobilevit_rules(start: str) -> tuple[WeightRule, ...]:
    layer = rf"{start}encoder\.layer\."
    rules = [
        *_conv_norm(rf"{start}conv_stem", "backbone/stem", channels="bgr"),
        *_residual(rf"{layer}([01])\.layer\.(\d)", "backbone/stage{1+1}_block{2}"),
        *_residual(rf"{layer}([234])\.downsampling_layer", "backbone/stage{1+1}_block0"),
    ]
    unit, target = rf"{layer}([234])\.", "backbone/stage{1+1}_transformer"
    for name, ours in (("conv_kxk", "local"), ("conv_projection", "project"), ("fusion", "fusion")):
        rules += _conv_norm(unit + name, f"{target}/{ours}")
    rules += _NAMING.conv(rf"{unit}conv_1x1", f"{target}/expand")
    rules += _with_bias(rf"{unit}layernorm", f"{target}/norm", "scale", "copy")
    layer, target = rf"{unit}transformer\.layer\.(\d)\.", target + "/layer{2}"
    rules += _with_bias(rf"{layer}layernorm_before", f"{target}/norm1", "scale", "copy")
    rules += _with_bias(rf"{layer}layernorm_after", f"{target}/norm2", "scale", "copy")
    for name, ours in _TRANSFORMER_LAYER.items():
        rules += _with_bias(layer + re.escape(name), f"{target}/{ours}", "kernel", "oi")
    return tuple(rules)


def _aspp_rules() -> tuple[WeightRule, ...]:
    head = r"segmentation_head\."
    return (
        *_conv_norm(rf"{head}aspp\.convs\.([0-3])", "head/aspp/aspp{1}"),
        *_conv_norm(rf"{head}aspp\.convs\.4\.conv_1x1", "head/aspp/image_pooling"),
        *_conv_norm(rf"{head}aspp\.project", "head/aspp/projection", channels="pool_last"),
        *_NAMING.conv(rf"{head}classifier", "head/logits", bias=True),
    )


def _mobilenet_v2(shapes: ArrayShapes) -> WeightLayout:
    preset = PRESETS["tf_slim"]
    width = mobilenet_v2_width(shapes, "mobilenet_v2.layer.15.reduce_1x1.convolution.weight")
    model = preset.model(backbone=preset.part("mobilenet_v2.mobilenet_v2", width=width))
    rules = _backbone_rules()
    if _CLASSIFIER in shapes:
        rules += _head_rules()
        model["num_classes"] = shapes[_CLASSIFIER][0]
        model["output_stride"] = 16  # of the published network; the file does not say
        channels = require(shapes, "segmentation_head.conv_aspp.convolution.weight")[0]
        model["head"] = preset.part("aspp.aspp", atrous_rates=(), aspp_channels=channels)
    return WeightLayout(rules, (*_IGNORED, TORCH_COUNTERS), model)


def _backbone_rules() -> tuple[WeightRule, ...]:
    stem, block = r"mobilenet_v2\.conv_stem\.", r"mobilenet_v2\.layer\.(\d+)"
    return (
        *_conv_norm(f"{stem}first_conv", "backbone/stem"),
        *_depthwise_norm(f"{stem}conv_3x3", "backbone/block0/depthwise"),
        *_conv_norm(f"{stem}reduce_1x1", "backbone/block0/project"),
        *_residual(block, "backbone/block{1+1}"),
    )


def _head_rules() -> tuple[WeightRule, ...]:
    head = r"segmentation_head\."
    return (
        *_conv_norm(f"{head}conv_pool", "head/aspp/image_pooling"),
        *_conv_norm(f"{head}conv_aspp", "head/aspp/aspp0"),
        *_conv_norm(f"{head}conv_projection", "head/aspp/projection"),
        *_NAMING.conv(f"{head}classifier", "head/logits", bias=True),
    )


def _residual(source: str, target: str) -> tuple[WeightRule, ...]:
    """An inverted residual."""
    return (
        *_conv_norm(rf"{source}\.expand_1x1", f"{target}/expand"),
        *_depthwise_norm(rf"{source}\.conv_3x3", f"{target}/depthwise"),
        *_conv_norm(rf"{source}\.reduce_1x1", f"{target}/project"),
    )


def _with_bias(source: str, target: str, leaf: str, transform: str) -> tuple[WeightRule, ...]:
    """A dense layer or a layer norm."""
    weight = WeightRule(rf"{source}\.weight", f"params/{target}/{leaf}", transform)
    return weight, WeightRule(rf"{source}\.bias", f"params/{target}/bias", "copy")


def _conv_norm(source: str, target: str, *, channels: str = "") -> tuple[WeightRule, ...]:
    return _NAMING.conv_norm(source, source, target, channels=channels)


def _depthwise_norm(source: str, target: str) -> tuple[WeightRule, ...]:
    return _NAMING.depthwise_norm(source, source, target)
