"""Raw copies: the same examples, decoded once, complete or not there at all."""

from __future__ import annotations

import collections
import shutil

import numpy as np
import pytest
from made_files import write_folder
from made_sources import INFO, MadeSource

from deeplab_jax.config import DataConfig
from deeplab_jax.data.dataset import Dataset, LabelSource, SizedSource
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.data.sources.prepare import PreparedSource
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.types import UserError

NAMES = ["a", "b", "c"]


@pytest.fixture
def dataset(tmp_path):
    root = write_folder(tmp_path / "root", NAMES, {"train": NAMES, "val": NAMES[:1]})
    return folder.open_dataset(str(root), str(tmp_path / "prepared"))


def test_examples_are_the_same(dataset):
    plain, raw = dataset.open_split("train"), with_raw_copies(dataset).open_split("train")
    assert isinstance(raw, SizedSource)
    assert isinstance(raw, LabelSource)
    assert (list(raw.names), list(raw.sizes)) == (list(plain.names), list(plain.sizes))
    for index in range(3):
        for one, other in zip(plain[index], raw[index], strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(raw.label(index), plain.label(index))
    assert with_raw_copies(dataset).info == dataset.info


def test_batches_are_the_same(dataset):
    config = DataConfig(batch_size=4, crop_size=(17, 17), photometric=True, num_workers=2)
    made = []
    for source in (dataset.open_split("train"), with_raw_copies(dataset).open_split("train")):
        with make_loader(config, source, dataset.info, seed=0, pad_pixel=(1, 2, 3)) as loader:
            made.append(next(loader))
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_is_made_once(dataset, monkeypatch):
    with_raw_copies(dataset).open_split("train")
    monkeypatch.setattr(PreparedSource, "__getitem__", None)  # reading again would fail
    assert len(with_raw_copies(dataset).open_split("train")) == 3


def test_a_broken_off_copy_leaves_nothing(dataset, tmp_path, monkeypatch):
    def fail(self, index):
        raise UserError("b.jpg: is truncated")

    monkeypatch.setattr(PreparedSource, "__getitem__", fail)
    with pytest.raises(UserError, match="truncated"):
        with_raw_copies(dataset).open_split("train")
    assert not [path for path in (tmp_path / "prepared").iterdir() if "raw" in path.name or "tmp" in path.name]


def test_a_small_disk_is_refused_before_anything_is_written(dataset, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 5))
    with pytest.raises(UserError, match=r"prepared_form='raw': needs 0\.0 GB in .* has 0\.0 GB left; free"):
        with_raw_copies(dataset).open_split("train")


def test_a_data_set_without_prepared_copy_is_refused():
    with pytest.raises(UserError, match=r"made keeps no prepared copy; leave it at 'files'"):
        with_raw_copies(Dataset(INFO, lambda split: MadeSource([(9, 9)]))).open_split("train")
