"""Data sets of TFDS by name and by folder: read without TensorFlow, with their own classes, or refused in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow_datasets
from made_files import make_ids
from made_tfds import image, write_tfds

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.config import Config
from deeplab_jax.data.datasets import tfds
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate

Image = tensorflow_datasets.features.Image(shape=(None, None, 1))


@pytest.fixture
def prepared(tmp_path):
    return str(tmp_path / "prepared")


@pytest.mark.parametrize("by_name", [True, False])
def test_by_name_and_by_folder(tmp_path, prepared, by_name):
    own = write_tfds(tmp_path / "data")
    root, name = (tmp_path / "data", "made_scenes") if by_name else (own, "")
    dataset = tfds.open_dataset(str(root), prepared, name=name)
    assert dataset.info.splits == {"train": 3, "val": 2}
    assert dataset.info.class_names == ("ground", "house", "tree")
    source = dataset.open_split("val")
    assert source.names == ["scene_3", "scene_4"]
    np.testing.assert_array_equal(source[0].image, image(3))
    np.testing.assert_array_equal(source[0].label, make_ids(seed=3))
    assert "tensorflow" not in sys.modules


def test_a_config_names_it(tmp_path, prepared, capsys):
    write_tfds(tmp_path / "data")
    config = Config()
    config.data.dataset, config.data.root, config.data.prepared_dir = (
        "tfds:made_scenes",
        str(tmp_path / "data"),
        prepared,
    )
    validate(config)
    assert open_data.module_info(config) is None
    assert len(open_data.open_dataset(config).open_split("train")) == 3
    config.data.dataset = "voc:made_scenes"  # VOC takes no name: a module outside of the project
    with pytest.raises(UserError, match=r"no module 'voc' on Python's path"):
        validate(config)


def test_it_is_unpacked_once_and_anew_when_it_changes(tmp_path, prepared, monkeypatch):
    write_tfds(tmp_path / "data")
    tfds.open_dataset(str(tmp_path / "data"), prepared, name="made_scenes")
    with monkeypatch.context() as patched:
        patched.setattr(tfds, "_rows", lambda *_: (pytest.fail("read again") for _ in range(1)))
        tfds.open_dataset(str(tmp_path / "data"), prepared, name="made_scenes")
    (tmp_path / "data" / "classes.json").write_text('{"class_names": ["a", "b", "c"]}')
    assert tfds.open_dataset(str(tmp_path / "data"), prepared, name="made_scenes").info.class_names == ("a", "b", "c")


def test_pets_are_numbered_from_one(tmp_path, prepared):
    write_tfds(
        tmp_path / "data",
        name="oxford_iiit_pet",
        VERSION=tensorflow_datasets.core.Version("4.0.0"),
        masks={"segmentation_mask": Image},
        mask=lambda self, seed: np.full((20, 30), 1 + seed % 3, np.uint8),
    )
    dataset = tfds.open_dataset(str(tmp_path / "data"), prepared, name="oxford_iiit_pet")
    assert dataset.info.class_names == ("pet", "background", "border")
    assert [int(dataset.open_split("train")[index].label[0, 0]) for index in range(3)] == [0, 1, 2]


def refused(tmp_path, prepared, name="made_scenes") -> str:
    with pytest.raises(UserError) as caught:
        tfds.open_dataset(str(tmp_path / "data"), prepared, name=name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_name(tmp_path, prepared):
    (tmp_path / "data").mkdir()
    assert refused(tmp_path, prepared, "no_such_scenes").startswith(
        "config.data.dataset='tfds:no_such_scenes': TFDS knows no such data set, and there is none in "
    )


def test_what_cannot_be_built_here(tmp_path, prepared, monkeypatch):
    def fail(*_, **__):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
    (tmp_path / "data").mkdir()
    assert refused(tmp_path, prepared, "oxford_iiit_pet") == (
        "config.data.dataset='tfds:oxford_iiit_pet': is not prepared, and cannot be built here (No module named "
        "'tensorflow'); where TensorFlow is installed, run tfds build oxford_iiit_pet --file_format=array_record "
        "--data_dir=DIR, and give DIR as config.data.root"
    )


def test_no_masks(tmp_path, prepared):
    write_tfds(tmp_path / "data", masks={})
    assert refused(tmp_path, prepared) == (
        "config.data.dataset='tfds:made_scenes': must have one column of images and one of masks, as 'image' and "
        "'mask'; those with images are image"
    )


def test_no_folder_and_no_name(tmp_path, prepared):
    with pytest.raises(UserError, match=r"^config\.data\.root='': is not the folder of a prepared data set, with "):
        tfds.open_dataset("", prepared)
