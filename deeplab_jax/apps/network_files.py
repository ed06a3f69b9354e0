"""Whole networks in and out of files: a workdir, a file of this project's, or one with another system's names."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from deeplab_jax.apps.assembly.network_metadata import KEY, OWN_LAYOUT, write_description
from deeplab_jax.apps.import_weights import assumed_info, read_weights
from deeplab_jax.config import ModelConfig
from deeplab_jax.files import whole, write_errors
from deeplab_jax.heads.aspp import RATES_OUTPUT_STRIDE
from deeplab_jax.types import DatasetInfo, UserError
from deeplab_jax.weights.formats import safetensors_file

SUFFIX = ".safetensors"


class Network(NamedTuple):
    """A network with its weights and classes.

    Attributes:
      config: with which `build_model` makes it.
      info: its classes and images.
      variables: {'params', 'batch_stats'}, float32.
      notes: a line for each thing that its file does not say, and that was assumed.
    """

    config: ModelConfig
    info: DatasetInfo
    variables: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_network(source: str, *, layout: str = "") -> Network:
    """The network in a file or folder, on the host.

    Args:
      source: a workdir, whose best checkpoint is taken; what `write_network` wrote; or a file of weights in any
        format of weights/formats.
      layout: whose names a file uses, a module of weights/layouts; '' recognises it.

    Raises:
      UserError: where there is no such file, it is damaged or of another layout, or has a backbone alone.
    """
    path = pathlib.Path(source).expanduser()
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():  # of a TensorFlow checkpoint
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=3)
        hint = f"did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else "name a file"
        raise UserError(f"{path}: no such file or folder; {hint}")
    found = read_weights(str(path), layout)
    for name, array in _flatten(found.variables).items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: '{name}' holds values that are not finite; take an earlier checkpoint")
    if found.info is not None:
        return Network(found.config, found.info, found.variables)
    info = assumed_info(found.config.num_classes)
    return Network(found.config, info, found.variables, _assumptions(found.config, info, found.layout_name))


def write_network(path: str | pathlib.Path, network: Network, *, layout: str = "") -> list[pathlib.Path]:
    """Writes a network so that `read_network` takes it back, and nothing else is needed; each file whole or not at all.

    Args:
      path: of a file, which ends in '.safetensors'.
      network: to write.
      layout: whose names its arrays get; '': our own.

    Returns:
      The files that were written.

    Raises:
      UserError: where the path is no such file or cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: networks are written as {SUFFIX} files; call it {path.with_suffix(SUFFIX).name}")
    if layout not in ("", OWN_LAYOUT):
        raise UserError(f"layout '{layout}': there is {OWN_LAYOUT}")
    arrays = _flatten(network.variables)
    description = write_description(network.config, network.info)
    with write_errors(path, "path"), whole(path) as unfinished:
        safetensors_file.write(unfinished, arrays, {KEY: description})
    return [path]


def _flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Path of ours -> array, float32."""
    wanted = {name: variables[name] for name in ("params", "batch_stats") if variables.get(name)}
    return {name: np.asarray(leaf, np.float32) for name, leaf in traverse_util.flatten_dict(wanted, sep="/").items()}


def _assumptions(config: ModelConfig, info: DatasetInfo, layout: str) -> tuple[str, ...]:
    """What no file with another system's names says."""
    rates = config.head.args.get("atrous_rates")
    scaled = tuple(rate * RATES_OUTPUT_STRIDE // config.output_stride for rate in rates or ())
    settings = [f"output stride {config.output_stride}", *([f"atrous rates {scaled} at it"] if scaled else [])]
    settings.append(f"normalization '{config.normalization}'")
    classes = "numbers without names" if info.name == "imported" else f"those of {info.name}"
    return (
        f"{', '.join(settings[:-1])} and {settings[-1]} are assumed, as {layout} has them: the file does not say",
        f"its {info.num_classes} classes are taken to be {classes}: the file does not say",
    )
