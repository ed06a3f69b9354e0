"""Imports foreign weights into a workdir, as a checkpoint for every other mode."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.devices import make_mesh
from deeplab_jax.apps.assembly.run_lock import locked
from deeplab_jax.apps.assembly.source_network import say_own_size
from deeplab_jax.apps.assembly.workdir import has_checkpoints, keep_info, open_workdir
from deeplab_jax.apps.import_weights import AS_FOUND, IMPORT_FILE, ReadOptions, read_weights, without_padding
from deeplab_jax.apps.request import Flag, Needs, Request
from deeplab_jax.config import Config, to_dict
from deeplab_jax.files import write_whole
from deeplab_jax.train.checkpoint import FOLDER, Checkpointer
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import create_train_state
from deeplab_jax.types import NORMALIZATIONS, DatasetInfo, UserError
from deeplab_jax.weights.source_settings import SourceSettings

_OUTPUT_STRIDES = (8, 16, 32)
_KEPT = ("model.task", "model.compute_dtype", "model.batch_norm.")  # what a config says of an imported network

FLAGS = (
    Flag("source", "", "the weights file"),
    Flag("layout", "", "layout of its names, e.g. torchvision; default: detected"),
    Flag("part", "", "the network in a file with several, e.g. model_ema; default: the only one, or the usual key's"),
    Flag("strict", "no", "yes: refuse a file that holds anything else, or an auxiliary head that does not fit"),
    Flag("output_stride", 0, "of the source, where the file does not say; default: as its system has it"),
    Flag("atrous_rates", (), "of ASPP at that stride, likewise, e.g. 12,24,36"),
    Flag("normalization", "", "of the source's images, likewise, a key of NORMALIZATIONS, e.g. imagenet"),
    Flag("align_corners", "", "yes or no: how the source resizes, likewise"),
    Flag("ported", "", "yes or no: whether its backbone is timm's port from TensorFlow, 'tf_...', likewise"),
)
NEEDS = Needs.CONFIG


def run(request: Request) -> int:
    _check_overrides(request.overrides)
    with locked(request.workdir):
        import_weights(request.config, request.workdir, request.flags["source"], _options(request.flags))
    return 0


def import_weights(config: Config, workdir: pathlib.Path, source: str, options: ReadOptions = AS_FOUND) -> None:
    """Writes the network of `source` to the workdir, as a checkpoint at step 0.

    The model is the layout's, whatever `config.model` says, except for the task of several outputs; data set, optimiser
    and the rest are the config's. What was taken, left out and assumed is printed to stderr.

    Raises:
      UserError: if the file cannot be read or has another layout, or the workdir already holds a run.
    """
    if not source:
        raise UserError("give --source=PATH, the file to import (and --layout=NAME, whose names it uses)")
    if has_checkpoints(workdir):
        raise UserError(f"{workdir} holds checkpoints already: choose a new --workdir")
    imported = read_weights(source, options)
    config.inference = without_padding(config.inference)
    for note in (*imported.notes, *say_own_size(config.inference)):
        print(f"{source}: {note}", file=sys.stderr)
    task = config.model.task or imported.config.task
    if "binary" in (task, imported.config.task) and task != imported.config.task:
        raise UserError(
            f"config.model.task={task!r}: the network of {source} is {imported.config.task}, by the number of its "
            "outputs; leave it out"
        )
    imported = imported._replace(info=dataclasses.replace(imported.info, task=task or imported.info.task))
    running_variance = imported.config.batch_norm.running_variance
    batch_norm = dataclasses.replace(config.model.batch_norm, running_variance=running_variance)
    config.model = dataclasses.replace(
        imported.config, task=task, compute_dtype=config.model.compute_dtype, batch_norm=batch_norm
    )
    info = imported.info if imported.names_classes else _find_classes(config, imported.info)
    open_workdir(config, workdir)
    keep_info(info, workdir)
    tx, _ = make_optimizer(config.optimizer, config.train.num_steps, imported.variables["params"])
    ema, mesh = config.train.ema_decay > 0, make_mesh(config)
    state = create_train_state(imported.variables, tx, ema=ema, mesh=mesh)
    with Checkpointer(workdir / FOLDER, keep=config.train.keep_checkpoints, config=to_dict(config)) as checkpointer:
        checkpointer.save(0, state, data={"position": 0}, scores=None)
    origin = {"source": source, "layout": imported.layout_name, "model": to_dict(config.model)}
    write_whole(workdir / IMPORT_FILE, json.dumps(origin, indent=1) + "\n")
    model = config.model
    parts = ", ".join(part.name for part in (model.backbone, model.head, model.auxiliary) if part.name)
    print(f"{source}: layout {imported.layout_name}, {imported.report.summary}")
    classes = f"{model.num_classes} classes{f' ({model.task})' if model.task not in ('', 'multiclass') else ''}"
    print(f"{workdir / FOLDER / '0'}: {parts}, {classes}, output stride {model.output_stride}")


def _find_classes(config: Config, assumed: DatasetInfo) -> DatasetInfo:
    """The classes for prediction: the config's data set if it is available, else the likely ones."""
    if config.data.root:
        info = open_data.open_dataset(config).info
        same = (info.num_classes, info.task, info.channels)
        if same == (config.model.num_classes, assumed.task, assumed.channels):
            return dataclasses.replace(info, channel_mean=assumed.channel_mean, channel_std=assumed.channel_std)
    return assumed


def _check_overrides(overrides: frozenset[str]) -> None:
    """Raises UserError for settings of the network, which is the file's."""
    for path in sorted(overrides):
        if path.startswith("model.") and not path.startswith(_KEPT):
            flag = path.rpartition(".")[2]
            is_flag = flag in {each.name for each in FLAGS}
            remedy = f"say what the source has with --{flag}" if is_flag else "leave it out"
            raise UserError(f"--config.{path}: the network is that of --source; {remedy}")


def _options(flags: Mapping[str, Any]) -> ReadOptions:
    """The mode's flags as options.

    Raises:
      UserError: for a value that a flag cannot have.
    """
    stride, rates, normalization = flags["output_stride"], flags["atrous_rates"], flags["normalization"]
    if stride not in (0, *_OUTPUT_STRIDES):
        raise UserError(f"--output_stride={stride}: must be {', '.join(map(str, _OUTPUT_STRIDES))}")
    if not all(rate.isdecimal() and int(rate) for rate in rates):
        raise UserError(f"--atrous_rates={','.join(rates)}: must be whole numbers, e.g. 12,24,36")
    if normalization not in ("", *NORMALIZATIONS):
        raise UserError(f"--normalization={normalization}: must be {', '.join(NORMALIZATIONS)}")
    align_corners, ported = (_yes_or_no(name, flags) if flags[name] else None for name in ("align_corners", "ported"))
    chosen = SourceSettings(stride, tuple(map(int, rates)), normalization, align_corners, ported=ported)
    return ReadOptions(flags["layout"], flags["part"], bool(_yes_or_no("strict", flags)), chosen)


def _yes_or_no(name: str, flags: Mapping[str, Any]) -> bool:
    if flags[name] not in ("yes", "no"):
        raise UserError(f"--{name}={flags[name]}: must be yes or no")
    return bool(flags[name] == "yes")
