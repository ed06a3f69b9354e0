"""What classes.json says of files that can be read in more than one way, from the folder to an example's values."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tifffile
from made_files import CLASS_NAMES, make_ids, write_folder
from PIL import Image

from deeplab_jax.data.datasets import folder, voc
from deeplab_jax.types import UserError

UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 3


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "original", ["a"], {"train": ["a"]})


def example(root: pathlib.Path, **declared):
    """The one example; always prepared in the same place, where an older declaration's must not be taken."""
    (root / "classes.json").write_text(json.dumps({"class_names": CLASS_NAMES, **declared}))
    return folder.open_dataset(str(root), str(root.parent / "prepared")).open_split("train")[0]


def test_the_page_of_a_mask(root):
    (root / "masks" / "a.png").unlink()
    pages = [make_ids(seed=seed) for seed in (5, 6)]
    tifffile.imwrite(root / "masks" / "a.tif", np.stack(pages), photometric="minisblack")
    with pytest.raises(UserError, match=r"a\.tif: has 2 pages, of which one is the mask; .* \"mask_page\": 1"):
        example(root)
    for number, page in enumerate(pages, start=1):
        np.testing.assert_array_equal(example(root, mask_page=number).label, page)
    with pytest.raises(UserError, match=r"a\.tif: "):
        example(root, mask_page=3)


def test_a_photograph_without_its_end(root):
    (root / "images" / "a.png").unlink()
    path = root / "images" / "a.jpg"
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    whole = example(root).image
    path.write_bytes(path.read_bytes()[:-2])
    for declared in ({}, {"truncated": "refuse"}):
        with pytest.raises(UserError, match=r'a\.jpg: is truncated .* "truncated": "read" into classes\.json'):
            example(root, **declared)
    np.testing.assert_array_equal(example(root, truncated="read").image, whole)


def test_masks_of_turned_photographs_that_fit_both_ways(root):
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(root / "images" / "a.png", exif=UPSIDE_DOWN.tobytes())
    with pytest.raises(UserError, match=r'a\.png: 1 image is turned by EXIF, and .* "mask_orientation": "shown"'):
        example(root)
    np.testing.assert_array_equal(example(root, mask_orientation="shown").label, make_ids())
    np.testing.assert_array_equal(example(root, mask_orientation="stored").label, make_ids()[::-1, ::-1])


def test_other_data_sets_are_told_what_helps_there(tmp_path):
    """A folder of VOC's form has no classes.json of its own; opened as a folder, it may."""
    for kind in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / kind).mkdir(parents=True)
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "JPEGImages" / "a.jpg", exif=UPSIDE_DOWN)
    Image.fromarray(make_ids()).save(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"; save the images upright, or write .* \(data set folder, which reads JPEGI"):
        voc.open_dataset(str(tmp_path), str(tmp_path / "prepared")).open_split("train")
    np.testing.assert_array_equal(example(tmp_path, mask_orientation="stored").label, make_ids()[::-1, ::-1])
