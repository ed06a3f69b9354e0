"""segmentation_models.pytorch: DeepLab v3 and v3+ on ResNets, MobileNetV2 and timm's ResNets and Xceptions."""

from __future__ import annotations

from typing import Any, NamedTuple

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import (
    aspp_rules,
    mobilenet_v2_rules,
    mobilenet_v2_width,
    resnet_name,
    resnet_rules,
    xception_name,
    xception_rules,
)

_PRESET = PRESETS["smp"]
_IGNORED = (r"classification_head\..*", TORCH_COUNTERS)
_V3PLUS_PYRAMID = "decoder.aspp.0."
_PYRAMIDS = (_V3PLUS_PYRAMID, "decoder.aspp.", "decoder.0.")  # the last: v3 before its decoder's parts had names


class _Encoder(NamedTuple):
    config: dict[str, Any]
    rules: tuple[WeightRule, ...]
    normalization: str


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    A file says neither stride nor rates: they are taken for the system's defaults, rates 12, 24, 36 at output stride
    8 for v3 and 16 for v3+. Ours are given at 16 and grow as the stride shrinks, theirs do not.

    Raises:
      ValueError: where they are not this system's, or of a network that is not here.
    """
    pyramid = next((prefix for prefix in _PYRAMIDS if f"{prefix}project.0.weight" in shapes), _V3PLUS_PYRAMID)
    channels = require(shapes, f"{pyramid}project.0.weight")[0]
    is_v3plus = pyramid == _V3PLUS_PYRAMID
    if is_v3plus != (f"{pyramid}convs.1.0.0.weight" in shapes):
        raise ValueError(f"'{pyramid}convs': there are full branches in v3 and separable ones in v3+ alone")
    encoder = _encoder(shapes)
    if is_v3plus:
        arguments = {"aspp_channels": channels, "decoder_channels": channels, "atrous_rates": (12, 24, 36)}
        head, head_rules = _PRESET.part("v3plus.v3plus", **arguments), _v3plus_rules()
    else:
        arguments = {"aspp_channels": channels, "atrous_rates": (6, 12, 18)}
        head, head_rules = _PRESET.part("aspp.aspp", **arguments), _v3_rules()
    model = _PRESET.model(
        num_classes=require(shapes, "segmentation_head.0.weight")[0],
        output_stride=16 if is_v3plus else 8,
        backbone=encoder.config,
        head=head,
        normalization=encoder.normalization,
    )
    logits = TORCH.conv(r"segmentation_head\.0", "head/logits", bias=True)
    return WeightLayout((*encoder.rules, *head_rules, *logits), _IGNORED, model)


def _encoder(shapes: ArrayShapes) -> _Encoder:
    if "encoder.features.0.0.weight" in shapes:
        width = mobilenet_v2_width(shapes, "encoder.features.17.conv.2.weight")
        config = _PRESET.part("mobilenet_v2.mobilenet_v2", width=width)
        return _Encoder(config, mobilenet_v2_rules(r"encoder\.features\."), "imagenet")
    if "encoder.model.stem_0.conv.weight" in shapes:
        prefix = r"encoder\.model\."
        config = _PRESET.part(xception_name(shapes, prefix))
        return _Encoder(config, xception_rules(shapes, prefix), "minus_one_to_one")
    if "encoder.model.conv1.weight" in shapes:  # of timm, which plans its rates itself
        config = _PRESET.part(resnet_name(shapes, "encoder.model."), carrier_rate="old")
        return _Encoder(config, resnet_rules("encoder.model."), "imagenet")
    return _Encoder(_PRESET.part(resnet_name(shapes, "encoder.")), resnet_rules("encoder."), "imagenet")


def _v3_rules() -> tuple[WeightRule, ...]:
    refinement = TORCH.conv_norm(r"decoder\.(?:conv|1)", r"decoder\.(?:bn|2)", "head/refine0")
    return *aspp_rules(r"decoder\.(?:aspp|0)\."), *refinement


def _v3plus_rules() -> tuple[WeightRule, ...]:
    return (
        *aspp_rules(r"decoder\.aspp\.0\.", separable=True),
        *_separable(r"decoder\.aspp\.1", r"decoder\.aspp\.2", "head/refine0"),
        *TORCH.conv_norm(r"decoder\.block1\.0", r"decoder\.block1\.1", "head/low_level"),
        *_separable(r"decoder\.block2\.0", r"decoder\.block2\.1", "head/decoder0"),
    )


def _separable(conv: str, norm: str, target: str) -> tuple[WeightRule, ...]:
    """Depthwise and pointwise, and the one norm behind both."""
    pointwise = TORCH.conv_norm(rf"{conv}\.1", norm, f"{target}/pointwise")
    return *TORCH.depthwise(rf"{conv}\.0", f"{target}/depthwise"), *pointwise
