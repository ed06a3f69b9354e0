"""segmentation_models.pytorch: DeepLab v3 and v3+ on its own encoders and timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, PeerNetwork, WeightLayout, WeightRule
from deeplab_jax.weights import timm_parts
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.timm_mobiles import mobile, ported
from deeplab_jax.weights.torch_efficientnets import ported_efficientnet, training_size
from deeplab_jax.weights.torch_parts import Backbone, aspp_rules, mobilenet_v2_rules, mobilenet_v2_width
from deeplab_jax.weights.torch_resnets import resnet, resnet_rules

_PRESET = PRESETS["smp"]
# Of EfficientNets, the convolution of their classifier, which it has and does not use.
_IGNORED = (r"classification_head\..*", r"encoder\.(_conv_head|_bn1|conv_head|bn2)\..*", TORCH_COUNTERS)
_V3PLUS_PYRAMID = "decoder.aspp.0."
_PYRAMIDS = (_V3PLUS_PYRAMID, "decoder.aspp.", "decoder.0.")  # the last: v3 before its decoder's parts were named


_DECODERS = {"aspp.aspp": "DeepLabV3", "v3plus.v3plus": "DeepLabV3Plus"}  # our head -> its network
_OWN, _TIMM = "encoder.", "encoder.model."  # what precedes the names of its own encoders, and of timm's
_ENCODERS = {  # our backbone -> its own encoder; it has timm's too
    "resnet.resnet18": "resnet18",
    "resnet.resnet34": "resnet34",
    "resnet.resnet50": "resnet50",
    "resnet.resnet101": "resnet101",
    "resnet.resnet152": "resnet152",
    "resnet.resnext50_32x4d": "resnext50_32x4d",
    "resnet.resnext101_32x8d": "resnext101_32x8d",
    "mobilenet_v2.mobilenet_v2": "mobilenet_v2",
}


_OTHERS = {  # an array of encoders that are not here -> what they are
    "encoder.features.conv1_1.conv.weight": "DPN",
    "encoder.layer0.conv1.weight": "SENet, SE-ResNet and SE-ResNeXt",
    "encoder.layer1.0.conv1.paths.0.conv.weight": "SK-ResNet",
    "encoder.layer1.0.conv2.paths.0.conv.weight": "SK-ResNeXt",
    "encoder.stage0.rbr_conv.0.conv.weight": "MobileOne",
}


class _Encoder(NamedTuple):
    config: dict[str, Any]
    rules: tuple[WeightRule, ...]
    normalization: str
    ported: Mapping[str, Any] = {}  # as of a WeightLayout


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    A file contains neither stride nor rates; the system's defaults are assumed, output stride 8 for v3 and 16 for v3+,
    and rates 12, 24, 36 at either.

    Raises:
      ValueError: when the names are not this system's, or the network is not supported.
    """
    pyramid = next((prefix for prefix in _PYRAMIDS if f"{prefix}project.0.weight" in shapes), _V3PLUS_PYRAMID)
    channels = require(shapes, f"{pyramid}project.0.weight")[0]
    is_v3plus = pyramid == _V3PLUS_PYRAMID
    if is_v3plus != (f"{pyramid}convs.1.0.0.weight" in shapes):
        raise ValueError(f"'{pyramid}convs': only full branches in v3 and separable ones in v3+ are supported")
    num_classes = require(shapes, "segmentation_head.0.weight")[0]
    head, stride = ("v3plus.v3plus", 16) if is_v3plus else ("aspp.aspp", 8)
    rates = {"atrous_rates": (12, 24, 36)}
    return _network(_encoder(shapes), head, channels, rates, num_classes=num_classes, output_stride=stride)


def peer(model: Mapping[str, Any], channels: int) -> PeerNetwork:
    """This system's counterpart of our network with these settings; arguments as for torchvision.

    Raises:
      ValueError: when there is none, whatever the other settings.
    """
    backbone, head = model["backbone"], model["head"]
    try:
        name, encoder = _named_encoder(backbone["name"], backbone["args"].get("carrier_rate", "old"))
        decoder = _DECODERS[head["name"]]
    except (ValueError, KeyError):
        encoders = ", ".join([*_ENCODERS.values(), *(f"tu-{name}" for name in timm_parts.NAMES.values())])
        known = f"{', '.join(_DECODERS.values())} on {encoders}"
        raise ValueError(f"head {head['name']} on backbone {backbone['name']}: there are {known}") from None
    stride, rates = model["output_stride"], tuple(head["args"].get("atrous_rates", (6, 12, 18)))
    if stride not in (8, 16) or len(rates) != 3:
        raise ValueError(
            f"output stride {stride} and atrous rates {rates}: there are three rates, and strides 8 and 16"
        )
    aspp_channels, given_at = head["args"].get("aspp_channels", 256), head["args"].get("rates_output_stride", 16)
    given = {"atrous_rates": rates, "rates_output_stride": given_at}
    layout = _network(
        encoder, head["name"], aspp_channels, given, num_classes=model["num_classes"], output_stride=stride
    )
    actual = tuple(rate * (given_at or stride) // stride for rate in rates)
    options = (
        f'"{name}", encoder_weights=None, encoder_output_stride={stride}, decoder_channels={aspp_channels}, '
        f"decoder_atrous_rates={actual}, in_channels={channels}, classes={model['num_classes']}"
    )
    return PeerNetwork(layout, f"segmentation_models_pytorch.{decoder}({options})")


def _network(
    encoder: _Encoder, head: str, channels: int, rates: Mapping[str, Any], *, num_classes: int, output_stride: int
) -> WeightLayout:
    """The layout of the network with our `head`; `rates` are its arguments about them."""
    arguments: dict[str, Any] = {"aspp_channels": channels, **rates}
    if head == "v3plus.v3plus":
        arguments["decoder_channels"] = channels
    model = _PRESET.model(
        num_classes=num_classes,
        output_stride=output_stride,
        backbone=encoder.config,
        head=_PRESET.part(head, **arguments),
        normalization=encoder.normalization,
    )
    logits = TORCH.conv(r"segmentation_head\.0", "head/logits", bias=True)
    head_rules = _v3plus_rules() if head == "v3plus.v3plus" else _v3_rules()
    return WeightLayout((*encoder.rules, *head_rules, *logits), _IGNORED, model, ported=encoder.ported)


def _encoder(shapes: ArrayShapes) -> _Encoder:
    for name, what in _OTHERS.items():
        if name in shapes:
            raise ValueError(f"its encoder is of the kind {what} ('{name}'), which is not here")
    if any(name.startswith(_TIMM) for name in shapes):
        return _timm_encoder(timm_parts.backbone(shapes, _TIMM, "_"))
    if f"{_OWN}features.0.0.weight" in shapes:
        return _mobilenet_v2(mobilenet_v2_width(shapes, f"{_OWN}features.17.conv.2.weight"))
    if f"{_OWN}conv_stem.weight" in shapes:  # 'timm-...': timm's blocks, its own rates
        found = mobile(shapes, _OWN)
        config = PRESETS["timm"].part(found.name, **found.arguments, carrier_rate="new")
        return _Encoder(config, found.rules, "imagenet", ported(found.name))
    if f"{_OWN}_conv_stem.weight" in shapes:
        found = ported_efficientnet(shapes, _OWN)
        arguments = {"padded_for": training_size(found.name)}
        if found.name == "efficientnet.efficientnet_b0":
            arguments["early_blocks"] = 2  # it counts two blocks of B0's fifth stage to the next one
        return _own_encoder(found._replace(arguments=arguments))
    return _own_encoder(resnet(shapes, _OWN))


def _named_encoder(name: str, carrier_rate: str) -> tuple[str, _Encoder]:
    """This system's name of our backbone, and the encoder.

    Args:
      carrier_rate: 'new' in its own encoders, 'old' in timm's, which compute their own rates.

    Raises:
      ValueError: when it has none.
    """
    if name in _ENCODERS and (carrier_rate == "new" or name not in timm_parts.NAMES):
        if name == "mobilenet_v2.mobilenet_v2":
            return _ENCODERS[name], _mobilenet_v2(1.0)
        return _ENCODERS[name], _own_encoder(Backbone(name, {}, resnet_rules(_OWN)))
    if name not in timm_parts.NAMES:
        raise ValueError(name)
    return f"tu-{timm_parts.NAMES[name]}", _timm_encoder(timm_parts.named_backbone(name, _TIMM, "_"))


def _own_encoder(found: Backbone) -> _Encoder:
    return _Encoder(_PRESET.part(found.name, **found.arguments), found.rules, "imagenet")


def _timm_encoder(found: Backbone) -> _Encoder:
    normalization = "minus_one_to_one" if found.name.startswith("xception.") else "imagenet"
    config = PRESETS["timm"].part(found.name, **found.arguments)
    return _Encoder(config, found.rules, normalization, ported(found.name))


def _mobilenet_v2(width: float) -> _Encoder:
    config = _PRESET.part("mobilenet_v2.mobilenet_v2", width=width)
    return _Encoder(config, mobilenet_v2_rules(rf"{re.escape(_OWN)}features\."), "imagenet")


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
    """Depthwise and pointwise convolutions, and the single norm after both."""
    pointwise = TORCH.conv_norm(rf"{conv}\.1", norm, f"{target}/pointwise")
    return *TORCH.depthwise(rf"{conv}\.0", f"{target}/depthwise"), *pointwise
