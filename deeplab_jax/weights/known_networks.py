"""Networks of other kinds, by the names of their arrays: a file of one is answered by what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from deeplab_jax.types import ArrayShapes
from deeplab_jax.weights.names import count
from deeplab_jax.weights.prefixes import under


class _Size(NamedTuple):
    """Tells the sizes of a network: by an array's shape, or by the number of its units."""

    array: str = ""  # name whose axis counts
    axis: int = 0
    units: str = ""  # pattern whose first group counts
    names: Mapping[int, str] = {}


class _Signature(NamedTuple):
    """Names that only this network has: each must be one of the file's."""

    system: str
    network: str  # '{}' is its size
    markers: tuple[str, ...]
    sizes: tuple[_Size, ...] = ()


_VIT_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_SWIN_WIDTHS = {96: "tiny or small", 128: "base", 192: "large"}
_CONVNEXT_WIDTHS = {96: "tiny or small", 128: "base", 192: "large", 256: "xlarge"}
_HRNET_WIDTHS = {width: str(width) for width in (18, 30, 32, 40, 44, 48, 64)}
_MIT_DEPTHS = {(32, 2): "0", (64, 2): "1", (64, 4): "2", (64, 18): "3", (64, 27): "4", (64, 40): "5"}
_EFFICIENTNET = {  # by channels of the stem and the last convolution
    (32, 1280): "b0 or b1",
    (32, 1408): "b2",
    (40, 1536): "b3",
    (48, 1792): "b4",
    (48, 2048): "b5",
    (56, 2304): "b6",
    (64, 2560): "b7",
}

_BACKBONES = (
    _Signature(
        "timm",
        "convnext_{}",
        ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.0.mlp.fc1.weight"),
        (_Size("stem.0.weight", names=_CONVNEXT_WIDTHS),),
    ),
    _Signature(
        "torchvision",
        "convnext_{}",
        ("features.0.0.weight", "features.1.0.layer_scale"),
        (_Size("features.0.0.weight", names=_CONVNEXT_WIDTHS),),
    ),
    _Signature("transformers", "ConvNeXt", ("convnext.embeddings.patch_embeddings.weight",)),
    _Signature(
        "timm",
        "hrnet_w{}",
        ("stage2.0.fuse_layers.0.1.0.weight", "transition1.0.0.weight"),
        (_Size("transition1.0.0.weight", names=_HRNET_WIDTHS),),
    ),
    _Signature(
        "timm",
        "swin_{}",
        ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"),
        (_Size("patch_embed.proj.weight", names=_SWIN_WIDTHS),),
    ),
    _Signature(
        "torchvision",
        "swin_{}",
        ("features.0.0.weight", "features.1.0.attn.relative_position_bias_table"),
        (_Size("features.0.0.weight", names=_SWIN_WIDTHS),),
    ),
    _Signature("timm", "densenet", ("features.denseblock1.denselayer1.norm1.weight",)),
    _Signature("timm", "regnet", ("stem.conv.weight", "s1.b1.conv1.conv.weight")),
    _Signature("torchvision", "regnet", ("stem.0.weight", "trunk_output.block1.block1-0.f.a.0.weight")),
    _Signature("torchvision", "vit", ("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight")),
    _Signature("transformers", "MobileNetV1 under its own names", ("mobilenet_v1.conv_stem.convolution.weight",)),
    _Signature("transformers", "ViT", ("vit.embeddings.cls_token",)),
    _Signature("transformers", "DINOv2", ("embeddings.mask_token", "encoder.layer.0.layer_scale1.lambda1")),
    _Signature("torchvision", "inception_v3", ("Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight")),
    _Signature("torchvision", "googlenet", ("inception3a.branch1.conv.weight",)),
    _Signature("torchvision", "squeezenet", ("features.3.squeeze.weight", "features.3.expand3x3.weight")),
    _Signature("torchvision", "shufflenet_v2", ("stage2.0.branch1.0.weight", "conv5.0.weight")),
    _Signature("torchvision", "mnasnet", ("layers.0.weight", "layers.8.0.layers.0.weight")),
    _Signature("torchvision", "alexnet", ("features.0.weight", "features.3.weight", "features.10.weight")),
)
_SEGMENTERS = (
    _Signature("smp", "MAnet", ("decoder.center.top_conv.weight",)),
    _Signature("smp", "Unet", ("decoder.blocks.0.conv1.0.weight", "segmentation_head.0.weight")),
    _Signature("smp", "UnetPlusPlus", ("decoder.blocks.x_0_0.conv1.0.weight", "segmentation_head.0.weight")),
    _Signature("smp", "FPN", ("decoder.p5.weight", "decoder.seg_blocks.0.block.0.block.0.weight")),
    _Signature("smp", "PSPNet", ("decoder.psp.blocks.0.pool.1.0.weight",)),
    _Signature("smp", "PAN", ("decoder.fpa.branch1.1.conv.weight",)),
    _Signature("smp", "Linknet", ("decoder.blocks.0.block.0.0.weight", "segmentation_head.0.weight")),
    _Signature("smp", "UPerNet", ("decoder.psp.blocks.0.1.0.weight", "segmentation_head.0.weight")),
    _Signature("smp", "Segformer", ("decoder.mlp_stage.0.linear.weight",)),
    _Signature("smp", "DPT", ("decoder.projection_blocks.0.0.weight",)),
    _Signature("transformers", "SegFormer", ("decode_head.linear_fuse.weight",)),
    _Signature("transformers", "UPerNet", ("decode_head.psp_modules.0.1.conv.weight", "decode_head.classifier.weight")),
    _Signature("mmseg", "SegFormer", ("decode_head.convs.0.conv.weight", "decode_head.fusion_conv.conv.weight")),
    _Signature("mmseg", "UPerNet", ("decode_head.psp_modules.0.1.conv.weight", "decode_head.conv_seg.weight")),
    _Signature("mmseg", "PSPNet", ("decode_head.psp_modules.0.1.conv.weight",)),
    _Signature("torchvision", "Mask R-CNN", ("roi_heads.mask_predictor.mask_fcn_logits.weight",)),
    _Signature(
        "torchvision", "Faster R-CNN", ("roi_heads.box_predictor.cls_score.weight", "rpn.head.cls_logits.weight")
    ),
    _Signature("detectron2", "Mask R-CNN", ("roi_heads.mask_head.predictor.weight",)),
    _Signature("detectron2", "Faster R-CNN", ("roi_heads.box_predictor.cls_score.weight",)),
    _Signature("Ultralytics", "YOLO", ("model.0.conv.weight", "model.1.conv.weight", "model.22.dfl.conv.weight")),
    _Signature(
        "Meta", "Segment Anything", ("image_encoder.patch_embed.proj.weight", "prompt_encoder.no_mask_embed.weight")
    ),
)
# smp's networks that exist here, on an encoder that does not.
_PYRAMIDS = {"decoder.aspp.0.project.0.weight": "DeepLabV3Plus", "decoder.aspp.project.0.weight": "DeepLabV3"}


OTHER_FORM = "in a form that is not here"


def identify(shapes: ArrayShapes) -> str:
    """What a file with these names is, and what is missing here; '' if it is not known."""
    for signature in _SEGMENTERS:
        if all(marker in shapes for marker in signature.markers):
            return f"{_owned(signature)}: no DeepLab, and there is no such network here"
    for marker, network in _PYRAMIDS.items():
        if marker in shapes:
            encoder = _backbone(under(shapes, "encoder.model.")) or _backbone(under(shapes, "encoder."))
            return f"smp's {network} " + (f"on {encoder}, which is no backbone here" if encoder else OTHER_FORM)
    backbone = _backbone(shapes)
    return f"{backbone}: there is no such backbone here" if backbone else ""


def _backbone(shapes: ArrayShapes) -> str:
    """System and name of a backbone; '' if it is not known."""
    if found := _vit(shapes) or _mix_transformer(shapes) or _efficientnet(shapes):
        return found
    for signature in _BACKBONES:
        if all(_present(shapes, marker) for marker in signature.markers):
            size = next((_size(shapes, size) for size in signature.sizes), "")
            return _owned(signature, size)
    return ""


def _owned(signature: _Signature, size: str = "") -> str:
    """'timm's convnext_base'."""
    possessive = "'" if signature.system.endswith("s") else "'s"
    return f"{signature.system}{possessive} {signature.network.format(size)}"


def _present(shapes: ArrayShapes, marker: str) -> bool:
    """Whether there is such a name; smp's timm encoders flatten the first dots of one to '_'."""
    return marker in shapes or re.sub(r"\.(\d+)", r"_\1", marker, count=1) in shapes


def _size(shapes: ArrayShapes, size: _Size) -> str:
    if size.units:
        number = count(shapes, size.units)
    else:
        name = size.array if size.array in shapes else re.sub(r"\.(\d+)", r"_\1", size.array, count=1)
        number = shapes[name][size.axis]
    return size.names.get(number, f"of width {number}")


def _vit(shapes: ArrayShapes) -> str:
    """timm's ViTs: size by width, patch by the kernel, image by the number of positions."""
    patch, positions = shapes.get("patch_embed.proj.weight", ()), shapes.get("pos_embed", ())
    if "blocks.0.attn.qkv.weight" not in shapes or len(patch) != 4 or len(positions) != 3:
        return ""
    side = round(max(positions[1] - ("cls_token" in shapes), 0) ** 0.5) * patch[3]
    return f"timm's vit_{_VIT_WIDTHS.get(patch[0], f'of width {patch[0]}')}_patch{patch[3]}_{side}"


def _mix_transformer(shapes: ArrayShapes) -> str:
    """SegFormer's encoder."""
    width = shapes.get("patch_embed1.proj.weight", ())
    if len(width) != 4 or "block1.0.attn.sr.weight" not in shapes:
        return ""
    size = _MIT_DEPTHS.get((width[0], count(shapes, r"block3\.(\d+)\.norm1\.weight")), "")
    return f"smp's mit_b{size}"


def _efficientnet(shapes: ArrayShapes) -> str:
    """Of timm, torchvision, or of efficientnet_pytorch, which smp has."""
    for system, stem, last in (
        ("timm", "conv_stem.weight", "conv_head.weight"),
        ("efficientnet_pytorch", "_conv_stem.weight", "_conv_head.weight"),
        ("torchvision", "features.0.0.weight", "features.8.0.weight"),
    ):
        if (
            stem in shapes
            and last in shapes
            and any(".se" in name or "_se_" in name or ".fc1." in name for name in shapes)
        ):
            size = _EFFICIENTNET.get((shapes[stem][0], shapes[last][0]))
            if size:
                return f"{system}'s efficientnet {size}"
    return ""
