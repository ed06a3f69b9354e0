"""timm: backbones trained on ImageNet; its plain ResNets have torchvision's names, and are of that layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, PeerNetwork, WeightLayout
from deeplab_jax.weights.names import TORCH_COUNTERS
from deeplab_jax.weights.timm_mobiles import UNUSED, ported
from deeplab_jax.weights.timm_parts import NAMES, backbone, named_backbone
from deeplab_jax.weights.torch_parts import Backbone

_PRESET = PRESETS["timm"]
_IGNORED = (r"(head\.)?fc\..*", UNUSED, TORCH_COUNTERS)


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not timm's, or the network is not supported.
    """
    if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
        raise ValueError("its names are torchvision's")
    return _layout(backbone(shapes, ""))


def peer(model: Mapping[str, Any], channels: int) -> PeerNetwork:
    """timm's counterpart of our network's backbone; arguments as for torchvision.

    Raises:
      ValueError: when there is none, whatever the other settings.
    """
    name, stride = model["backbone"]["name"], model["output_stride"]
    if name not in NAMES or stride not in (8, 16, 32):
        raise ValueError(f"backbone {name} at output stride {stride}: there are {', '.join(NAMES)} at 8, 16 and 32")
    options = f'"{NAMES[name]}", num_classes=0, output_stride={stride}, in_chans={channels}'
    return PeerNetwork(_layout(named_backbone(name, "")), f"timm.create_model({options})")


def _layout(found: Backbone) -> WeightLayout:
    config = _PRESET.classifier(found.name, **found.arguments)
    normalization = "minus_one_to_one" if found.name.startswith("xception.") else _PRESET.normalization
    model = _PRESET.model(backbone=config, normalization=normalization)
    return WeightLayout(found.rules, _IGNORED, model, ported=ported(found.name))
