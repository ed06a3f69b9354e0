"""A workdir: which run it holds, and the config and data set info stored in it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from deeplab_jax.apps.assembly import network_metadata
from deeplab_jax.config import Config, differences, to_dict
from deeplab_jax.files import write_whole
from deeplab_jax.train.checkpoint import FOLDER
from deeplab_jax.types import DatasetInfo, UserError

CONFIG_FILE = "config.json"  # inside a workdir
HISTORY_FILE = "history.jsonl"  # inside a workdir: with which settings a run was continued, and from which step
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
    "train.patience",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "data.num_workers",
    "data.prefetch",
    "data.worker_timeout",
    "data.prepared_dir",
    "data.prepared_form",
    "data.root",
)
# Settings that may change in the middle of a run if they are named: neither the arrays of its state nor the position in
# its data depend on them.
_ALLOWED = (
    "train.num_steps",
    *(f"optimizer.{name}" for name in (
        "learning_rate", "schedule", "end_learning_rate", "poly_power", "step_size", "step_factor", "warmup_steps",
        "momentum", "weight_decay", "trust_coefficient",
    )),
    *(f"data.{name}" for name in (
        "crop_size", "min_scale", "max_scale", "scale_step", "flip", "photometric", "max_class_share", "crop_tries",
        "copy_paste", "copy_paste_classes", "augment",
    )),
    *(f"loss.{name}" for name in ("class_weights", "top_k_fraction", "top_k_ramp_steps", "side_weight")),
)  # fmt: skip

# Fields of dataset.json that older runs did not write.
_BEFORE = {"channels": 3, "dtype": "uint8", "channel_mean": [], "channel_std": []}
_FORMER_LOSS = "cross_entropy.softmax_cross_entropy"  # the default of loss.name before data sets had tasks


def open_workdir(config: Config, workdir: pathlib.Path, allow: Sequence[str] = ()) -> list[str]:
    """Claims the workdir for this config: creates it if necessary and writes config.json.

    Args:
      allow: dotted paths of settings in which a run may be continued differently; each change goes to history.jsonl.

    Returns:
      Those changes, each as 'path: old -> new'.

    Raises:
      UserError: if it cannot be written, or holds checkpoints of another config; if a setting in `allow` cannot change
        in the middle of a run.
    """
    for name in allow:
        if name not in _ALLOWED:
            raise UserError(
                f"--allow={name}: a run cannot be continued with another; those that can: {', '.join(_ALLOWED)}"
            )
    path = workdir / CONFIG_FILE
    wanted = json.loads(json.dumps(to_dict(config)))
    allowed = _changes(path, wanted, allow) if path.exists() and has_checkpoints(workdir) else []
    if jax.process_index() == 0:
        if allowed:
            history = workdir / HISTORY_FILE
            point = {"step": max(int(each.name) for each in (workdir / FOLDER).glob("[0-9]*")), "changes": allowed}
            write_whole(history, (history.read_text() if history.exists() else "") + json.dumps(point) + "\n")
        write_whole(path, json.dumps(wanted, indent=1) + "\n")
    return allowed


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
        known = {**_BEFORE, **json.loads(path.read_text())}
        splits = dict(known.pop("splits"))
        return dataclasses.replace(network_metadata.read_info(known), splits=splits)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}): remove it, and the data set is opened instead") from None


def _with_defaults(old: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An older config, completed with the defaults of newer fields."""
    filled = {**defaults, **old}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(filled[name], Mapping):
            filled[name] = _with_defaults(filled[name], value)
    return filled


def _changes(path: pathlib.Path, wanted: Mapping[str, Any], allow: Sequence[str]) -> list[str]:
    """The changes that are allowed; UserError if there are others that matter."""
    try:
        old = _with_defaults(json.loads(path.read_text()), to_dict(Config()))
        if (old["loss"]["name"], wanted["loss"]["name"]) == (_FORMER_LOSS, ""):
            old["loss"]["name"] = ""  # the same loss, as runs before tasks spelled it
        changes = differences(old, wanted)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; choose another --workdir") from None
    allowed = [change for change in changes if change.partition(":")[0] in allow]
    changes = [change for change in changes if not change.startswith(_FREE) and change not in allowed]
    if changes:
        named = [change.partition(":")[0] for change in changes]
        remedy = f", or continue it with --allow={','.join(named)}" if set(named) <= set(_ALLOWED) else ""
        raise UserError(
            f"{path.parent} holds a run of another config ({'; '.join(changes)}): choose a new --workdir{remedy}"
        )
    return allowed
