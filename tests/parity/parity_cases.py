"""The networks of other systems that ours are compared with: what each is, how its peer is built, on which images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch_peers import import_peer

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BYTES = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Ends of residual branches, whose scales are drawn small.
_RESNET = r".*layer\d\.\d+\.bn3\.weight"
_BASIC_RESNET = r".*layer\d\.\d+\.bn2\.weight"
_XCEPTION = r".*blocks[._]\d+\.stack\.conv3\.bn_pw\.weight"
_MOBILENET_V2 = r".*features\.(3|5|6|8|9|10|12|13|15|16)\.conv\.3\.weight"
_MOBILENET_V3_LARGE = r"(backbone|features)\.(1\.block\.1|(3|8|9|10)\.block\.2|(5|6|12|14|15)\.block\.3)\.1\.weight"
_MOBILENET_V3_SMALL = r"features\.(3\.block\.2|(5|6|8|10|11)\.block\.3)\.1\.weight"
_EFFICIENTNET = r".*\.(\d+\.block\.3\.1|_bn2)\.weight"  # torchvision's, and the first port's
_TIMM_MOBILE = r".*blocks\.\d+\.\d+\.bn3\.weight"
_TRANSFORMERS_RESNET = r"resnet\.encoder\.stages\.\d\.layers\.\d+\.layer\.{}\.normalization\.weight"
_MOBILEVIT = r".*\.1\.layer\.[12]\.reduce_1x1\.normalization\.weight"
_XXS = {"hidden_sizes": (64, 80, 96), "neck_hidden_sizes": (16, 16, 24, 48, 64, 80, 320), "expand_ratio": 2.0}
_TRANSFORMERS = r".*layer\.(1|3|4|6|7|8|10|11|13|14)\.reduce_1x1\.normalization\.weight"

# Odd and even, and so long that the pyramid's largest rate reaches from one end to the other.
_OUTPUT_STRIDE_8 = ((33, 321), (48, 328))
_OUTPUT_STRIDE_16 = ((33, 609), (48, 608))
_SHORT = ((65, 97), (64, 128))
# segmentation_models.pytorch takes multiples of the output stride alone: odd and even numbers of cells.
_SMP_8 = ((40, 328), (64, 304))
_SMP_16 = ((48, 592), (32, 608))


class Peer(NamedTuple):
    """A torch module, and what of it is compared: images [b, 3, h, w] -> map."""

    module: Any
    forward: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of another system.

    Attributes:
      layout: its layout here.
      package: distribution of the peer, whose version is recorded.
      build: makes the peer.
      sizes: (height, width) of the images.
      output: 'logits' at the image's size, 'logits_and_auxiliary' with those of the auxiliary head behind them,
        'scores' at the head's stride, 'features' (the deepest) of a file with a backbone alone.
      normalization: mean and standard deviation as the system gives them, for RGB in [0, 1].
      damped, gain: see `drawn_weight`.
      left_out: names that are compared as names, and left out of the file of weights for their size.
      slow: too large, or too like another, for every run of the tests: there its names alone are compared.
    """

    layout: str
    package: str
    build: Callable[[], Peer]
    sizes: tuple[tuple[int, int], ...]
    output: str = "logits"
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    damped: str = ""
    gain: float = 1.0
    left_out: str = ""
    slow: bool = False


def _torchvision(name: str, **arguments: Any) -> Callable[[], Peer]:
    def build() -> Peer:
        models, torch = import_peer("torchvision.models.segmentation"), import_peer("torch")
        module = getattr(models, name)(weights=None, weights_backbone=None, num_classes=21, **arguments)
        return Peer(module, lambda x: torch.cat(list(module(x).values()), dim=1))

    return build


def _torchvision_backbone(name: str, features: Callable[[Any], Any]) -> Callable[[], Peer]:
    def build() -> Peer:
        module = getattr(import_peer("torchvision.models"), name)(weights=None)
        return Peer(module, features(module))

    return build


def _resnet_features(module: Any) -> Callable[[Any], Any]:
    return import_peer("torch").nn.Sequential(*list(module.children())[:-2])


def _timm_backbone(name: str) -> Callable[[], Peer]:
    def build() -> Peer:
        module = import_peer("timm").create_model(name, pretrained=False)
        return Peer(module, module.forward_features)

    return build


def _timm_mobile(name: str) -> Callable[[], Peer]:
    """Up to its last block: the 1x1 convolution behind belongs to the classifier."""

    def build() -> Peer:
        module = import_peer("timm").create_model(name, pretrained=False)
        return Peer(module, lambda x: module.blocks(module.bn1(module.conv_stem(x))))

    return build


def _smp(name: str, encoder: str) -> Callable[[], Peer]:
    def build() -> Peer:
        smp = import_peer("segmentation_models_pytorch")
        module = getattr(smp, name)(encoder_name=encoder, encoder_weights=None, classes=21)
        return Peer(module, module)

    return build


def _transformers() -> Peer:
    transformers = import_peer("transformers")
    config = transformers.MobileNetV2Config(output_stride=16, num_labels=21)
    module = transformers.MobileNetV2ForSemanticSegmentation(config)
    return Peer(module, lambda x: module(pixel_values=x).logits)


def _transformers_backbone() -> Peer:
    transformers = import_peer("transformers")
    module = transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=1.4))
    return Peer(module, lambda x: module.mobilenet_v2(x, output_hidden_states=True).hidden_states[-1])


def _transformers_resnet(**arguments: Any) -> Callable[[], Peer]:
    def build() -> Peer:
        transformers = import_peer("transformers")
        module = transformers.ResNetForImageClassification(transformers.ResNetConfig(**arguments))
        return Peer(module, lambda x: module.resnet(x).last_hidden_state)

    return build


def _mobilevit(output_stride: int, **arguments: Any) -> Callable[[], Peer]:
    """Its images are BGR; those of the cases RGB."""

    def build() -> Peer:
        transformers = import_peer("transformers")
        config = transformers.MobileViTConfig(output_stride=output_stride, num_labels=21, **arguments)
        module = transformers.MobileViTForSemanticSegmentation(config)
        return Peer(module, lambda x: module(pixel_values=x.flip(1)).logits)

    return build


def _torchvision_case(build: Callable[[], Peer], damped: str, **changes: Any) -> Case:
    return Case(**{"layout": "torchvision", "package": "torchvision", "build": build, "damped": damped, **changes})


def _smp_case(name: str, encoder: str, damped: str, **changes: Any) -> Case:
    sizes = _SMP_16 if name == "DeepLabV3Plus" else _SMP_8
    fields = {"layout": "smp", "package": "segmentation_models_pytorch", "sizes": sizes, "damped": damped}
    return Case(**{**fields, "build": _smp(name, encoder), **changes})


def _timm_case(name: str, **changes: Any) -> Case:
    fields = {"build": _timm_backbone(name), "sizes": _SHORT, "output": "features", "normalization": _HALF}
    return Case(**{"layout": "timm", "package": "timm", **fields, "damped": _XCEPTION, **changes})


# The weights of torchvision's published networks have the auxiliary head.
_AUXILIARY: dict[str, Any] = {"sizes": _OUTPUT_STRIDE_8, "output": "logits_and_auxiliary"}
_BACKBONE: dict[str, Any] = {"sizes": _SHORT, "output": "features"}
CASES: Mapping[str, Case] = {
    "torchvision_deeplabv3_resnet50": _torchvision_case(
        _torchvision("deeplabv3_resnet50", aux_loss=True), _RESNET, **_AUXILIARY
    ),
    "torchvision_deeplabv3_resnet101": _torchvision_case(
        _torchvision("deeplabv3_resnet101", aux_loss=True), _RESNET, **_AUXILIARY, slow=True
    ),
    "torchvision_deeplabv3_mobilenet_v3_large": _torchvision_case(
        _torchvision("deeplabv3_mobilenet_v3_large", aux_loss=True),
        _MOBILENET_V3_LARGE,
        **{**_AUXILIARY, "sizes": _OUTPUT_STRIDE_16},
    ),
    "torchvision_lraspp_mobilenet_v3_large": _torchvision_case(
        _torchvision("lraspp_mobilenet_v3_large"), _MOBILENET_V3_LARGE, sizes=_SHORT
    ),
    "torchvision_fcn_resnet50": _torchvision_case(
        _torchvision("fcn_resnet50", aux_loss=True), _RESNET, **{**_AUXILIARY, "sizes": _SHORT}, slow=True
    ),
    "torchvision_fcn_resnet101": _torchvision_case(
        _torchvision("fcn_resnet101", aux_loss=True), _RESNET, **{**_AUXILIARY, "sizes": _SHORT}, slow=True
    ),
    "torchvision_resnet50": _torchvision_case(
        _torchvision_backbone("resnet50", _resnet_features), _RESNET, **_BACKBONE, slow=True
    ),
    "torchvision_resnet101": _torchvision_case(
        _torchvision_backbone("resnet101", _resnet_features), _RESNET, **_BACKBONE, slow=True
    ),
    **{
        f"torchvision_{name}": _torchvision_case(
            _torchvision_backbone(name, _resnet_features), damped, **_BACKBONE, slow=True
        )
        for name, damped in (
            ("resnet18", _BASIC_RESNET),
            ("resnet152", _RESNET),
            ("wide_resnet50_2", _RESNET),
            ("resnext50_32x4d", _RESNET),
        )
    },
    "torchvision_vgg16": _torchvision_case(
        _torchvision_backbone("vgg16", lambda module: module.features),
        "",
        # Its 2x2 poolings drop what is odd at the end, ours keep it: they agree where nothing is.
        **{**_BACKBONE, "sizes": ((96, 64), (32, 160))},
        gain=2**0.5,
        left_out=r"classifier\..*",
    ),
    "torchvision_vgg16_bn": _torchvision_case(
        _torchvision_backbone("vgg16_bn", lambda module: module.features),
        "",
        **{**_BACKBONE, "sizes": ((96, 64), (32, 160))},
        left_out=r"classifier\..*",
        slow=True,
    ),
    "torchvision_efficientnet_b0": _torchvision_case(
        _torchvision_backbone("efficientnet_b0", lambda module: module.features[:-1]),
        _EFFICIENTNET,
        **_BACKBONE,
        slow=True,
    ),
    "torchvision_mobilenet_v2": _torchvision_case(
        _torchvision_backbone("mobilenet_v2", lambda module: module.features[:-1]),
        _MOBILENET_V2,
        **_BACKBONE,
        slow=True,
    ),
    "torchvision_mobilenet_v3_large": _torchvision_case(
        _torchvision_backbone("mobilenet_v3_large", lambda module: module.features),
        _MOBILENET_V3_LARGE,
        **_BACKBONE,
        slow=True,
    ),
    "torchvision_mobilenet_v3_small": _torchvision_case(
        _torchvision_backbone("mobilenet_v3_small", lambda module: module.features),
        _MOBILENET_V3_SMALL,
        **_BACKBONE,
        slow=True,
    ),
    "timm_xception41": _timm_case("xception41"),
    "timm_xception65": _timm_case("xception65", slow=True),
    "timm_xception71": _timm_case("xception71", slow=True),
    "timm_resnet50": _timm_case("resnet50", layout="torchvision", normalization=_IMAGENET, damped=_RESNET, slow=True),
    "timm_resnet50d": _timm_case("resnet50d", normalization=_IMAGENET, damped=_RESNET, slow=True),
    **{
        f"timm_{name}": _timm_case(
            name, build=_timm_mobile(name), normalization=_IMAGENET, damped=_TIMM_MOBILE, slow=True
        )
        for name in ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0")
    },
    "smp_deeplabv3plus_efficientnet_b0": _smp_case("DeepLabV3Plus", "efficientnet-b0", _EFFICIENTNET, slow=True),
    "smp_deeplabv3plus_timm_efficientnet_b0": _smp_case(
        "DeepLabV3Plus", "timm-efficientnet-b0", _TIMM_MOBILE, slow=True
    ),
    "smp_deeplabv3plus_tu_mobilenetv3_large_100": _smp_case(
        "DeepLabV3Plus", "tu-mobilenetv3_large_100", _TIMM_MOBILE, slow=True
    ),
    # What DeepLabV3() and DeepLabV3Plus() are without arguments.
    "smp_deeplabv3_resnet34": _smp_case("DeepLabV3", "resnet34", _BASIC_RESNET, slow=True),
    "smp_deeplabv3plus_resnet34": _smp_case("DeepLabV3Plus", "resnet34", _BASIC_RESNET),
    "smp_deeplabv3plus_resnext50_32x4d": _smp_case("DeepLabV3Plus", "resnext50_32x4d", _RESNET, slow=True),
    "smp_deeplabv3plus_tu_resnet34": _smp_case("DeepLabV3Plus", "tu-resnet34", _BASIC_RESNET, slow=True),
    "smp_deeplabv3plus_tu_resnet50d": _smp_case("DeepLabV3Plus", "tu-resnet50d", _RESNET, slow=True),
    "smp_deeplabv3_resnet50": _smp_case("DeepLabV3", "resnet50", _RESNET, slow=True),
    "smp_deeplabv3_mobilenet_v2": _smp_case("DeepLabV3", "mobilenet_v2", _MOBILENET_V2),
    "smp_deeplabv3plus_resnet50": _smp_case("DeepLabV3Plus", "resnet50", _RESNET),
    "smp_deeplabv3plus_resnet101": _smp_case("DeepLabV3Plus", "resnet101", _RESNET, slow=True),
    "smp_deeplabv3plus_tu_resnet50": _smp_case("DeepLabV3Plus", "tu-resnet50", _RESNET, slow=True),
    "smp_deeplabv3plus_mobilenet_v2": _smp_case("DeepLabV3Plus", "mobilenet_v2", _MOBILENET_V2, slow=True),
    "smp_deeplabv3plus_tu_xception41": _smp_case(
        "DeepLabV3Plus", "tu-xception41", _XCEPTION, normalization=_HALF, slow=True
    ),
    "smp_deeplabv3plus_tu_xception65": _smp_case(
        "DeepLabV3Plus", "tu-xception65", _XCEPTION, normalization=_HALF, slow=True
    ),
    "transformers_deeplabv3_mobilenet_v2": Case(
        "transformers", "transformers", _transformers, _SHORT, "scores", _HALF, _TRANSFORMERS
    ),
    "transformers_mobilenet_v2": Case(
        "transformers", "transformers", _transformers_backbone, _SHORT, "features", _HALF, _TRANSFORMERS, slow=True
    ),
    "transformers_resnet18": Case(
        "transformers",
        "transformers",
        _transformers_resnet(layer_type="basic", depths=(2, 2, 2, 2), hidden_sizes=(64, 128, 256, 512)),
        _SHORT,
        "features",
        damped=_TRANSFORMERS_RESNET.format(1),
    ),
    "transformers_resnet50": Case(
        "transformers",
        "transformers",
        _transformers_resnet(),
        _SHORT,
        "features",
        damped=_TRANSFORMERS_RESNET.format(2),
        slow=True,
    ),
    "transformers_deeplabv3_mobilevit_small": Case(
        "transformers", "transformers", _mobilevit(16), _SHORT, "scores", _BYTES, _MOBILEVIT, slow=True
    ),
    "transformers_deeplabv3_mobilevit_xx_small": Case(
        "transformers", "transformers", _mobilevit(16, **_XXS), _SHORT, "scores", _BYTES, _MOBILEVIT
    ),
}
