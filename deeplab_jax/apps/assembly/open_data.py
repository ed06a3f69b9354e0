"""Opens the data set of a config, preparing it if necessary, and finds what a workdir knows about it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from deeplab_jax import registry
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.apps.assembly.workdir import DATASET_FILE, has_checkpoints, read_info
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.inspection.channel_statistics import with_statistics
from deeplab_jax.data.inspection.vanished_class import require_classes
from deeplab_jax.data.loading.loader import TrainLoader, make_loader
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.train.device_augment import make_augment
from deeplab_jax.train.loop import Augment
from deeplab_jax.types import DATASET_NORMALIZATION, DatasetInfo, UserError


def open_dataset(config: Config) -> Dataset:
    """The data set, prepared if necessary; what it assumed about the files is printed to stderr.

    A data set whose `open_dataset` takes a `task` reads its masks accordingly.

    Raises:
      UserError: if its masks are not of `config.data.task`.
    """
    factory, name = _factory(config)
    asked = {"task": config.data.task} if "task" in inspect.signature(factory).parameters else {}
    asked |= {"name": name} if name else {}
    dataset: Dataset = factory(config.data.root, config.data.prepared_dir, **asked)
    dataset = dataclasses.replace(dataset, info=with_task(dataset.info, config.data.task))
    for note in dataset.notes:
        _say(config.data.root, f"{dataset.info.name}: {note}")
    return with_raw_copies(dataset) if config.data.prepared_form == "raw" else dataset


@functools.cache
def _say(root: str, line: str) -> None:
    """Prints a line about the data in `root`, once in a run."""
    print(line, file=sys.stderr)


def _factory(config: Config) -> tuple[Callable[..., Any], str]:
    """The data set's `open_dataset`, and the name that it takes ('tfds:NAME') or ''."""
    dataset, name = registry.split_argument("data.datasets", config.data.dataset, "open_dataset")
    return registry.resolve("data.datasets", dataset), name


def with_task(info: DatasetInfo, task: str) -> DatasetInfo:
    """The info of the same masks, read for `config.data.task`; '' leaves it as it is.

    Two classes that exclude each other are a binary task as well as one of two classes; classes that overlap are not.

    Raises:
      UserError: if the masks are not of that task, or a single class is to exclude others.
    """
    task = task or info.task
    if task == "multiclass" and info.num_classes == 1:
        raise UserError(
            f"data set {info.name} has the class '{info.class_names[0]}' alone, which every pixel then is: name two "
            "classes, the background first, and set config.data.task=binary"
        )
    if "multilabel" in (task, info.task) and task != info.task:
        raise UserError(
            f"config.data.task={task!r}: the masks of data set {info.name} are {info.task}: classes "
            f"{'overlap' if info.task == 'multilabel' else 'do not overlap'} there; leave it out"
        )
    if task == "binary" and info.num_classes != 2:
        raise UserError(
            f"config.data.task='binary': data set {info.name} has {info.num_classes} classes "
            f"({', '.join(info.class_names[:5])}{', ...' if info.num_classes > 5 else ''}); a binary task has two, the "
            "background and the object"
        )
    return dataclasses.replace(info, task=task)


def open_normalized(config: Config, workdir: pathlib.Path) -> Dataset:
    """Like `open_dataset`, with the channel statistics if images are normalised by them.

    If the workdir already holds a run, they are the ones it started with.
    """
    kept = workdir / DATASET_FILE if has_checkpoints(workdir) else None
    return _add_statistics(open_dataset(config), config, kept)


def _add_statistics(dataset: Dataset, config: Config, kept: pathlib.Path | None) -> Dataset:
    """The data set with its channel means and standard deviations, if the network's normalisation needs them.

    Args:
      kept: file with a run's `DatasetInfo`, whose statistics are reused; None: compute them on the training split.

    Raises:
      UserError: if the split or the file cannot be read.
    """
    if config.model.normalization != DATASET_NORMALIZATION:
        return dataset
    if kept is not None and kept.exists():
        known = read_info(kept)
        if len(known.channel_mean) == dataset.info.channels:
            info = dataclasses.replace(dataset.info, channel_mean=known.channel_mean, channel_std=known.channel_std)
            return dataclasses.replace(dataset, info=info)
    return with_statistics(dataset, config.data.train_split, num_workers=config.data.num_workers)


def find_info(config: Config, workdir: pathlib.Path, *, names_matter: bool = True) -> DatasetInfo:
    """The data set's info from the workdir, else from its module, else from its files.

    Args:
      names_matter: if False and only the files know the classes, `model.num_classes` numbered classes are used.

    Raises:
      UserError: if the files are needed and missing.
    """
    path = workdir / DATASET_FILE
    if path.exists():
        return read_info(path)
    info = module_info(config)
    if info is None and not names_matter:
        if config.model.num_classes:
            return numbered_classes(config.data.dataset, config.model.num_classes)
        if not config.data.root:
            raise UserError(
                f"config.model.num_classes=0: data set '{config.data.dataset}' knows its classes from its files; "
                "give their number with --config.model.num_classes, or the files with --config.data.root"
            )
    if info is None or config.model.normalization == DATASET_NORMALIZATION:
        return open_normalized(config, workdir).info
    return with_task(info, config.data.task)


def module_info(config: Config) -> DatasetInfo | None:
    """The INFO of the data set's module; None if the classes are known only from its files.

    Raises:
      UserError: if the module has no INFO.
    """
    factory, _ = _factory(config)
    module = sys.modules[factory.__module__]
    try:
        info: DatasetInfo | None = module.INFO
    except AttributeError:
        raise UserError(
            f"{module.__file__}: has no INFO; add what deeplab_jax.data.dataset.make_info gives, or INFO = None where "
            "only the files know the classes"
        ) from None
    return info


def numbered_classes(name: str, num_classes: int) -> DatasetInfo:
    """Info of a data set with numbered classes and VOC's colours."""
    return make_info(name, tuple(f"class{class_id}" for class_id in range(num_classes)))


def open_loader(config: Config, dataset: Dataset) -> TrainLoader:
    """This process's loader of training batches, at position 0.

    Raises:
      UserError: if nothing can be learned from the training split's labels, or as `make_loader`.
    """
    source = dataset.open_split(config.data.train_split)
    require_classes(source, dataset, config.data.train_split)
    return make_loader(
        config.data,
        source,
        dataset.info,
        seed=config.seed,
        pad_pixel=pad_pixel(config, dataset.info),
        shard=(jax.process_index(), jax.process_count()),
    )


def make_device_augment(config: Config, dataset: Dataset, mesh: Mesh) -> Augment:
    """The function that the devices apply to the loader's batches before the step."""
    if not config.data.device_augmentation:
        return lambda batch: batch
    return make_augment(
        mesh,
        crop_size=config.data.crop_size,
        pad_pixel=pad_pixel(config, dataset.info),
        ignore_label=dataset.info.ignore_label,
        photometric=config.data.photometric,
    )
