"""Decoding: every kind of file gives the pixels that Pillow gives, or one clear line."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from deeplab_jax.data.sources.image_sizes import SizeLimit, TooLargeError
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.types import UserError


def photo(height: int = 37, width: int = 50) -> np.ndarray:
    """Smooth, so that JPEG keeps it, and without any symmetry."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def through_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_modes(mode):
    data = encode(Image.fromarray(photo()).convert(mode), "JPEG")
    np.testing.assert_array_equal(decode_image(data, "a.jpg"), through_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_modes(mode):
    data = encode(Image.fromarray(photo()).convert(mode), "PNG")
    np.testing.assert_array_equal(decode_image(data, "a.png"), through_pillow(data))


def test_palette_with_transparent_entries_keeps_its_colors():
    picture = Image.fromarray(photo()).convert("P")
    opaque = encode(picture, "PNG")
    transparent = encode(picture, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode_image(transparent, "a.png"), through_pillow(opaque))


def test_png_content_behind_a_jpg_name():
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(photo()), "PNG"), "a.jpg"), photo())


def test_16_bits_keep_the_high_byte(rng):
    deep = rng.integers(0, 2**16, (9, 7, 3), dtype=np.uint16)
    color = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    grey = cv2.imencode(".png", deep[..., 0])[1].tobytes()
    np.testing.assert_array_equal(decode_image(color, "a.png"), deep >> 8)
    np.testing.assert_array_equal(decode_image(grey, "a.png"), np.repeat(deep[..., :1] >> 8, 3, axis=2))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(photo()), kind, exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decode_image(data, "a"), np.asarray(expected))


def test_damaged_exif_is_no_reason_to_refuse():
    data = encode(Image.fromarray(photo()), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_image(data, "a.png"), photo())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_files_are_refused(kind):
    data = encode(Image.fromarray(photo(200, 200)), kind)
    with pytest.raises(UserError, match=r"^a\.x: is truncated or damaged .* copy the file anew$"):
        decode_image(data[: len(data) // 2], "a.x")


@pytest.mark.parametrize("decode", [decode_image, decode_mask])
@pytest.mark.parametrize(("data", "problem"), [(b"", "is empty"), (b"no image at all", "is no readable image")])
def test_no_image(decode, data, problem):
    with pytest.raises(UserError, match=rf"^some/where\.png: {problem}") as caught:
        decode(data, "some/where.png")
    assert "\n" not in str(caught.value)


def test_float_pixels_are_refused(rng):
    data = encode(Image.fromarray(rng.random((5, 5), dtype=np.float32)), "TIFF")
    with pytest.raises(UserError, match="pixels of mode 'F' do not fit 8-bit RGB; save it as"):
        decode_image(data, "a.tif")


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("width", [10_000, 15_000, 2**30])
def test_decompression_bombs_are_refused_before_decoding(width):
    with pytest.raises(UserError, match="more than 89,478,485 pixels; cut it into tiles"):
        decode_image(png_header(width, 10_000), "a.png")


def test_bound_is_on_the_number_of_pixels_and_on_the_longer_side():
    data = encode(Image.fromarray(photo(37, 50)), "PNG")
    decode_image(data, "a.png", limit=SizeLimit(37 * 50, 50))
    for limit in (SizeLimit(37 * 50 - 1), SizeLimit(37 * 50, 49)):
        with pytest.raises(TooLargeError) as caught:
            decode_image(data, "a.png", limit=limit)
        assert caught.value.size == (37, 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_every_format_is_checked_by_its_header(kind):
    picture = Image.fromarray(photo(37, 50))
    data = encode(picture, kind)
    assert decode_image(data, "a").shape == (37, 50, 3)
    with pytest.raises(TooLargeError):
        decode_image(data, "a", limit=SizeLimit(1000))


@pytest.mark.parametrize("tail", [b"\n", b"SEFT" + bytes(200), b"MotionPhoto_Data\x00ftypmp42"])
def test_what_follows_the_end_of_a_jpeg_is_no_part_of_it(tail):
    data = encode(Image.fromarray(photo()), "JPEG")
    np.testing.assert_array_equal(decode_image(data + tail, "a.jpg"), decode_image(data, "a.jpg"))


def test_a_jpeg_without_its_end_is_refused():
    data = encode(Image.fromarray(photo()), "JPEG")
    with pytest.raises(UserError, match=r"^a\.jpg: is truncated or damaged"):
        decode_image(data[:-2], "a.jpg")


def test_postscript_starts_nothing(monkeypatch):
    """Pillow would hand it to Ghostscript, whatever the file is called."""
    monkeypatch.setattr("subprocess.Popen", None)
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for decode in (decode_image, decode_mask):
        with pytest.raises(UserError, match=r"^photo\.png: is no readable image \(unknown format\)"):
            decode(text, "photo.png")


@pytest.mark.parametrize("kind", ["FITS", "ICO", "PCX", "SGI", "TGA", "PSD"])
def test_formats_that_are_not_named_are_never_opened(kind):
    starts = {"FITS": b"SIMPLE  =", "PSD": b"8BPS\x00\x01"}
    data = starts[kind] + bytes(200) if kind in starts else encode(Image.fromarray(photo()), kind)
    with pytest.raises(UserError, match="unknown format"):
        decode_image(data, "a.png")


def test_a_tiff_for_one_parser_that_is_another_picture_for_the_next():
    """A small TIFF that Pillow, where it may try every format, opens as an IM file of 250x600 pixels."""
    place = 600
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    text = b": x\r\nImage type: RGB image\r\nImage size (x*y): 600*250\r\nFile size (no of images): 1\r\n\x1a"
    head = (b"II*\x00" + struct.pack("<I", place) + text).ljust(place, b"\0")
    data = head + struct.pack("<H", len(tags)) + entries + bytes(4 + 3 * 600 * 250)
    assert decode_image(data, "a.tif", limit=SizeLimit(64)).shape == (8, 8, 3)


def test_a_jpeg_2000_that_tells_two_sizes_is_refused():
    data = encode(Image.fromarray(photo(64, 64)), "JPEG2000")
    start = data.index(b"ihdr") + 4
    small = data[:start] + (8).to_bytes(4, "big") * 2 + data[start + 8 :]
    with pytest.raises(UserError, match=r"its header tells two sizes, \(64, 64\) and \(8, 8\)"):
        decode_image(small, "a.jp2")


def test_a_heic_file_names_the_package_that_reads_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    data = (24).to_bytes(4, "big") + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
    with pytest.raises(UserError, match=r"^a\.heic: is a HEIC file, which needs a package: pip install pillow-heif"):
        decode_image(data, "a.heic")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_none_is_taken_in_silence(kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"^a\.x: has 3 frames, of which one is the image; save that alone as PNG"):
        decode_image(file.getvalue(), "a.x")


@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_a_second_frame_that_is_cut_off_is_one_line(decode):
    stream = io.BytesIO()
    Image.new("L", (9, 9)).save(stream, "GIF")
    with pytest.raises(UserError, match=r"^a\.gif: is truncated or damaged"):
        decode(stream.getvalue()[:-1] + b",", "a.gif")


def test_what_a_camera_puts_behind_a_jpeg_is_passed_over():
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 3))])
    assert decode_image(file.getvalue(), "a.jpg").shape == (6, 8, 3)
