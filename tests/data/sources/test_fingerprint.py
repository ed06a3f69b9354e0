"""Prepared copies belong to the content of their files, wherever these are and whatever their times say."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from made_binary import disc_ids, write_discs
from PIL import Image

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.sources import fingerprint


def save_bmp(ids, path):
    Image.fromarray(ids).save(path.with_suffix(".bmp"))


@pytest.fixture
def root(tmp_path):
    return write_discs(tmp_path / "data", save_bmp)


def open_train(root):
    return folder.open_dataset(str(root), str(root.parent / "prepared")).open_split("train")


def num_copies(root):
    return len(list((root.parent / "prepared").glob("*/*/*/dataset_info.json")))


def rewrite(path, data):
    """Other content under the size and times that the file had."""
    status = path.stat()
    assert len(data) == status.st_size
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_mask_changed_under_its_size_and_time_is_noticed(root):
    assert open_train(root)[0].label[5, 6] == 0
    path = root / "masks" / "0.bmp"
    ids = disc_ids(0)
    ids[5, 6] = 1
    save_bmp(ids, root / "other")
    rewrite(path, (root / "other.bmp").read_bytes())
    assert open_train(root)[0].label[5, 6] == 1


def test_an_image_changed_under_its_size_and_time_is_noticed(root, monkeypatch):
    for name in ("images/0.bmp", "images/1.bmp"):
        Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(root / name)
        save_bmp(np.zeros((200, 200), np.uint8), root / name.replace("images", "masks"))
        (root / name).with_suffix(".png").unlink()
    open_train(root)
    data = bytearray((root / "images" / "0.bmp").read_bytes())
    assert len(data) > fingerprint._SMALL
    data[-1] = 9
    rewrite(root / "images" / "0.bmp", bytes(data))
    assert open_train(root)[0].image.max() == 9


def test_a_moved_and_touched_folder_keeps_its_copy(root, tmp_path):
    open_train(root)
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)  # new times of everything
    shutil.rmtree(root)
    open_train(moved)
    assert num_copies(moved) == 1


def test_a_copy_is_never_taken_for_that_of_another_folder(root, tmp_path):
    open_train(root)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    path = other / "masks" / "0.bmp"
    rewrite(path, path.read_bytes()[:-1] + b"\1")
    for source in (root, other):
        for name in ("images/0.png", "masks/0.bmp"):
            os.utime(source / name, ns=(10**18, 10**18))
    one, two = open_train(root)[0].label, open_train(other)[0].label
    assert (one != two).sum() == 1


def test_unchanged_files_are_not_read(root, monkeypatch):
    open_train(root)
    monkeypatch.setattr(fingerprint, "_hash", None)  # reading would fail
    open_train(root)


def test_of_large_images_only_parts_are_read(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(1_000_000))
    parts = fingerprint._hash(path, whole=False)
    data = bytearray(1_000_000)
    data[50_000] = 1  # between the parts
    path.write_bytes(data)
    assert fingerprint._hash(path, whole=False) == parts
    assert fingerprint._hash(path, whole=True) != parts
