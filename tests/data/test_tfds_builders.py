"""The project's data sets, found and built by TFDS under their names."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds
from made_files import make_ids, pixels, write_folder

from deeplab_jax.data import tfds_builders
from deeplab_jax.types import UserError

NAMES = ["a", "b", "c"]


@pytest.fixture
def built(tmp_path):
    root = write_folder(tmp_path / "data", NAMES, {"train": ["a", "b"], "val": ["c"]})
    builder = tfds.builder("deeplab_jax_folder", root=str(root), data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    return builder


def test_builders_are_registered():
    assert {"deeplab_jax_voc", "deeplab_jax_cityscapes", "deeplab_jax_coco_stuff_182"} <= set(tfds_builders.BUILDERS)
    assert set(tfds_builders.BUILDERS) <= set(tfds.list_builders(with_community_datasets=False))
    assert tfds.builder_cls("deeplab_jax_voc").name == "deeplab_jax_voc"


def test_classes_are_known_without_files(tmp_path):
    builder = tfds.builder("deeplab_jax_voc", data_dir=tmp_path)
    assert builder.info.features["label"].names[15] == "person"


def test_a_folder_is_built_and_read(built, tmp_path):
    assert {split: info.num_examples for split, info in built.info.splits.items()} == {"train": 2, "val": 1}
    assert built.info.features["label"].names == ["ground", "house", "tree"]
    example = built.as_data_source("val")[0]
    assert example["name"].decode() == "c"
    np.testing.assert_array_equal(example["image"], pixels(tmp_path / "data" / "images" / "c.png"))
    np.testing.assert_array_equal(example["label"][..., 0], make_ids(seed=2))


def test_what_was_built_needs_no_root(tmp_path):
    root = write_folder(tmp_path / "data", NAMES, {"train": NAMES})
    tfds.builder("deeplab_jax_camvid", root=str(root), data_dir=tmp_path / "tfds").download_and_prepare()
    again = tfds.builder("deeplab_jax_camvid", data_dir=tmp_path / "tfds")
    assert len(again.as_data_source("train[1:]")) == 2


def test_more_samples_than_a_shard_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builders, "_SHARD_LENGTH", 2)
    names = [f"n{index}" for index in range(5)]
    root = write_folder(tmp_path / "data", names, {"train": names})
    builder = tfds.builder("deeplab_jax_folder", root=str(root), data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    assert [example["name"].decode() for example in builder.as_data_source("train")] == names


def test_a_fault_is_one_line(tmp_path):
    root = write_folder(tmp_path / "data", NAMES, {"train": NAMES})
    (root / "masks" / "b.png").write_bytes(b"")
    builder = tfds.builder("deeplab_jax_folder", root=str(root), data_dir=tmp_path / "tfds")
    with pytest.raises(UserError, match=r"b\.png: is empty; copy the file again"):
        builder.download_and_prepare()
