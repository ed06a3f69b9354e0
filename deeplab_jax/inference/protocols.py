"""Evaluation protocols of papers and other systems, by name: without its protocol a score means nothing.

A protocol is a set of config fields. It does not include what belongs to the weights, such as align_corners and the
normalization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.registry import near


class EvaluationProtocol(NamedTuple):
    """One way of evaluating."""

    settings: Mapping[str, Any]  # by dotted path of the config field; other fields of `inference` take their defaults
    source: str
    note: str = ""


# Fields of `inference` that are no part of a protocol: no score depends on them, or scores say them elsewhere.
NOT_DESCRIBED = ("batch_size", "measures", "threshold", "threshold_split")

_V3_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_VOC = {"inference.pad_to": (513, 513)}
_CITYSCAPES = {"inference.pad_to": (1025, 2049)}
_RESIZE = ("shorter", "longer", "antialias")  # the `resize_...` fields
_V3 = "DeepLab v3 (1706.05587), sec. 4.1"
_V3PLUS = "DeepLab v3+ (1802.02611), sec. 4.2 and 4.3"


def _v3(output_stride: int, *, scales: tuple[float, ...] = (1.0,), flip: bool = False) -> dict[str, Any]:
    return {"model.output_stride": output_stride, "inference.scales": scales, "inference.flip": flip, **_VOC}


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    # DeepLab v1 and v2: output stride 8; the three scales of v2's ResNet-101 belong to the network (model.scales).
    "v1_val": EvaluationProtocol({"model.output_stride": 8, **_VOC}, "DeepLab v1 (1412.7062), sec. 5"),
    "v1_val_crf": EvaluationProtocol(
        {"model.output_stride": 8, "inference.crf": "v1", **_VOC}, "DeepLab v1 (1412.7062), sec. 5"
    ),
    "v2_val": EvaluationProtocol({"model.output_stride": 8, **_VOC}, "DeepLab v2 (1606.00915), sec. 4.1.2"),
    "v2_val_ms": EvaluationProtocol(
        {"model.output_stride": 8, "inference.scales": (0.5, 0.75, 1.0), "inference.fuse": "max", **_VOC},
        "DeepLab v2 (1606.00915), sec. 3.2",
        "for a network of one scale: the maximum of the scores over three sizes",
    ),
    "v2_val_ms_crf": EvaluationProtocol(
        {
            "model.output_stride": 8,
            "inference.scales": (0.5, 0.75, 1.0),
            "inference.fuse": "max",
            "inference.crf": "v2_resnet101",
            **_VOC,
        },
        "DeepLab v2 (1606.00915), sec. 3.2 and 3.3",
        "for a network of one scale; one with model.scales takes v2_val_crf",
    ),
    "v2_val_crf": EvaluationProtocol(
        {"model.output_stride": 8, "inference.crf": "v2_resnet101", **_VOC}, "DeepLab v2 (1606.00915), sec. 4.1.2"
    ),
    # DeepLab v3, table 6.
    "v3_val_os16": EvaluationProtocol(_v3(16), _V3),
    "v3_val_os8": EvaluationProtocol(_v3(8), _V3),
    "v3_val_os8_ms": EvaluationProtocol(_v3(8, scales=_V3_SCALES), _V3),
    "v3_val_os8_ms_flip": EvaluationProtocol(_v3(8, scales=_V3_SCALES, flip=True), _V3),
    # DeepLab v3+, tables 3 and 5.
    "v3plus_val_os16": EvaluationProtocol(_v3(16), _V3PLUS),
    "v3plus_val_os16_ms_flip": EvaluationProtocol(_v3(16, scales=_V3_SCALES, flip=True), _V3PLUS),
    "v3plus_val_os8": EvaluationProtocol(_v3(8), _V3PLUS),
    "v3plus_val_os8_ms_flip": EvaluationProtocol(_v3(8, scales=_V3_SCALES, flip=True), _V3PLUS),
    # Cityscapes.
    "cityscapes_whole": EvaluationProtocol(
        {"model.output_stride": 16, **_CITYSCAPES}, "DeepLab v3+ (1802.02611), sec. 4.5: whole images"
    ),
    "cityscapes_whole_ms_flip": EvaluationProtocol(
        {"model.output_stride": 8, "inference.scales": (0.75, 1.0, 1.25), "inference.flip": True, **_CITYSCAPES},
        "DeepLab v3 (1706.05587), appendix on Cityscapes: output stride 8, three scales",
    ),
    "cityscapes_window_769": EvaluationProtocol(
        {
            "inference.window": (769, 769),
            "inference.stride": (513, 513),
            "inference.blend": "uniform",
            "inference.bucket": 1,
            "inference.resize_shorter": 1025,
            "inference.resize_longer": 2049,
            "inference.resize_antialias": False,
        },
        "mmsegmentation, the models of its 769x769 Cityscapes configs",
        "windows count equally; the image is resized to 1025x2049 and the result back",
    ),
    # Other systems.
    "torchvision_520": EvaluationProtocol(
        {
            "inference.resize_shorter": 520,
            "inference.resize_labels": True,
            "inference.bucket": 1,
            "inference.batch_size": 1,
        },
        "torchvision, references/segmentation: presets.py, SegmentationPresetEval(base_size=520)",
        "labels are resized too, to the nearest pixel, and scores hold for that size: not comparable with the others. "
        "Nothing is padded, so that each size of an image is compiled for once",
    ),
    "vainf_crop_513": EvaluationProtocol(
        {
            "inference.resize_shorter": 513,
            "inference.resize_labels": True,
            "inference.center_crop": (513, 513),
            "inference.pad_to": (513, 513),
        },
        "VainF/DeepLabV3Plus-Pytorch, --crop_val; jfzhang's pytorch-deeplab-xception likewise",
        "the middle square of images and labels, resized: not comparable with the others",
    ),
    "mmseg_whole_512": EvaluationProtocol(
        {
            "inference.resize_shorter": 512,
            "inference.resize_longer": 2048,
            "inference.resize_antialias": False,
            "inference.bucket": 1,
        },
        "mmsegmentation, VOC and ADE20K at 512x512: Resize(scale=(2048, 512), keep_ratio), mode 'whole'",
        "the result is resized back, and scored at the labels' own size",
    ),
    "mmseg_slide_512": EvaluationProtocol(
        {
            "inference.window": (512, 512),
            "inference.stride": (341, 341),
            "inference.blend": "uniform",
            "inference.resize_shorter": 512,
            "inference.resize_longer": 2048,
            "inference.resize_antialias": False,
            "inference.bucket": 1,
        },
        "mmsegmentation, mode 'slide' with crop_size=(512, 512), stride=(341, 341)",
        "windows count equally: the mean of their logits",
    ),
}


def find_protocol(name: str) -> EvaluationProtocol:
    """The protocol called `name`.

    Raises:
      ValueError: if there is none; suggests similar names.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol '{name}'{near(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def describe_passes(settings: InferenceConfig) -> dict[str, Any]:
    """The settings that a score depends on, ready for JSON; None for steps that are not done."""
    values = dataclasses.asdict(settings) | {"stride": settings.window_stride}
    for name in NOT_DESCRIBED:
        del values[name]
    if settings.window == (0, 0):
        values |= dict.fromkeys(("window", "stride", "blend"))
    resize = {name: values.pop(f"resize_{name}") for name in _RESIZE}
    is_resized, with_labels = settings.resize_shorter > 0, values.pop("resize_labels")
    return {
        "name": values.pop("protocol") or None,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        "resize_input": resize if is_resized else None,
        "labels": "resized" if is_resized and with_labels else "original",
        "center_crop": list(settings.center_crop) if settings.center_crop != (0, 0) else None,
        "crf": settings.crf or None,
    }


def as_described(settings: InferenceConfig, described: Mapping[str, Any]) -> InferenceConfig:
    """`settings` with the values in `described` (from `describe_passes`); older versions described fewer of them."""
    values = dict(described)
    if "resize_input" in values:
        values |= {f"resize_{name}": (values["resize_input"] or {}).get(name) for name in _RESIZE}
    if "labels" in values:
        values["resize_labels"] = values["labels"] == "resized"
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if field.name in values:
            value = values[field.name]
            value = getattr(InferenceConfig(), field.name) if value is None else value
            changed[field.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(settings, **changed)
