"""EfficientNets as torchvision names them, and as their first PyTorch port does, which smp has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from deeplab_jax.types import ArrayShapes, WeightRule
from deeplab_jax.weights.names import TORCH, require
from deeplab_jax.weights.torch_parts import Backbone

# Number of blocks and channels of the last one -> ours.
_KINDS: Mapping[tuple[int, int], str] = {
    (16, 320): "efficientnet_b0",
    (23, 320): "efficientnet_b1",
    (23, 352): "efficientnet_b2",
    (26, 384): "efficientnet_b3",
    (32, 448): "efficientnet_b4",
    (39, 512): "efficientnet_b5",
    (45, 576): "efficientnet_b6",
    (55, 640): "efficientnet_b7",
}
_TRAINED_AT = (224, 240, 260, 300, 380, 456, 528, 600)  # pixels, B0 to B7


def efficientnet_name(num_blocks: int, last_channels: int) -> str:
    """Our name of the EfficientNet with so many blocks.

    Raises:
      ValueError: when there is none.
    """
    if (num_blocks, last_channels) not in _KINDS:
        known = ", ".join(f"{size}: {name}" for size, name in _KINDS.items())
        raise ValueError(f"an EfficientNet of (blocks, channels) {(num_blocks, last_channels)}; there are {known}")
    return f"efficientnet.{_KINDS[num_blocks, last_channels]}"


def training_size(name: str) -> int:
    """Height and width of the images that it was trained on."""
    return _TRAINED_AT[int(name[-1])]


def torchvision_efficientnet(shapes: ArrayShapes, prefix: str) -> Backbone:
    """The one whose names begin with `prefix`; a block numbers only the parts it has.

    Raises:
      ValueError: where they are of none that is here.
    """
    start = re.escape(prefix)
    blocks = numbered(shapes, rf"{start}([1-7])\.(\d+)\.block\.0\.0\.weight")
    last = ".".join(map(str, blocks[-1]))
    name = efficientnet_name(len(blocks), require(shapes, f"{prefix}{last}.block.3.0.weight")[0])
    rules = [*TORCH.conv_norm(rf"{start}0\.0", rf"{start}0\.1", "backbone/stem")]
    rules += TORCH.conv_norm(rf"{start}8\.0", rf"{start}8\.1", "backbone/last")
    for block_id, (stage, index) in enumerate(blocks):
        parts = ["expand"] * (stage > 1) + ["depthwise", "squeeze_excite", "project"]
        for part_id, part in enumerate(parts):
            layer, target = rf"{start}{stage}\.{index}\.block\.{part_id}\.", f"backbone/block{block_id}/{part}"
            if part == "squeeze_excite":
                rules += squeeze_rules(f"{layer}fc1", f"{layer}fc2", target)
            else:
                kind = TORCH.depthwise_norm if part == "depthwise" else TORCH.conv_norm
                rules += kind(rf"{layer}0", rf"{layer}1", target)
    return Backbone(name, {}, tuple(rules))


def ported_efficientnet(shapes: ArrayShapes, prefix: str) -> Backbone:
    """The first port's; arguments as above."""
    start = re.escape(prefix)
    blocks = numbered(shapes, rf"{start}_blocks\.(\d+)\._depthwise_conv\.weight")
    last = require(shapes, f"{prefix}_blocks.{len(blocks) - 1}._project_conv.weight")[0]
    block, ours = rf"{start}_blocks\.(\d+)\._", "backbone/block{1}/"
    rules: tuple[WeightRule, ...] = (
        *TORCH.conv_norm(f"{start}_conv_stem", f"{start}_bn0", "backbone/stem"),
        *TORCH.conv_norm(f"{block}expand_conv", f"{block}bn0", f"{ours}expand"),
        *TORCH.depthwise_norm(f"{block}depthwise_conv", f"{block}bn1", f"{ours}depthwise"),
        *squeeze_rules(f"{block}se_reduce", f"{block}se_expand", f"{ours}squeeze_excite"),
        *TORCH.conv_norm(f"{block}project_conv", f"{block}bn2", f"{ours}project"),
    )
    return Backbone(efficientnet_name(len(blocks), last), {}, rules)


def squeeze_rules(reduce: str, expand: str, target: str) -> tuple[WeightRule, ...]:
    """Squeeze-and-excite of two convolutions with these names."""
    return (
        *TORCH.conv(reduce, f"{target}/reduce", bias=True),
        *TORCH.conv(expand, f"{target}/expand", bias=True),
    )


def numbered(shapes: Iterable[str], pattern: str) -> list[tuple[int, ...]]:
    """The numbers in the groups of `pattern`, in order, over the names that it fully matches."""
    return sorted({tuple(map(int, match.groups())) for name in shapes if (match := re.fullmatch(pattern, name))})
