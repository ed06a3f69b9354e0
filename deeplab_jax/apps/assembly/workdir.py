"""A workdir: which run it holds, and the config and data set info stored in it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from deeplab_jax.config import Config, differences, to_dict
from deeplab_jax.files import write_whole
from deeplab_jax.train.checkpoint import FOLDER
from deeplab_jax.types import DatasetInfo, UserError

CONFIG_FILE = "config.json"  # inside a workdir
DATASET_FILE = "dataset.json"  # info that prediction needs, so that it works without the data set

# Settings that may change when a run is resumed: neither its state nor its data order depends on them.
_FREE = (
    "inference.",
    "crf_search",
    "export",
    "serve",
    "mesh.",
    "model.pretrained.",
    "model.remat",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "data.num_workers",
    "data.prefetch",
    "data.worker_timeout",
    "data.prepared_dir",
    "data.prepared_form",
    "data.root",
)


_FORMER_LOSS = "cross_entropy.softmax_cross_entropy"  # the default of loss.name before data sets had tasks


def open_workdir(config: Config, workdir: pathlib.Path) -> None:
    """Claims the workdir for this config: creates it if necessary and writes config.json.

    Raises:
      UserError: if it cannot be written, or holds checkpoints of another config.
    """
    path = workdir / CONFIG_FILE
    wanted = json.loads(json.dumps(to_dict(config)))
    if path.exists() and has_checkpoints(workdir):
        _check_same_config(path, wanted)
    if jax.process_index() != 0:
        return
    write_whole(path, json.dumps(wanted, indent=1) + "\n")


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether the workdir holds checkpoints."""
    folder = workdir / FOLDER
    return folder.is_dir() and any(folder.iterdir())


def keep_info(info: DatasetInfo, workdir: pathlib.Path) -> None:
    """Writes the data set info to the workdir."""
    write_whole(workdir / DATASET_FILE, json.dumps(dataclasses.asdict(info), indent=1) + "\n")


def read_info(path: pathlib.Path) -> DatasetInfo:
    """Reads a data set info from JSON.

    Raises:
      UserError: if the file cannot be read.
    """
    try:
        known = json.loads(path.read_text())
        known["palette"] = tuple(tuple(color) for color in known["palette"])
        for name in ("class_names", "channel_mean", "channel_std"):
            known[name] = tuple(known.get(name, ()))
        return DatasetInfo(**known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): remove it, and the data set is opened instead") from None


def _with_defaults(old: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An older config, completed with the defaults of newer fields."""
    filled = {**defaults, **old}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(filled[name], Mapping):
            filled[name] = _with_defaults(filled[name], value)
    return filled


def _check_same_config(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    try:
        old = _with_defaults(json.loads(path.read_text()), to_dict(Config()))
        if (old["loss"]["name"], wanted["loss"]["name"]) == (_FORMER_LOSS, ""):
            old["loss"]["name"] = ""  # the same loss, as runs before tasks spelled it
        changes = differences(old, wanted)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; choose another --workdir") from None
    changes = [change for change in changes if not change.startswith(_FREE)]
    if changes:
        raise UserError(f"{path.parent} holds a run of another config ({'; '.join(changes)}): choose a new --workdir")
