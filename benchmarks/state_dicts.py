"""Ordinary state dicts of other systems: which are loaded, and with which words the others are refused.

    python benchmarks/state_dicts.py [--output=FILE.md]

Writes docs/state_dicts.md. Needs the peers, which the project itself does not: torch, torchvision, timm, transformers,
segmentation_models_pytorch. Names and shapes are the installed peers'; the numbers are compared in docs/parity.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

sys.path.extend(
    str(pathlib.Path(__file__).resolve().parent.parent / folder) for folder in (".", "tests", "tests/parity")
)

import numpy as np
from both_sides import backbone_config, empty_variables
from torch_peers import import_peer

from deeplab_jax.apps.assembly.weights_file import find_layout
from deeplab_jax.apps.import_weights import model_config
from deeplab_jax.config import PretrainedConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.types import UserError
from deeplab_jax.weights.load import load_weights

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "state_dicts.md"
HEADER = """\
# Ordinary state dicts

What becomes of the files that people have: each network is built by its system, without its weights, and its names and
shapes are recognised and placed here, every array. Written by `python benchmarks/state_dicts.py`; change nothing by
hand. The numbers are compared in [parity.md](parity.md).

| system | network | here |
|---|---|---|
"""
_TORCHVISION = (
    "resnet18", "resnet34", "resnet152", "wide_resnet50_2", "resnext50_32x4d", "efficientnet_b0", "convnext_tiny",
    "vgg16_bn",
)  # fmt: skip
_TIMM = (
    "resnet26", "resnet34", "resnet50d", "mobilenetv2_100", "mobilenetv3_large_100", "convnext_tiny", "hrnet_w18",
    "vit_small_patch16_224",
)  # fmt: skip
_V3PLUS: tuple[dict[str, Any], ...] = (
    {},
    *({"encoder_name": name} for name in ("resnet18", "resnet152", "resnext50_32x4d", "efficientnet-b0")),
    *({"encoder_name": name} for name in ("tu-convnext_tiny", "tu-mobilenetv3_large_100")),
    {"in_channels": 4},
    {"encoder_output_stride": 8},
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--output", type=pathlib.Path, default=PAGE)
    options = arguments.parse_args()
    rows = []
    for system, network, build in _networks():
        row = f"| {system} | {network} | {_outcome(build)} |"
        print(row, flush=True)
        rows.append(row)
    options.output.write_text(HEADER + "\n".join(rows) + "\n")


def _networks() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    torchvision, timm = import_peer("torchvision.models"), import_peer("timm")
    smp, hf = import_peer("segmentation_models_pytorch"), import_peer("transformers")
    for name in _TORCHVISION:
        yield "torchvision", name, lambda name=name: getattr(torchvision, name)(weights=None)
    yield (
        "torchvision",
        "deeplabv3_resnet50",
        lambda: import_peer("torchvision.models.segmentation").deeplabv3_resnet50(weights=None, weights_backbone=None),
    )
    for name in _TIMM:
        yield "timm", name, lambda name=name: timm.create_model(name, pretrained=False)
    plain: dict[str, Any] = {"encoder_weights": None, "classes": 21}
    yield "smp", "DeepLabV3()", lambda: smp.DeepLabV3(**plain)
    for options in _V3PLUS:
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        yield "smp", f"DeepLabV3Plus({shown})", lambda options=options: smp.DeepLabV3Plus(**plain, **options)
    for name, encoder in (("Unet", "resnet34"), ("FPN", "resnet34"), ("Segformer", "mit_b0")):
        yield "smp", f"{name}({encoder!r})", lambda name=name, e=encoder: getattr(smp, name)(e, **plain)
    for network, config in (
        ("ResNetForImageClassification", hf.ResNetConfig()),
        ("SegformerForSemanticSegmentation", hf.SegformerConfig()),
        ("MobileViTForSemanticSegmentation", hf.MobileViTConfig()),
        ("MobileNetV1ForImageClassification", hf.MobileNetV1Config()),
        ("MobileNetV2ForSemanticSegmentation", hf.MobileNetV2Config(output_stride=32)),
    ):
        yield "transformers", network, lambda network=network, config=config: getattr(hf, network)(config)


def _outcome(build: Callable[[], Any]) -> str:
    """Our parts for the network, or why there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with import_peer("torch").device("meta"):
                states = build().state_dict()
        except (ValueError, RuntimeError):  # some compute while they are built
            states = build().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in states.items()}
    try:
        layout = find_layout("the file", shapes)
    except UserError as error:
        return f"refused: {str(error).partition(': ')[2]}"
    is_whole = "head" in layout.model
    stem = next((name for name in shapes if name.endswith("conv1.weight") and shapes[name][1] == 4), "")
    if stem:  # a network for images of as many channels, which tests/parity/test_wrapped.py runs
        shapes[stem] = (shapes[stem][0], 3, *shapes[stem][2:])
    arrays = {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}
    config = model_config(layout.model) if is_whole else backbone_config(layout.model, PretrainedConfig())
    variables = empty_variables(build_model(config), np.int8)
    _, report = load_weights(arrays, layout, variables, scope="model" if is_whole else "backbone")
    assert report.is_complete, str(report)
    parts = f"`{config.head.name}` on `{config.backbone.name}`" if is_whole else f"backbone `{config.backbone.name}`"
    return f"loaded: {parts}" + ", for images of 4 channels" * bool(stem)


if __name__ == "__main__":
    main()
