"""Decoding: every kind of file gives the pixels that Pillow gives, or one clear line."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from deeplab_jax.data.sources import images
from deeplab_jax.data.sources.images import decode_image, decode_mask, encode_mask
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


def test_orientation_is_applied_only_where_the_mask_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(photo(37, 50)), "PNG", exif=exif.tobytes())
    assert decode_image(data, "a", mask_size=(50, 37)).shape == (50, 37, 3)
    np.testing.assert_array_equal(decode_image(data, "a", mask_size=(37, 50)), photo(37, 50))


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


def test_bound_is_on_the_number_of_pixels(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 37 * 50)
    decode_image(encode(Image.fromarray(photo(37, 50)), "PNG"), "a.png")
    with pytest.raises(UserError, match="pixels"):
        decode_image(encode(Image.fromarray(photo(37, 51)), "PNG"), "a.png")


def ids_up_to(largest: int) -> np.ndarray:
    return (np.arange(8 * 9).reshape(8, 9) % (largest + 1)).astype(np.uint8)


def test_palette_mask_gives_indices_not_colors():
    picture = Image.frombytes("P", (9, 8), ids_up_to(20).tobytes())
    picture.putpalette([level for index in range(256) for level in (255 - index, index // 2, 7)])
    data = encode(picture, "PNG")
    assert Image.open(io.BytesIO(data)).mode == "P"
    np.testing.assert_array_equal(decode_mask(data, "m.png"), ids_up_to(20))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_masks_of_any_depth_give_the_stored_numbers(bits):
    ids = ids_up_to(min(2**bits - 1, 200))
    raw = ids.astype(">u2" if bits == 16 else np.uint8)
    if bits < 8:
        weights = 2 ** np.arange(bits - 1, -1, -1)
        stream = ((ids[..., None] & weights) > 0).reshape(len(ids), -1)
        rows = [np.packbits(row).tobytes() for row in stream]
    else:
        rows = [row.tobytes() for row in raw]
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )
    np.testing.assert_array_equal(decode_mask(data, "m.png"), ids)


def test_16_bit_mask_beyond_bytes_is_refused():
    data = cv2.imencode(".png", np.full((4, 4), 300, np.uint16))[1].tobytes()
    with pytest.raises(UserError, match="value 300, but class ids end at 255"):
        decode_mask(data, "m.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_of_colors_is_refused_with_the_way_out(mode):
    data = encode(Image.fromarray(photo()).convert(mode), "PNG")
    with pytest.raises(UserError, match=rf"^m\.png: holds {mode} colours where class ids are expected; .*fromarray"):
        decode_mask(data, "m.png")


def test_lossy_mask_is_refused():
    data = encode(Image.fromarray(ids_up_to(3)), "JPEG")
    with pytest.raises(UserError, match=r"^m\.png: is a JPEG file, which does not keep class ids exact"):
        decode_mask(data, "m.png")


def test_encoded_masks_survive_and_take_the_fast_path(monkeypatch):
    data = encode_mask(ids_up_to(255))
    monkeypatch.setattr(images, "open_picture", None)  # Pillow's way would fail
    np.testing.assert_array_equal(decode_mask(data, "m.png"), ids_up_to(255))
