"""The threshold that evaluation found for a workdir's best checkpoint, kept for all that predicts with it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from deeplab_jax.config import Config
from deeplab_jax.fields import check
from deeplab_jax.files import write_whole
from deeplab_jax.train.checkpoint import find_checkpoint
from deeplab_jax.types import UserError

THRESHOLD_FILE = "threshold.json"  # inside a workdir


def keep_threshold(workdir: pathlib.Path, found: Mapping[str, Any]) -> pathlib.Path:
    """Writes what the best checkpoint's evaluation found (`best_threshold` of its scores); returns the file."""
    kept = {"checkpoint": find_checkpoint(workdir).name, **found}
    write_whole(workdir / THRESHOLD_FILE, json.dumps(kept, indent=1) + "\n")
    return workdir / THRESHOLD_FILE


def with_kept_threshold(config: Config, workdir: pathlib.Path) -> tuple[Config, str]:
    """(the config with the workdir's threshold, a line that says so), where the config gives none and asks for none.

    Raises:
      UserError: if its file cannot be read.
    """
    path = workdir / THRESHOLD_FILE
    if config.inference.threshold or config.inference.measures.best_threshold or not path.is_file():
        return config, ""
    try:
        kept = json.loads(path.read_text())
        thresholds, split, step = tuple(map(float, kept["thresholds"])), str(kept["split"]), str(kept["checkpoint"])
        inference = dataclasses.replace(config.inference, threshold=thresholds, threshold_split=split)
        check(inference, "inference")
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"cannot read {path} ({error}): remove it, and 0.5 is the threshold") from None
    if (best := find_checkpoint(workdir).name) != step:
        remedy = "find it anew with --mode=evaluate --config.inference.measures.best_threshold=true"
        return config, f"threshold 0.5: {path} is of checkpoint {step}, and the best is now {best}; {remedy}"
    said = f"threshold {', '.join(f'{each:g}' for each in thresholds)}, chosen on split '{split}': {path}"
    return dataclasses.replace(config, inference=inference), said
