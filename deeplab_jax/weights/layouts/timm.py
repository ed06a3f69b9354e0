"""timm: ImageNet Xceptions, which are TF deeplab's; its ResNets have torchvision's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, PeerNetwork, WeightLayout
from deeplab_jax.weights.names import TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import resnet_rules, xception_name, xception_rules

_PRESET = PRESETS["tf_slim"]
_BACKBONES = (
    "resnet.resnet50",
    "resnet.resnet101",
    "xception.xception41",
    "xception.xception65",
    "xception.xception71",
)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not timm's, or the network is not supported.
    """
    require(shapes, "stem.0.conv.weight")
    return _xception(xception_name(shapes, ""))


def peer(model: Mapping[str, Any], channels: int) -> PeerNetwork:
    """timm's counterpart of our network's backbone; arguments as for torchvision.

    Raises:
      ValueError: when there is none, whatever the other settings.
    """
    name, stride = model["backbone"]["name"], model["output_stride"]
    if name not in _BACKBONES or stride not in (8, 16, 32):
        raise ValueError(
            f"backbone {name} at output stride {stride}: there are {', '.join(_BACKBONES)} at 8, 16 and 32"
        )
    if name.startswith("resnet."):
        preset = PRESETS["torchvision"]
        layout = WeightLayout(resnet_rules(""), (TORCH_COUNTERS,), preset.model(backbone=preset.classifier(name)))
    else:
        layout = _xception(name)
    options = f'"{name.partition(".")[2]}", num_classes=0, output_stride={stride}, in_chans={channels}'
    return PeerNetwork(layout, f"timm.create_model({options})")


def _xception(name: str) -> WeightLayout:
    ignored = (r"head\.fc\..*", TORCH_COUNTERS)
    return WeightLayout(xception_rules(name, ""), ignored, _PRESET.model(backbone=_PRESET.classifier(name)))
