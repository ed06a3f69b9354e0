"""Prepared copies: faithful, renewed when the originals change, complete or absent; folders that cannot be written."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from made_files import make_ids, pixels, write_folder, write_image, write_mask
from PIL import Image

from deeplab_jax.data.dataset import SizedSource
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.sources import prepare
from deeplab_jax.types import UserError

NAMES = [f"scene.{index}" for index in range(5)]


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "original", NAMES, {"train": NAMES[::-1], "val": NAMES[:2]})


@pytest.fixture
def prepared(tmp_path):
    return str(tmp_path / "prepared")


def copies(prepared: str) -> set[str]:
    """Folders of complete copies."""
    return {path.parents[2].name for path in pathlib.Path(prepared).glob("*/*/*/dataset_info.json")}


def test_copy_is_faithful_and_in_the_order_of_the_list(root, prepared):
    source = folder.open_dataset(str(root), prepared).open_split("train")
    assert isinstance(source, SizedSource)
    assert list(source.names) == NAMES[::-1]
    assert list(source.sizes) == [(20, 30)] * 5
    for index, example in enumerate(source[index] for index in range(len(source))):
        seed = 4 - index
        assert example.name == NAMES[seed]
        np.testing.assert_array_equal(example.image, pixels(root / "images" / f"{example.name}.png"))
        np.testing.assert_array_equal(example.label, make_ids(seed=seed))


def test_without_array_record_the_remedy_is_named(root, prepared, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data set 'folder': .* pip install array-record"):
        folder.open_dataset(str(root), prepared).open_split("train")


def test_prepared_masks_are_grey_so_that_every_reader_sees_ids(root, prepared):
    """Palette PNGs are indices to Pillow and colours to OpenCV, TensorFlow and others."""
    original = (root / "masks" / f"{NAMES[0]}.png").read_bytes()
    assert cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 3
    source = folder.open_dataset(str(root), prepared).open_split("val")
    stored = source._records[0]["label"]
    assert Image.open(io.BytesIO(stored)).mode == "L"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), make_ids(seed=0))
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED), make_ids())


def test_unchanged_files_are_prepared_once(root, prepared, monkeypatch):
    folder.open_dataset(str(root), prepared).open_split("val")
    monkeypatch.setattr("deeplab_jax.data.sources.file_dataset.read_sample", None)  # reading again would fail
    assert len(folder.open_dataset(str(root), prepared).open_split("val")) == 2
    assert len(copies(prepared)) == 1


def test_changed_files_are_prepared_anew(root, prepared):
    mask = root / "masks" / f"{NAMES[0]}.png"
    old_time = mask.stat().st_mtime_ns
    assert (folder.open_dataset(str(root), prepared).open_split("val")[0].label[2:] != 1).any()
    write_mask(mask, np.ones((20, 30), np.uint8))
    os.utime(mask, ns=(old_time + 1, old_time + 1))
    assert (folder.open_dataset(str(root), prepared).open_split("val")[0].label == 1).all()


def test_changed_list_and_changed_classes_are_prepared_anew(root, prepared):
    folder.open_dataset(str(root), prepared).open_split("val")
    (root / "splits" / "val.txt").write_text(f"{NAMES[3]}\n")
    assert list(folder.open_dataset(str(root), prepared).open_split("val").names) == [NAMES[3]]
    (root / "classes.json").write_text('{"class_names": ["ground", "house"]}')
    with pytest.raises(UserError, match="holds the value 2 "):
        folder.open_dataset(str(root), prepared).open_split("val")


def test_more_samples_than_one_shard_keep_their_order(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(prepare, "_SHARD_LENGTH", 4)
    names = [f"n{index:02d}" for index in range(11)]
    root = write_folder(tmp_path / "many", names, {"train": names})
    source = folder.open_dataset(str(root), prepared).open_split("train")
    assert len(list(pathlib.Path(prepared).rglob("*array_record*"))) == 3
    for index in (0, 3, 4, 7, 8, 10):
        np.testing.assert_array_equal(source[index].label, make_ids(seed=index))


def test_failed_preparation_leaves_nothing_that_counts(root, prepared):
    broken = root / "masks" / f"{NAMES[1]}.png"
    kept = broken.read_bytes()
    broken.write_bytes(kept[:-40])
    with pytest.raises(UserError, match=rf"{NAMES[1]}\.png: is truncated or damaged"):
        folder.open_dataset(str(root), prepared).open_split("val")
    assert not copies(prepared)
    broken.write_bytes(kept)
    assert len(folder.open_dataset(str(root), prepared).open_split("val")) == 2


KILLED = """
import os, sys
from deeplab_jax.data.sources import file_dataset
from deeplab_jax.data.datasets import folder
read_sample = file_dataset.read_sample
def die_at_the_fourth(sample, *arguments):
    if sample.name.endswith('3'):
        os.kill(os.getpid(), 9)
    return read_sample(sample, *arguments)
file_dataset.read_sample = die_at_the_fourth
folder.open_dataset(sys.argv[1], sys.argv[2]).open_split('train')
"""


def test_killed_preparation_is_done_again(root, prepared):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root), prepared], capture_output=True, timeout=60)
    assert killed.returncode == -9
    assert not copies(prepared)
    assert len(folder.open_dataset(str(root), prepared).open_split("train")) == 5


def test_copy_made_by_another_process_in_the_meantime_is_used(root, prepared, monkeypatch):
    read_sample = prepare.Record  # marks that nothing was read yet

    def prepare_elsewhere_first(sample, *arguments):
        nonlocal read_sample
        if read_sample is prepare.Record:
            monkeypatch.undo()
            from deeplab_jax.data.sources import file_dataset

            read_sample = file_dataset.read_sample
            folder.open_dataset(str(root), prepared).open_split("val")
        return read_sample(sample, *arguments)

    monkeypatch.setattr("deeplab_jax.data.sources.file_dataset.read_sample", prepare_elsewhere_first)
    assert len(folder.open_dataset(str(root), prepared).open_split("val")) == 2


def test_default_folder_is_the_users_cache(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder.open_dataset(str(root), "").open_split("val")
    assert len(copies(str(tmp_path / "cache" / "deeplab_jax"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare.prepared_folder("") == tmp_path / "home" / ".cache" / "deeplab_jax"


def test_prepared_dir_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        UserError, match=r"^config\.data\.prepared_dir='.*file/x': cannot be written \(Not a dir.*name a"
    ):
        folder.open_dataset(str(root), str(tmp_path / "file" / "x")).open_split("val")


FULL_DISK = """
import resource, sys
from deeplab_jax.data.datasets import folder
from deeplab_jax.types import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    folder.open_dataset(sys.argv[1], sys.argv[2]).open_split('train')
except UserError as error:
    print(error)
"""


def test_full_disk(tmp_path, prepared):
    root = tmp_path / "large"
    names = [f"n{index}" for index in range(8)]
    write_folder(root, names, {"train": names})
    for index, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", size=(60, 60), seed=index)
        write_mask(root / "masks" / f"{name}.png", make_ids((60, 60), seed=index))
    full = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root), prepared], capture_output=True, text=True, timeout=60
    )
    assert full.stdout.startswith(f"config.data.prepared_dir={prepared!r}: no space left"), full.stderr
    assert not copies(prepared)


def test_disk_full_for_the_smallest_file(root, prepared, monkeypatch):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepare.tempfile, "TemporaryFile", no_space)
    with pytest.raises(UserError, match="no space left for the prepared data; free some"):
        folder.open_dataset(str(root), prepared).open_split("val")


def test_originals_are_not_needed_for_reading(root, prepared):
    source = folder.open_dataset(str(root), prepared).open_split("val")
    shutil.rmtree(root)
    assert source[1].name == NAMES[1]
