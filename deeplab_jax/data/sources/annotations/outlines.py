"""Objects that annotation tools outline, and how their areas are drawn: as COCO, Pillow or OpenCV do.

Coordinates are (x, y) in pixels; each tool's files are drawn as the tool itself draws them, since the three differ by
up to a pixel along the outline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from deeplab_jax.data.sources.coco_masks import fill_polygons

_FARTHEST = 1e5  # pixels: time and memory go with an outline's length

Size = tuple[int, int]  # (height, width)
Area = Bool[np.ndarray, "h w"]
Points = Float[np.ndarray, "_n 2"]  # of one outline; others of an object have other lengths


class OutlinedObject(NamedTuple):
    """One object: its class and its area in an image of a given size; None: it has no area, as a point has none."""

    label: str
    area: Callable[[Size], Area] | None


class ImageAnnotation(NamedTuple):
    """What a tool's file says about one image; later objects lie on top."""

    image: str  # path or name of the image file, as written
    size: Size | None  # None: the file does not say
    objects: Sequence[OutlinedObject]


class AnnotationContent(NamedTuple):
    """What a file about many images says."""

    labels: tuple[str, ...] | None  # all classes in the tool's order; None: those that occur
    images: Sequence[ImageAnnotation]


def as_points(content: Any) -> Points:
    """An array of (x, y); raises ValueError if the content is no list of pairs of numbers, or far from any image."""
    points = np.asarray(content, np.float64).reshape(-1, 2)
    if not (np.abs(points) <= _FARTHEST).all():
        raise ValueError(f"the coordinate {points[~(np.abs(points) <= _FARTHEST)][0]:g}")
    return points


def filled(polygons: Sequence[Points]) -> Callable[[Size], Area]:
    """The polygons, as COCO's code fills them."""
    return lambda size: fill_polygons(polygons, size)


def rectangle(left: float, top: float, right: float, bottom: float) -> Callable[[Size], Area]:
    """As COCO's code fills a box."""
    return filled([np.array([[left, top], [left, bottom], [right, bottom], [right, top]], np.float64)])


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Callable[[Size], Area]:
    """The pixels whose centres are inside."""

    def draw(size: Size) -> Area:
        rows, columns = np.ogrid[: size[0], : size[1]]
        scaled = ((columns + 0.5 - x) / max(radius_x, 1e-9)) ** 2 + ((rows + 0.5 - y) / max(radius_y, 1e-9)) ** 2
        return scaled <= 1

    return draw


def drawn_by_pillow(method: str, points: Points, **options: Any) -> Callable[[Size], Area]:
    """The area that a method of Pillow's `ImageDraw` paints; it includes the outline."""

    def draw(size: Size) -> Area:
        picture = Image.new("L", (size[1], size[0]))
        getattr(ImageDraw.Draw(picture), method)(list(map(tuple, points.tolist())), fill=1, **options)
        return np.asarray(picture) > 0

    return draw


def filled_by_opencv(exterior: Points, interior: Sequence[Points]) -> Callable[[Size], Area]:
    """The polygon without its holes, as OpenCV fills it: both include the outline."""

    def draw(size: Size) -> Area:
        mask = np.zeros(size, np.uint8)
        for polygons, color in (([exterior], 1), (interior, 0)):
            cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32) for polygon in polygons], color)
        return mask > 0

    return draw


def placed(bitmap: Area, left: int, top: int) -> Callable[[Size], Area]:
    """A small mask at its place in the image; what lies outside is cut off."""

    def draw(size: Size) -> Area:
        mask = np.zeros(size, bool)
        height, width = bitmap.shape
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, size[0]), min(left + width, size[1])
        if y0 < y1 and x0 < x1:
            mask[y0:y1, x0:x1] = bitmap[y0 - top : y1 - top, x0 - left : x1 - left]
        return mask

    return draw


def paint_over(
    objects: Sequence[OutlinedObject], size: Size, label_of: Mapping[str, int], background: int
) -> UInt8[np.ndarray, "h w"]:
    """One label map: `background` outside all objects, the later object on top.

    Raises:
      KeyError: for an object whose class is not in `label_of`.
    """
    label = np.full(size, background, np.uint8)
    for each in objects:
        if each.area is not None:
            label[each.area(size)] = label_of[each.label]
    return label
