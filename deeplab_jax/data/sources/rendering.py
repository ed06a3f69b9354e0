"""Renders scenes of textured objects with exact masks from a seed: the demo's images.

An object's outline determines its class, and so does its kind of pattern. Hue is a hint only: each class has a third of
the colour circle, shared with its neighbours and with the background. Scale, light and pattern strength are the same
for all classes. Objects occlude one another, poles are a few pixels thin, and outlines have a border of ignored pixels
as in PASCAL VOC.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from deeplab_jax.data.dataset import IGNORE_LABEL

Rng = np.random.Generator
Plane = Float[np.ndarray, "h w"]
Points = Float[np.ndarray, "n 2"]  # outline, (x, y)
Color = Float[np.ndarray, "3"]  # RGB in [0, 255]
Texture = Float[np.ndarray, "h w 3"]  # RGB in [0, 255]

_SUBPIXEL_BITS = 4
_SUPERSAMPLING = 4


def render_scene(rng: Rng, size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draws one scene.

    Args:
      size: (height, width).

    Returns:
      (RGB image, class ids with an ignored border around objects).
    """
    background_color = _random_color(rng)
    scene = _background(rng, size, background_color)
    ids = np.zeros(size, np.uint8)
    for class_id, center in _place_objects(rng, size):
        kind = _KINDS[CLASS_NAMES[class_id]]
        turn = rng.uniform(-kind.max_turn, kind.max_turn)
        coverage = _cover([_rotate(points, turn) for points in kind.outlines(rng)], center, size)
        x, y = _coordinates(size, center, turn)
        color = _random_color(rng, hue=class_id / len(_KINDS), unlike=background_color)
        texture = _texture(rng, kind.pattern(rng, x, y), color)
        scene = _cast_shadow(rng, scene, coverage)
        scene += coverage[..., None] * (_shade(rng, texture, coverage) - scene)
        ids[coverage > 0.5] = class_id
    return _photograph(rng, scene), _with_border(ids)


def _place_objects(rng: Rng, size: tuple[int, int]) -> list[tuple[int, tuple[float, float]]]:
    """Class ids and centres (x, y) of four to six objects, back to front; they may overlap partly."""
    height, width = size
    placed: list[tuple[int, tuple[float, float]]] = []
    num_objects = int(rng.integers(4, 7))
    for _ in range(50):
        if len(placed) == num_objects:
            break
        center = (float(rng.uniform(0.08, 0.92) * width), float(rng.uniform(0.12, 0.88) * height))
        if all(np.hypot(center[0] - x, center[1] - y) > 0.21 * width for _, (x, y) in placed):
            placed.append((int(rng.integers(1, len(CLASS_NAMES))), center))
    return placed


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The look of a class: outlines around (0, 0), pattern at coordinates (x, y), and maximum rotation."""

    outlines: Callable[[Rng], list[Points]]
    pattern: Callable[[Rng, Plane, Plane], Plane]
    max_turn: float = np.pi  # radians to either side


def _disc(rng: Rng) -> list[Points]:
    return [_ellipse(rng, rng.uniform(17, 28))]


def _ring(rng: Rng) -> list[Points]:
    outer = _ellipse(rng, rng.uniform(20, 30))
    return [outer, outer * rng.uniform(0.45, 0.58)]


def _box(rng: Rng) -> list[Points]:
    return [_rectangle(*rng.uniform(14, 25, size=2))]


def _triangle(rng: Rng) -> list[Points]:
    angles = np.array([0, 2, 4]) * np.pi / 3 + rng.uniform(-0.25, 0.25, size=3)
    return [rng.uniform(24, 34) * _on_circle(angles)]


def _star(rng: Rng) -> list[Points]:
    radii = np.where(np.arange(10) % 2, rng.uniform(0.45, 0.55), 1.0) * rng.uniform(25, 35)
    return [radii[:, None] * _on_circle(np.arange(10) * np.pi / 5)]


def _pole(rng: Rng) -> list[Points]:
    return [_rectangle(rng.uniform(2.6, 4.2), rng.uniform(36, 64))]


def _on_circle(angles: Float[np.ndarray, " n"]) -> Points:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _ellipse(rng: Rng, radius: float) -> Points:
    return _on_circle(np.linspace(0, 2 * np.pi, 48, endpoint=False)) * (radius, radius * rng.uniform(0.85, 1.0))


def _rectangle(half_width: float, half_height: float) -> Points:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half_width, half_height)


def _rotate(points: Points, turn: float) -> Points:
    return points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _target(rng: Rng, x: Plane, y: Plane) -> Plane:
    return _wave(rng, np.hypot(x, y))


def _spokes(rng: Rng, x: Plane, y: Plane) -> Plane:
    return 0.5 + 0.5 * np.sin(rng.integers(9, 15) * np.arctan2(y, x))


def _checks(rng: Rng, x: Plane, y: Plane) -> Plane:
    return 0.5 + 0.5 * np.tanh(12 * (_wave(rng, x) - 0.5) * (_wave(rng, y) - 0.5))


def _stripes(rng: Rng, x: Plane, y: Plane) -> Plane:
    del y
    return _wave(rng, x)


def _grain(rng: Rng, x: Plane, y: Plane) -> Plane:
    del y
    return np.clip(1.6 * _noise(rng, (x.shape[0], x.shape[1]), cell=3) - 0.3, 0, 1)


def _bands(rng: Rng, x: Plane, y: Plane) -> Plane:
    return (_wave(rng, y + rng.uniform(-1, 1) * x) > 0.5).astype(np.float32)


_KINDS = {
    "disc": _Kind(_disc, _target),
    "box": _Kind(_box, _checks),
    "triangle": _Kind(_triangle, _stripes),
    "ring": _Kind(_ring, _spokes),
    "star": _Kind(_star, _grain),
    "pole": _Kind(_pole, _bands, max_turn=0.35),
}
CLASS_NAMES = ("background", *_KINDS)


def _cover(outlines: list[Points], center: tuple[float, float], size: tuple[int, int]) -> Plane:
    """The share of each pixel inside the outlines (an inner one cuts a hole), in [0, 1]."""
    height, width = size
    factor = _SUPERSAMPLING * 2**_SUBPIXEL_BITS
    polygons = [np.rint((points + center) * factor).astype(np.int32) for points in outlines]
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, polygons, 255, shift=_SUBPIXEL_BITS)
    coverage = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / 255


def _coordinates(size: tuple[int, int], center: tuple[float, float], turn: float) -> tuple[Plane, Plane]:
    """Each pixel's (x, y) in the frame of an object at `center`, rotated by `turn` radians."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    x, y = columns - center[0], rows - center[1]
    return np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x


def _wave(rng: Rng, distance: Plane) -> Plane:
    """A sine wave in [0, 1] with a period of 8 to 13 pixels."""
    return 0.5 + 0.5 * np.sin(2 * np.pi / rng.uniform(8, 13) * distance + rng.uniform(0, 2 * np.pi))


def _noise(rng: Rng, size: tuple[int, int], cell: int) -> Plane:
    """Smooth noise, approximately in [0, 1]; `cell` is the size of its blobs in pixels."""
    height, width = size
    grid = rng.random((height // cell + 3, width // cell + 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _random_color(rng: Rng, hue: float | None = None, unlike: Color | None = None) -> Color:
    """A random colour, within a sixth of the colour circle of `hue` and different from `unlike`, if given."""
    while True:
        turn, saturation, value = rng.uniform((0, 0.35, 0.4), (1, 0.85, 0.95))
        if hue is not None:
            turn = (hue + (turn - 0.5) / 3) % 1
        color = 255 * np.array(colorsys.hsv_to_rgb(turn, saturation, value), np.float32)
        if unlike is None or np.abs(color - unlike).sum() > 120:
            return color


def _texture(rng: Rng, pattern: Plane, color: Color) -> Texture:
    """`color` where the pattern is 0; a darker or brighter shade of slightly different hue where it is 1."""
    factor = rng.uniform(0.35, 0.6) if color.max() > 130 else rng.uniform(1.5, 2.0)
    shade = np.clip(color * factor + rng.uniform(-25, 25, size=3), 0, 255).astype(np.float32)
    return color + pattern[..., None] * (shade - color)


def _background(rng: Rng, size: tuple[int, int], color: Color) -> Texture:
    """Large soft clouds and a fine mottle."""
    clouds = 0.65 * _noise(rng, size, cell=36) + 0.35 * _noise(rng, size, cell=14)
    other = np.clip(color + rng.uniform(-60, 60, size=3), 0, 255).astype(np.float32)
    mottle = 16 * (_noise(rng, size, cell=5) - 0.5)
    return color + clouds[..., None] * (other - color) + mottle[..., None]


def _shade(rng: Rng, texture: Texture, coverage: Plane) -> Texture:
    """Light from one side, as on a convex object: brighter on that side, darker on the other."""
    bulge = cv2.GaussianBlur(coverage, (0, 0), sigmaX=6)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * cv2.Sobel(bulge, cv2.CV_32F, 1, 0) + np.sin(angle) * cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    return texture * (1 + 0.9 * np.clip(slope, -0.4, 0.4))[..., None]


def _cast_shadow(rng: Rng, scene: Texture, coverage: Plane) -> Texture:
    shift = np.array([[1, 0, rng.uniform(-4, 4)], [0, 1, rng.uniform(1, 5)]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(coverage, shift, coverage.shape[::-1]), (0, 0), sigmaX=2.5)
    return scene * (1 - rng.uniform(0.15, 0.4) * shadow[..., None])


def _photograph(rng: Rng, scene: Texture) -> UInt8[np.ndarray, "h w 3"]:
    """Uneven light, exposure and sensor noise."""
    height, width = scene.shape[:2]
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    slope_y, slope_x = rng.uniform(-0.15, 0.15, size=2)
    light = rng.uniform(0.8, 1.1) * (1 + slope_y * rows + slope_x * columns)
    noise = rng.normal(0, rng.uniform(1, 6), size=scene.shape)
    return np.clip(scene * light[..., None] + noise, 0, 255).astype(np.uint8)


def _with_border(ids: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Sets the pixels on both sides of every outline to the ignore label."""
    kernel = np.ones((3, 3), np.uint8)
    on_outline = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    return np.where(on_outline, np.uint8(IGNORE_LABEL), ids)
