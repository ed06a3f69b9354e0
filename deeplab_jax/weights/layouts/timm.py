"""timm: the aligned Xceptions of ImageNet, which are TF deeplab's; its ResNets are named as torchvision's."""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout
from deeplab_jax.weights.names import TORCH_COUNTERS, require
from deeplab_jax.weights.torch_parts import xception_name, xception_rules

_PRESET = PRESETS["tf_slim"]


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these names.

    Raises:
      ValueError: where they are not timm's, or of a network that is not here.
    """
    require(shapes, "stem.0.conv.weight")
    backbone = _PRESET.classifier(xception_name(shapes, ""))
    ignored = (r"head\.fc\..*", TORCH_COUNTERS)
    return WeightLayout(xception_rules(shapes, ""), ignored, _PRESET.model(backbone=backbone))
