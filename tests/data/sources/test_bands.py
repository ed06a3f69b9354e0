"""Images that are no RGB bytes: read as they are stored, agreed upon, cropped and batched in their own type."""

from __future__ import annotations

import dataclasses
import io
import json

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from made_bands import NAMES, make_bands, make_bright_bands, write_bands, write_bands_image
from made_sources import INFO
from PIL import Image

from deeplab_jax.canvas import Canvas, fill_missing
from deeplab_jax.config import DataConfig
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.loading.loader import eval_batches, make_loader
from deeplab_jax.data.sources.bands import FormatError, decode_pixels, stored_format
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.types import UserError


def info_of(channels, dtype):
    return dataclasses.replace(INFO, channels=channels, dtype=dtype)


def tiff(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, **({"photometric": "minisblack"} | options))
    return file.getvalue()


def open_bands(root):
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "packbits"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_is_read_as_it_is(compression, dtype):
    image = make_bands(0, 5, dtype)
    data = tiff(image, compression=compression, planarconfig="contig", predictor=compression == "lzw")
    np.testing.assert_array_equal(decode_pixels(data, "a.tif", info_of(5, dtype)), image)
    assert stored_format(data) == (5, dtype)


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"bigtiff": True, "byteorder": ">"}])
def test_planes_pages_and_byte_orders_are_put_in_order(options):
    image = make_bands(0, 5, "uint16")
    data = tiff(image.transpose(2, 0, 1), **options)
    decoded = decode_pixels(data, "a.tif", info_of(5, "uint16"))
    np.testing.assert_array_equal(decoded, image)
    assert decoded.dtype.isnative
    assert decoded.flags.c_contiguous


def test_types_without_sign_of_their_own_become_floats_and_declared_gaps_nan():
    image = make_bands(0, 2, "uint16").astype(np.int16) - 150
    decoded = decode_pixels(tiff(image, planarconfig="contig"), "a.tif", info_of(2, "float32"))
    np.testing.assert_array_equal(decoded, image)
    heights = np.array([[1.5, -9999.0], [np.inf, 4.0]], np.float64)
    data = tiff(heights, extratags=[(42113, "s", 0, "-9999", True)])
    decoded = decode_pixels(data, "a.tif", info_of(1, "float32"))
    np.testing.assert_array_equal(decoded[..., 0], [[1.5, np.nan], [np.inf, 4.0]])
    fill_missing(decoded, (7.0,))
    np.testing.assert_array_equal(decoded[..., 0], [[1.5, 7.0], [7.0, 4.0]])


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint16"), (4, "uint8")])
def test_png_is_read_as_it_is(channels, dtype):
    image = make_bands(0, channels, dtype)
    data = cv2.imencode(".png", image[..., [2, 1, 0, 3][:channels]] if channels > 1 else image)[1].tobytes()
    np.testing.assert_array_equal(decode_pixels(data, "a.png", info_of(channels, dtype)), image)
    assert stored_format(data) == (channels, dtype)


def test_other_images_are_named_with_what_they_hold():
    five = tiff(make_bands(0, 5, "uint16"), planarconfig="contig")
    with pytest.raises(FormatError) as caught:
        decode_pixels(five, "a.tif", info_of(4, "uint16"))
    assert str(caught.value) == (
        "a.tif: holds 5 channels of uint16, but the data set is of 4 channels of uint16; make all images agree, or "
        "correct classes.json"
    )
    with pytest.raises(FormatError, match="holds 5 channels of uint16, but the data set is of 5 channels of float32"):
        decode_pixels(five, "a.tif", info_of(5, "float32"))
    with pytest.raises(
        FormatError, match=r'not 8-bit RGB; .* write "channels": 5, "dtype": "uint16" into classes.json'
    ):
        decode_pixels(five, "a.tif", INFO)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("form", ["tif", "png"])
def test_damaged_files_say_so_in_one_line(form, keep):
    image = make_bands(0, 3, "uint16")
    data = tiff(image, planarconfig="contig") if form == "tif" else cv2.imencode(".png", image)[1].tobytes()
    with pytest.raises(UserError, match=r"^a\.x: ") as caught:
        decode_pixels(data[: int(len(data) * keep)], "a.x", info_of(3, "uint16"))
    assert "\n" not in str(caught.value)


def test_a_damaged_deep_png_is_damaged_for_rgb_too():
    data = cv2.imencode(".png", make_bands(0, 3, "uint16"))[1].tobytes()
    with pytest.raises(UserError, match=r"^a\.png: is truncated or damaged"):
        decode_pixels(data[: len(data) // 2], "a.png", INFO)


@pytest.mark.parametrize(
    ("content", "problem"),
    [({"channels": 0}, "channels=0"), ({"channels": "5"}, "channels='5'"), ({"dtype": "int16"}, "dtype='int16'")],
)
def test_what_cannot_be_announced_is_refused(tmp_path, content, problem):
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": ["a"]} | content))
    with pytest.raises(UserError, match=rf"classes\.json: has {problem}; must be"):
        folder.read_format(tmp_path)


def test_the_odd_file_is_named(tmp_path):
    root = write_bands(tmp_path / "root")
    write_bands_image(root / "images" / "b.tif", make_bands(1, 4, "uint16"))
    with pytest.raises(UserError, match=r"b\.tif: holds 4 channels of uint16, but the data set is of 5"):
        open_bands(root).open_split("train")


@pytest.mark.parametrize(("channels", "dtype"), [(5, "uint16"), (2, "float32"), (1, "uint16"), (13, "uint8")])
def test_both_prepared_forms_give_the_same_batches(tmp_path, channels, dtype):
    dataset = open_bands(write_bands(tmp_path / "root", channels, dtype))
    assert (dataset.info.channels, dataset.info.dtype) == (channels, dtype)
    pixel = tuple(7.0 + k for k in range(channels))
    config = DataConfig(batch_size=6, crop_size=(17, 65), min_scale=0.5, max_scale=2.0, num_workers=2, copy_paste=0.5)
    config.copy_paste_classes = (1,)
    made = []
    for each in (dataset, with_raw_copies(dataset)):
        source = each.open_split("train")
        np.testing.assert_array_equal(source[1].image[5:], make_bright_bands(1, channels, dtype)[5:])
        with make_loader(config, source, dataset.info, seed=0, pad_pixel=pixel) as loader:
            made.append(next(loader))
        ((batch, names),) = eval_batches(
            each.open_split("val"),
            dataset.info,
            batch_size=1,
            canvas=Canvas((40, 40), 1),
            pad_pixel=pixel,
            num_workers=1,
        )
        assert names == NAMES[-1:]
        np.testing.assert_array_equal(batch.image[0, 30:], np.broadcast_to(pixel, (10, 40, channels)))
        assert np.isfinite(batch.image).all()
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)
    image = made[0].image
    assert (image.shape, image.dtype) == ((6, 17, 65, channels), dtype)
    assert np.isfinite(image).all()
    outside = made[0].label == 255
    assert outside.any()
    np.testing.assert_array_equal(image[outside], np.broadcast_to(np.float32(pixel), image[outside].shape))


@pytest.mark.parametrize(("channels", "dtype"), [(3, "uint8"), (5, "uint16"), (2, "float32")])
def test_arrays_are_images_too(channels, dtype):
    image, file = make_bands(0, channels, dtype), io.BytesIO()
    np.save(file, image)
    np.testing.assert_array_equal(decode_pixels(file.getvalue(), "a.npy", info_of(channels, dtype)), image)
    with pytest.raises(FormatError, match=f"holds {channels} channels of {dtype}"):
        decode_pixels(file.getvalue(), "a.npy", info_of(4, "uint8"))


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint16")])
def test_jpeg_2000_keeps_its_depth(channels, dtype):
    image = make_bands(0, channels, dtype)
    data = imagecodecs.jpeg2k_encode(image if channels > 1 else image[..., 0], level=0, reversible=True)
    np.testing.assert_array_equal(decode_pixels(data, "a.jp2", info_of(channels, dtype)), image)


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"bigtiff": True}, {"compression": "zstd"}], ids=str)
def test_rgb_of_every_layout_of_tiff(options):
    image = make_bands(0, 3, "uint8")
    stored = image.transpose(2, 0, 1) if "planarconfig" in options else image
    data = tiff(stored, photometric="rgb", **options)
    np.testing.assert_array_equal(decode_pixels(data, "a.tif", INFO), image)


def test_rgb_files_are_read_as_ever(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decode_pixels((tmp_path / "a.tif").read_bytes(), "a", INFO), pixels)
