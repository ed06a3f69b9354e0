"""Imports foreign weights, as a checkpoint for every mode or as the start of a training run."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import registry
from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.network_metadata import KEY, OWN_LAYOUT, Description, read_description
from deeplab_jax.apps.assembly.stem import load_for_channels
from deeplab_jax.apps.assembly.workdir import CONFIG_FILE
from deeplab_jax.config import Config, ModelConfig, PartConfig, PretrainedConfig, from_dict, plain, to_dict
from deeplab_jax.data.datasets import ade20k, cityscapes, voc
from deeplab_jax.models.build import build_model, hashable
from deeplab_jax.train.checkpoint import FOLDER, restore_variables
from deeplab_jax.types import DATASET_NORMALIZATION, ArrayShapes, DatasetInfo, UserError, Variables, WeightLayout
from deeplab_jax.weights.formats.read import read_arrays, read_metadata
from deeplab_jax.weights.load import load_weights
from deeplab_jax.weights.rules import LoadReport

IMPORT_FILE = "imported.json"  # inside a workdir: the source of its network, and the network's config
WEIGHTS_FILE = "model.safetensors"  # inside a folder that holds one network
_LAYOUTS = "weights.layouts"
# Chosen by the config whatever the weights: arguments that only affect training, and VGG's pooling size, which
# DeepLab's authors change from 2 to 3 when they start from a classifier.
_FREE_ARGUMENTS = ("dropout", "logits_stddev", "pool_size")


class WeightsFile(NamedTuple):
    """A weights file, the layout of its names, and the info of its classes if it has one."""

    arrays: dict[str, np.ndarray]
    layout_name: str
    layout: WeightLayout
    info: DatasetInfo | None = None


class Imported(NamedTuple):
    """A network built from a weights file."""

    layout_name: str
    config: ModelConfig
    info: DatasetInfo | None
    variables: dict[str, Any]
    report: LoadReport


def import_checkpoint(path: str, *, layout: str) -> tuple[ModelConfig, dict[str, Any]]:
    """Imports a foreign checkpoint.

    Args:
      path: a file in any format of weights/formats, or a workdir of this project.
      layout: of its names, a module of weights/layouts; '' detects it.

    Returns:
      The config from which `build_model` builds a network with the source system's logits, and its variables
      {'params', 'batch_stats'}, float32, on the host.

    Raises:
      UserError: if the file cannot be read, has another layout, or holds only a backbone.
    """
    imported = read_weights(path, layout)
    return imported.config, imported.variables


def pretrained_variables(
    config: ModelConfig, variables: Variables, model: nn.Module | None = None
) -> tuple[dict[str, Any], LoadReport, bool]:
    """(initial variables per `config.pretrained`, on the host; the report; whether batch norm was folded).

    Args:
      variables: of the network, overwritten by those of the file.
      model: the network, if images may have channels other than RGB.

    Raises:
      UserError: if the file does not fit, or its weights would compute something else under this config.
    """
    start = config.pretrained
    file = read_file(start.source, start.layout)
    check_agreement(config, file.layout.model, start.scope)

    def load(target: Variables) -> tuple[dict[str, Any], LoadReport]:
        return load_weights(file.arrays, file.layout, target, scope=start.scope, path=start.source)

    target = jax.device_get(variables)
    loaded, report = load_for_channels(load, target, model, start) if model is not None else load(target)
    return loaded, report, file.layout.folded


def adopt_model(config: Config, workdir: pathlib.Path, overrides: Mapping[str, Any]) -> Config:
    """The config with the network that was imported into the workdir, if any.

    Args:
      overrides: settings from the command line, by dotted path; they take precedence over the imported ones.
    """
    path = workdir / IMPORT_FILE
    if not path.exists():
        return config
    try:
        model = model_config(json.loads(path.read_text())["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): import the weights again, into a new --workdir") from None
    adopted = dataclasses.replace(config, model=model)
    for name, value in overrides.items():
        if name.startswith("model."):
            _override(adopted, name, value)
    return adopted


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """A ModelConfig from nested plain dicts."""
    return from_dict({"model": hashable(fields)}).model


def _override(config: Any, path: str, value: Any) -> None:
    """Sets the dotted field."""
    *parents, field = path.split(".")
    for name in parents:
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    if isinstance(config, dict):
        config[field] = value
    else:
        setattr(config, field, value)


def assumed_info(num_classes: int) -> DatasetInfo:
    """The classes of a file without class names: those of the data set with the same number, else numbered ones."""
    for known in (voc.INFO, cityscapes.INFO, ade20k.INFO):
        if known.num_classes == num_classes:
            return known
    return open_data.numbered_classes("imported", num_classes)


def read_weights(path: str, layout_name: str) -> Imported:
    """The network of a weights file or workdir, on the host.

    Raises:
      UserError: if the file cannot be read, has another layout, or holds only a backbone.
    """
    file = read_file(path, layout_name)
    if "head" not in file.layout.model:
        raise UserError(
            f"{path}: holds only a backbone ({file.layout.model['backbone']['name']}); start training from it with "
            f"--config.model.pretrained.source={path} --config.model.pretrained.layout={file.layout_name}"
        )
    config = model_config(file.layout.model)
    try:
        target = _stand_ins(build_model(config, file.info), file.info)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # our parts may raise anything on untrusted settings
        raise UserError(f"{path}: its settings build no network ({' '.join(str(error).split())[:200]})") from None
    variables, report = load_weights(file.arrays, file.layout, target, path=path)
    return Imported(file.layout_name, config, file.info, variables, report)


def _stand_ins(model: nn.Module, info: DatasetInfo | None) -> dict[str, Any]:
    """Placeholder arrays with the shapes of the network's variables, which take no memory."""
    images = jnp.zeros((1, 65, 65, info.channels if info else 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), dict(shapes))
    return {"batch_stats": {}} | zeros


def read_file(path: str, layout_name: str) -> WeightsFile:
    """Reads a file or workdir of the named layout; '' detects the layout.

    Raises:
      UserError: if it cannot be read, or has another layout.
    """
    folder = pathlib.Path(path)
    if (folder / FOLDER).is_dir() and layout_name in ("", OWN_LAYOUT):
        return _read_own(folder)
    if (folder / WEIGHTS_FILE).is_file():
        path = str(folder / WEIGHTS_FILE)
    arrays = read_arrays(path)
    shapes = {name: array.shape for name, array in arrays.items()}
    known = registry.module_names(_LAYOUTS)
    if layout_name and ":" not in layout_name and layout_name not in known:
        raise UserError(f"layout '{layout_name}': there are {', '.join(known)}")
    description = read_metadata(path).get(KEY)
    if description is not None:
        return _read_described(path, layout_name, arrays, read_description(description, path))
    if layout_name:
        fitting = [layout_name]
        try:
            layout = _recognize(layout_name, shapes)
        except ValueError as error:
            fitting = fitting_layouts(shapes)
            hint = f"its names are those of layout {' or '.join(fitting)}" if fitting else "no layout here knows it"
            raise UserError(f"{path}: not of layout '{layout_name}' ({error}); {hint}") from None
    else:
        fitting = fitting_layouts(shapes)
        if len(fitting) != 1:
            several = f"several layouts fit ({', '.join(fitting)})" if fitting else "no layout fits its names"
            raise UserError(f"{path}: {several}; say which with --layout=NAME, one of {', '.join(known)}")
        layout = _recognize(fitting[0], shapes)
    if fitting == [OWN_LAYOUT]:
        raise UserError(
            f"{path}: has this project's names without the metadata that say of which network they are; write it with "
            "Model.save, or from its workdir with --mode=export --format=safetensors"
        )
    return WeightsFile(arrays, fitting[0], layout)


def _read_described(
    path: str, layout_name: str, arrays: dict[str, np.ndarray], description: Description
) -> WeightsFile:
    """A file whose metadata describe its network."""
    if layout_name not in ("", description.layout):
        raise UserError(f"{path}: not of layout '{layout_name}'; it says that it is of '{description.layout}'")
    try:
        layout = _recognize(description.layout, {name: array.shape for name, array in arrays.items()})
    except ValueError as error:
        raise UserError(f"{path}: says that it is of layout '{description.layout}', but {error}") from None
    layout = dataclasses.replace(layout, model=to_dict(description.config))
    return WeightsFile(arrays, description.layout, layout, description.info)


def _read_own(workdir: pathlib.Path) -> WeightsFile:
    """The best checkpoint of another run of this project, and its network's config."""
    variables = restore_variables(workdir)
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}
    layout = _recognize(OWN_LAYOUT, {name: array.shape for name, array in arrays.items()})
    path = workdir / CONFIG_FILE
    try:
        config = from_dict(hashable(json.loads(path.read_text())))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): config.model.pretrained.source wants a workdir") from None
    info = open_data.find_info(config, workdir)
    model = dataclasses.replace(config.model, num_classes=info.num_classes, pretrained=PretrainedConfig())
    return WeightsFile(arrays, OWN_LAYOUT, dataclasses.replace(layout, model=to_dict(model)), info)


def _recognize(layout_name: str, shapes: ArrayShapes) -> WeightLayout:
    return registry.resolve(_LAYOUTS, registry.entry(layout_name, "recognize"))(shapes)


def fitting_layouts(shapes: ArrayShapes) -> list[str]:
    """The layouts that these names fit."""
    fitting = []
    for name in registry.module_names(_LAYOUTS):
        try:
            _recognize(name, shapes)
        except ValueError:
            continue
        fitting.append(name)
    return fitting


def check_agreement(config: ModelConfig, model: Mapping[str, Any], scope: str) -> None:
    """Raises UserError at the first setting with which the weights of `model` would compute something else."""
    if config.normalization != DATASET_NORMALIZATION:  # this choice cannot come from a file
        _agree("normalization", config.normalization, model["normalization"])
    _check_part("backbone", config.backbone, model["backbone"])
    if scope == "backbone" or "head" not in model:
        return
    if scope == "fitting" and config.head.name != model["head"]["name"]:
        return  # a different head is trained from scratch
    _check_part("head", config.head, model["head"])
    _agree("align_corners", config.align_corners, model["align_corners"])


def _check_part(kind: str, part: PartConfig, wanted: Mapping[str, Any]) -> None:
    _agree(f"{kind}.name", part.name, wanted["name"])
    defaults = registry.defaults(registry.resolve(f"{kind}s", part.name))
    for argument, needed in wanted["args"].items():
        if argument not in _FREE_ARGUMENTS:
            _agree(f"{kind}.args.{argument}", part.args.get(argument, defaults.get(argument)), needed)


def _agree(field: str, value: Any, needed: Any) -> None:
    if plain(value) != plain(needed):
        raise UserError(f"config.model.{field}={value!r}: the weights of config.model.pretrained need {needed!r}")
