"""Sizes are read from headers as decoders read them, before any of them is let near the pixels."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from deeplab_jax.data.sources.file_formats import JPEG, PNG, find_format
from deeplab_jax.data.sources.image_sizes import SizeLimit, TooLargeError, announced_size
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.mask_files import read_stored
from deeplab_jax.data.sources.tiff_files import read_tiff
from deeplab_jax.types import UserError

VARIANTS = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive": ("JPEG", "L", {"progressive": True}),
    "with comment": ("JPEG", "RGB", {"comment": b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01", "dpi": (300, 300)}),
    "png": ("PNG", "P", {}),
    "webp": ("WEBP", "RGB", {}),
    "webp lossless": ("WEBP", "RGB", {"lossless": True}),
    "webp alpha": ("WEBP", "RGBA", {}),
    "webp exif": ("WEBP", "RGB", {"exif": b"Exif\x00\x00" + bytes(20)}),
    "jp2": ("JPEG2000", "RGB", {}),
    "j2k": ("JPEG2000", "L", {"no_jp2": True}),
}


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (300, 257)])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_header_tells_what_is_decoded(rng, name, size):
    kind, mode, options = VARIANTS[name]
    picture = Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA").convert(mode)
    data = encode(picture, kind, **options)
    assert announced_size(data, find_format(data), name) == size
    assert decode_image(data, name).shape[:2] == size


@pytest.mark.parametrize("keep", [3, 10, 20, 25])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_header_that_is_cut_off_is_one_line(name, keep):
    kind, mode, options = VARIANTS[name]
    data = encode(Image.new(mode, (9, 8)), kind, **options)[:keep]
    with pytest.raises(UserError, match=r"^a\.x: ") as caught:
        decode_image(data, "a.x")
    assert "\n" not in str(caught.value)


def frame_header(height: int, width: int) -> bytes:
    return b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"


def test_of_several_frame_headers_the_first_counts_as_for_libjpeg():
    data = encode(Image.new("L", (9, 8)), "JPEG")
    at = data.index(b"\xff\xdb")
    assert announced_size(data[:at] + frame_header(60_000, 60_000) + data[at:], JPEG, "a") == (60_000, 60_000)
    with pytest.raises(TooLargeError):
        decode_image(data[:at] + frame_header(60_000, 60_000) + data[at:], "a")
    with pytest.raises(UserError, match=r"its header tells two sizes, \(4, 4\) and \(8, 9\)"):
        decode_image(data[:at] + frame_header(4, 4) + data[at:], "a")


def test_bytes_between_markers_are_skipped_as_by_libjpeg():
    data = encode(Image.new("L", (9, 8)), "JPEG")
    at = data.index(b"\xff\xdb")
    assert announced_size(data[:at] + b"\xff\xff" + data[at:], JPEG, "a") == (8, 9)
    assert announced_size(data[:2] + b"garbage" + data[2:], JPEG, "a") == (8, 9)


def test_a_png_without_its_header_first_has_no_size():
    data = encode(Image.new("L", (9, 8)), "PNG")
    text = struct.pack(">I", 3) + b"tEXta\x00b" + bytes(4)
    with pytest.raises(UserError, match="its header tells no size"):
        announced_size(data[:8] + text + data[8:], PNG, "a")


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """A little-endian TIFF in which a tag's value is another."""
    place = data.index(struct.pack("<H", code), 8)
    return data[: place + 2] + struct.pack("<HII", 4, 1, value) + data[place + 12 :]


@pytest.mark.parametrize("codes", [(256, 257), (322, 323)], ids=["image", "tiles"])
def test_tiffs_of_large_images_or_tiles_are_refused_undecoded(monkeypatch, codes):
    data = tiff(np.zeros((32, 32), np.uint8), tile=(16, 16), compression="deflate")
    for code in codes:
        data = with_tag(data, code, 100_000)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", None)
    with pytest.raises(TooLargeError):
        read_tiff(data, "a.tif")


def test_a_tiff_with_a_larger_jpeg_inside_is_refused(monkeypatch):
    small, large = (tiff(np.zeros((n, n), np.uint8), compression="jpeg") for n in (16, 4096))
    with tifffile.TiffFile(io.BytesIO(large)) as file:
        page = file.pages.first
        inside = large[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
    data = with_tag(with_tag(small, 273, len(small)), 279, len(inside)) + inside
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", None)
    with pytest.raises(UserError, match="a part of it is larger than its header tells"):
        read_tiff(data, "a.tif")


def test_a_shape_that_only_a_description_tells_is_not_believed():
    data = tiff(np.zeros((4, 4), np.uint8), description='{"shape": [100000, 100000]}', software="tifffile.py")
    assert read_tiff(data, "a.tif").values.shape == (4, 4, 1)


def test_limits_are_inclusive():
    values = np.zeros((4, 6), np.uint8)
    assert read_tiff(tiff(values), "a.tif", limit=SizeLimit(24, 6)).values.shape == (4, 6, 1)
    for limit in (SizeLimit(23), SizeLimit(24, 5)):
        with pytest.raises(TooLargeError):
            read_tiff(tiff(values), "a.tif", limit=limit)


def test_more_bytes_than_an_image_has_are_refused_undecoded(monkeypatch):
    flat = tiff(np.zeros((8, 8, 3), np.uint8), compression="deflate", photometric="rgb")
    for code, value in ((256, 9000), (257, 9000), (277, 100)):  # width, height, samples of a pixel
        flat = with_tag(flat, code, value)
    deep = tiff(np.zeros((16, 16, 16), np.uint8), tile=(16, 16, 16), volumetric=True, compression="deflate")
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", None)
    for data in (flat, with_tag(deep, 32998, 50_000_000)):  # a tile's depth
        with pytest.raises(UserError, match=r"a.tif: announces \d+\.\d GiB of values"):
            read_tiff(data, "a.tif")


def test_tiles_that_pillow_would_decode_are_checked():
    data = tiff(np.zeros((32, 32), np.uint8), tile=(16, 16), compression="deflate")
    for code in (322, 323):
        data = with_tag(data, code, 100_000)
    with pytest.raises(TooLargeError):
        decode_image(data, "a.tif")


def test_a_chain_of_pages_has_an_end():
    page = struct.pack("<H", 0) + bytes(4)
    links = [struct.pack("<HI", 0, 8 + 6 * (k + 1)) for k in range(6000)]
    data = b"II*\x00" + struct.pack("<I", 8) + b"".join(links) + page
    with pytest.raises(UserError, match=r"^a\.tif: "):
        read_stored(data, "a.tif")


def test_a_netpbm_text_with_one_long_number_is_refused():
    """As an array of texts it would take the longest number's length for each number: here 2 GB."""
    with pytest.raises(UserError, match="a value of too many digits"):
        read_stored(b"P2 100 200 255 " + b"1" * 100_000 + b" 1" * 20_000, "a.pgm")


@pytest.mark.parametrize(
    ("at", "value"),
    [(40, struct.pack(">H", 16_384)), (24, struct.pack(">II", 1, 1))],
    ids=["channels", "tiles"],
)
def test_a_jpeg_2000_of_too_many_parts_is_refused_undecoded(at, value):
    data = bytearray(encode(Image.new("RGB", (900, 900)), "JPEG2000", no_jp2=True))
    data[at : at + len(value)] = value
    with pytest.raises(UserError, match="its header tells no size"):
        decode_image(bytes(data), "a.j2k")


def test_a_jpeg_2000_of_tiny_precincts_is_refused_undecoded():
    picture = Image.new("L", (3000, 3000))
    usual = encode(picture, "JPEG2000", no_jp2=True, precinct_size=(128, 128), codeblock_size=(64, 64))
    assert decode_image(usual, "a.j2k").shape == (3000, 3000, 3)
    place = usual.index(b"\xff\x52")
    length = int.from_bytes(usual[place + 2 : place + 4], "big")
    tiny = usual[: place + 14] + bytes(length - 12) + usual[place + 2 + length :]
    with pytest.raises(UserError, match="its header tells no size"):
        decode_image(tiny, "a.j2k")
