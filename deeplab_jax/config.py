"""An experiment: the settings of all parts, composed.

A config file returns a `Config`; the command line overrides any field by its dotted path; validation.py rejects what
cannot work. Each setting is declared, with its range and default, in the settings.py of the part that reads it.
"""

# No `from __future__ import annotations` here: the command line reads the fields' types, which must not be strings.

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from deeplab_jax.data.settings import DataConfig
from deeplab_jax.export.settings import ExportConfig
from deeplab_jax.inference.settings import CRFSearchConfig, InferenceConfig, MeasureConfig
from deeplab_jax.losses.settings import AddedLoss, LossConfig
from deeplab_jax.models.settings import ModelConfig, PartConfig, PretrainedConfig
from deeplab_jax.nn.settings import BatchNormConfig
from deeplab_jax.ops.settings import MeshConfig
from deeplab_jax.serving.settings import ServeConfig
from deeplab_jax.train.settings import OptimizerConfig, TrainConfig

__all__ = (
    "AddedLoss", "BatchNormConfig", "CRFSearchConfig", "Config", "DataConfig", "ExportConfig", "InferenceConfig",
    "LossConfig", "MeasureConfig", "MeshConfig", "ModelConfig", "OptimizerConfig", "PartConfig", "PretrainedConfig",
    "ServeConfig", "TrainConfig", "differences", "from_dict", "to_dict",
)  # fmt: skip


@dataclasses.dataclass(slots=True)
class Config:
    """One experiment.

    Example:
      >>> import deeplab_jax as dl
      >>> config = dl.Config()
      >>> config.model.backbone.name, config.inference.flip = "xception.xception65", True
      >>> config.data.crop_size
      (513, 513)
    """

    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    crf_search: CRFSearchConfig = field(default_factory=CRFSearchConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain nested dicts, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`, also after a round trip through JSON.

    Fields missing from an older config get their defaults; fields unknown to this version are ignored.

    Raises:
      ValueError: if `settings` is no mapping.
    """
    if not isinstance(settings, Mapping):
        raise ValueError("no object of settings")
    return _filled(Config(), settings)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths whose values differ, each as 'path: old -> new'; the inputs are results of `to_dict`."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif plain(before) != plain(after):
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _filled(part: Any, settings: Mapping[str, Any]) -> Any:
    """The dataclass `part` with the fields that occur in `settings` set to their values."""
    for each in dataclasses.fields(part):
        if each.name in settings:
            setattr(part, each.name, _from_json(each.type, getattr(part, each.name), settings[each.name]))
    return part


def _from_json(kind: Any, before: Any, value: Any) -> Any:
    """A field's value; JSON knows neither tuples nor dataclasses."""
    if dataclasses.is_dataclass(before) and isinstance(value, Mapping):
        return _filled(before, value)
    if not isinstance(before, tuple) or not isinstance(value, (list, tuple)):
        return value
    item, *_ = typing.get_args(kind) or (None,)
    is_part = dataclasses.is_dataclass(item)
    return tuple(_filled(item(), each) if is_part and isinstance(each, Mapping) else each for each in value)


def plain(value: Any) -> Any:
    """A setting with tuples as lists, as JSON returns them, for comparison."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
