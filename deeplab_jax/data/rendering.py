"""Scenes of textured objects with exact masks, drawn from a seed: the demo's photographs.

Only the outline tells an object's class: colours, textures and lighting are
drawn from the same distributions for all classes and for the background.
Objects hide one another, poles are a few pixels thin, and outlines carry a
border of ignored pixels as in PASCAL VOC.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

CLASS_NAMES = ("background", "disc", "box", "triangle", "ring", "star", "pole")
IGNORE_LABEL = 255

Rng = np.random.Generator
Points = Float[np.ndarray, "n 2"]  # outline, (x, y)
Texture = Float[np.ndarray, "h w 3"]  # RGB in [0, 255]

_SUBPIXEL_BITS = 4
_SUPERSAMPLING = 4


def render_scene(rng: Rng, size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draws one scene.

    Args:
      rng: the source of everything random in it.
      size: (height, width).

    Returns:
      (RGB image, class ids with an ignored border around objects).
    """
    background_color = _random_color(rng)
    scene = _random_texture(rng, size, background_color, contrast=0.5)
    ids = np.zeros(size, np.uint8)
    for class_id, center in _place_objects(rng, size):
        coverage = _cover(_OUTLINES[CLASS_NAMES[class_id]](rng), center, size)
        scene = _cast_shadow(rng, scene, coverage)
        texture = _random_texture(rng, size, _random_color(rng, unlike=background_color), contrast=1.0)
        scene += coverage[..., None] * (_shade(rng, texture, coverage) - scene)
        ids[coverage > 0.5] = class_id
    return _photograph(rng, scene), _with_border(ids)


def _place_objects(rng: Rng, size: tuple[int, int]) -> list[tuple[int, tuple[float, float]]]:
    """Class ids and centres (x, y) of three to five objects, back to front, which may overlap in part."""
    height, width = size
    placed: list[tuple[int, tuple[float, float]]] = []
    num_objects = int(rng.integers(3, 6))
    for _ in range(50):
        if len(placed) == num_objects:
            break
        center = (float(rng.uniform(0.08, 0.92) * width), float(rng.uniform(0.12, 0.88) * height))
        if all(np.hypot(center[0] - x, center[1] - y) > 0.2 * width for _, (x, y) in placed):
            placed.append((int(rng.integers(1, len(CLASS_NAMES))), center))
    return placed


def _disc(rng: Rng) -> list[Points]:
    return [_ellipse(rng.uniform(13, 26), rng.uniform(0.85, 1.0), rng)]


def _ring(rng: Rng) -> list[Points]:
    outer = _ellipse(rng.uniform(17, 28), rng.uniform(0.85, 1.0), rng)
    return [outer, outer * rng.uniform(0.5, 0.62)]


def _box(rng: Rng) -> list[Points]:
    width, height = rng.uniform(11, 22, size=2)
    return [_rotate(np.array([[-width, -height], [width, -height], [width, height], [-width, height]]), rng)]


def _triangle(rng: Rng) -> list[Points]:
    angles = np.array([0, 2, 4]) * np.pi / 3 + rng.uniform(-0.25, 0.25, size=3)
    return [_rotate(rng.uniform(19, 31) * _on_circle(angles), rng)]


def _star(rng: Rng) -> list[Points]:
    radii = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 1.0) * rng.uniform(20, 31)
    return [_rotate(radii[:, None] * _on_circle(np.arange(10) * np.pi / 5), rng)]


def _pole(rng: Rng) -> list[Points]:
    width, height = rng.uniform(2.2, 3.6), rng.uniform(32, 64)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]])
    return [corners @ _rotation(rng.uniform(-0.3, 0.3)).T]


_OUTLINES: dict[str, Callable[[Rng], list[Points]]] = {
    "disc": _disc,
    "box": _box,
    "triangle": _triangle,
    "ring": _ring,
    "star": _star,
    "pole": _pole,
}


def _on_circle(angles: Float[np.ndarray, " n"]) -> Points:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _ellipse(radius: float, aspect: float, rng: Rng) -> Points:
    return _rotate(_on_circle(np.linspace(0, 2 * np.pi, 48, endpoint=False)) * (radius, radius * aspect), rng)


def _rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _rotate(points: Points, rng: Rng) -> Points:
    return points @ _rotation(rng.uniform(0, 2 * np.pi)).T


def _cover(outlines: list[Points], center: tuple[float, float], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """The share of each pixel inside the outlines (an inner one cuts a hole), in [0, 1]."""
    height, width = size
    factor = _SUPERSAMPLING * 2**_SUBPIXEL_BITS
    polygons = [np.rint((points + center) * factor).astype(np.int32) for points in outlines]
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, polygons, 255, shift=_SUBPIXEL_BITS)
    coverage = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / 255


def _random_color(rng: Rng, unlike: Float[np.ndarray, "3"] | None = None) -> Float[np.ndarray, "3"]:
    """RGB in [0, 255]; one that stands out against the colour `unlike`, where that is given."""
    while True:
        hue, saturation, value = rng.uniform((0, 0.25, 0.3), (1, 0.85, 0.95))
        color = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
        if unlike is None or np.abs(color - unlike).sum() > 150:
            return color


def _random_texture(rng: Rng, size: tuple[int, int], color: Float[np.ndarray, "3"], contrast: float) -> Texture:
    """A pattern between `color` and a tint of it; `contrast` in [0, 1] is how far apart they are at most."""
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))](rng, size)
    tint = color + rng.uniform(-70, 70, size=3).astype(np.float32) * contrast
    mottle = 14 * (_noise(rng, size, cell=5) - 0.5)
    return color + pattern[..., None] * (tint - color) + mottle[..., None]


def _noise(rng: Rng, size: tuple[int, int], cell: int) -> Float[np.ndarray, "h w"]:
    """Smooth noise in [0, 1] (nearly); `cell` is the size of its blobs in pixels."""
    height, width = size
    grid = rng.random((height // cell + 3, width // cell + 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _clouds(rng: Rng, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return 0.65 * _noise(rng, size, cell=32) + 0.35 * _noise(rng, size, cell=10)


def _stripes(rng: Rng, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return 0.5 + 0.5 * np.sin(_phase(rng, size))


def _checks(rng: Rng, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return 0.5 + 0.5 * np.tanh(3 * np.sin(_phase(rng, size)) * np.sin(_phase(rng, size)))


def _plain(rng: Rng, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return 0.4 * _noise(rng, size, cell=48)


_PATTERNS = (_clouds, _stripes, _checks, _plain)


def _phase(rng: Rng, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A plane wave's phase in radians, of 6 to 14 pixels a period, slightly bent."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 14)
    wave = 2 * np.pi / period
    rows, columns = np.ogrid[: size[0], : size[1]]
    plane = wave * (np.cos(angle) * columns + np.sin(angle) * rows)
    return (plane + 1.5 * _noise(rng, size, cell=40)).astype(np.float32)


def _shade(rng: Rng, texture: Texture, coverage: Float[np.ndarray, "h w"]) -> Texture:
    """Lit from one side: brighter there, darker across, as if the object bulged."""
    bulge = cv2.GaussianBlur(coverage, (0, 0), sigmaX=6)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * cv2.Sobel(bulge, cv2.CV_32F, 1, 0) + np.sin(angle) * cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    return texture * (1 + 0.9 * np.clip(slope, -0.4, 0.4))[..., None]


def _cast_shadow(rng: Rng, scene: Texture, coverage: Float[np.ndarray, "h w"]) -> Texture:
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
    """Ignores the pixels on both sides of every outline."""
    kernel = np.ones((3, 3), np.uint8)
    on_outline = cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)
    return np.where(on_outline, np.uint8(IGNORE_LABEL), ids)
