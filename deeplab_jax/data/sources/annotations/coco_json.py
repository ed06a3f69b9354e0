"""COCO's annotation files: polygons and run lengths, of any tool that exports them (Roboflow, CVAT, Label Studio).

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import functools
from typing import Any

from deeplab_jax.data.sources.annotations.outlines import (
    AnnotationContent,
    Area,
    ImageAnnotation,
    OutlinedObject,
    Size,
    as_points,
    filled,
)
from deeplab_jax.data.sources.coco_masks import decode_run_lengths

TITLE = "COCO"


def recognize(content: Any) -> bool:
    """Whether a JSON file is one of these."""
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        return False
    return not any("segments_info" in each for each in content["annotations"][:1])  # panoptic: needs its PNG files


def parse(content: Any) -> AnnotationContent:
    """The images with their objects.

    Raises:
      KeyError, TypeError, ValueError: if it is no such file.
    """
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    names = {category["id"]: str(category["name"]) for category in categories}
    objects: dict[Any, list[OutlinedObject]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(
            OutlinedObject(names[annotation["category_id"]], _area(annotation.get("segmentation")))
        )
    images = [
        ImageAnnotation(str(image["file_name"]), (int(image["height"]), int(image["width"])), objects[image["id"]])
        for image in content["images"]
    ]
    used = {each.label for image in images for each in image.objects}
    # Roboflow puts the project's name before the classes, as a category without objects.
    first = categories[0] if categories else {}
    is_project = first.get("supercategory") == "none" and names[first["id"]] not in used
    return AnnotationContent(tuple(names.values())[is_project:], images)


def _area(segmentation: Any) -> Any:
    if not segmentation:
        return None  # a box alone
    if isinstance(segmentation, dict):
        return functools.partial(_decode, segmentation["counts"], tuple(segmentation["size"]))
    return filled([as_points(part) for part in segmentation if len(part) >= 6])


def _decode(counts: Any, stored: Size, size: Size) -> Area:
    if stored != size:
        raise ValueError(f"run lengths for {stored[0]}x{stored[1]} pixels in an image of {size[0]}x{size[1]}")
    return decode_run_lengths(counts, size)
