"""Folders of Parquet files as the Hugging Face Hub keeps them."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from made_files import make_ids
from made_tfds import image, png

from deeplab_jax.data.datasets import folder
from deeplab_jax.types import UserError


def write_table(path: pathlib.Path, seeds: range, mask: str = "label", **more: list[object]) -> None:
    """Structs of bytes and path, as `datasets` writes its feature Image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(image(seed)), "path": f"scene_{seed}.png"} for seed in seeds]
    masks = [{"bytes": png(make_ids(seed=seed)), "path": None} for seed in seeds]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, mask: masks, **more}), path)


def open_folder(root: pathlib.Path):
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


@pytest.mark.parametrize("mask", ["label", "mask", "annotation", "segmentation_mask", "semantic_mask"])
def test_a_folder_of_the_hub(tmp_path, mask):
    root = tmp_path / "data"
    write_table(root / "data" / "train-00000-of-00002.parquet", range(2), mask, scene=["a", "b"])
    write_table(root / "data" / "train-00001-of-00002.parquet", range(2, 5), mask, scene=["a", "b", "c"])
    write_table(root / "data" / "validation-00000-of-00001.parquet", range(5, 6), mask, scene=["a"])
    (root / "id2label.json").write_text('{"0": "ground", "1": "house", "2": "tree"}')
    dataset = open_folder(root)
    assert dataset.info.splits == {"train": 5, "val": 1}
    assert dataset.info.class_names == ("ground", "house", "tree")
    source = dataset.open_split("train")
    assert source.names == [f"scene_{seed}" for seed in range(5)]
    np.testing.assert_array_equal(source[4].image, image(4))
    np.testing.assert_array_equal(source[4].label, make_ids(seed=4))


def test_one_file_without_a_split_and_bytes_alone(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    table = {"image": [png(image(seed)) for seed in range(6)], "mask": [png(make_ids(seed=seed)) for seed in range(6)]}
    pyarrow.parquet.write_table(pyarrow.table(table), root / "0000.parquet")
    (root / "classes.txt").write_text("ground\nhouse\ntree\n")
    assert open_folder(root).info.splits == {"train": 4, "val": 2}


def refused(root: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_that_are_not_clear(tmp_path):
    root = tmp_path / "data"
    masks = [{"bytes": png(make_ids(seed=seed)), "path": None} for seed in range(2)]
    write_table(root / "train.parquet", range(2), annotation=masks)
    assert "those with images are image, label, annotation" in refused(root)


def test_an_empty_cell_and_a_damaged_file(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": [png(image(0)), b""], "mask": [b"x", b""]}), root / "a.parquet")
    assert "the mask of row 0 is of no format that is read" in refused(root)
    (root / "a.parquet").write_bytes(b"PAR1 and no more")
    assert "a.parquet: is no readable Parquet file (" in refused(root)


def test_without_pyarrow(tmp_path, monkeypatch):
    write_table(tmp_path / "data" / "train.parquet", range(2))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "reading Parquet files needs pyarrow: pip install pyarrow" in refused(tmp_path / "data")
