"""Imports foreign weights, as a checkpoint for every mode or as the start of a training run."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import registry
from deeplab_jax.apps.assembly.source_network import (
    describe,
    for_channels,
    say_assumed,
    say_outputs,
    say_read,
    with_settings,
)
from deeplab_jax.apps.assembly.stem import load_for_channels
from deeplab_jax.apps.assembly.weights_file import WeightsFile, read_file, say_left_out
from deeplab_jax.config import Config, ModelConfig, PartConfig, from_dict, plain
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.models.build import build_model, hashable
from deeplab_jax.types import DATASET_NORMALIZATION, DatasetInfo, UserError, Variables
from deeplab_jax.weights.load import load_weights
from deeplab_jax.weights.prefixes import roots
from deeplab_jax.weights.rules import LoadReport, place, reorder
from deeplab_jax.weights.source_settings import NOTHING_STATED, SourceSettings

IMPORT_FILE = "imported.json"  # inside a workdir: the source of its network, and the network's config
WEIGHTS_FILE = "model.safetensors"  # inside a folder that holds one network
_KERNEL = ("height", "width", "in", "out")
_RGB = 3  # channels
# Chosen by the config whatever the weights: arguments that only affect training, and VGG's pooling size, which
# DeepLab's authors change from 2 to 3 when they start from a classifier.
_FREE_ARGUMENTS = ("dropout", "logits_stddev", "pool_size")


@dataclasses.dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices of whoever reads a file.

    Attributes:
      layout: of its names, a module of weights/layouts; '' detects it.
      part: dotted keys of the network, in a file with several; '': it is found.
      strict: whether all of the file must belong to the network, its auxiliary head too.
      chosen: what the file does not say, or says wrongly.
    """

    layout: str = ""
    part: str = ""
    strict: bool = False
    chosen: SourceSettings = NOTHING_STATED


AS_FOUND = ReadOptions()


class Imported(NamedTuple):
    """A network built from a weights file.

    Attributes:
      layout_name: whose names the file had.
      config: argument of `build_model`, with `info`.
      info: its classes and the kind of its images.
      variables: {'params', 'batch_stats'}, float32, on the host.
      report: name by name.
      notes: a line each for what was taken, left out, read from a config, and assumed.
      names_classes: whether the file, or a config beside it, names the classes; else `info` is a guess.
      inference: how images are padded for it.
    """

    layout_name: str
    config: ModelConfig
    info: DatasetInfo
    variables: dict[str, Any]
    report: LoadReport
    notes: tuple[str, ...]
    names_classes: bool
    inference: InferenceConfig


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
    imported = read_weights(path, ReadOptions(layout))
    return imported.config, imported.variables


def pretrained_variables(
    config: ModelConfig, variables: Variables, model: nn.Module | None = None
) -> tuple[dict[str, Any], LoadReport, bool]:
    """(initial variables per `config.pretrained`, on the host; the report; whether batch norm was folded).

    What was taken out of the file's wrapping is printed to stderr.

    Args:
      variables: of the network, overwritten by those of the file.
      model: the network, if images may have channels other than RGB.

    Raises:
      UserError: if the file does not fit, or its weights would compute something else under this config.
    """
    start = config.pretrained
    file = read_file(start.source, start.layout)
    wanted, notes = _as_chosen(config, file)
    check_agreement(config, wanted, start.scope)
    for note in (*file.notes, *notes):
        print(f"{start.source}: {note}", file=sys.stderr)

    def load(target: Variables) -> tuple[dict[str, Any], LoadReport]:
        return load_weights(file.arrays, file.layout, target, scope=start.scope, path=start.source)

    target = jax.device_get(variables)
    loaded, report = load_for_channels(load, target, model, start) if model is not None else load(target)
    return loaded, report, file.layout.folded


def _as_chosen(config: ModelConfig, file: WeightsFile) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The layout's model, of a port from TensorFlow where the config chooses it, and the line that says so."""
    model, ported = file.layout.model, file.layout.ported
    if not ported or config.backbone.name != model["backbone"]["name"]:
        return model, ()
    is_ported = all(config.backbone.args.get(name) == value for name, value in ported.items())
    if is_ported if file.settings.ported is None else file.settings.ported:
        args = {**model["backbone"]["args"], **ported}
        model = {**model, "backbone": {**model["backbone"], "args": args}}
    if file.settings.ported is not None:
        return model, ()
    other = ", ".join(f"config.model.backbone.args.{name}={value!r}" for name, value in ported.items())
    kind = "ported from TensorFlow ('tf_...')" if is_ported else f"timm's own, not ported from TensorFlow ({other})"
    return model, (f"its backbone is taken to be {kind}, as the config has it: the file does not say",)


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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}): import the weights again, into a new --workdir") from None
    padded = {"inference.pad_to", "inference.bucket"} & overrides.keys()
    inference = config.inference if padded else without_padding(config.inference)
    adopted = dataclasses.replace(config, model=model, inference=inference)
    for name, value in overrides.items():
        if name.startswith("model."):
            _override(adopted, name, value)
    return adopted


def without_padding(inference: InferenceConfig) -> InferenceConfig:
    """With images at their own size, as an imported network wants them, unless the settings pad them otherwise."""
    is_default = (inference.pad_to, inference.bucket) == ((0, 0), InferenceConfig().bucket)
    return dataclasses.replace(inference, bucket=1) if is_default else inference


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


def read_weights(path: str, options: ReadOptions) -> Imported:
    """The network of a weights file or workdir, on the host.

    Raises:
      UserError: if the file cannot be read, has another layout, holds only a backbone, or is of a broken training.
    """
    file = read_file(path, options.layout, part=options.part)
    if "head" not in file.layout.model:
        raise UserError(
            f"{path}: holds only a backbone ({file.layout.model['backbone']['name']}); start training from it with "
            f"--config.model.pretrained.source={path} --config.model.pretrained.layout={file.layout_name}"
        )
    if options.strict and file.left_out:
        raise UserError(f"{path}: {say_left_out(file.left_out)[0]}; leave out --strict to load the rest")
    known = options.chosen.over(file.settings)
    config, info = describe(model_config(with_settings(file.layout, known, file.layout_name, path)), file, known)
    try:
        target = _stand_ins(build_model(config, info), info)
        if (channels := _channels(file, target)) != info.channels:
            config, info = for_channels(config, info, channels, known)
            target = _stand_ins(build_model(config, info), info)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # our parts may raise anything on untrusted settings
        raise UserError(f"{path}: its settings build no network ({' '.join(str(error).split())[:200]})") from None
    config, variables, report, notes = _load(file, config, target, path, strict=options.strict or file.info is not None)
    if file.info is None:
        notes += (
            *say_read(file.settings, options.chosen),
            *say_outputs(config, known),
            *say_assumed(config, info, known, file.layout_name, has_port=bool(file.layout.ported)),
        )
    names_classes = file.info is not None or info.class_names == known.class_names
    notes = file.notes + file.layout.notes + notes
    return Imported(file.layout_name, config, info, variables, report, notes, names_classes, file.inference)


def _load(
    file: WeightsFile, config: ModelConfig, target: dict[str, Any], path: str, *, strict: bool
) -> tuple[ModelConfig, dict[str, Any], LoadReport, tuple[str, ...]]:
    """(config, variables, report, notes); an auxiliary head that does not fit, and only trains, is left out."""
    notes: tuple[str, ...] = ()
    try:
        variables, report = load_weights(file.arrays, file.layout, target, path=path, strict=strict)
    except UserError as error:
        if strict or not config.auxiliary.name:
            raise
        target = {
            collection: {part: leaves for part, leaves in parts.items() if part != "auxiliary"}
            for collection, parts in target.items()
        }
        try:
            variables, report = load_weights(file.arrays, file.layout, target, path=path)
        except UserError:
            raise error from None
        config = dataclasses.replace(config, auxiliary=PartConfig())
        notes = ("its auxiliary head does not fit the network and is left out: only training reads it",)
    if report.made_up:
        notes += (f"{', '.join(report.made_up)}: not in the file, taken as zero",)
    return config, variables, report, (*notes, *say_left_out(roots(report.outside)))


def _stand_ins(model: nn.Module, info: DatasetInfo) -> dict[str, Any]:
    """Placeholder arrays with the shapes of the network's variables, which take no memory."""
    images = jnp.zeros((1, 65, 65, info.channels), jnp.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), dict(shapes))
    return {"batch_stats": {}} | zeros


def _channels(file: WeightsFile, target: Mapping[str, Any]) -> int:
    """The channels of the images that the file's first convolution reads."""
    if file.info is not None:
        return file.info.channels
    flat = traverse_util.flatten_dict(target, sep="/")
    for name, array in file.arrays.items():
        path, transform = place(name, file.layout.rules)
        if array.ndim != len(_KERNEL) or path not in flat or not path.startswith("params/backbone/"):
            continue
        (*size, channels, features), wanted = reorder(array, transform).shape, flat[path].shape
        if channels != wanted[2] == _RGB and (*size, _RGB, features) == wanted:
            return int(channels)
    return _RGB


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
