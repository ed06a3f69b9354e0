"""Class weights: given as numbers, by class name, or computed from the class frequencies of the training split."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.inspection.class_counts import (
    ClassCounts,
    count_classes,
    effective_number_weights,
    median_frequency_weights,
)
from deeplab_jax.files import write_whole
from deeplab_jax.losses import settings
from deeplab_jax.registry import near
from deeplab_jax.types import DatasetInfo, UserError

COUNTS_FILE = "class_counts.json"  # inside a workdir
WEIGHTINGS: Mapping[str, Callable[[ClassCounts], tuple[float, ...]]] = dict(
    zip(settings.WEIGHTINGS, (median_frequency_weights, effective_number_weights), strict=True)
)


def class_weights(
    setting: Any, info: DatasetInfo, counts: Callable[[], ClassCounts] | None
) -> tuple[float, ...] | None:
    """One number per class, or None if all are 1.

    Args:
      setting: `config.loss.class_weights`.
      counts: class counts of the training split; needed if the setting is one of WEIGHTINGS.

    Raises:
      ValueError: if the counts are needed and not given.
      UserError: if the number of weights differs from the number of classes, or a name is not a class.
    """
    if isinstance(setting, str) and setting:
        if counts is None:
            raise ValueError(f"class weights '{setting}' need the class counts of the training split")
        return WEIGHTINGS[setting](counts())
    if isinstance(setting, Mapping):
        return _by_name(setting, info)
    if setting and len(setting) != info.num_classes:
        raise UserError(
            f"config.loss.class_weights: {len(setting)} weights, data set {info.name} has "
            f"{info.num_classes} classes; give one for each, or none"
        )
    return tuple(setting) or None


def training_counts(config: Config, dataset: Dataset, workdir: pathlib.Path, *, continued: bool) -> ClassCounts:
    """The class counts of the training split, stored in the workdir.

    Args:
      continued: reuse the stored counts, so that a resumed run keeps its weights.

    Raises:
      UserError: if the stored counts cannot be read, or the workdir cannot be written.
    """
    split, info = config.data.train_split, dataset.info
    of = {
        "dataset": info.name,
        "split": split,
        "num_images": info.splits.get(split),
        "class_names": list(info.class_names),
    }
    path = workdir / COUNTS_FILE
    if continued and path.exists():
        try:
            kept = json.loads(path.read_text())
            if kept["of"] == of:
                return ClassCounts.from_dict(kept["counts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {path} ({error}): remove it, and the classes are counted again") from None
    source = dataset.open_split(split)
    counts = count_classes(
        source, info, num_workers=config.data.num_workers, title=f"counting classes of {info.name}/{split}"
    )
    if jax.process_index() == 0:
        write_whole(path, json.dumps({"of": of, "counts": counts.to_dict()}, indent=1) + "\n")
    return counts


def describe_weights(weights: Sequence[float], info: DatasetInfo) -> str:
    """Class names with their weights."""
    return ", ".join(f"{name} {weight:.4g}" for name, weight in zip(info.class_names, weights, strict=True))


def _by_name(setting: Mapping[str, float], info: DatasetInfo) -> tuple[float, ...]:
    for name in setting:
        if name not in info.class_names:
            raise UserError(
                f"config.loss.class_weights: data set {info.name} has no class '{name}'{near(name, info.class_names)}"
            )
    return tuple(float(setting.get(name, 1.0)) for name in info.class_names)
