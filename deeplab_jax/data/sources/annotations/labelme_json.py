"""labelme's files, one beside each image, drawn as its own scripts draw them, with Pillow.

Source: https://github.com/wkentaro/labelme, labelme/utils/shape.py
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from deeplab_jax.data.sources.annotations.outlines import (
    Area,
    ImageAnnotation,
    OutlinedObject,
    Points,
    Size,
    as_points,
    drawn_by_pillow,
    placed,
)
from deeplab_jax.data.sources.pictures import open_picture

TITLE = "labelme"
_LINE_WIDTH, _POINT_SIZE = 10, 5  # pixels


def recognize(content: Any) -> bool:
    """Whether a JSON file is one of these."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def parse(content: Any) -> ImageAnnotation:
    """One image with its objects.

    Raises:
      KeyError, TypeError, ValueError: if it is no such file.
    """
    height, width = content.get("imageHeight"), content.get("imageWidth")
    objects = [OutlinedObject(str(shape["label"]), _area(shape)) for shape in content["shapes"]]
    return ImageAnnotation(str(content["imagePath"]), (height, width) if height and width else None, objects)


def _area(shape: dict[str, Any]) -> Callable[[Size], Area]:
    points, kind = as_points(shape["points"]), shape.get("shape_type") or "polygon"
    if kind == "polygon" and len(points) > 2:
        return drawn_by_pillow("polygon", points, outline=1)
    if kind == "rectangle":
        return drawn_by_pillow("rectangle", np.array([points.min(0), points.max(0)]), outline=1)
    if kind == "circle":
        radius = math.hypot(*(points[0] - points[1]).tolist())
        return drawn_by_pillow("ellipse", _around(points[0], radius), outline=1)
    if kind == "point":
        return drawn_by_pillow("ellipse", _around(points[0], _POINT_SIZE), outline=1)
    if kind in ("line", "linestrip"):
        return drawn_by_pillow("line", points, width=_LINE_WIDTH)
    if kind == "mask":
        bitmap = np.asarray(open_picture(base64.b64decode(shape["mask"]), "an object's mask")) > 0
        left, top = points.astype(int)[0].tolist()
        return placed(bitmap, left, top)
    raise ValueError(f"a shape of type '{kind}' with {len(points)} points")


def _around(center: Float[np.ndarray, "2"], radius: float) -> Points:
    return np.array([center - radius, center + radius])
