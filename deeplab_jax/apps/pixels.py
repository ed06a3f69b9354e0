"""What follows from a data set's kind of images: what they are normalised by, what fills them up, what needs RGB."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from deeplab_jax.config import Config
from deeplab_jax.data.bands import describe_format
from deeplab_jax.data.channel_statistics import with_statistics
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.models.build import find_normalization
from deeplab_jax.types import DATASET_NORMALIZATION, DatasetInfo, Pixel, UserError


def add_statistics(dataset: Dataset, config: Config, kept: pathlib.Path | None) -> Dataset:
    """The same data set, with its channels' means and deviations where the network's normalisation asks for them.

    Args:
      dataset: opened.
      config: names the normalisation, and the training split, which is prepared and read where it has to be.
      kept: file of a run's `DatasetInfo`: it goes on with the numbers that it began with. None: it has not begun.

    Raises:
      UserError: where the split or the file cannot be read.
    """
    if config.model.normalization != DATASET_NORMALIZATION:
        return dataset
    if kept is not None and kept.exists():
        known = read_info(kept)
        if len(known.channel_mean) == dataset.info.channels:
            info = dataclasses.replace(dataset.info, channel_mean=known.channel_mean, channel_std=known.channel_std)
            return dataclasses.replace(dataset, info=info)
    return with_statistics(dataset, config.data.train_split, num_workers=config.data.num_workers)


def read_info(path: pathlib.Path) -> DatasetInfo:
    """What a file, written as JSON of its fields, knows of a data set.

    Raises:
      UserError: where it cannot be read.
    """
    try:
        known = json.loads(path.read_text())
        known["palette"] = tuple(tuple(color) for color in known["palette"])
        for name in ("class_names", "channel_mean", "channel_std"):
            known[name] = tuple(known.get(name, ()))
        return DatasetInfo(**known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): remove it, and the data set is opened instead") from None


def pad_pixel(config: Config, info: DatasetInfo | None) -> Pixel:
    """What padding is made of, and missing values are replaced by: it normalises to (nearly) zero.

    Args:
      config: names the normalisation.
      info: of the data set; None: images are RGB bytes.
    """
    normalization = find_normalization(config.model, info)
    return normalization.mean if info is not None and info.dtype == "float32" else normalization.pad_pixel


def check_images(config: Config, info: DatasetInfo) -> None:
    """Raises UserError where a setting is made for RGB bytes, and the images are none."""
    if info.is_rgb:
        return
    for field, value, without in (
        ("data.photometric", config.data.photometric, "False"),
        ("inference.crf", config.inference.crf, "''"),
        ("model.crf.name", config.model.crf.name, "''"),
    ):
        if value:
            images = describe_format(info.channels, info.dtype)
            raise UserError(
                f"config.{field}={value!r}: is for RGB bytes, data set {info.name} has {images}; set it to {without}"
            )
