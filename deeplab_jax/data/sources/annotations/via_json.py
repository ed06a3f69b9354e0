"""VIA's files (VGG Image Annotator): projects and exported annotations of versions 1 and 2.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deeplab_jax.data.sources.annotations.outlines import (
    AnnotationContent,
    Area,
    ImageAnnotation,
    OutlinedObject,
    Size,
    as_points,
    ellipse,
    filled,
    rectangle,
)

TITLE = "VIA"
_METADATA = "_via_img_metadata"
_CLASS_ATTRIBUTES = ("class", "label", "category", "name", "type", "object")
_ONLY_CLASS = "object"


def recognize(content: Any) -> bool:
    """Whether a JSON file is one of these."""
    if not isinstance(content, dict):
        return False
    entries = content.get(_METADATA, content)
    first = next(iter(entries.values()), None) if isinstance(entries, dict) else None
    return isinstance(first, dict) and {"filename", "regions"} <= first.keys()


def parse(content: Any) -> AnnotationContent:
    """The images with their objects.

    Raises:
      KeyError, TypeError, ValueError: if it is no such file, or several attributes may be the class.
    """
    entries = list(content.get(_METADATA, content).values())
    regions = [_values(entry["regions"]) for entry in entries]
    attribute = _class_attribute({name for each in regions for region in each for name in region["region_attributes"]})
    images = [
        ImageAnnotation(
            str(entry["filename"]),
            None,
            [OutlinedObject(_label(each, attribute), _area(each["shape_attributes"])) for each in listed],
        )
        for entry, listed in zip(entries, regions, strict=True)
    ]
    return AnnotationContent(None, images)


def _values(regions: Any) -> list[Any]:
    return list(regions.values() if isinstance(regions, dict) else regions)  # version 1 numbers them


def _class_attribute(names: Iterable[str]) -> str:
    """The attribute that says the class; '' if there is none."""
    given = sorted(names)
    if len(given) < 2:
        return "".join(given)
    likely = [name for name in given if name.lower() in _CLASS_ATTRIBUTES]
    if len(likely) != 1:
        raise ValueError(f"several attributes that may be the class: {', '.join(given)}; keep one of them")
    return likely[0]


def _label(region: Mapping[str, Any], attribute: str) -> str:
    value = region["region_attributes"].get(attribute, "") if attribute else _ONLY_CLASS
    if isinstance(value, dict):  # checkboxes
        chosen = [name for name, is_set in value.items() if is_set]
        value = chosen[0] if len(chosen) == 1 else ""
    if not value:
        raise ValueError(f"a region without a single '{attribute}'")
    return str(value)


def _area(shape: Mapping[str, Any]) -> Callable[[Size], Area] | None:
    kind = shape["name"]
    if kind == "polygon":
        return filled([as_points(list(zip(shape["all_points_x"], shape["all_points_y"], strict=True)))])
    if kind == "rect":
        return rectangle(shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"])
    if kind == "circle":
        return ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
    if kind == "ellipse":
        if math.remainder(shape.get("theta", 0), math.pi):
            raise ValueError("an ellipse that is turned")
        return ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"])
    return None  # points and polylines
