"""The project's data sets as builders of TensorFlow Datasets, for those who load theirs through TFDS.

    import deeplab_jax.data.tfds_builders
    import tensorflow_datasets as tfds

    builder = tfds.builder("deeplab_jax_voc", root="/data/VOCdevkit")
    builder.download_and_prepare()
    source = builder.as_data_source("train")  # {'image', 'label', 'name'}; without TensorFlow

Importing this module registers `deeplab_jax_NAME` for each module NAME of data/datasets whose data lie in files of RGB
images. Labels are class ids, or 255 where ignored. `root` is only needed to build, or to know the classes of `folder`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from deeplab_jax import registry
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.samples import Sample, read_sample
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, UserError

_SHARD_LENGTH = 128  # TFDS keeps a shard in memory while writing it
_NOT_FROM_FILES = ("shapes", "tfds")
_Examples = Iterator[tuple[int, dict[str, Any]]]


class _RegisteredBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """All splits of one data set; subclasses name it."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # as in sources/prepare.py
    module = ""  # of data/datasets

    def __init__(self, *, root: str = "", **options: Any):
        """As any builder of TFDS; `root` is the folder with the original files."""
        self._root = root
        super().__init__(**({"file_format": "array_record"} | options))

    @functools.cached_property
    def _dataset(self) -> Dataset:
        dataset: Dataset = _module(self.module).open_dataset(self._root, "")
        if not dataset.info.is_rgb:
            raise UserError(f"{self.name}: holds other images than RGB, for which TFDS has no feature")
        return dataset

    def _info(self) -> tfds.core.DatasetInfo:
        info: DatasetInfo = _module(self.module).INFO or self._dataset.info
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{info.name} for semantic segmentation; {info.ignore_label} is the label of ignored pixels.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.LabeledImage(
                        labels=list(info.class_names), shape=(None, None, 1), encoding_format="png"
                    ),
                }
            ),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], _Examples]]]:
        del dl_manager  # opening the data set downloads what can be downloaded
        originals = self._dataset.originals
        assert originals is not None, "data sets that are not made from files are not registered"
        return {
            split: [
                functools.partial(self._read, samples, range(start, min(start + _SHARD_LENGTH, len(samples))))
                for start in range(0, len(samples), _SHARD_LENGTH)
            ]
            for split, samples in originals.samples.items()
            if samples
        }

    def _read(self, samples: Sequence[Sample], indices: range) -> _Examples:
        info, originals = self._dataset.info, self._dataset.originals
        assert originals is not None

        def example(index: int) -> tuple[int, dict[str, Any]]:
            record = read_sample(samples[index], info, originals.legend, originals.read_codes, originals.reading)
            return index, {"name": record.name, "image": record.image, "label": record.label}

        yield from each(example, indices)


def _module(name: str) -> Any:
    return importlib.import_module(f"deeplab_jax.data.datasets.{name}")


def _register() -> tuple[str, ...]:
    """Defines a builder for each data set, which registers it; returns their names."""
    names = []
    for module in registry.module_names("data.datasets"):
        if module not in _NOT_FROM_FILES:
            name = f"deeplab_jax_{module}"
            type(name, (_RegisteredBuilder,), {"name": name, "module": module, "__module__": __name__})
            names.append(name)
    return tuple(names)


BUILDERS = _register()
