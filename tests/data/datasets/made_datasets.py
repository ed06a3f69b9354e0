"""Tiny data sets in exactly the forms that their makers publish, two images for 'train', the second also for 'val'."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import scipy.io
from made_files import make_ids, write_image, write_mask
from PIL import Image

from deeplab_jax.data.datasets import coco_panoptic, coco_stuff

SIZE = (40, 50)
COCO_NAMES = {"train": ["000000000009", "000000000025"], "val": ["000000000139"]}
VOC_NAMES = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000003"]}


def make_ade20k(root: pathlib.Path) -> None:
    for split, short, number in (("training", "train", 1), ("training", "train", 2), ("validation", "val", 1)):
        name = f"ADE_{short}_{number:08d}"
        write_image(root / "images" / split / f"{name}.jpg", seed=number)
        path = root / "annotations" / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ade20k_ids(number)).save(path)


def ade20k_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 151, (20, 30), dtype=np.uint8)


CITYSCAPES_FRAMES = (
    ("train", "aachen_000000_000019"),
    ("train", "bremen_000001_000019"),
    ("val", "frankfurt_000000_000294"),
    ("test", "berlin_000000_000019"),
)


def make_cityscapes(root: pathlib.Path) -> None:
    for seed, (split, name) in enumerate(CITYSCAPES_FRAMES):
        write_cityscapes_frame(root, "gtFine", split, name, seed)


def write_cityscapes_frame(root: pathlib.Path, kind: str, split: str, name: str, seed: int) -> None:
    city = name.split("_")[0]
    write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=seed)
    folder = root / kind / split / city
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cityscapes_ids(seed)).save(folder / f"{name}_{kind}_labelIds.png")
    (folder / f"{name}_{kind}_polygons.json").write_text("{}")
    write_image(folder / f"{name}_{kind}_color.png")


def cityscapes_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 34, (20, 30), dtype=np.uint8)


def write_coco_images(root: pathlib.Path) -> None:
    for split, names in COCO_NAMES.items():
        for name in names:
            write_image(root / f"{split}2017" / f"{name}.jpg", size=SIZE, seed=int(name))


def make_coco_voc(root: pathlib.Path) -> None:
    """Each image has a dog, a cat that hides a part of it, a crowd of people and a banana."""
    write_coco_images(root)
    for split, names in COCO_NAMES.items():
        annotations = [annotation for name in names for annotation in coco_annotations(int(name))]
        write_instances(root, split, names, annotations)


def coco_annotations(image_id: int) -> list[dict[str, Any]]:
    crowd = np.zeros(SIZE, bool)
    crowd[30:38, 5:45] = True
    regions = [
        (18, [[2, 2, 32, 2, 32, 28, 2, 28]], 780),
        (17, [[22, 10, 45, 10, 45, 20, 22, 20]], 230),
        (1, {"counts": run_lengths(crowd), "size": list(SIZE)}, 320),
        (52, [[0, 0, 2, 0, 2, 2, 0, 2]], 4),
    ]
    return [
        {"id": index, "image_id": image_id, "category_id": category, "segmentation": region, "area": area}
        | {"bbox": [0, 0, 1, 1], "iscrowd": int(isinstance(region, dict))}
        for index, (category, region, area) in enumerate(regions)
    ]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column by column, beginning with the pixels outside."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def write_instances(root: pathlib.Path, split: str, names: list[str], annotations: list[dict[str, Any]]) -> None:
    images = [
        {"id": int(name), "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1], "license": 1}
        for name in names
    ]
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {"year": 2017}, "licenses": [{"id": 1}], "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(content | {"images": images, "annotations": annotations}))


def make_coco_stuff(root: pathlib.Path) -> None:
    write_coco_images(root)
    for split, names in COCO_NAMES.items():
        for name in names:
            path = root / "stuffthingmaps_trainval2017" / f"{split}2017" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coco_stuff_values(int(name))).save(path)


def coco_stuff_values(seed: int) -> np.ndarray:
    names = coco_stuff.LABEL_NAMES
    there = [value for value, name in enumerate(names) if name not in coco_stuff.LABELS_WITHOUT_PIXELS]
    return np.random.default_rng(seed).choice(np.array([*there, 255], np.uint8), SIZE)


def make_coco_panoptic(root: pathlib.Path) -> None:
    write_coco_images(root)
    for split, names in COCO_NAMES.items():
        folder = root / "annotations" / f"panoptic_{split}2017"
        folder.mkdir(parents=True)
        annotations = []
        for name in names:
            segments, ids = panoptic_segments(int(name))
            Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1).astype(np.uint8)).save(
                folder / f"{name}.png"
            )
            annotations.append({"image_id": int(name), "file_name": f"{name}.png", "segments_info": segments})
        images = [{"id": int(name), "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]} for name in names]
        folder.with_suffix(".json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]})
        )


def panoptic_segments(seed: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(segments_info, id of each pixel's segment): one segment of each category, and pixels without any."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**24 - 1, len(coco_panoptic.CATEGORIES), replace=False) + 1
    segments = [
        {"id": int(segment_id), "category_id": category.id, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}
        for segment_id, category in zip(ids, coco_panoptic.CATEGORIES, strict=True)
    ]
    return segments, rng.choice([0, *ids], SIZE)


def write_voc_2010(root: pathlib.Path) -> pathlib.Path:
    devkit = root / "VOCdevkit" / "VOC2010"
    for seed, name in enumerate(VOC_NAMES["train"]):
        write_image(devkit / "JPEGImages" / f"{name}.jpg", seed=seed)
    write_lists(devkit / "ImageSets" / "Main")
    return devkit


def write_lists(folder: pathlib.Path, line: str = "{}") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in VOC_NAMES.items():
        (folder / f"{split}.txt").write_text("".join(f"{line.replace('{}', name)}\n" for name in names))


def make_pascal_context(root: pathlib.Path) -> None:
    write_voc_2010(root)
    (root / "trainval").mkdir()
    for seed, name in enumerate(VOC_NAMES["train"]):
        scipy.io.savemat(root / "trainval" / f"{name}.mat", {"LabelMap": context_labels(seed)}, do_compression=True)


def context_labels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 460, (20, 30), dtype=np.uint16)


def make_pascal_person_part(root: pathlib.Path) -> None:
    write_voc_2010(root)
    folder = root / "pascal_person_part"
    for seed, name in enumerate(VOC_NAMES["train"]):
        write_mask(folder / "pascal_person_part_gt" / f"{name}.png", make_ids(seed=seed, num_classes=7))
    write_lists(
        folder / "pascal_person_part_trainval_list",
        "/JPEGImages/{}.jpg /pascal_person_part/pascal_person_part_gt/{}.png",
    )
