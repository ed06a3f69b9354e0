"""Every fault of a data set on disk: one line with the file, the value and the remedy."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from made_files import make_ids, write_folder, write_image, write_mask
from PIL import Image

from deeplab_jax.data.datasets import camvid, folder
from deeplab_jax.data.sources.samples import image_name
from deeplab_jax.types import UserError

NAMES = ["a", "b", "c"]


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "original", NAMES, {"train": NAMES, "val": ["b"]})


def message(root: pathlib.Path, split: str = "train") -> str:
    """What the user is told; always one line."""
    with pytest.raises(UserError) as caught:
        folder.open_dataset(str(root), str(root.parent / "prepared")).open_split(split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_image(root):
    (root / "images" / "b.png").unlink()
    assert message(root) == (
        f"{root}/images/b.jpg: does not exist, though split 'train' of folder lists 'b'; "
        "add the file or take the name off the list"
    )


def test_missing_mask(root):
    (root / "masks" / "b.png").unlink()
    assert f"{root}/masks/b.png: does not exist, though split 'val' of folder lists 'b'" in message(root, "val")


def test_similar_names_are_told_of_a_file_that_is_missing(root):
    (root / "splits" / "train.txt").write_text("scene_03\n")
    for kind in ("images", "masks"):
        (root / kind / "b.png").rename(root / kind / "scene_3.png")
    assert message(root) == (
        f"{root}/images/scene_03.jpg: does not exist, though split 'train' of folder lists 'scene_03'; add the file or "
        "take the name off the list; near it are scene_3.png"
    )


def test_unreadable_image(root):
    (root / "images" / "b.png").write_bytes(b"not an image")
    assert message(root).startswith(f"{root}/images/b.png: is no readable image (unknown format); copy it anew")


def test_truncated_image(root):
    path = root / "images" / "b.png"
    path.write_bytes(path.read_bytes()[:700])
    assert message(root).startswith(f"{root}/images/b.png: is truncated or damaged")


def test_image_that_is_a_folder(root):
    (root / "images" / "b.png").unlink()
    (root / "images" / "b.png").mkdir()
    assert message(root).startswith(f"{root}/images/b.png: cannot be read (Is a directory); mend the file")


def test_mask_of_another_size(root):
    write_mask(root / "masks" / "b.png", make_ids((20, 31)))
    assert message(root) == (
        f"{root}/masks/b.png: is 20x31 (height x width), but its image b.png is 20x30; "
        "make them the same size (masks by nearest neighbour)"
    )


def test_mask_value_outside_the_classes(root):
    ids = make_ids()
    ids[7, 11] = ids[9, 0] = 42
    write_mask(root / "masks" / "b.png", ids)
    assert message(root) == (
        f"{root}/masks/b.png: holds the value 42 (2 pixels), the first at row 7, column 11; "
        "valid are 0 to 2 and 255 (ignored); correct the mask or the classes"
    )


def test_colors_where_ids_are_expected(root):
    write_image(root / "masks" / "b.png")
    told = message(root)
    assert told.startswith(f"{root}/masks/b.png: holds the colours (")
    assert 'give each class its colour: "palette": [[r, g, b], ...] in classes.json' in told


def test_first_fault_in_the_order_of_the_list_is_told(root):
    for name in ("c", "b"):
        (root / "images" / f"{name}.png").write_bytes(b"not an image")
    assert "b.png" in message(root)


def test_unknown_split(root):
    assert message(root, "vall") == "folder: has no split 'vall'; its splits and their sizes: train (3), val (1)"


def test_a_slice_of_a_split(root):
    told = message(root, "train[:80%]")
    assert "has no split 'train[:80%]'" in told
    assert "list the images in splits/NAME.txt of a data set folder" in told


def test_empty_split(root):
    (root / "splits" / "val.txt").write_text("\n\n")
    assert message(root, "val") == "folder: split 'val' is empty; add images to it or take another of: train (3)"


def test_list_that_is_no_text(root):
    (root / "splits" / "val.txt").write_bytes(b"\xff\xfe\x00")
    assert message(root, "val").startswith(f"{root}/splits/val.txt: is not UTF-8 text; write one image name per line")


def test_two_images_of_one_name(root):
    write_image(root / "images" / "b.jpg")
    assert message(root) == f"{root}/images/b.png: and b.jpg have the same name; keep one of them"


def test_root_that_does_not_exist(root):
    assert message(root / "nowhere").startswith(f"config.data.root='{root}/nowhere': does not exist; give the folder")


@pytest.mark.parametrize("dataset", [folder, camvid])
def test_no_root(dataset):
    with pytest.raises(UserError, match=r"^config\.data\.root is empty; give the folder with "):
        dataset.open_dataset("", "")


def test_no_images(tmp_path):
    (tmp_path / "classes.txt").write_text("a\n")
    assert message(tmp_path).startswith(f"{tmp_path}/images: holds no image; put images there and their masks")


def test_no_classes_file(root):
    (root / "classes.json").unlink()
    told = message(root)
    assert told.startswith(f"{root}: its masks hold 0, 1, 2 and 255 (in all 3 masks): more than an object and its back")
    assert "write the class names, in the order of their ids, into classes.txt" in told


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is no valid JSON"),
        ("[]", 'has no list "class_names"; write'),
        ({"class_names": []}, "names 0 classes; must be 1 to 65535"),
        ({"class_names": [str(index) for index in range(65536)]}, "names 65536 classes; must be 1 to 65535"),
        ({"class_names": ["a", "b", "a"]}, "names the class 'a' more than once"),
        ({"class_names": ["a"], "num_classes": 2}, "has num_classes=2 but 1 class_names; make them agree"),
        ({"class_names": ["a"], "ignore_label": 65536}, "has ignore_label=65536; must be a whole number from 0 to 6"),
        ({"class_names": ["a"], "palette": []}, "must give all 1 classes a colour"),
        ({"class_names": ["a"], "palette": [[0, 0, 256]]}, "must give all 1 classes a colour"),
    ],
)
def test_classes_that_make_no_sense(root, content, problem):
    (root / "classes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert message(root).startswith(f"{root}/classes.json: {problem}")


def test_images_are_upright_and_a_mask_of_the_stored_pixels_is_turned_with_them(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(root / "images" / f"{name}.png", exif=exif.tobytes())
    write_mask(root / "masks" / "b.png", make_ids((30, 20)))
    source = folder.open_dataset(str(root), str(root.parent / "prepared")).open_split("train")
    for index in (0, 1):
        np.testing.assert_array_equal(source[index].image, np.rot90(pixels, -1))
    np.testing.assert_array_equal(source[0].label, np.rot90(make_ids(), -1))
    np.testing.assert_array_equal(source[1].label, make_ids((30, 20)))


@pytest.mark.parametrize(
    ("entry", "name"),
    [("a", "a"), ("images/a.JPG", "a"), ("frame.001", "frame.001"), ("frame.001.png", "frame.001"), ("v1.5", "v1.5")],
)
def test_names_in_lists(entry, name):
    assert image_name(entry) == name
