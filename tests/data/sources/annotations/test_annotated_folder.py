"""Folders as annotation tools leave them: recognised, drawn as the tool draws, with its classes and splits."""

from __future__ import annotations

import base64
import io
import json
import pathlib
import shutil
import unicodedata
import zlib

import numpy as np
import pytest
from made_files import make_ids, write_image, write_mask
from PIL import Image

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.types import UserError

SIZE = (20, 30)
BOX = [[4, 3], [12, 3], [12, 9], [4, 9]]  # (x, y)
OVER = [[8, 5], [20, 5], [20, 15], [8, 15]]


def open_folder(root: pathlib.Path):
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


def labels(root: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> label map, over all splits."""
    dataset = open_folder(root)
    sources = [dataset.open_split(split) for split, number in dataset.info.splits.items() if number]
    return {source.names[index]: source[index].label for source in sources for index in range(len(source))}


def covered(*areas: tuple[slice, slice, int]) -> np.ndarray:
    """A label map of rectangles, the later on top."""
    label = np.zeros(SIZE, np.uint8)
    for rows, columns, class_id in areas:
        label[rows, columns] = class_id
    return label


# COCO's polygons cover [left, right), Pillow's and OpenCV's include their outline.
AS_COCO = covered((slice(3, 9), slice(4, 12), 1), (slice(5, 15), slice(8, 20), 2))
WITH_OUTLINE = covered((slice(3, 10), slice(4, 13), 1), (slice(5, 16), slice(8, 21), 2))


def write_json(path: pathlib.Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def coco(names: list[str], **changes: object) -> dict[str, object]:
    regions = [(7, [np.ravel(BOX).tolist()]), (3, [np.ravel(OVER).tolist()])]
    content = {
        "images": [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)],
        "annotations": [
            {"id": 10 * k + n, "image_id": k, "category_id": category, "segmentation": region, "bbox": [0, 0, 1, 1]}
            for k in range(len(names))
            for n, (category, region) in enumerate(regions)
        ],
        "categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}],
    }
    return content | changes


def write_coco(root: pathlib.Path) -> None:
    write_image(root / "images" / "a.png")
    write_image(root / "images" / "b.png", seed=1)
    write_json(root / "annotations" / "instances_default.json", coco(["a.png", "b.png"]))
    (root / "classes.txt").write_text("background\nbolt\nnut\n")


def write_labelme(root: pathlib.Path) -> None:
    for seed, name in enumerate("ab"):
        write_image(root / f"{name}.png", seed=seed)
        shapes = [
            {"label": label, "points": points, "shape_type": "polygon"}
            for label, points in (("bolt", BOX), ("nut", OVER))
        ]
        content = {"version": "5.4.1", "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
        write_json(root / f"{name}.json", content | {"imageHeight": SIZE[0], "imageWidth": SIZE[1]})


def write_cvat(root: pathlib.Path) -> None:
    def points(polygon: list[list[int]]) -> str:
        return ";".join(f"{x}.00,{y}.00" for x, y in polygon)

    images = ""
    for seed, name in enumerate("ab"):
        write_image(root / "images" / "default" / f"{name}.png", seed=seed)
        images += f'<image id="{seed}" name="default/{name}.png" width="{SIZE[1]}" height="{SIZE[0]}">'
        images += f'<polygon label="nut" z_order="1" occluded="0" points="{points(OVER)}"></polygon>'
        images += f'<polygon label="bolt" z_order="0" occluded="0" points="{points(BOX)}"></polygon></image>'
    names = "".join(f"<label><name>{name}</name><color>#123456</color></label>" for name in ("bolt", "nut"))
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{names}'
        f"</labels></task></meta>{images}</annotations>\n"
    )


def write_via(root: pathlib.Path) -> None:
    metadata = {}
    for seed, name in enumerate("ab"):
        write_image(root / f"{name}.png", seed=seed)
        regions = [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": [x for x, _ in points],
                    "all_points_y": [y for _, y in points],
                },
                "region_attributes": {"label": label},
            }
            for label, points in (("bolt", BOX), ("nut", OVER))
        ]
        metadata[f"{name}.png123"] = {"filename": f"{name}.png", "size": 123, "regions": regions, "file_attributes": {}}
    write_json(root / "via_project.json", {"_via_settings": {}, "_via_img_metadata": metadata})


def write_supervisely(root: pathlib.Path) -> None:
    classes = [
        {"title": title, "shape": "polygon", "color": color, "id": id_}
        for title, color, id_ in (("bolt", "#FF0000", 907), ("nut", "#00FF00", 12))
    ]
    write_json(root / "meta.json", {"classes": classes, "tags": []})
    for seed, name in enumerate("ab"):
        write_image(root / "ds0" / "img" / f"{name}.png", seed=seed)
        objects = [
            {"classTitle": label, "geometryType": "polygon", "points": {"exterior": points, "interior": []}}
            for label, points in (("bolt", BOX), ("nut", OVER))
        ]
        size = {"height": SIZE[0], "width": SIZE[1]}
        write_json(root / "ds0" / "ann" / f"{name}.png.json", {"description": "", "size": size, "objects": objects})


TOOLS = {
    "COCO": (write_coco, AS_COCO),
    "labelme": (write_labelme, WITH_OUTLINE),
    "CVAT": (write_cvat, AS_COCO),
    "VIA": (write_via, AS_COCO),
    "Supervisely": (write_supervisely, WITH_OUTLINE),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tools_folder_as_it_is(tmp_path, tool):
    write, expected = TOOLS[tool]
    write(tmp_path / "data")
    dataset = open_folder(tmp_path / "data")
    assert dataset.info.class_names == ("background", "bolt", "nut")
    assert f"masks are drawn from annotations of {tool}, later objects on top; what none covers is 'background'" in (
        dataset.notes
    )
    found = labels(tmp_path / "data")
    assert sorted(name.rpartition("/")[2] for name in found) == ["a", "b"]
    for label in found.values():
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("tool", TOOLS)
def test_lint_reads_what_training_reads(tmp_path, tool):
    TOOLS[tool][0](tmp_path / "data")
    report = lint_dataset(open_folder(tmp_path / "data"), train_split="train", eval_split="val")
    assert not [finding for finding in report.findings if finding.severity == "error"]
    assert sum(counts.pixels.sum() for counts in report.counts.values()) == 2 * SIZE[0] * SIZE[1]


def test_a_changed_annotation_is_drawn_anew(tmp_path):
    write_labelme(tmp_path / "data")
    labels(tmp_path / "data")
    path = tmp_path / "data" / "a.json"
    write_json(path, json.loads(path.read_text()) | {"shapes": [], "version": "6"})
    assert not labels(tmp_path / "data")["a"].any()


def test_coco_run_lengths_classes_and_splits(tmp_path):
    """Classes by category id; a file for each split; a crowd's run lengths; an image without objects."""
    root = tmp_path / "data"
    crowd = np.zeros(SIZE, bool)
    crowd[2:5, 1:4] = True
    flat = np.flatnonzero(np.diff(crowd.T.ravel())) + 1
    counts = np.diff([0, *flat, crowd.size]).tolist()
    for split in ("train", "valid"):
        write_image(root / split / "a.png", seed=len(split))
    write_image(root / "train" / "empty.png", seed=2)
    region = {"size": list(SIZE), "counts": counts}
    annotation = {"id": 1, "image_id": 0, "category_id": 7, "segmentation": region, "iscrowd": 1}
    write_json(root / "train" / "_annotations.coco.json", coco(["a.png", "empty.png"], annotations=[annotation]))
    write_json(root / "valid" / "_annotations.coco.json", coco(["a.png"]))
    dataset = open_folder(root)
    assert dataset.info.splits == {"train": 2, "val": 1}
    assert dataset.info.class_names == ("background", "nut", "bolt")
    np.testing.assert_array_equal(dataset.open_split("train")[0].label, np.where(crowd, 2, 0))
    assert not dataset.open_split("train")[1].label.any()


def test_an_object_of_several_parts(tmp_path):
    root = tmp_path / "data"
    write_coco(root)
    parts = [np.ravel(BOX).tolist(), [20.0, 10.0, 26.0, 10.0, 26.0, 14.0]]
    annotation = {"id": 1, "image_id": 0, "category_id": 7, "segmentation": parts}
    write_json(root / "annotations" / "instances_default.json", coco(["a.png", "b.png"], annotations=[annotation]))
    label = labels(root)["a"]
    assert (label[3:9, 4:12] == 1).all()
    assert label[10, 20:26].tolist() == [0, 1, 1, 1, 1, 1]
    assert not label[15:].any()


def test_roboflows_project_is_no_class(tmp_path):
    root = tmp_path / "data"
    write_coco(root)
    (root / "classes.txt").unlink()
    categories = [{"id": 0, "name": "my-project", "supercategory": "none"}, {"id": 3, "name": "nut"}]
    categories += [{"id": 7, "name": "bolt", "supercategory": "my-project"}]
    write_json(root / "annotations" / "instances_default.json", coco(["a.png", "b.png"], categories=categories))
    assert open_folder(root).info.class_names == ("background", "nut", "bolt")


def test_labelme_shapes(tmp_path):
    root = tmp_path / "data"
    write_labelme(root)
    bitmap = np.array([[True, False], [True, True]])
    shapes = [
        {"label": "nut", "points": [[12, 9], [4, 3]], "shape_type": "rectangle"},
        {"label": "bolt", "points": [[20, 10], [24, 10]], "shape_type": "circle"},
        {"label": "__ignore__", "points": [[0, 0], [2, 0], [2, 2], [0, 2]], "shape_type": "polygon"},
        {
            "label": "bolt",
            "points": [[27, 0], [28, 1]],
            "shape_type": "mask",
            "mask": base64.b64encode(png(bitmap)).decode(),
        },
    ]
    path = root / "a.json"
    write_json(path, json.loads(path.read_text()) | {"shapes": shapes})
    label = labels(root)["a"]
    assert (label[3:10, 4:13] == 2).all()
    assert (label[:3, :3] == 255).all()
    assert label[10, 16:25].tolist() == [1] * 9
    assert (label[6:15, 20] == 1).all()
    np.testing.assert_array_equal(label[:2, 27:29], bitmap)
    assert (label == 255).sum() == 9


def test_labelmes_own_masks(shared, tmp_path):
    """Its example, exported with an older Pillow, of which one pixel of 550,000 differs."""
    source, root = shared / "data" / "fixtures" / "labelme_voc", tmp_path / "data"
    shutil.copytree(source / "data_annotated", root)
    shutil.copy(source / "labels.txt", root)
    found = labels(root)
    assert len(found) == 3
    differing = 0
    for name, label in found.items():
        exported = np.asarray(Image.open(source / "SegmentationClass" / f"{name}.png"))
        differing += int((exported != label).sum())
    assert differing <= 1


def test_cocos_own_example(shared, tmp_path):
    """Photographs whose segments are given as run lengths and as a picture of ids, which are the same masks."""
    source = shared / "data" / "fixtures" / "coco_panoptic" / "sample_data"
    root = tmp_path / "data"
    shutil.copytree(source / "input_images", root / "images")
    shutil.copy(source / "panoptic_coco_detection_format.json", root)
    panoptic = json.loads((source / "panoptic_examples.json").read_text())
    names, found = open_folder(root).info.class_names, labels(root)
    categories = {category["id"]: category["name"] for category in panoptic["categories"]}
    for annotation in panoptic["annotations"]:
        colors = np.asarray(Image.open(source / "panoptic_examples" / annotation["file_name"])).astype(np.int64)
        ids = colors @ (1, 256, 256**2)
        label = found[pathlib.Path(annotation["file_name"]).stem]
        assert (label[ids == 0] == 0).all()
        for segment in annotation["segments_info"]:
            assert (label[ids == segment["id"]] == names.index(categories[segment["category_id"]])).all()


def test_supervisely_holes_and_bitmaps(tmp_path):
    root = tmp_path / "data"
    write_supervisely(root)
    path = root / "ds0" / "ann" / "a.png.json"
    bitmap = np.array([[True, False], [True, True]])
    data = base64.b64encode(zlib.compress(png(bitmap))).decode()
    hole = [[6, 5], [8, 5], [8, 7], [6, 7]]
    objects = [
        {"classTitle": "bolt", "geometryType": "polygon", "points": {"exterior": BOX, "interior": [hole]}},
        {"classTitle": "nut", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [28, 19]}},
        {"classTitle": "nut", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}},
    ]
    write_json(path, json.loads(path.read_text()) | {"objects": objects})
    expected = covered((slice(3, 10), slice(4, 13), 1), (slice(5, 8), slice(6, 9), 0))
    expected[19, 28:30] = 2, 0  # the second row is below the image
    np.testing.assert_array_equal(labels(root)["a"], expected)
    assert open_folder(root).info.palette == ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def test_cvat_masks_boxes_and_what_has_no_area(tmp_path):
    root = tmp_path / "data"
    write_cvat(root)
    path = root / "annotations.xml"
    shapes = (
        '<mask label="nut" source="manual" rle="1, 2, 1, 2" left="28" top="0" width="2" height="3" z_order="0"></mask>'
        '<box label="bolt" xtl="4" ytl="3" xbr="12" ybr="9" z_order="0"></box>'
        '<polyline label="bolt" points="0,0;9,9" z_order="0"></polyline><tag label="bolt"></tag></image>'
    )
    first, _, rest = path.read_text().partition("<polygon")
    path.write_text(first + shapes + rest[rest.index("</image>") + len("</image>") :])
    expected = covered((slice(3, 9), slice(4, 12), 1))
    expected[:3, 28:] = [[0, 2], [2, 0], [2, 2]]
    dataset = open_folder(root)
    np.testing.assert_array_equal(labels(root)["a"], expected)
    assert any("1 objects without an area (boxes, points, lines) are left out" in note for note in dataset.notes)


def test_via_shapes_of_version_1(tmp_path):
    root = tmp_path / "data"
    write_via(root)
    entries = json.loads((root / "via_project.json").read_text())["_via_img_metadata"]
    regions = {
        "0": {"shape_attributes": {"name": "rect", "x": 4, "y": 3, "width": 8, "height": 6}, "region_attributes": {}},
        "1": {"shape_attributes": {"name": "circle", "cx": 20, "cy": 10, "r": 4}, "region_attributes": {}},
    }
    write_json(root / "via_project.json", {key: entry | {"regions": regions} for key, entry in entries.items()})
    dataset, label = open_folder(root), labels(root)["a"]
    assert dataset.info.class_names == ("background", "object")
    assert (label[3:9, 4:12] == 1).all()
    assert int(label[:, 14:].sum()) == 52  # pixel centres within 4 of the corner of four pixels


def test_accents_however_they_are_written(tmp_path):
    root = tmp_path / "data"
    write_image(root / "images" / unicodedata.normalize("NFD", "é.png"))
    write_json(root / "all.json", coco([unicodedata.normalize("NFC", "é.png")]))
    (label,) = labels(root).values()
    assert label.any()


def test_masks_go_before_annotations(tmp_path):
    root = tmp_path / "data"
    write_coco(root)
    for name in "ab":
        write_mask(root / "masks" / f"{name}.png", make_ids(seed=3))
    np.testing.assert_array_equal(labels(root)["a"], make_ids(seed=3))


def test_lists_of_annotated_images(tmp_path):
    root = tmp_path / "data"
    write_labelme(root)
    (root / "train.txt").write_text("b\n")
    (root / "val.txt").write_text("a.png\n")
    assert open_folder(root).open_split("train").names == ["b"]


def refused(root: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        labels(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_tools(tmp_path):
    write_labelme(tmp_path / "data")
    write_json(tmp_path / "data" / "all.json", coco(["a.png", "b.png"]))
    assert "holds the annotations of labelme and of COCO; keep those that are meant" in refused(tmp_path / "data")


def test_two_files_about_one_image(tmp_path):
    write_coco(tmp_path / "data")
    write_json(tmp_path / "data" / "annotations" / "keypoints.json", coco(["a.png"]))
    assert "keypoints.json: and annotations/instances_default.json both describe images/a.png" in refused(
        tmp_path / "data"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"annotations": [{"image_id": 0, "category_id": 9, "segmentation": []}]},
            "is no file of COCO that can be read",
        ),
        ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]}]}, "outlines no object: boxes or"),
        (
            {"categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "gear"}]},
            "outlines 'gear' in a.png, which is no",
        ),
        (
            {
                "annotations": [
                    {"image_id": 0, "category_id": 7, "segmentation": {"size": [9, 9], "counts": [0, 81]}},
                ]
            },
            "holds run lengths for 9x9 pixels in an image of 20x30, in the annotation of a.png; correct it",
        ),
    ],
)
def test_annotations_that_make_no_sense(tmp_path, changes, problem):
    write_coco(tmp_path / "data")
    write_json(tmp_path / "data" / "annotations" / "instances_default.json", coco(["a.png", "b.png"], **changes))
    assert problem in refused(tmp_path / "data")


def test_damaged_files(tmp_path):
    write_labelme(tmp_path / "data")
    (tmp_path / "data" / "b.json").write_text("{")
    assert "b.json: is no valid JSON" in refused(tmp_path / "data")
    mask = {"label": "x", "points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": base64.b64encode(b"PNG").decode()}
    write_json(tmp_path / "data" / "b.json", {"shapes": [mask], "imagePath": "b.png"})
    assert "b.json: is no file of labelme that can be read (an object's mask: is " in refused(tmp_path / "data")
    content = {"shapes": [{"label": "x", "points": [[1, 2]], "shape_type": "cuboid"}], "imagePath": "b.png"}
    write_json(tmp_path / "data" / "b.json", content)
    assert "b.json: is no file of labelme that can be read (a shape of type 'cuboid' with 1 points)" in refused(
        tmp_path / "data"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"imageHeight": 200_000, "imageWidth": 300_000}, "a.json: has more than 89,478,485 pixels"),
        ({"shapes": [{"label": "x", "points": [[1, 2], [1e9, 2], [3, 4]]}]}, "can be read (the coordinate 1e+09)"),
        (
            {"shapes": [{"label": "x", "points": [[1, 2], [float("nan"), 2], [3, 4]]}]},
            "can be read (the coordinate nan)",
        ),
    ],
)
def test_annotations_that_would_need_all_memory(tmp_path, changes, problem):
    write_labelme(tmp_path / "data")
    path = tmp_path / "data" / "a.json"
    write_json(path, json.loads(path.read_text()) | changes)
    assert problem in refused(tmp_path / "data")


def test_an_image_that_is_missing_is_told(tmp_path):
    write_coco(tmp_path / "data")
    (tmp_path / "data" / "images" / "b.png").unlink()
    assert "b.png: does not exist, though split" in refused(tmp_path / "data")


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
def test_coco_masks_are_cocos_own(tmp_path, rng, capsys):
    """A later object on top, polygons of several parts and compressed run lengths."""
    peer = pytest.importorskip("pycocotools.coco")
    encode = pytest.importorskip("pycocotools.mask").encode
    root = tmp_path / "data"
    write_coco(root)
    regions = [[rng.uniform(-2, 28, 12).tolist(), rng.uniform(-2, 28, 8).tolist()] for _ in range(6)]
    blob = encode(np.asfortranarray(rng.integers(0, 2, SIZE, dtype=np.uint8)))
    regions.insert(2, {"size": list(SIZE), "counts": blob["counts"].decode()})
    annotations = [
        {"id": k, "image_id": 0, "category_id": (7, 3)[k % 2], "segmentation": region, "iscrowd": 0, "area": 1}
        for k, region in enumerate(regions)
    ]
    path = root / "annotations" / "instances_default.json"
    write_json(path, coco(["a.png", "b.png"], annotations=annotations))
    theirs = peer.COCO(str(path))
    expected = np.zeros(SIZE, np.uint8)
    for annotation in annotations:
        expected[theirs.annToMask(annotation) == 1] = {7: 1, 3: 2}[annotation["category_id"]]
    np.testing.assert_array_equal(labels(root)["a"], expected)
