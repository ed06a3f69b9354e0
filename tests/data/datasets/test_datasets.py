"""One suite for all data sets: what `open_dataset` promises, on data of each form."""

from __future__ import annotations

import dataclasses
import pathlib
import pkgutil

import made_datasets
import numpy as np
import pytest
from made_files import CLASS_NAMES, make_ids, write_folder, write_image, write_mask
from made_tfds import write_tfds

from deeplab_jax import registry
from deeplab_jax.apps.assembly import open_data
from deeplab_jax.config import Config
from deeplab_jax.data import datasets
from deeplab_jax.data.dataset import Dataset, SizedSource
from deeplab_jax.types import UserError


def make_voc(root: pathlib.Path) -> None:
    for seed, name in enumerate(("2007_1", "2007_2")):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
        write_mask(root / "SegmentationClass" / f"{name}.png", make_ids(seed=seed, num_classes=21))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n2007_2\n")
    (lists / "val.txt").write_text("2007_2\n")


def make_camvid(root: pathlib.Path) -> None:
    write_folder(root, ["a", "b"], {"train": ["a", "b"], "val": ["b"]})
    (root / "classes.json").unlink()


FORMS = {
    "ade20k": (made_datasets.make_ade20k, 150),
    "camvid": (make_camvid, 11),
    "cityscapes": (made_datasets.make_cityscapes, 19),
    "coco_panoptic": (made_datasets.make_coco_panoptic, 133),
    "coco_stuff": (made_datasets.make_coco_stuff, 171),
    "coco_stuff_182": (made_datasets.make_coco_stuff, 182),
    "coco_voc": (made_datasets.make_coco_voc, 21),
    "folder": (lambda root: write_folder(root, ["a", "b"], {"train": ["a", "b"], "val": ["b"]}), len(CLASS_NAMES)),
    "pascal_context": (made_datasets.make_pascal_context, 60),
    "pascal_context_59": (made_datasets.make_pascal_context, 59),
    "pascal_person_part": (made_datasets.make_pascal_person_part, 7),
    "shapes": (lambda root: None, 7),
    "tfds": (lambda root: write_tfds(root.parent / "built").rename(root), 3),
    "voc": (make_voc, 21),
}
SHARED_COLORS = {"ade20k": 1}  # classes whose official colour is another's too
ALL_LABELLED = {"pascal_context"}  # what is no class is background


def test_every_data_set_is_in_this_suite():
    assert {module.name for module in pkgutil.iter_modules(datasets.__path__)} == set(FORMS)


@pytest.fixture(scope="module", params=sorted(FORMS))
def dataset(request, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp(request.param)
    make, _ = FORMS[request.param]
    make(folder / "original")
    open_dataset = registry.resolve("data.datasets", f"{request.param}.open_dataset")
    return open_dataset(str(folder / "original"), str(folder / "prepared"))


def test_info_is_consistent(dataset):
    info = dataset.info
    assert FORMS[info.name][1] == info.num_classes == len(info.class_names) == len(info.palette)
    assert len(set(info.class_names)) == info.num_classes
    assert len(set(info.palette)) == info.num_classes - SHARED_COLORS.get(info.name, 0)
    assert info.ignore_label == 255
    assert {"train", "val"} <= set(info.splits)


def test_the_module_knows_the_classes_without_files(dataset):
    """`folder` and `tfds` do not: their classes stand in their files."""
    config = Config()
    config.data.dataset = dataset.info.name
    known = open_data.module_info(config)
    if dataset.info.name in ("folder", "tfds"):
        assert known is None
    else:
        assert dataclasses.replace(known, splits=dataset.info.splits) == dataset.info


def test_examples_are_what_the_info_says(dataset):
    source = dataset.open_split("train")
    assert isinstance(source, SizedSource)
    assert len(source) == len(source.names) == len(set(source.names)) == dataset.info.splits["train"]
    for index in (0, len(source) - 1):
        name, image, label = source[index]
        assert name == source.names[index]
        assert image.dtype == label.dtype == np.uint8
        assert image.shape == (*source.sizes[index], 3)
        assert label.shape == source.sizes[index]
        ids = set(np.unique(label).tolist())
        assert ids <= {*range(dataset.info.num_classes), 255}
        assert (255 in ids) == (dataset.info.name not in ALL_LABELLED)


def test_split_is_opened_once(dataset):
    assert dataset.open_split("val") is dataset.open_split("val")


def test_unknown_split_names_those_that_exist(dataset):
    with pytest.raises(UserError, match=r"has no split 'trian'; its splits and their sizes: .*train \(\d+\)"):
        dataset.open_split("trian")
