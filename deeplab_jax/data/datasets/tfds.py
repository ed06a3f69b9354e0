"""Data sets of TensorFlow Datasets, by name: `--config.data.dataset=tfds:oxford_iiit_pet`.

`root` is TFDS's `data_dir`; '': its own default, ~/tensorflow_datasets. With `--config.data.dataset=tfds`, `root` is
the folder of a prepared data set itself, the one with dataset_info.json. A data set that is not prepared there is
built, as `tfds.load` would; for most of them that needs TensorFlow, reading does not. Files must be in the format
array_record.

It must have a feature of images and one of masks, which are unpacked into `data.prepared_dir` and read like those of
the data set `folder`. Splits keep their names, except that 'validation' is 'val'. A classes.json in `root` may name the
classes, where the data set does not.

Source: https://www.tensorflow.org/datasets/data_source
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.sources.parquet_files import settings_beside
from deeplab_jax.data.sources.path_words import split_name
from deeplab_jax.data.sources.pixel_columns import find_columns
from deeplab_jax.data.sources.prepare import quiet_tfds
from deeplab_jax.data.sources.samples import require_folder
from deeplab_jax.data.sources.unpack_rows import PixelRow, unpack_rows
from deeplab_jax.types import UserError

INFO = None  # the classes are those of the data set

_NAMES = ("file_name", "filename", "image_id", "image/filename", "name", "id")  # features that name an example
# What TFDS does not say about the values in masks.
_SETTINGS: dict[str, dict[str, Any]] = {
    "oxford_iiit_pet": {
        "class_names": ["pet", "background", "border"],
        "values": {"1": "pet", "2": "background", "3": "border"},
    }
}


def open_dataset(root: str, prepared_dir: str, task: str = "", name: str = "") -> Dataset:
    """Opens a data set of TFDS.

    Args:
      task: one of `TASKS`; '': what the masks tell.
      name: as `tfds.load` takes it; '': `root` is the data set's own folder.

    Raises:
      UserError: if there is no such data set, it cannot be built here, or it has no images with masks.
    """
    with quiet_tfds():
        builder = _find_builder(root, name)
    images_of = {
        key: feature for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)
    }
    image, mask = find_columns(list(images_of), f"config.data.dataset='tfds:{builder.name}'")
    own = settings_beside(pathlib.Path(root).expanduser()) if root else None
    unpacked = unpack_rows(
        _rows(builder, image, mask),
        source=builder.name,
        version=(builder.info.full_name, str(builder.data_path), _stamp(builder)),
        prepared_dir=prepared_dir,
        settings=own or _SETTINGS.get(builder.name) or _named_classes(images_of[mask]),
    )
    dataset = folder.open_dataset(str(unpacked), prepared_dir, task)
    return dataclasses.replace(dataset, info=dataclasses.replace(dataset.info, name="tfds"))


def _find_builder(root: str, name: str) -> tfds.core.DatasetBuilder:
    """The prepared data set."""
    if not name:
        place = require_folder(pathlib.Path(root).expanduser(), "data.root") if root else None
        if place is None or not (place / "dataset_info.json").is_file():
            raise UserError(
                f"config.data.root={root!r}: is not the folder of a prepared data set, with dataset_info.json; give "
                "it, or name the data set: --config.data.dataset=tfds:NAME"
            )
        return tfds.builder_from_directory(place)
    data_dir = str(pathlib.Path(root).expanduser()) if root else None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"config.data.dataset='tfds:{name}': TFDS knows no such data set, and there is none in "
            f"{data_dir or 'its own folder'}; correct the name or give its data_dir as config.data.root"
        ) from None
    except Exception as error:  # builders download, unpack and import whatever they like
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise UserError(
            f"config.data.dataset='tfds:{name}': is not prepared, and cannot be built here ({reason}); where "
            f"TensorFlow is installed, run tfds build {name} --file_format=array_record --data_dir=DIR, and give DIR "
            "as config.data.root"
        ) from None
    return builder


def _rows(builder: tfds.core.DatasetBuilder, image: str, mask: str) -> Iterator[PixelRow]:
    features = builder.info.features.items()
    texts = [key for key, each in features if isinstance(each, tfds.features.Text)]
    named = next((key for key in _NAMES if key in texts), None)
    decoders = {key: tfds.decode.SkipDecoding() for key, each in features if isinstance(each, tfds.features.Image)}
    for split in builder.info.splits:
        try:
            source = builder.as_data_source(split, decoders=decoders)
        except NotImplementedError:
            raise UserError(
                f"{builder.data_path}: is not in the format array_record, which random access needs; run tfds "
                f"convert_format --dataset_dir={builder.data_path} --out_file_format=array_record --out_path=NEW_FOLDER"
            ) from None
        for index in range(len(source)):
            example = source[index]
            name = pathlib.PurePosixPath(example[named].decode() if named else "").stem
            yield PixelRow(split_name(split), name, example[image], example[mask])


def _stamp(builder: tfds.core.DatasetBuilder) -> int:
    return pathlib.Path(str(builder.data_path), "dataset_info.json").stat().st_mtime_ns


def _named_classes(feature: tfds.features.Image) -> dict[str, Any] | None:
    names = getattr(feature, "names", None)
    return {"class_names": list(names)} if names else None
