"""A small data set of TFDS that needs no TensorFlow: its features are encoded already."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from made_files import make_ids
from PIL import Image

SPLITS = {"train": (0, 1, 2), "validation": (3, 4)}  # seeds


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


class MadeScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images and masks of three classes."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    name = "made_scenes"
    masks: Mapping[str, Any] = {
        "segmentation_mask": tfds.features.LabeledImage(labels=["ground", "house", "tree"], shape=(None, None, 1))
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "file_name": tfds.features.Text(),
            "kind": tfds.features.ClassLabel(num_classes=2),
            **self.masks,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Any]:
        return {split: self._generate_examples(seeds) for split, seeds in SPLITS.items()}

    def _generate_examples(self, seeds: tuple[int, ...]):
        for seed in seeds:
            masks = {key: png(self.mask(seed)) for key in self.masks}
            yield seed, {"image": png(image(seed)), "file_name": f"scene_{seed}.png", "kind": 0, **masks}

    def mask(self, seed: int) -> np.ndarray:
        return make_ids(seed=seed)


def write_tfds(data_dir: pathlib.Path, *, file_format: str = "array_record", **changes: object) -> pathlib.Path:
    """The folder of the prepared data set below TFDS's `data_dir`."""
    cls = type("MadeScenes", (MadeScenes,), changes, skip_registration=True)
    builder = cls(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_path)
