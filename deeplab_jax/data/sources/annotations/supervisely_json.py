"""Supervisely's projects: meta.json, and for each image of a data set DATASET/ann/NAME.jpg.json, drawn with OpenCV.

Source: https://docs.supervisely.com, Supervisely annotation format
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab_jax.data.sources.annotations.outlines import (
    Area,
    ImageAnnotation,
    OutlinedObject,
    Size,
    as_points,
    filled_by_opencv,
    placed,
)
from deeplab_jax.data.sources.pictures import open_picture

TITLE = "Supervisely"


def recognize(content: Any) -> bool:
    """Whether a JSON file is one of these."""
    return isinstance(content, dict) and {"objects", "size"} <= content.keys()


def parse(content: Any, image: str) -> ImageAnnotation:
    """One image with its objects.

    Raises:
      KeyError, TypeError, ValueError: if it is no such file.
    """
    objects = [OutlinedObject(str(each["classTitle"]), _area(each)) for each in content["objects"]]
    return ImageAnnotation(image, (int(content["size"]["height"]), int(content["size"]["width"])), objects)


def _area(content: dict[str, Any]) -> Callable[[Size], Area] | None:
    kind = content.get("geometryType")
    if kind == "bitmap" or content.get("bitmap"):
        data = zlib.decompress(base64.b64decode(content["bitmap"]["data"]))
        left, top = content["bitmap"]["origin"]
        return placed(_drawn(np.asarray(open_picture(data, "an object's bitmap"))), left, top)
    exterior = as_points(content["points"]["exterior"])
    if kind == "rectangle":
        (left, top), (right, bottom) = exterior.min(0).tolist(), exterior.max(0).tolist()
        exterior = as_points([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind != "polygon":
        return None  # points, lines and graphs
    return filled_by_opencv(exterior, [as_points(hole) for hole in content["points"].get("interior", [])])


def _drawn(bitmap: np.ndarray) -> np.ndarray:
    """The drawn pixels of a 1-bit or palette image, or of one whose alpha channel says them."""
    return np.asarray(bitmap[..., -1] > 0 if bitmap.ndim == 3 else bitmap > 0)
