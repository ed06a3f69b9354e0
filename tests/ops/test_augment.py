"""Crops made on the device are the host's: labels in every pixel, images up to rounding."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from deeplab_jax.data.augment import transforms
from deeplab_jax.ops.augment import augment

PAD_PIXEL, IGNORE = (124, 116, 104), 255
CROP = (65, 49)
CANVAS = (130, 98)


@functools.partial(jax.jit, static_argnames="colored")
def on_device(image, label, geometry, colors, colored=True):
    return augment(
        image,
        label,
        geometry,
        colors if colored else None,
        crop_size=CROP,
        pad_pixel=PAD_PIXEL,
        ignore_label=IGNORE,
    )


def draw_cases(number, *, photometric):
    """(image, label, plan, colours) of images of all sizes at scales from 0.5 to 2."""
    rng = np.random.default_rng(5)
    for position in range(number):
        size = (int(rng.integers(20, 180)), int(rng.integers(20, 180)))
        # Blocks with noise on them: edges as well as texture.
        blocks = rng.integers(0, 200, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
        image = np.ascontiguousarray(blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]])
        image += rng.integers(0, 56, image.shape, dtype=np.uint8)
        label = rng.integers(0, 21, size, dtype=np.uint8)
        draws = transforms.sample_rng(1, position)
        scale = transforms.random_scale(draws, min_scale=0.5, max_scale=2.0, scale_step=0.0)
        plan = transforms.plan_crop(draws, size, crop_size=CROP, scale=scale, flip=True)
        colors = transforms.draw_colors(draws) if photometric else transforms.ColorPlan()
        yield image, label, plan, colors


def host_crop(image, label, plan, colors):
    out_image, out_label = np.empty((*CROP, 3), np.uint8), np.empty(CROP, np.uint8)
    transforms.crop_into(
        plan, image, label, out_image=out_image, out_label=out_label, pad_pixel=PAD_PIXEL, ignore_label=IGNORE
    )
    transforms.change_colors(colors, out_image[: plan.target[0], : plan.target[1]])
    return out_image, out_label


def window(image, label, plan, colors):
    """What the host ships for the same plan; the rest of the canvas is filled with what must not be read."""
    (top, left), (height, width) = plan.origin, plan.window
    canvas, ids = np.full((*CANVAS, 3), 255, np.uint8), np.full(CANVAS, 99, np.uint8)
    canvas[:height, :width] = image[top : top + height, left : left + width]
    ids[:height, :width] = label[top : top + height, left : left + width]
    geometry = np.array([*plan.window, *plan.target, plan.flip], np.int32)
    return (
        canvas,
        ids,
        geometry,
        np.array(
            [colors.brightness, colors.contrast, colors.saturation, colors.hue, colors.contrast_first], np.float32
        ),
    )


def both_sides(number, *, photometric):
    cases = list(draw_cases(number, photometric=photometric))
    want = [np.stack(arrays) for arrays in zip(*(host_crop(*case) for case in cases), strict=True)]
    shipped = [np.stack(arrays) for arrays in zip(*(window(*case) for case in cases), strict=True)]
    got = on_device(*shipped, colored=photometric)
    return [np.asarray(array) for array in got], want


def ties(cells, window_length, target):
    """Cells whose centre lies exactly between two pixels."""
    return (2 * np.arange(cells) + 1) * window_length % (2 * target) == 0


def test_geometry_is_the_hosts():
    (image, label), (want_image, want_label) = both_sides(64, photometric=False)
    for number, (_, _, plan, _) in enumerate(draw_cases(64, photometric=False)):
        rows, columns = (ties(*lengths) for lengths in zip(CROP, plan.window, plan.target, strict=True))
        exact = ~(rows[:, None] | columns[None, :])
        np.testing.assert_array_equal(label[number][exact], want_label[number][exact])
    assert (label != want_label).mean() < 0.03
    difference = np.abs(image.astype(int) - want_image)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.2


def test_colors_are_the_hosts():
    (image, _), (want_image, _) = both_sides(64, photometric=True)
    difference = np.abs(image.astype(int) - want_image)
    assert difference.mean() < 0.5
    # Near grey, one level more or less is another hue.
    assert (difference > 3).mean() < 0.01
    assert (difference > 8).mean() < 1e-3


@pytest.mark.parametrize(("window_length", "target"), [(65, 65), (64, 65), (129, 65), (33, 65), (1, 65), (130, 64)])
@pytest.mark.parametrize("flip", [False, True])
def test_every_ratio_reads_the_hosts_pixels(window_length, target, flip):
    case = (
        np.zeros((window_length, 49, 3), np.uint8),
        np.arange(window_length, dtype=np.uint8)[:, None].repeat(49, axis=1),
        transforms.CropPlan((0, 0), (window_length, 49), (target, 49), flip),
        transforms.ColorPlan(),
    )
    _, got = on_device(*(array[None] for array in window(*case)), colored=False)
    np.testing.assert_array_equal(got[0], host_crop(*case)[1])


@pytest.mark.parametrize(("dtype", "channels", "tolerance"), [("uint16", 5, 16), ("float32", 1, 0.5)])
def test_images_of_other_types_are_cropped_alike(dtype, channels, tolerance):
    """OpenCV rounds the weights to 1/2048 whatever the type; differences of 1000 to 40,000 are a few units then."""
    pixel = tuple(1000.0 + k for k in range(channels))
    values = {"uint16": 40_000, "float32": 1000}[dtype]
    crop = jax.jit(functools.partial(augment, crop_size=CROP, pad_pixel=pixel, ignore_label=IGNORE, colors=None))
    for position, (grey, label, plan, _) in enumerate(draw_cases(4, photometric=False)):
        rng = np.random.default_rng(position)
        image = (values * rng.random((*grey.shape[:2], channels))).astype(dtype)
        out_image, out_label = np.empty((*CROP, channels), dtype), np.empty(CROP, np.uint8)
        transforms.crop_into(
            plan, image, label, out_image=out_image, out_label=out_label, pad_pixel=pixel, ignore_label=IGNORE
        )
        (top, left), (height, width) = plan.origin, plan.window
        canvas, ids = np.zeros((*CANVAS, channels), dtype), np.zeros(CANVAS, np.uint8)
        canvas[:height, :width] = image[top : top + height, left : left + width]
        ids[:height, :width] = label[top : top + height, left : left + width]
        geometry = np.array([*plan.window, *plan.target, plan.flip], np.int32)
        made, _ = crop(canvas[None], ids[None], geometry[None])
        assert made.dtype == dtype
        np.testing.assert_allclose(np.asarray(made[0], np.float64), out_image.astype(np.float64), atol=tolerance)
