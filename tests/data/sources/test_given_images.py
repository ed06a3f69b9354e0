"""Images as callers give them: the same pixels from a path, a picture and an array, and a remedy for all else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data.sources.given_images import check_batch, read_image
from deeplab_jax.types import DatasetInfo, UserError

RGB = DatasetInfo("toy", 2, 255, ("a", "b"), ((0, 0, 0), (1, 1, 1)), {})
BANDS = DatasetInfo("bands", 2, 255, ("a", "b"), ((0, 0, 0), (1, 1, 1)), {}, 5, "uint16")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_a_path_a_picture_and_an_array_are_the_same(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    for given in (path, str(path), Image.open(path), Image.fromarray(PIXELS), PIXELS):
        np.testing.assert_array_equal(read_image(given, RGB), PIXELS)


def test_files_and_pictures_are_converted_and_turned(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(PIXELS[..., 0]).save(path)
    grey = np.repeat(PIXELS[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_image(path, RGB), grey)
    np.testing.assert_array_equal(read_image(Image.fromarray(PIXELS[..., 0]), RGB), grey)
    rgba = np.dstack([PIXELS, np.full((6, 8), 7, np.uint8)])
    np.testing.assert_array_equal(read_image(Image.fromarray(rgba), RGB), PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        np.testing.assert_array_equal(read_image(given, RGB), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("image", "came", "remedy"),
    [
        (PIXELS[..., 0], r"uint8 \[6, 8\]", r"grey: pass np\.repeat\(image\[\.\.\., None\], 3, axis=-1\)"),
        (PIXELS[..., :1], r"uint8 \[6, 8, 1\]", r"grey: pass np\.repeat\(image, 3, axis=-1\)"),
        (np.zeros((6, 8, 4), np.uint8), r"\[6, 8, 4\]", r"alpha channel \(RGBA\): pass image\[\.\.\., :3\]"),
        (PIXELS.transpose(2, 0, 1), r"\[3, 6, 8\]", r"channels come first: pass image\.transpose\(1, 2, 0\)"),
        (PIXELS / 255, r"float64 \[6, 8, 3\] with values in \[0, 0\.97", r"np\.clip\(\(image \* 255\)\.round"),
        (PIXELS * 1.0, "float64", r"np\.clip\(\(image\)\.round\(\), 0, 255\)"),
        (PIXELS / 127.5 - 1, "float64", "normalised already, which the network does itself"),
        (PIXELS.astype(np.int64), "int64", r"pass image\.astype\(np\.uint8\)"),
        (PIXELS.astype(np.uint16) * 257, "uint16", r"16 bits: pass \(image >> 8\)"),
        (PIXELS[None], r"\[1, 6, 8, 3\]", r"pass images\[0\], or a list"),
        (PIXELS[:0], r"\[0, 8, 3\]", "no pixels"),
        (np.zeros((6, 8, 5), np.uint8), r"\[6, 8, 5\]", "it has 5 channels, the network takes 3 channels of uint8"),
        (np.zeros(3, np.uint8), r"\[3\]", "it has 1 axes, not 3"),
        (np.array("photo.jpg"), "<U9", "array of numbers"),
    ],
)
def test_other_arrays_are_answered_with_what_was_expected_what_came_and_the_remedy(image, came, remedy):
    with pytest.raises(ValueError, match=rf"^expected RGB bytes, .*\[height, width, 3\] of uint8; got .*{remedy}") as e:
        read_image(image, RGB)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match=came):
        read_image(image, RGB)


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (PIXELS, r"one image: pass image\[None\]"),
        (PIXELS[None].transpose(0, 3, 1, 2), r"channels come first: pass image\.transpose\(0, 2, 3, 1\)"),
        (PIXELS[None] / 255, r"\* 255"),
        (np.zeros((2, 6, 8), np.uint8), "grey"),
    ],
)
def test_other_batches_are_answered_too(images, remedy):
    with pytest.raises(ValueError, match=rf"expected RGB bytes, a batch of images \[batch, .*{remedy}"):
        check_batch(images, RGB)
    assert check_batch(PIXELS[None], RGB).shape == (1, 6, 8, 3)


def test_other_images_than_rgb_must_be_as_the_data_set_has_them():
    assert read_image(np.zeros((4, 5, 5), np.uint16), BANDS).shape == (4, 5, 5)
    with pytest.raises(
        ValueError, match=r"expected an image \[height, width, 5\] of uint16; got uint8 \[6, 8, 3\]: .* 3"
    ):
        read_image(Image.fromarray(PIXELS), BANDS)


def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: No such file"):
        read_image(tmp_path / "none.png", RGB)
