"""Folders as people have reported them, whole: opened as they are, with the right classes and the right labels."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data.datasets import folder

NAMES = [f"im{index:02d}" for index in range(6)]
COLORS = np.array([[0, 0, 0], [48, 112, 32], [176, 112, 32]], np.uint8)
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbolt:48,112,32::\nnut:176,112,32::\n"


def ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (9, 12), dtype=np.uint8)


def save(path: pathlib.Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(
    root: pathlib.Path,
    image: str = "images/{}.png",
    mask: str = "masks/{}.png",
    *,
    classes: str | None = "background\nbolt\nnut\n",
    in_colors: bool = False,
) -> None:
    """Six images; the mask of the i-th is `ids(i)`."""
    for seed, name in enumerate(NAMES):
        save(root / image.format(name), np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8))
        save(root / mask.format(name), COLORS[ids(seed)] if in_colors else ids(seed))
    if classes is not None:
        (root / "classes.txt").write_text(classes, encoding="utf-8")


def both(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return root / "images", root / "masks"


def macosx(root):
    write(root)
    for part in both(root):
        for path in part.iterdir():
            copy = root / "__MACOSX" / part.name / f"._{path.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")


def left_behind(root):
    write(root)
    for part in both(root):
        for path in list(part.iterdir()):
            (part / f"._{path.name}").write_bytes(b"\0\5\x16\7")
        (part / ".DS_Store").write_bytes(bytes(8))
        (part / "Thumbs.db").write_bytes(bytes(8))
        (part / ".ipynb_checkpoints").mkdir()
        shutil.copy(part / "im03.png", part / ".ipynb_checkpoints" / "im03-checkpoint.png")


def backup(root):
    write(root)
    for part in both(root):
        shutil.copytree(part, root / "backup_2023" / part.name)


def no_utf_8(root):
    write(root)
    for part in both(root):
        (part / "im05.png").rename(part / os.fsdecode(b"im05\xe9.png"))


def decomposed(root):
    write(root)
    for part in both(root):
        (part / "im05.png").rename(part / unicodedata.normalize("NFD", "im05é.png"))
    (root / "train.txt").write_text("im00\nim01\nim02\nim03\nim05é\n", encoding="utf-8")
    (root / "val.txt").write_text("im04\n")


def cvat_export(root):
    write(root, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", classes=None, in_colors=True)
    write(root, "JPEGImages/{}.jpg", "SegmentationObject/{}.png", classes=None, in_colors=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (root / "labelmap.txt").write_text(CVAT)


def nested(root):
    write(root, "images/site_a/{}.png", "masks/site_a/{}.png")
    write(root, "images/site_b/{}.png", "masks/site_b/{}.png")


def nested_lists(root):
    nested(root)
    entries = [f"{site}/{name}\n" for site in ("site_a", "site_b") for name in NAMES]
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("".join(entries[::2]))
    (root / "splits" / "val.txt").write_text("".join(entries[1::2]))


def many_suffixes(root):
    write(root)
    for name, suffix in zip(NAMES, (".jfif", ".jpe", ".JPG", ".JPEG", ".jp2", ".heic"), strict=True):
        (root / "images" / f"{name}.png").rename(root / "images" / f"{name}{suffix}")


def utf_16(root):
    write(root, classes=None)
    (root / "classes.txt").write_text("background\r\nbolt\r\nnut\r\n", encoding="utf-16")


def json_with_a_mark(root):
    write(root, classes=None)
    content = json.dumps({"class_names": ["background", "bolt", "nut"]})
    (root / "classes.json").write_text(content, encoding="utf-8-sig")


def listed(line: str, suffix: str = ".txt", head: str = "") -> Callable[[pathlib.Path], None]:
    def make(root):
        write(root)
        (root / "splits").mkdir()
        for split, names in (("train", NAMES[:4]), ("val", NAMES[4:])):
            rows = "".join(line.replace("{}", name) + "\n" for name in names)
            (root / "splits" / f"{split}{suffix}").write_text(head + rows)

    return make


CASES = {
    "__MACOSX": macosx,
    "._ files, Thumbs.db and .ipynb_checkpoints": left_behind,
    "a backup inside": backup,
    "a name that is no UTF-8": no_utf_8,
    "files in NFD, lists in NFC": decomposed,
    "CVAT's export": cvat_export,
    "CVAT's masks in a folder": lambda root: write(root, classes=CVAT, in_colors=True),
    "labelme's labels": lambda root: write(root, classes="__ignore__\nbackground\nbolt\nnut\n"),
    "sub-folders": nested,
    "sub-folders and lists": nested_lists,
    "suffixes that tell nothing": many_suffixes,
    "NAME_mask.png": lambda root: write(root, mask="masks/{}_mask.png"),
    "UTF-16": utf_16,
    "a byte order mark in JSON": json_with_a_mark,
    "numbered names": lambda root: write(root, classes="0 background\n1 bolt\n2 nut\n"),
    "names and colours with commas": lambda root: write(root, classes="background,0,0,0\nbolt,9,0,0\nnut,0,9,0\n"),
    "two columns": listed("images/{}.png masks/{}.png"),
    "a tab": listed("images/{}.png\tmasks/{}.png"),
    "backslashes": listed("images\\{}.png masks\\{}.png"),
    "VOC's flags": listed("{} 1"),
    "quotes": listed('"{}"'),
    "CSV": listed("{}.png,{}.png", ".csv", "image,mask\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_opened_as_it_is(tmp_path, case):
    CASES[case](tmp_path / "data")
    dataset = folder.open_dataset(str(tmp_path / "data"), str(tmp_path / "prepared"))
    assert dataset.info.class_names == ("background", "bolt", "nut")
    assert dataset.info.ignore_label == 255
    names = []
    for split in ("train", "val"):
        source = dataset.open_split(split)
        for index, name in enumerate(source.names):
            seed = int(name.rpartition("/")[2][2:4])
            np.testing.assert_array_equal(source[index].label, ids(seed))
            names.append(name)
    assert len(names) == len(set(names)) == (12 if "sub-folders" in case else 6)
