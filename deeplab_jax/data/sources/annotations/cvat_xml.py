"""CVAT's 'CVAT for images' files (XML), drawn as its own export of masks draws them: with COCO's code, by z-order.

Source: https://docs.cvat.ai, XML annotation format 1.1
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np

from deeplab_jax.data.sources.annotations.outlines import (
    AnnotationContent,
    Area,
    ImageAnnotation,
    OutlinedObject,
    Size,
    as_points,
    ellipse,
    filled,
    placed,
    rectangle,
)

TITLE = "CVAT"


def recognize(data: bytes) -> bool:
    """Whether the beginning of an XML file is that of one of these."""
    return b"<annotations" in data[:1000]


def parse(data: bytes) -> AnnotationContent:
    """The images with their objects.

    Raises:
      KeyError, ValueError, ElementTree.ParseError: if it is no such file.
    """
    root = ElementTree.fromstring(data)
    labels = tuple(dict.fromkeys(name.text or "" for name in root.iterfind("./meta//labels/label/name")))
    images = [
        ImageAnnotation(
            image.attrib["name"],
            (int(image.attrib["height"]), int(image.attrib["width"])),
            [
                OutlinedObject(shape.attrib["label"], _area(shape))
                for shape in sorted(image, key=lambda shape: int(shape.get("z_order", 0)))
                if "label" in shape.attrib and shape.tag != "tag"
            ],
        )
        for image in root.iterfind("./image")
    ]
    return AnnotationContent(labels or None, images)


def _area(shape: ElementTree.Element) -> Callable[[Size], Area] | None:
    values = shape.attrib
    if shape.tag == "polygon":
        return filled([as_points([point.split(",") for point in values["points"].split(";")])])
    if float(values.get("rotation", 0)):
        raise ValueError(f"a {shape.tag} that is turned; export masks from CVAT instead")
    if shape.tag == "box":
        return rectangle(*(float(values[side]) for side in ("xtl", "ytl", "xbr", "ybr")))
    if shape.tag == "ellipse":
        return ellipse(*(float(values[name]) for name in ("cx", "cy", "rx", "ry")))
    if shape.tag == "mask":
        size = int(values["height"]), int(values["width"])
        lengths = np.array([int(length) for length in values["rle"].split(",")])
        if lengths.sum() != size[0] * size[1]:
            raise ValueError(f"run lengths of {lengths.sum()} pixels for a mask of {size[0]}x{size[1]}")
        bitmap = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size)
        return placed(bitmap, int(values["left"]), int(values["top"]))
    return None  # points, polylines, skeletons
