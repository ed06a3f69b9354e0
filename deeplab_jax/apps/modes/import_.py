"""Imports foreign weights into a workdir, as a checkpoint for every other mode."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.devices import make_mesh
from deeplab_jax.apps.assembly.run_lock import locked
from deeplab_jax.apps.assembly.workdir import has_checkpoints, keep_info, open_workdir
from deeplab_jax.apps.import_weights import IMPORT_FILE, assumed_info, read_weights
from deeplab_jax.apps.request import Flag, Needs, Request
from deeplab_jax.config import Config, to_dict
from deeplab_jax.files import write_whole
from deeplab_jax.train.checkpoint import FOLDER, Checkpointer
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import create_train_state
from deeplab_jax.types import DatasetInfo, UserError

FLAGS = (
    Flag("source", "", "the weights file"),
    Flag("layout", "", "layout of its names, e.g. torchvision; default: detected"),
)
NEEDS = Needs.CONFIG


def run(request: Request) -> int:
    with locked(request.workdir):
        import_weights(request.config, request.workdir, request.flags["source"], request.flags["layout"])
    return 0


def import_weights(config: Config, workdir: pathlib.Path, source: str, layout_name: str) -> None:
    """Writes the network of `source` to the workdir, as a checkpoint at step 0.

    The model is the layout's, whatever `config.model` says; data set, optimiser and the rest are the config's.

    Raises:
      UserError: if the file cannot be read or has another layout, or the workdir already holds a run.
    """
    if not source:
        raise UserError("give --source=PATH, the file to import (and --layout=NAME, whose names it uses)")
    if has_checkpoints(workdir):
        raise UserError(f"{workdir} holds checkpoints already: choose a new --workdir")
    imported = read_weights(source, layout_name)
    config.model = dataclasses.replace(
        imported.config, compute_dtype=config.model.compute_dtype, batch_norm=config.model.batch_norm
    )
    info = imported.info or _find_classes(config)
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
    print(f"{workdir / FOLDER / '0'}: {parts}, {model.num_classes} classes, output stride {model.output_stride}")


def _find_classes(config: Config) -> DatasetInfo:
    """The classes for prediction: the config's data set if it is available, else the likely ones."""
    num_classes = config.model.num_classes
    if config.data.root:
        info = open_data.open_dataset(config).info
        if info.num_classes == num_classes:
            return info
    return assumed_info(num_classes)
