"""jfzhang95/pytorch-deeplab-xception: DeepLab v3+ on ResNet-101, output stride 16, multi-grid (1, 2, 4).

It has dropout after ASPP (0.5) and between the decoder's convolutions (0.5 and 0.1); only the first exists here, which
matters only in training.

Source: modeling/{deeplab,aspp,decoder,backbone/resnet}.py there.
"""

from __future__ import annotations

from deeplab_jax.presets import PRESETS
from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule
from deeplab_jax.weights.names import TORCH, TORCH_COUNTERS, require
from deeplab_jax.weights.torch_resnets import resnet

_PRESET = PRESETS["jfzhang"]
_BACKBONE = "backbone."


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of a file with these array names.

    Raises:
      ValueError: when the names are not jfzhang's, or the backbone is not a ResNet.
    """
    require(shapes, "aspp.aspp1.atrous_conv.weight")
    num_classes = require(shapes, "decoder.last_conv.8.weight")[0]
    found = resnet(shapes, _BACKBONE)
    backbone = _PRESET.part(found.name, **found.arguments)
    head = _PRESET.part("v3plus.v3plus")
    model = _PRESET.model(num_classes=num_classes, output_stride=16, backbone=backbone, head=head)
    return WeightLayout((*found.rules, *_head_rules()), (TORCH_COUNTERS,), model)


def _head_rules() -> tuple[WeightRule, ...]:
    branch, pooling, last = r"aspp\.aspp(\d)\.", r"aspp\.global_avg_pool\.", r"decoder\.last_conv\."
    return (
        *TORCH.conv_norm(f"{branch}atrous_conv", f"{branch}bn", "head/aspp/aspp{1-1}"),
        *TORCH.conv_norm(f"{pooling}1", f"{pooling}2", "head/aspp/image_pooling"),
        *TORCH.conv_norm(r"aspp\.conv1", r"aspp\.bn1", "head/aspp/projection", channels="pool_last"),
        *TORCH.conv_norm(r"decoder\.conv1", r"decoder\.bn1", "head/low_level"),
        *TORCH.conv_norm(f"{last}0", f"{last}1", "head/decoder0"),
        *TORCH.conv_norm(f"{last}4", f"{last}5", "head/decoder1"),
        *TORCH.conv(f"{last}8", "head/logits", bias=True),
    )
