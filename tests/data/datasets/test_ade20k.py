"""ADE20K: the challenge's masks, names and files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from made_datasets import ade20k_ids, make_ade20k
from PIL import Image

from deeplab_jax.data.datasets import ade20k
from deeplab_jax.types import UserError


@pytest.mark.parametrize("inner", ["", "ADEChallengeData2016"])
def test_zero_is_ignored_and_the_others_move_down(tmp_path, inner):
    make_ade20k(tmp_path / "root" / inner)
    dataset = ade20k.open_dataset(str(tmp_path / "root"), str(tmp_path / "prepared"))
    assert dataset.info.splits == {"train": 2, "val": 1}
    source = dataset.open_split("train")
    assert source.names == ["ADE_train_00000001", "ADE_train_00000002"]
    np.testing.assert_array_equal(source[1].label, ade20k_ids(2) - np.uint8(1))  # 0 becomes 255


def test_archive(tmp_path):
    make_ade20k(tmp_path / "root" / "ADEChallengeData2016")
    shutil.make_archive(str(tmp_path / "archive" / "ADEChallengeData2016"), "zip", tmp_path / "root")
    dataset = ade20k.open_dataset(str(tmp_path / "archive"), str(tmp_path / "prepared"))
    np.testing.assert_array_equal(dataset.open_split("val")[0].label, ade20k_ids(1) - np.uint8(1))


def test_mask_of_the_full_data_set_is_refused(tmp_path):
    """It numbers thousands of classes, coded as colours."""
    make_ade20k(tmp_path)
    path = next((tmp_path / "annotations" / "validation").iterdir())
    Image.fromarray(np.full((20, 30), 151, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"holds the value 151 .*; valid are 1 to 150 and 0, 255 \(ignored\)"):
        ade20k.open_dataset(str(tmp_path), str(tmp_path / "prepared")).open_split("val")


def test_real_images(shared, tmp_path):
    fixture = shared / "data" / "fixtures" / "ade20k"
    lines = (fixture / "objectInfo150.txt").read_text().splitlines()[1:]
    assert list(ade20k.INFO.class_names) == [line.split("\t")[-1].split(",")[0].strip() for line in lines]
    for kind in ("images", "annotations"):
        shutil.copytree(fixture / "sampleData" / kind, tmp_path / "root" / kind / "validation")
    source = ade20k.open_dataset(str(tmp_path / "root"), str(tmp_path / "prepared")).open_split("val")
    assert source.names == [f"ADE_val_0000000{number}" for number in (1, 2, 3)]
    for name, _, label in (source[index] for index in range(3)):
        ids = np.asarray(Image.open(fixture / "sampleData" / "annotations" / f"{name}.png")).astype(int)
        np.testing.assert_array_equal(label, np.where(ids == 0, 255, ids - 1))
    scene = {list(ade20k.INFO.class_names)[class_id] for class_id in np.unique(source[0].label) if class_id != 255}
    assert {"wall", "building", "sky"} <= scene
