"""PASCAL-Context and PASCAL-Person-Part: VOC 2010's images with other people's labels, in each form that these have."""

from __future__ import annotations

import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
from made_datasets import (
    VOC_NAMES,
    context_labels,
    make_pascal_context,
    make_pascal_person_part,
    write_lists,
    write_voc_2010,
)
from made_files import make_ids, write_mask

from deeplab_jax.data.datasets import pascal_context, pascal_context_59, pascal_person_part
from deeplab_jax.types import UserError


@pytest.fixture
def prepared(tmp_path) -> str:
    return str(tmp_path / "prepared")


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    return tmp_path / "root"


def expected_ids(labels: np.ndarray) -> np.ndarray:
    places = list(pascal_context.CLASSES.values())
    return np.vectorize(lambda label: places.index(label) + 1 if label in places else 0)(labels)


def test_label_maps_of_459_labels(root, prepared):
    make_pascal_context(root)
    dataset = pascal_context.open_dataset(str(root), prepared)
    assert dataset.info.splits == {"train": 2, "val": 1}
    assert dataset.info.class_names[:3] == ("background", "aeroplane", "bag")
    source = dataset.open_split("train")
    assert source.names == VOC_NAMES["train"]
    np.testing.assert_array_equal(source[1].label, expected_ids(context_labels(1)))


def test_without_background(root, prepared):
    make_pascal_context(root)
    dataset = pascal_context_59.open_dataset(str(root), prepared)
    ids = expected_ids(context_labels(0))
    np.testing.assert_array_equal(dataset.open_split("train")[0].label, np.where(ids == 0, 255, ids - 1))
    with_background = pascal_context.open_dataset(str(root), prepared).info
    assert dataset.info.class_names == with_background.class_names[1:]
    assert dataset.info.palette == with_background.palette[1:]


def test_classes_are_in_the_order_of_their_places_and_of_the_alphabet():
    assert list(pascal_context.CLASSES) == sorted(pascal_context.CLASSES)
    places = list(pascal_context.CLASSES.values())
    assert places == sorted(set(places))
    assert len(places) == 59


@pytest.mark.parametrize(("dataset", "shift"), [(pascal_context, 0), (pascal_context_59, 1)])
def test_masks_that_mmsegmentation_converted(root, prepared, dataset, shift):
    devkit = write_voc_2010(root)
    ids = make_ids(num_classes=60)
    ids[:2] = 0
    for name in VOC_NAMES["train"]:
        write_mask(devkit / "SegmentationClassContext" / f"{name}.png", ids)
    write_lists(devkit / "ImageSets" / "SegmentationContext")
    source = dataset.open_dataset(str(root / "VOCdevkit"), prepared).open_split("val")
    np.testing.assert_array_equal(source[0].label, (ids - shift).astype(np.uint8))


def pack(folder: pathlib.Path, archive: pathlib.Path, *names: str) -> None:
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        for name in names:
            tar.add(folder / name, name)


def test_original_archives(root, prepared, tmp_path):
    make_pascal_context(root)
    make_pascal_person_part(tmp_path / "people")
    pack(root, tmp_path / "archives" / "VOCtrainval_03-May-2010.tar", "VOCdevkit")
    pack(root, tmp_path / "archives" / "trainval.tar.gz", "trainval")
    shutil.make_archive(
        str(tmp_path / "archives" / "pascal_person_part"), "zip", tmp_path / "people", "pascal_person_part"
    )
    source = pascal_context.open_dataset(str(tmp_path / "archives"), prepared).open_split("val")
    np.testing.assert_array_equal(source[0].label, expected_ids(context_labels(1)))
    parts = pascal_person_part.open_dataset(str(tmp_path / "archives"), prepared).open_split("val")
    np.testing.assert_array_equal(parts[0].label, make_ids(seed=1, num_classes=7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is no label map of PASCAL-Context \("),
        ({"Labels": [[1]]}, r"is no label map of PASCAL-Context \('LabelMap'\)"),
        ({"LabelMap": [[460]]}, r"LabelMap has the shape \(1, 1\) and values up to 460; must be height x width"),
    ],
)
def test_label_map_that_is_none(root, prepared, content, message):
    make_pascal_context(root)
    path = root / "trainval" / f"{VOC_NAMES['val'][0]}.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        scipy.io.savemat(path, content)
    with pytest.raises(UserError, match=rf"{path.name}: {message}") as caught:
        pascal_context.open_dataset(str(root), prepared).open_split("val")
    assert "\n" not in str(caught.value)


def test_image_without_labels(root, prepared):
    make_pascal_context(root)
    (root / "trainval" / f"{VOC_NAMES['val'][0]}.mat").unlink()
    with pytest.raises(
        UserError, match=r"2008_000003\.mat: does not exist, though split 'val' of pascal_context lists"
    ):
        pascal_context.open_dataset(str(root), prepared).open_split("val")


@pytest.mark.parametrize("form", ["paths", "names", "flat"])
def test_parts_of_people(root, prepared, form):
    make_pascal_person_part(root)
    folder = root / "pascal_person_part"
    if form == "names":
        lists = folder / "pascal_person_part_trainval_list"
        write_lists(lists)
        for split in VOC_NAMES:
            (lists / f"{split}.txt").rename(lists / f"{split}_id.txt")
    if form == "flat":
        for path in folder.iterdir():
            path.rename(root / path.name)
        (root / "VOCdevkit" / "VOC2010" / "JPEGImages").rename(root / "JPEGImages")
    dataset = pascal_person_part.open_dataset(str(root), prepared)
    assert dataset.info.splits == {"train": 2, "val": 1}
    source = dataset.open_split("train")
    assert source.names == VOC_NAMES["train"]
    np.testing.assert_array_equal(source[1].label, make_ids(seed=1, num_classes=7))


@pytest.mark.parametrize("dataset", [pascal_context, pascal_person_part])
@pytest.mark.parametrize("given", ["images alone", "nothing"])
def test_what_to_get_and_where_to_put_it(root, prepared, dataset, given):
    write_voc_2010(root)
    with pytest.raises(UserError) as caught:
        dataset.open_dataset(str(root) if given == "images alone" else "", prepared)
    assert "; get http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar and http" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
