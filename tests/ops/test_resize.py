"""Bilinear resizing against scalar NumPy, in both corner conventions."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.ops.resize import resize_bilinear


def _slow(x, size, align_corners):
    """One output cell at a time, straight from the definition."""

    def position(out_id, in_size, out_size):
        if align_corners:
            return out_id * (in_size - 1) / (out_size - 1) if out_size > 1 else 0.0
        return min(max((out_id + 0.5) * in_size / out_size - 0.5, 0.0), in_size - 1.0)

    batch, height, width, channels = x.shape
    out = np.zeros((batch, *size, channels))
    for i in range(size[0]):
        for j in range(size[1]):
            y, z = position(i, height, size[0]), position(j, width, size[1])
            top, left = int(y), int(z)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = y - top, z - left
            upper = (1 - b) * x[:, top, left] + b * x[:, top, right]
            lower = (1 - b) * x[:, bottom, left] + b * x[:, bottom, right]
            out[:, i, j] = (1 - a) * upper + a * lower
    return out


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(9, 13), (3, 4), (5, 7), (1, 1), (6, 3)])
def test_equals_the_definition(rng, size, align_corners):
    x = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    got = resize_bilinear(x, size, align_corners=align_corners)
    np.testing.assert_allclose(got, _slow(x, size, align_corners), atol=2e-6)  # four float32 products


def test_align_corners_keeps_the_corners(rng):
    x = rng.normal(size=(1, 5, 7, 2)).astype(np.float32)
    y = np.asarray(resize_bilinear(x, (33, 49), align_corners=True))
    np.testing.assert_allclose(y[:, ::32, ::48], x[:, ::4, ::6], atol=1e-6)


def test_one_cell_fills_the_map(rng):
    x = rng.normal(size=(2, 1, 1, 3)).astype(np.float32)
    for align_corners in (True, False):
        np.testing.assert_array_equal(resize_bilinear(x, (4, 5), align_corners=align_corners), np.tile(x, (1, 4, 5, 1)))


def test_an_empty_size_is_refused():
    with pytest.raises(ValueError, match="cannot resize"):
        resize_bilinear(np.zeros((1, 2, 2, 1), np.float32), (0, 3), align_corners=True)
