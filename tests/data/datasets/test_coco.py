"""COCO's three annotations: instances drawn with VOC's classes, maps of things and stuff, panoptic segments."""

from __future__ import annotations

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from made_datasets import (
    COCO_NAMES,
    SIZE,
    coco_annotations,
    coco_stuff_values,
    make_coco_panoptic,
    make_coco_stuff,
    make_coco_voc,
    panoptic_segments,
    write_coco_images,
    write_instances,
)
from PIL import Image

from deeplab_jax.data.datasets import coco_panoptic, coco_stuff, coco_stuff_182, coco_voc
from deeplab_jax.data.sources.coco_files import AnnotationFile
from deeplab_jax.types import UserError

FIXTURE_NAMES = ["000000142238", "000000439180"]


@pytest.fixture
def prepared(tmp_path) -> str:
    return str(tmp_path / "prepared")


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    return tmp_path / "root"


def test_instances_are_drawn(root, prepared):
    make_coco_voc(root)
    source = coco_voc.open_dataset(str(root), prepared).open_split("train")
    assert source.names == COCO_NAMES["train"]
    expected = np.zeros(SIZE, np.uint8)
    expected[2:28, 2:32] = 12  # dog
    expected[10:20, 22:45] = 8  # cat
    expected[10:20, 22:32] = 255  # both
    expected[30:38, 5:45] = 15  # a crowd of people
    np.testing.assert_array_equal(source[0].label, expected)


def test_categories_are_those_of_the_same_thing():
    coco = {category.id: category.name for category in coco_panoptic.CATEGORIES}
    pairs = {
        coco[category]: coco_voc.INFO.class_names[class_id] for category, class_id in coco_voc.CLASS_OF_CATEGORY.items()
    }
    assert sorted(coco_voc.CLASS_OF_CATEGORY.values()) == list(range(1, 21))
    assert {ours: theirs for ours, theirs in pairs.items() if ours.replace(" ", "") != theirs} == {
        "airplane": "aeroplane",
        "couch": "sofa",
        "motorcycle": "motorbike",
        "tv": "tvmonitor",
    }


@pytest.mark.parametrize(("area", "is_kept"), [(1000, False), (1001, True)])
def test_images_for_training_show_more_than_a_thousand_pixels(root, prepared, area, is_kept):
    make_coco_voc(root)
    for split, names in COCO_NAMES.items():
        few = coco_annotations(int(names[0]))[:1] + coco_annotations(int(names[0]))[-1:]
        few[0]["area"], few[1]["area"] = area, 5000  # the second is a banana
        write_instances(root, split, names, few)
    splits = coco_voc.open_dataset(str(root), prepared).info.splits
    assert splits == {"train": int(is_kept), "val": 1}


def test_image_without_instances_is_background(root, prepared):
    write_coco_images(root / "images")
    write_instances(root, "val", COCO_NAMES["val"], [])
    dataset = coco_voc.open_dataset(str(root), prepared)
    assert dataset.info.splits == {"val": 1}
    assert not dataset.open_split("val")[0].label.any()


def test_large_file_is_parsed_once_and_let_go(root, prepared, monkeypatch):
    make_coco_voc(root)
    parsed = []
    collect = coco_voc._by_name
    monkeypatch.setattr(coco_voc, "_by_name", lambda content: parsed.append(1) or collect(content))
    dataset = coco_voc.open_dataset(str(root), prepared)
    dataset.open_split("train")
    assert len(parsed) == 2  # of train and of val
    again = coco_voc.open_dataset(str(root), prepared)
    assert again.open_split("train").names == COCO_NAMES["train"]
    assert len(parsed) == 2
    file = AnnotationFile(root / "annotations" / "instances_val2017.json", lambda item: item, list)
    assert file.content is file.content
    kept = file.content
    file.let_go()
    assert file.content is not kept


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"images": [{"file_name": "a.jpg"}]}', '{"images": [], "annotations": 3}']
)
def test_annotations_of_another_form(root, prepared, text):
    make_coco_voc(root)
    (root / "annotations" / "instances_val2017.json").write_text(text)
    with pytest.raises(
        UserError, match=r"instances_val2017\.json: is no such annotation file of COCO \(\w+Error: .*\)"
    ):
        coco_voc.open_dataset(str(root), prepared)


def test_run_lengths_that_do_not_add_up(root, prepared):
    make_coco_voc(root)
    annotations = coco_annotations(int(COCO_NAMES["val"][0]))
    annotations[2]["segmentation"]["counts"].append(7)
    write_instances(root, "val", COCO_NAMES["val"], annotations)
    with pytest.raises(
        UserError, match=r"val2017\.json: image '000000000139' has run lengths of 2007 pixels for a mask"
    ):
        coco_voc.open_dataset(str(root), prepared).open_split("val")


@pytest.mark.parametrize("layout", ["stuffthingmaps_trainval2017", "stuffthingmaps", "annotations"])
@pytest.mark.parametrize("dataset", [coco_stuff, coco_stuff_182])
def test_maps_of_things_and_stuff(root, prepared, dataset, layout):
    make_coco_stuff(root)
    (root / "stuffthingmaps_trainval2017").rename(root / layout)
    source = dataset.open_dataset(str(root), prepared).open_split("train")
    values = coco_stuff_values(int(source.names[1]))
    if dataset is coco_stuff_182:
        np.testing.assert_array_equal(source[1].label, values)
    else:
        there = sorted(set(range(182)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
        np.testing.assert_array_equal(source[1].label == 255, values == 255)
        np.testing.assert_array_equal(np.array(there)[source[1].label[values != 255]], values[values != 255])


def test_both_numberings_of_stuff_agree_on_names_and_colors(root, prepared):
    make_coco_stuff(root)
    closed, raw = (module.open_dataset(str(root), prepared).info for module in (coco_stuff, coco_stuff_182))
    assert (closed.class_names[0], closed.class_names[79], closed.class_names[-1]) == ("person", "toothbrush", "wood")
    colors = dict(zip(raw.class_names, raw.palette, strict=True))
    assert [colors[name] for name in closed.class_names] == list(closed.palette)


def test_archive_of_maps_has_folders_called_as_those_of_the_photographs(root, prepared):
    make_coco_stuff(root)
    shutil.make_archive(str(root / "stuffthingmaps_trainval2017"), "zip", root / "stuffthingmaps_trainval2017")
    shutil.rmtree(root / "stuffthingmaps_trainval2017")
    (root / "images").mkdir()
    for split in COCO_NAMES:
        (root / f"{split}2017").rename(root / "images" / f"{split}2017")
    source = coco_stuff_182.open_dataset(str(root), prepared).open_split("val")
    np.testing.assert_array_equal(source[0].label, coco_stuff_values(int(source.names[0])))


def test_label_without_pixels_is_refused(root, prepared):
    make_coco_stuff(root)
    path = root / "stuffthingmaps_trainval2017" / "val2017" / f"{COCO_NAMES['val'][0]}.png"
    Image.fromarray(np.full(SIZE, 11, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"holds the value 11 \(2000 pixels"):
        coco_stuff.open_dataset(str(root), prepared).open_split("val")


def test_segments_take_their_category(root, prepared):
    make_coco_panoptic(root)
    source = coco_panoptic.open_dataset(str(root), prepared).open_split("train")
    segments, ids = panoptic_segments(int(source.names[0]))
    class_of = {segment["id"]: class_id for class_id, segment in enumerate(segments)} | {0: 255}
    np.testing.assert_array_equal(source[0].label, np.vectorize(class_of.get)(ids))


def test_panoptic_archive_holds_archives(root, prepared, tmp_path):
    make_coco_panoptic(root)
    outer = tmp_path / "outer" / "annotations"
    outer.mkdir(parents=True)
    for split in COCO_NAMES:
        shutil.make_archive(str(outer / f"panoptic_{split}2017"), "zip", root / "annotations", f"panoptic_{split}2017")
        shutil.copy(root / "annotations" / f"panoptic_{split}2017.json", outer)
    shutil.make_archive(str(root / "panoptic_annotations_trainval2017"), "zip", outer.parent)
    for split in COCO_NAMES:
        with zipfile.ZipFile(root / f"{split}2017.zip", "w") as packed:
            for path in (root / f"{split}2017").iterdir():
                packed.write(path, f"{split}2017/{path.name}")
        shutil.rmtree(root / f"{split}2017")
    shutil.rmtree(root / "annotations")
    assert coco_panoptic.open_dataset(str(root), prepared).open_split("val").names == COCO_NAMES["val"]


def test_segment_that_is_not_listed(root, prepared):
    make_coco_panoptic(root)
    path = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        dropped = annotation["segments_info"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"139\.png: holds the segment {dropped['id']}, which panoptic_val2017\.json does not list"
    ):
        coco_panoptic.open_dataset(str(root), prepared).open_split("val")
    path.write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(UserError, match=r"panoptic_val2017\.json: says nothing of '000000000139'"):
        coco_panoptic.open_dataset(str(root), prepared).open_split("val")


@pytest.mark.parametrize("dataset", [coco_panoptic, coco_stuff, coco_voc])
def test_what_to_get_and_where_to_put_it(root, prepared, dataset):
    write_coco_images(root)
    with pytest.raises(UserError) as caught:
        dataset.open_dataset(str(root), prepared)
    assert "holds no COCO" in str(caught.value)
    assert "; get train2017.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


def copy_fixture(shared: pathlib.Path, root: pathlib.Path) -> None:
    """COCO's own two examples, as a split 'val' with both kinds of annotation."""
    sample = shared / "data" / "fixtures" / "coco_panoptic" / "sample_data"
    shutil.copytree(sample / "input_images", root / "val2017")
    shutil.copytree(sample / "panoptic_examples", root / "annotations" / "panoptic_val2017")
    shutil.copy(sample / "panoptic_examples.json", root / "annotations" / "panoptic_val2017.json")
    shutil.copy(sample / "panoptic_coco_detection_format.json", root / "annotations" / "instances_val2017.json")


def test_real_categories(shared):
    path = shared / "data" / "fixtures" / "coco_panoptic" / "panoptic_coco_categories.json"
    expected = [(item["id"], item["name"], tuple(item["color"])) for item in json.loads(path.read_text())]
    assert list(coco_panoptic.CATEGORIES) == sorted(expected)


def test_real_images(shared, root, prepared):
    """The same segments, once as panoptic masks and once as compressed run lengths, are the same classes."""
    copy_fixture(shared, root)
    panoptic = coco_panoptic.open_dataset(str(root), prepared).open_split("val")
    instances = coco_voc.open_dataset(str(root), prepared).open_split("val")
    assert panoptic.names == instances.names == FIXTURE_NAMES
    table = np.zeros(256, np.uint8)
    for class_id, category in enumerate(coco_panoptic.CATEGORIES):
        table[class_id] = coco_voc.CLASS_OF_CATEGORY.get(category.id, 0)
    for index in range(2):
        np.testing.assert_array_equal(table[panoptic[index].label], instances[index].label)
    counts = np.bincount(panoptic[0].label.ravel(), minlength=256)
    names = [category.name for category in coco_panoptic.CATEGORIES]
    # The areas that the file itself states.
    assert counts[names.index("sports ball")] == 175
    assert counts[names.index("tree-merged")] == 130_762
    assert counts[names.index("grass-merged")] == 75_100
