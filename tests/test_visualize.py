"""Palettes, overlays, error maps and grids."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.palettes import voc_palette
from deeplab_jax.visualize import IGNORE_COLOR, as_rgb, colorize, error_map, full_palette, grid, overlay

PALETTE = ((0, 0, 0), (200, 10, 20), (10, 200, 20))


def test_voc_palette_has_the_published_colours():
    palette = voc_palette(256)
    assert palette[1] == (128, 0, 0)  # aeroplane
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tv/monitor
    assert palette[255] == IGNORE_COLOR
    assert len(set(palette)) == 256
    assert voc_palette(22) == palette[:22]


def test_full_palette_prefers_the_data_set():
    colors = full_palette(PALETTE, ignore_label=7)
    assert colors[1].tolist() == [200, 10, 20]
    assert colors[7].tolist() == list(IGNORE_COLOR)
    assert tuple(colors[9]) == voc_palette(256)[9]


def test_colorize_paints_each_class():
    label = np.array([[0, 1], [2, 255]], np.uint8)
    assert colorize(label, PALETTE).tolist() == [[[0, 0, 0], [200, 10, 20]], [[10, 200, 20], list(IGNORE_COLOR)]]


def test_overlay_tints_objects_only():
    image = np.full((4, 8, 3), 100, np.uint8)
    label = np.zeros((4, 8), np.uint8)
    label[:, 4:] = 1
    label[0] = 255
    result = overlay(image, label, PALETTE, opacity=0.5)
    assert (result[0] == 100).all()  # ignored
    assert (result[:, :4] == 100).all()  # background
    assert result[2, 6].tolist() == [150, 55, 60]  # halfway between the image and the class's colour
    assert (result[2, 4] > 150).all()  # a light outline, inside the object
    assert (result[1, 6] > 150).all()  # and where it borders on ignored pixels


@pytest.mark.usefixtures("unchecked_types")
def test_overlay_refuses_another_size():
    with pytest.raises(ValueError, match=r"image is \(4, 8\), label is \(4, 7\)"):
        overlay(np.zeros((4, 8, 3), np.uint8), np.zeros((4, 7), np.uint8), PALETTE)


def test_error_map_tells_right_wrong_and_unknown_apart():
    label = np.array([[1, 1, 255]], np.uint8)
    right, wrong, unknown = error_map(label, np.array([[1, 2, 2]], np.uint8))[0].tolist()
    assert right[0] > 200
    assert right[1] > 200
    assert wrong[0] > 2 * wrong[1]
    assert len(set(map(tuple, (right, wrong, unknown)))) == 3


def test_grid_aligns_columns_and_rows():
    small, wide = np.full((2, 3, 3), 10, np.uint8), np.full((4, 5, 3), 20, np.uint8)
    canvas = grid([[small, wide], [wide]], gap=1, background=(0, 0, 0))
    assert canvas.shape == (4 + 1 + 4, 5 + 1 + 5, 3)
    assert (canvas[:2, :3] == 10).all()
    assert (canvas[:4, 6:] == 20).all()
    assert (canvas[5:, :5] == 20).all()
    assert (canvas[5:, 5:] == 0).all()


def test_any_image_can_be_looked_at():
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert as_rgb(rgb) is rgb
    ramp = np.linspace(1000, 3000, 100, dtype=np.float32).reshape(10, 10, 1)
    bands = np.concatenate([ramp, 2 * ramp, ramp[::-1], 0 * ramp], axis=2)
    bands[0, 0, 0] = np.nan
    shown = as_rgb(bands)
    assert (shown.shape, shown.dtype) == ((10, 10, 3), np.uint8)
    assert shown[0, 0].tolist() == [0, 0, 236]
    assert shown[-1, -1].tolist() == [255, 255, 19]
    grey = as_rgb(ramp.astype(np.uint16))
    np.testing.assert_array_equal(grey, grey[..., :1].repeat(3, axis=2))
    assert as_rgb(np.full((2, 2, 1), np.nan, np.float32)).max() == 0
