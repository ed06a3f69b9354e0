"""Cityscapes: label ids to train ids and back, fine and coarse, from folders and from the original archives."""

from __future__ import annotations

import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from made_datasets import CITYSCAPES_FRAMES, cityscapes_ids, make_cityscapes, write_cityscapes_frame
from PIL import Image

from deeplab_jax.data.datasets import cityscapes
from deeplab_jax.types import UserError

# Of labels.py in cityscapesScripts 2.3.0, for the label ids 0 to 33.
TRAIN_IDS = np.array([255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, *range(6, 16), 255, 255, 16, 17, 18])


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    make_cityscapes(tmp_path / "cityscapes")
    return tmp_path / "cityscapes"


@pytest.fixture
def prepared(tmp_path) -> str:
    return str(tmp_path / "prepared")


def test_label_ids_become_train_ids(root, prepared):
    dataset = cityscapes.open_dataset(str(root), prepared)
    assert dataset.info.splits == {"train": 2, "val": 1, "test": 1, "trainval": 3}
    source = dataset.open_split("train")
    assert source.names == ["aachen_000000_000019", "bremen_000001_000019"]
    np.testing.assert_array_equal(source[1].label, TRAIN_IDS[cityscapes_ids(1)])
    assert dataset.open_split("trainval").names == [name for split, name in CITYSCAPES_FRAMES if split != "test"]


def test_there_and_back():
    train_ids = np.array([[*range(19), 255]])
    label_ids = cityscapes.to_label_ids(train_ids)
    assert label_ids.dtype == np.uint8
    assert label_ids[0, -1] == 0
    np.testing.assert_array_equal(TRAIN_IDS[label_ids], train_ids)


@pytest.mark.parametrize("train_id", [-1, 19, 254, 256])
def test_back_from_an_id_that_is_none(train_id):
    with pytest.raises(ValueError, match=rf"^train id {train_id}: must be 0 to 18 or 255$"):
        cityscapes.to_label_ids(np.array([0, train_id]))


def test_coarse_annotations_are_splits_of_their_own(root, prepared):
    write_cityscapes_frame(root, "gtCoarse", "train_extra", "augsburg_000000_000000", 7)
    write_cityscapes_frame(root, "gtCoarse", "train", "aachen_000000_000019", 8)
    dataset = cityscapes.open_dataset(str(root), prepared)
    assert dataset.info.splits == {
        "train": 2,
        "val": 1,
        "test": 1,
        "train_coarse": 2,
        "train_extra": 1,
        "trainval": 3,
    }
    np.testing.assert_array_equal(dataset.open_split("train_extra")[0].label, TRAIN_IDS[cityscapes_ids(7)])
    with pytest.raises(UserError, match=r"bremen_000001_000019_gtCoarse_labelIds\.png: does not exist, though split"):
        dataset.open_split("train_coarse")


def test_original_archives(root, prepared, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    for archive, inner in (("leftImg8bit_trainvaltest.zip", "leftImg8bit"), ("gtFine_trainvaltest.zip", "gtFine")):
        with zipfile.ZipFile(folder / archive, "w") as packed:
            for path in (root / inner).rglob("*.*"):
                packed.write(path, path.relative_to(root))
    dataset = cityscapes.open_dataset(str(folder), prepared)
    np.testing.assert_array_equal(dataset.open_split("val")[0].label, TRAIN_IDS[cityscapes_ids(2)])
    assert not list(pathlib.Path(prepared).rglob("*_color.png"))


def test_value_that_is_no_label_id_is_named_as_it_is_in_the_file(root, prepared):
    path = next(root.rglob("frankfurt*_labelIds.png"))
    ids = np.full((20, 30), 7, np.uint8)
    ids[3, 4] = 34
    Image.fromarray(ids).save(path)
    with pytest.raises(
        UserError,
        match=r"labelIds\.png: holds the value 34 \(1 pixel\), the first at row 3, column 4; valid are 7 to 8, 11 "
        r"to 13, 17, 19 to 28, 31 to 33 and 0 to 6, 9 to 10, 14 to 16, 18, 29 to 30, 255 \(ignored\)",
    ):
        cityscapes.open_dataset(str(root), prepared).open_split("val")


@pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine", "everything"])
def test_what_to_get_and_where_to_put_it(root, prepared, missing):
    if missing != "everything":
        shutil.rmtree(root / missing)
    with pytest.raises(UserError) as caught:
        cityscapes.open_dataset("" if missing == "everything" else str(root), prepared)
    assert "; get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.citysc" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_real_frame(shared, prepared, tmp_path):
    fixture = shared / "data" / "fixtures" / "cityscapes"
    name = "frankfurt_000000_000294"
    for kind, file in (("leftImg8bit", f"{name}_leftImg8bit.png"), ("gtFine", f"{name}_gtFine_labelIds.png")):
        folder = tmp_path / "root" / kind / "val" / "frankfurt"
        folder.mkdir(parents=True)
        shutil.copy(fixture / kind / file, folder)
    label = cityscapes.open_dataset(str(tmp_path / "root"), prepared).open_split("val")[0].label
    label_ids, train_ids = (
        np.asarray(Image.open(fixture / "gtFine" / f"{name}_gtFine_{kind}.png"))
        for kind in ("labelIds", "labelTrainIds")
    )
    np.testing.assert_array_equal(label, TRAIN_IDS[label_ids])
    # The frame's two masks were shrunk one by one, and so disagree at 77 of the 32768 pixels, on borders.
    assert (label != train_ids).sum() == 77
