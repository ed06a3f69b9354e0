"""A network put together from short names, by the conventions of the file that it starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_jax import registry
from deeplab_jax.apps.assembly.weights_file import read_file
from deeplab_jax.apps.listing import ARGUMENTS, PAPERS
from deeplab_jax.config import ModelConfig, PartConfig, PretrainedConfig
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import DatasetInfo

_MIDDLE = 127.5  # of a byte: other images than RGB are brought to [-1, 1] where nothing else is said


def describe_network(
    head: str,
    backbone: str,
    head_args: Mapping[str, Any],
    backbone_args: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> ModelConfig:
    """The config of a network.

    Args:
      head, backbone: short names, or 'module.factory'; a head may be called by its paper.
      head_args, backbone_args: their further arguments.
      settings: of the rest, by the names of config.model.

    Raises:
      ValueError: for a name that does not exist, with the near ones.
    """
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for setting in settings:
        if setting not in known:
            raise ValueError(f"config.model has no field '{setting}'{registry.near(setting, known)}")
    return ModelConfig(
        head=PartConfig(_full_name("heads", PAPERS.get(head, head)), dict(head_args)),
        backbone=PartConfig(_full_name("backbones", backbone), dict(backbone_args)),
        **settings,
    )


def follow_file(model: ModelConfig, start: PretrainedConfig, decided: Mapping[str, Any]) -> None:
    """Gives a network the conventions of the file that it starts from, wherever nothing else is decided.

    Args:
      model: whose parts have the arguments that are decided.
      start: names the file.
      decided: fields of `model` that are.

    Raises:
      UserError: where the file cannot be read.
    """
    file = read_file(start.source, start.layout)
    theirs = file.layout.model
    shared = ["normalization"]
    for kind, part in (("backbone", model.backbone), ("head", model.head)):
        if part.name == theirs.get(kind, {}).get("name"):
            part.args = {**theirs[kind]["args"], **part.args}
            shared += ["align_corners"] if kind == "head" else []
    for field in shared:
        if field not in decided:
            setattr(model, field, theirs[field])
    model.pretrained = dataclasses.replace(start, layout=file.layout_name)


def _full_name(package: str, name: str) -> str:
    return registry.full_name(package, name, ARGUMENTS[package])


def new_info(num_classes: int, class_names: tuple[str, ...], channels: int, task: str) -> DatasetInfo:
    """The classes and images of a network that is not trained yet.

    Raises:
      ValueError: if there are not as many names as classes, or no channel.
    """
    if channels < 1:
        raise ValueError(f"channels={channels}: must be at least 1")
    names = class_names or tuple(f"class{class_id}" for class_id in range(num_classes))
    if len(names) != num_classes:
        raise ValueError(f"class_names: expected {num_classes}, one for each class; got {len(names)}")
    middle = () if channels == 3 else (_MIDDLE,) * channels
    info = DatasetInfo("new", num_classes, 255, names, voc_palette(num_classes), {}, channels, task=task)
    return dataclasses.replace(info, channel_mean=middle, channel_std=middle)
