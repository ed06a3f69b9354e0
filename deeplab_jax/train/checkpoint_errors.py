"""One-line error messages for states and checkpoints that cannot be used and for failing disks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from deeplab_jax.types import UserError


def check_same_network(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Compares names and shapes before any array is read; Orbax's own error would list them all."""
    have = {name: tuple(leaf.shape) for name, leaf in _flatten(saved).items() if hasattr(leaf, "shape")}
    want = {name: tuple(leaf.shape) for name, leaf in _flatten(wanted).items()}
    for name in sorted(want.keys() - have.keys()):
        raise UserError(f"{where}: has no tensor '{name}'; use the config it was trained with, or a new --workdir")
    differing = [name for name in want if have[name] != want[name]]
    if not differing:
        return
    name = differing[0]
    last_axes = {(have[n][-1:], want[n][-1:]) for n in differing if have[n][:-1] == want[n][:-1]}
    if len(last_axes) == 1 and all(have[n][:-1] == want[n][:-1] for n in differing):
        raise UserError(
            f"{where}: made for {have[name][-1]} classes, this data set has {want[name][-1]} (tensor '{name}'); "
            "use the data set it was trained on, or a new --workdir"
        )
    raise UserError(
        f"{where}: tensor '{name}' has shape {have[name]}, this config needs {want[name]}; "
        "use the config it was trained with, or a new --workdir"
    )


def check_finite(variables: Mapping[str, Any], action: str, last_step: int | None) -> None:
    """Raises UserError, with the tensor's name, unless all variables are finite: nothing good follows from others.

    Args:
      action: what is refused, for the message.
      last_step: of the last checkpoint.
    """
    for name, leaf in _flatten(variables).items():
        if not np.isfinite(np.asarray(leaf)).all():
            raise UserError(
                f"{action}: '{name}' holds values that are not finite; lower config.optimizer.learning_rate or set "
                f"config.optimizer.clip_norm (last checkpoint: {last_step or 'none'})"
            )


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    collections = {name: tree[name] for name in ("params", "batch_stats") if tree.get(name)}
    return traverse_util.flatten_dict(collections, sep="/")


def disk_reason(error: BaseException) -> str | None:
    """'No space left on device' and the like; None if the disk is not the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if found := re.search(r"([^:]+) \[os_error_code=", str(cause)):  # TensorStore's format
            return found[1].strip()
        if re.search(r"^NOT_FOUND|No ArrayMetadata found|missing \.zarray", str(cause)):  # whoever looks first
            return "files have been taken away meanwhile"
        cause = cause.__cause__ or cause.__context__
    return None
