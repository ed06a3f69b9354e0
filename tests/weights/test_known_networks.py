"""Networks of other kinds are told by their arrays; those that exist here are none of them."""

from __future__ import annotations

import pytest

from deeplab_jax.weights.known_networks import identify

VIT = {"cls_token": (1, 1, 384), "blocks.0.attn.qkv.weight": (1152, 384)}
PYRAMID = {"decoder.aspp.0.project.0.weight": (256, 1280, 1, 1)}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            VIT | {"patch_embed.proj.weight": (384, 3, 16, 16), "pos_embed": (1, 197, 384)},
            "timm's vit_small_patch16_224: there is no such backbone here",
        ),
        (
            VIT | {"patch_embed.proj.weight": (500, 3, 14, 14), "pos_embed": (1, 257, 500)},
            "timm's vit_of width 500_patch14_224",
        ),
        ({"decoder.blocks.0.conv1.0.weight": (), "segmentation_head.0.weight": ()}, "smp's Unet: no DeepLab"),
        ({"decode_head.linear_fuse.weight": ()}, "transformers' SegFormer: no DeepLab"),
        (
            PYRAMID | {"encoder._conv_stem.weight": (48, 3, 3, 3), "encoder._conv_head.weight": (1792, 448, 1, 1),
                       "encoder._blocks.0._se_reduce.weight": ()},
            "smp's DeepLabV3Plus on efficientnet_pytorch's efficientnet b4, which is no backbone here",
        ),
        (PYRAMID, "smp's DeepLabV3Plus in a form that is not here"),
        ({"conv.weight": (8, 3, 3, 3)}, ""),
        ({"patch_embed.proj.weight": (), "pos_embed": (), "blocks.0.attn.qkv.weight": ()}, ""),
    ],
)  # fmt: skip
def test_what_it_is(shapes, words):
    found = identify(shapes)
    assert found.startswith(words) if words else not found


@pytest.mark.parametrize(
    "names",
    [
        ["conv1.weight", "bn1.weight", "layer1.0.conv3.weight", "fc.weight"],
        ["backbone.conv1.weight", "classifier.0.project.0.weight", "classifier.4.weight"],
        ["features.0.0.weight", "features.1.block.0.0.weight", "features.4.block.2.fc1.weight", "features.8.0.weight"],
    ],
)
def test_what_exists_here_is_none_of_them(names):
    assert identify(dict.fromkeys(names, (16, 3, 3, 3))) == ""
