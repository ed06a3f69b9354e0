"""Copies of data sets: a folder that trains as it is, in names that lists take for names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_files import make_ids, write_image
from made_sources import INFO

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.dataset_copy import DatasetCopy
from deeplab_jax.data.sources.mask_files import encode_mask
from deeplab_jax.types import UserError


def test_the_copy_is_a_data_set(tmp_path):
    write_image(tmp_path / "from" / "a.png")
    names = ["site/000", "weed (1)", "Weed (1)", "../up", "a, b", "café\t'x'", ".hidden"]
    copy = DatasetCopy(tmp_path / "copy")
    for k, name in enumerate(names):
        ids = make_ids(seed=k, num_classes=INFO.num_classes)
        copy.add(name, tmp_path / "from" / "a.png", encode_mask(ids), ("train", "val") if k < 2 else ("train",))
    copy.finish(INFO, {})
    assert copy.num_samples == len(names)
    dataset = folder.open_dataset(str(tmp_path / "copy"), str(tmp_path / "prepared"))
    assert dataset.info.class_names == INFO.class_names
    assert dataset.info.palette == INFO.palette
    assert dict(dataset.info.splits) == {"train": len(names), "val": 2}
    source = dataset.open_split("train")
    for k in range(len(names)):
        np.testing.assert_array_equal(source[k].label, make_ids(seed=k, num_classes=INFO.num_classes))
    assert list(source.names[:3]) == ["site/000", "weed_(1)", "Weed_(1)_2"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    DatasetCopy(tmp_path / "mine")  # empty
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    for path in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(UserError, match=r"^--output=.*: is there already; name a new folder for the copy"):
            DatasetCopy(path)


def test_further_fields_are_written(tmp_path):
    copy = DatasetCopy(tmp_path / "copy")
    copy.finish(INFO, {"mask_orientation": "shown"})
    content = json.loads((tmp_path / "copy" / "classes.json").read_text())
    assert content["mask_orientation"] == "shown"
    assert content["values"]["255"] == "ignore"
