"""A weights file's metadata: exactly what is needed to build its network and name its classes.

It is a JSON text stored with the arrays. Files may come from anywhere, so everything in it is checked before use.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import deeplab_jax
from deeplab_jax.config import Config, ModelConfig, PretrainedConfig, from_dict, to_dict
from deeplab_jax.fields import check
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.models.build import hashable
from deeplab_jax.types import DATASET_NORMALIZATION, TASKS, DatasetInfo, UserError
from deeplab_jax.validation import validate

KEY = "deeplab_jax"  # of the text in a file's metadata
OWN_LAYOUT = "deeplab_jax"  # the layout whose array names are our own paths
_FORMAT_VERSION = 1
_OF_TRAINING = ("pretrained", "remat")  # model settings used only in training
# Settings of inference without which the same image has another mask. Not what multiplies its cost (scales, flip) or
# follows the network (crf): whoever loads it chooses those.
_OF_INFERENCE = (
    "pad_to",
    "bucket",
    "threshold",
    "threshold_split",
    "window",
    "stride",
    "blend",
    "resize_shorter",
    "resize_longer",
    "resize_antialias",
)
_INFO_FIELDS = tuple(field.name for field in dataclasses.fields(DatasetInfo) if field.name != "splits")
_DTYPES = ("uint8", "uint16", "float32")
_MAX_CLASSES, _MAX_CHANNELS, _MAX_SIDE = 65_536, 4_096, 16_384


class Description(NamedTuple):
    """A network without its weights, the layout of their names in the file, and how images go through it."""

    config: ModelConfig
    info: DatasetInfo
    layout: str
    inference: InferenceConfig


def write_description(
    config: ModelConfig, info: DatasetInfo, layout: str = OWN_LAYOUT, inference: InferenceConfig | None = None
) -> str:
    """The metadata text of a network's file."""
    batch_norm = dataclasses.replace(config.batch_norm, group_size=0)
    config = dataclasses.replace(config, num_classes=info.num_classes, task=info.task, batch_norm=batch_norm)
    model = to_dict(config)
    description = {
        "format_version": _FORMAT_VERSION,
        "version": deeplab_jax.__version__,
        "layout": layout,
        "model": {name: value for name, value in model.items() if name not in _OF_TRAINING},
        "info": {name: getattr(info, name) for name in _INFO_FIELDS},
        "inference": {name: getattr(inference or InferenceConfig(), name) for name in _OF_INFERENCE},
    }
    return json.dumps(description)


def read_description(text: str, path: str) -> Description:
    """Parses and checks the metadata text of a file.

    Args:
      text: from `write_description`.
      path: of the file, for messages.

    Raises:
      UserError: if the text is invalid, or was written by a newer version.
    """
    try:
        known = _mapping(json.loads(text, parse_constant=_refuse), "the whole")
        version = known.get("format_version")
        if type(version) is not int:
            raise ValueError(f"format_version {version!r} is no whole number")
        if version > _FORMAT_VERSION:
            raise UserError(
                f"{path}: was written by deeplab_jax {str(known.get('version'))[:20]!r}, whose format {version} this "
                f"version ({deeplab_jax.__version__}) does not know: update deeplab_jax"
            )
        info = read_info(_mapping(known.get("info"), "info"))
        model = _mapping(known.get("model"), "model")
        config = from_dict({"model": hashable(model)}).model
        config.pretrained = PretrainedConfig()
        parts = (config.backbone, config.head, config.auxiliary, config.crf)
        for name in (known.get("layout"), *(getattr(part, "name", "") for part in parts)):
            _check_origin(name, path)
        _check_config(config, model)
        if config.num_classes != info.num_classes:
            raise ValueError(f"model.num_classes={config.num_classes}, and {info.num_classes} classes in info")
        if config.normalization == DATASET_NORMALIZATION and not info.channel_mean:
            raise ValueError("info.channel_mean is missing, by which images are normalised")
        layout = known.get("layout")
        if not isinstance(layout, str):
            raise ValueError("layout is no text")
        inference = _read_inference(_mapping(known.get("inference", {}), "inference"))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise UserError(f"{path}: damaged metadata '{KEY}' ({reason}); save the network again") from None
    return Description(config, info, layout, inference)


def _check_origin(name: Any, path: str) -> None:
    """Raises UserError for an outside part that is not imported yet: a file must not choose what gets imported."""
    module, colon, _ = str(name).partition(":")
    if colon and (module not in sys.modules or module.partition(".")[0] in sys.stdlib_module_names):
        raise UserError(
            f"{path}: asks for '{name}', which is not of this project: import {module} before you load the file, if "
            "you trust both"
        )


def _check_config(config: ModelConfig, model: Mapping[str, Any]) -> None:
    """Raises ValueError if the config, which was read from `model`, is invalid."""
    try:
        validate(Config(model=config))
    except UserError as error:
        raise ValueError(str(error)) from None
    if unknown := _unknown(model, to_dict(config), "model"):
        raise ValueError(f"{unknown[0]} is no setting of this version ({deeplab_jax.__version__})")


def read_info(known: Mapping[str, Any]) -> DatasetInfo:
    """The classes and images of a network, from fields of any origin; the sizes of splits are none of them.

    Raises:
      ValueError: at the first field that is missing, or has an invalid value.
    """
    known = {"task": "multiclass", **known}  # files of before there were others
    if set(known) != set(_INFO_FIELDS):
        raise ValueError(f"info must have {', '.join(_INFO_FIELDS)}")
    for name, (low, high) in {
        "num_classes": (1, _MAX_CLASSES),
        "ignore_label": (-(2**31), 2**31 - 1),
        "channels": (1, _MAX_CHANNELS),
    }.items():
        if type(known[name]) is not int or not low <= known[name] <= high:
            raise ValueError(f"info.{name} is no whole number from {low} to {high}")
    if known["dtype"] not in _DTYPES or not isinstance(known["name"], str):
        raise ValueError(f"info.name is no text, or info.dtype none of {', '.join(_DTYPES)}")
    if known["task"] not in TASKS or (known["task"] == "binary" and known["num_classes"] != 2):
        raise ValueError(f"info.task is none of {', '.join(TASKS)}, or binary with other than two classes")
    class_names = _list_of(known["class_names"], str, "info.class_names")
    palette = tuple(_list_of(color, int, "info.palette") for color in _list_of(known["palette"], list, "info.palette"))
    if not all(len(color) == 3 and min(color) >= 0 and max(color) <= 255 for color in palette):
        raise ValueError("info.palette is no list of [red, green, blue], each from 0 to 255")
    if len(class_names) != known["num_classes"] or len(palette) < known["num_classes"]:
        raise ValueError("info.class_names and info.palette must have one entry for each class")
    statistics = {name: _list_of(known[name], (int, float), f"info.{name}") for name in ("channel_mean", "channel_std")}
    if any(len(values) not in (0, known["channels"]) for values in statistics.values()):
        raise ValueError("info.channel_mean and info.channel_std must have one number for each channel, or none")
    if not all(math.isfinite(mean) for mean in statistics["channel_mean"]) or not all(
        0 < std < math.inf for std in statistics["channel_std"]
    ):
        raise ValueError("info.channel_mean must be finite, and info.channel_std positive")
    return DatasetInfo(**{**known, "class_names": class_names, "palette": palette, "splits": {}, **statistics})


def _read_inference(known: Mapping[str, Any]) -> InferenceConfig:
    """What decides masks; of a file of before it was there, the defaults."""
    stated = {name: known[name] for name in _OF_INFERENCE if name in known}
    inference = from_dict({"inference": hashable(stated)}).inference
    try:
        check(inference, "inference")
    except UserError as error:
        raise ValueError(str(error)) from None
    sides = inference.bucket, inference.resize_shorter, inference.resize_longer
    if max(*inference.pad_to, *inference.window, *sides) > _MAX_SIDE:
        raise ValueError(f"inference: images padded by more than {_MAX_SIDE} pixels, or resized to more")
    return inference


def _unknown(settings: Any, known: Any, path: str) -> list[str]:
    """Paths of the settings that are not fields of this version."""
    if not isinstance(settings, Mapping) or not isinstance(known, Mapping):
        return []
    return [
        unknown
        for name, value in settings.items()
        for unknown in ([f"{path}.{name}"] if name not in known else _unknown(value, known[name], f"{path}.{name}"))
    ]


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no object")
    return value


def _list_of(value: Any, kind: type | tuple[type, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(each, kind) and not isinstance(each, bool) for each in value):
        raise ValueError(f"{path} is no list of the right kind")
    return tuple(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
