"""The config with which a workdir's weights were trained, and a check that another config is compatible."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from deeplab_jax import registry
from deeplab_jax.apps.assembly.workdir import CONFIG_FILE, DATASET_FILE, read_info
from deeplab_jax.config import Config, ModelConfig, from_dict, plain
from deeplab_jax.heads.aspp import rates_in_cells
from deeplab_jax.types import UserError

_TRAINING = {"dropout", "logits_stddev"}  # arguments of parts that do not affect inference


def read_config(workdir: pathlib.Path) -> Config | None:
    """The config of the run in `workdir`; None if there is none.

    Raises:
      UserError: if its file cannot be read.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        return from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {path} ({reason}): give --config, or another --workdir") from None


def check_trained(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> list[str]:
    """Raises UserError at the first setting with which the weights would compute something else.

    Output stride, scales and precision are free: they are chosen for each evaluation.

    Args:
      checkpoint: a checkpoint of another run to check instead.

    Returns:
      A line where another output stride was chosen, with ASPP's rates there.
    """
    if checkpoint:
        path = pathlib.Path(checkpoint).absolute()
        workdir = next((each for each in (path, *path.parents[:2]) if (each / CONFIG_FILE).is_file()), path)
    trained = read_config(workdir)
    if trained is None:
        return []
    if not (trained.model.num_classes and trained.model.task) and (workdir / DATASET_FILE).is_file():
        info = read_info(workdir / DATASET_FILE)
        trained.model = dataclasses.replace(trained.model, num_classes=info.num_classes, task=info.task)
    for field, value, needed in _pairs(config, trained):
        if plain(value) != plain(needed):
            raise UserError(
                f"config.model.{field}={value!r}: the weights in {workdir} were trained with {needed!r}; leave it out "
                f"(without --config, {workdir / CONFIG_FILE} is the config)"
            )
    return _say_rates(config.model, trained.model)


def _say_rates(model: ModelConfig, trained: ModelConfig) -> list[str]:
    before, now = (rates_in_cells(each.head.args, each.output_stride) for each in (trained, model))
    if trained.output_stride == model.output_stride or not now:
        return []
    rule = "as the system has them at each stride" if now == before else f"for {before} there, of the same extent"
    return [
        f"config.model.output_stride={model.output_stride}, where the weights were trained at {trained.output_stride}: "
        f"atrous rates {now}, {rule}"
    ]


def _pairs(config: Config, trained: Config) -> Iterator[tuple[str, Any, Any]]:
    """(field of config.model, its value, what the weights need)."""
    model, needed = config.model, trained.model
    yield "normalization", model.normalization, needed.normalization
    yield "align_corners", model.align_corners, needed.align_corners
    if model.num_classes and needed.num_classes:  # 0: the data set's
        yield "num_classes", model.num_classes, needed.num_classes
    if (task := model.task or config.data.task) and needed.task:
        yield "task", task, needed.task
    for part in ("backbone", "head"):
        own, theirs = getattr(model, part), getattr(needed, part)
        factory = registry.resolve(f"{part}s", own.name)
        if own.name != theirs.name and not _is_named(factory, f"{part}s", theirs.name):
            yield f"{part}.name", own.name, theirs.name
        defaults = registry.defaults(factory)
        for name in sorted((own.args.keys() | theirs.args.keys()) - _TRAINING):
            default = defaults.get(name)
            yield f"{part}.args.{name}", own.args.get(name, default), theirs.args.get(name, default)


def _is_named(factory: Callable[..., Any], package: str, name: str) -> bool:
    """Whether `name` is an alias of the factory."""
    try:
        return registry.resolve(package, name) is factory
    except ValueError:  # a name of another version
        return False
