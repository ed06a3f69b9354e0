"""COCO's regions against masks that its own code (pycocotools 2.0.11) made, and against a walk point by point."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from deeplab_jax.data.sources.coco_masks import decode_run_lengths, fill_polygons, paint

PUBLISHED = [
    (
        [[1.5, 1.0], [7.25, 2.5], [6.0, 6.4], [2.2, 5.1]],
        ["000000000", "001000000", "001111100", "001111100", "001111100", "000111000", "000000000"],
    ),
    (
        [[0.0, 0.0], [9.0, 3.5], [0.0, 7.0]],
        ["100000000", "111100000", "111111000", "111111111", "111111100", "111100000", "100000000"],
    ),
]


def rows(mask: np.ndarray) -> list[str]:
    return ["".join("01"[int(inside)] for inside in row) for row in mask]


def walked(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The outline walked point by point in fifths of a pixel, and each column filled between its crossings."""
    height, width = size
    corners = [tuple(int(5 * value + 0.5) for value in corner) for corner in polygon.tolist()]
    points = []
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        is_flat = dx >= dy
        flipped = (is_flat and x0 > x1) or (not is_flat and y0 > y1)
        (xs, ys), (xe, ye) = ((x1, y1), (x0, y0)) if flipped else ((x0, y0), (x1, y1))
        slope = ((ye - ys) / dx if is_flat else (xe - xs) / dy) if max(dx, dy) else 0.0
        for d in range(max(dx, dy) + 1):
            t = max(dx, dy) - d if flipped else d
            points.append((t + xs, int(ys + slope * t + 0.5)) if is_flat else (int(xs + slope * t + 0.5), t + ys))
    flips = np.zeros(height * width + 1, int)
    for (u0, v0), (u1, v1) in itertools.pairwise(points):
        x = ((u1 if u1 < u0 else u1 - 1) + 0.5) / 5 - 0.5
        if u0 != u1 and x == math.floor(x) and 0 <= x <= width - 1:
            y = math.ceil(min(max((min(v0, v1) + 0.5) / 5 - 0.5, 0), height))
            flips[int(x) * height + y] += 1
    return (np.cumsum(flips[:-1]) % 2 == 1).reshape(width, height).T


@pytest.mark.parametrize(("polygon", "expected"), PUBLISHED)
def test_polygons_as_coco_draws_them(polygon, expected):
    assert rows(fill_polygons([np.array(polygon)], (7, 9))) == expected


def random_polygons(rng):
    """Polygons that cross themselves and leave the image, of any, whole and round coordinates."""
    for index in range(60):
        polygon = rng.uniform(-4, 24, (int(rng.integers(3, 9)), 2))
        yield (polygon, polygon.round(), polygon.round(1))[index % 3]


def test_polygons_are_filled_as_the_walk_along_their_outline_says(rng):
    for polygon in random_polygons(rng):
        np.testing.assert_array_equal(fill_polygons([polygon], (17, 23)), walked(polygon, (17, 23)))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
def test_polygons_and_run_lengths_are_cocos_own(rng):
    peer = pytest.importorskip("pycocotools.mask")
    for polygon in random_polygons(rng):
        lengths = peer.frPyObjects([polygon.ravel().tolist()], 17, 23)[0]
        expected = peer.decode(lengths).astype(bool)
        np.testing.assert_array_equal(fill_polygons([polygon], (17, 23)), expected)
        np.testing.assert_array_equal(decode_run_lengths(lengths["counts"].decode(), (17, 23)), expected)


def test_rectangle_on_pixel_borders_is_exact():
    mask = fill_polygons([np.array([[2, 1], [7, 1], [7, 5], [2, 5]], np.float32)], (6, 9))
    assert mask.sum() == 20
    assert mask[1:5, 2:7].all()


def test_parts_of_a_region_are_joined_even_where_they_overlap():
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    assert fill_polygons([square, square + 2], (8, 8)).sum() == 28


@pytest.mark.parametrize("polygon", [[[1.2, 1.2], [1.4, 1.2], [1.3, 1.4]], [[-9.0, 0.0], [-2.0, 0.0], [-5.0, 9.0]]])
def test_polygon_without_a_pixel(polygon):
    assert not fill_polygons([np.array(polygon)], (7, 9)).any()
    assert not fill_polygons([], (7, 9)).any()


def test_run_lengths_go_down_the_columns():
    assert rows(decode_run_lengths([1, 2, 4, 2], (3, 3))) == ["000", "101", "101"]


def test_compressed_run_lengths():
    expected = np.zeros((7, 9), bool)
    expected[1:5, 2:4] = expected[6, 8] = expected[0, 5:] = True
    np.testing.assert_array_equal(decode_run_lengths("?4306MM00000O0", (7, 9)), expected)
    assert decode_run_lengths("06", (3, 2)).all()


@pytest.mark.parametrize("counts", [[1, 2], [], [10, -1], "05"])
def test_run_lengths_of_another_mask(counts):
    with pytest.raises(ValueError, match=r"^run lengths of \d+ pixels for a mask of 3x2$"):
        decode_run_lengths(counts, (3, 2))


def test_overlaps_are_ignored_however_many():
    masks = np.zeros((3, 1, 6), bool)
    masks[0, 0, :4] = masks[1, 0, 2:5] = masks[2, 0, 3:4] = True
    label = paint(zip((5, 7, 5), masks, strict=True), (1, 6), ignore_label=255)
    assert label.tolist() == [[5, 5, 255, 255, 7, 0]]
