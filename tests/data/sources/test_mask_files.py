"""Masks: the stored values exactly, whatever the format, the type and the layout; or one line."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from deeplab_jax.data.sources import mask_files
from deeplab_jax.data.sources.image_sizes import TooLargeError
from deeplab_jax.data.sources.mask_files import ColorMaskError, LossyMaskError, decode_mask, encode_mask, read_stored
from deeplab_jax.types import UserError

IDS = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 19, 200]])
INTEGERS = ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **({"photometric": "minisblack"} | options))
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


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


def test_values_beyond_a_byte_stay_what_they_are():
    data = cv2.imencode(".png", np.full((4, 4), 846, np.uint16))[1].tobytes()
    ids = decode_mask(data, "m.png")
    assert ids.dtype == np.uint16
    np.testing.assert_array_equal(ids, 846)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_mask_of_colors_is_refused_with_the_way_out(mode):
    data = encode(Image.fromarray(np.dstack([IDS, IDS, IDS[::-1]]).astype(np.uint8)).convert(mode), "PNG")
    with pytest.raises(UserError, match=rf"^m\.png: holds {mode} colours where class ids are expected; .*fromarray"):
        decode_mask(data, "m.png")


def test_lossy_mask_is_refused():
    data = encode(Image.fromarray(ids_up_to(3)), "JPEG")
    with pytest.raises(UserError, match=r"^m\.png: is a JPEG file, which does not keep class ids exact"):
        decode_mask(data, "m.png")


def test_encoded_masks_survive_and_take_the_fast_path(monkeypatch):
    data = encode_mask(ids_up_to(255))
    monkeypatch.setattr(mask_files, "open_picture", None)  # Pillow's way would fail
    np.testing.assert_array_equal(decode_mask(data, "m.png"), ids_up_to(255))


@pytest.mark.parametrize("dtype", [*INTEGERS, "float16", "float32", "float64"])
@pytest.mark.parametrize("write", [tiff, npy])
def test_ids_of_every_type_are_read_exactly(write, dtype):
    ids = decode_mask(write(IDS.astype(dtype)), "m")
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize("write", [tiff, npy])
def test_values_that_are_no_ids_stay_as_they_are(write):
    for values, dtype in (
        (np.array([[-1, 0], [1, 127]], np.int8), np.int32),
        (np.array([[-(2**40), 0], [1, 2**40]], np.int64), np.int64),
        (np.array([[0, 70_000]], np.float64), np.int32),
    ):
        ids = decode_mask(write(values), "m")
        assert ids.dtype == dtype
        np.testing.assert_array_equal(ids, values)


def test_a_value_that_is_not_whole_is_named():
    values = np.zeros((4, 5), np.float32)
    values[2, 3] = 0.98
    with pytest.raises(UserError, match=r"^m\.tif: holds the value 0\.98 \(row 2, column 3\), which is no class id"):
        decode_mask(tiff(values), "m.tif")
    np.testing.assert_array_equal(read_stored(tiff(values), "m.tif").values[..., 0], values)
    with pytest.raises(UserError, match=r"holds the value 1\.8e\+19, which is no class id"):
        decode_mask(tiff(np.full((2, 2), 18 * 10**18, np.uint64)), "m.tif")


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "bigtiff": True, "compression": "zstd"},
        {"compression": "lzw", "predictor": True},
        {"compression": "deflate"},
        {"compression": "packbits"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_layouts_of_tiff(options, dtype):
    np.testing.assert_array_equal(decode_mask(tiff(IDS.astype(dtype), **options), "m.tif"), IDS)


def test_missing_values_are_what_the_caller_says():
    gaps = np.array([[0, 1], [-9999, 2]], np.float32)
    declared = tiff(gaps, extratags=[(42113, "s", 0, "-9999", True)])
    nan = tiff(np.where(gaps < 0, np.nan, gaps))
    for data in (declared, nan):
        np.testing.assert_array_equal(decode_mask(data, "m.tif", missing=255), [[0, 1], [255, 2]])
        np.testing.assert_array_equal(read_stored(data, "m.tif").missing, gaps < 0)
        with pytest.raises(UserError, match=r"^m\.tif: has 1 pixels without a value"):
            decode_mask(data, "m.tif")
    np.testing.assert_array_equal(decode_mask(tiff(gaps), "m.tif"), gaps)  # declared by nothing: a value


@pytest.mark.parametrize("writer", ["GIMP", "tifffile.py", "ImageJ"])
def test_zero_is_white_unless_the_writer_stores_its_own_values(writer):
    """Programs that show pictures write what is seen; tifffile and ImageJ write an array, whatever they call white."""
    bits = tiff(IDS > 0, photometric="miniswhite", software=writer, metadata=None)
    grey = tiff(IDS.astype(np.uint8), photometric="miniswhite", software=writer, metadata=None)
    if writer == "GIMP":
        np.testing.assert_array_equal(decode_mask(bits, "m.tif"), IDS == 0)
        np.testing.assert_array_equal(decode_mask(grey, "m.tif"), 255 - IDS)
    else:
        np.testing.assert_array_equal(decode_mask(bits, "m.tif"), IDS > 0)
        np.testing.assert_array_equal(decode_mask(grey, "m.tif"), IDS)


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw"])
def test_bits_that_pillow_writes(compression):
    data = encode(Image.fromarray(IDS > 0), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_mask(data, "m.tif"), IDS > 0)


def test_pages_are_refused_or_chosen():
    data = tiff(np.stack([IDS, IDS + 1]).astype(np.uint8))
    with pytest.raises(UserError, match=r'^m\.tif: has 2 pages, of which one is the mask; .* "mask_page": 1'):
        decode_mask(data, "m.tif")
    for page in (1, 2):
        np.testing.assert_array_equal(read_stored(data, "m.tif", page=page).values[..., 0], IDS + page - 1)
    with pytest.raises(UserError, match="has no page 3, but 2"):
        read_stored(data, "m.tif", page=3)


def test_a_smaller_copy_is_no_page_of_its_own():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(IDS.astype(np.uint8), photometric="minisblack", metadata=None)
        writer.write(IDS[::2, ::2].astype(np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(decode_mask(file.getvalue(), "m.tif"), IDS)


def test_bands_of_tiff_and_palettes_are_kept_apart():
    bands = np.dstack([IDS, IDS * 0, IDS * 0 + 1]).astype(np.uint8)
    for options in ({"planarconfig": "contig"}, {"photometric": "rgb"}):
        data = tiff(bands, **options)
        np.testing.assert_array_equal(read_stored(data, "m.tif").values, bands)
        with pytest.raises(ColorMaskError, match="holds 3 channels where class ids are expected"):
            decode_mask(data, "m.tif")
    picture = Image.frombytes("P", (4, 3), IDS.astype(np.uint8).tobytes())
    picture.putpalette([level for index in range(256) for level in (255 - index, index // 2, 7)])
    for kind in ("TIFF", "PNG", "GIF", "BMP"):
        stored = read_stored(encode(picture, kind), "m")
        assert stored.bands == "P"
        np.testing.assert_array_equal(stored.palette[stored.values[..., 0]], np.asarray(picture.convert("RGB")))


def test_a_gif_of_grey_levels_gives_the_levels():
    """They are numbered in the order in which they appear."""
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(IDS.astype(np.uint8)), "GIF"), "m.gif"), IDS)


@pytest.mark.parametrize("highest", [3, 200, 255, 1000])
@pytest.mark.parametrize("kind", [b"P2", b"P5"])
def test_grey_maps_are_not_stretched(kind, highest):
    ids = np.minimum(IDS, highest)
    dtype = np.uint8 if highest < 256 else ">u2"
    body = ids.astype(dtype).tobytes() if kind == b"P5" else b" ".join(str(v).encode() for v in ids.ravel())
    data = kind + b"\n# made by hand\n4 3\n%d\n" % highest + body
    np.testing.assert_array_equal(decode_mask(data, "m.pgm"), ids)
    with pytest.raises(UserError, match="is truncated or damaged"):
        decode_mask(data[:-3], "m.pgm")


@pytest.mark.parametrize("kind", [b"P1", b"P4"])
def test_bitmaps_are_true_where_they_are_white(kind):
    black = IDS == 0
    body = np.packbits(black, axis=1).tobytes() if kind == b"P4" else b"".join(b"%d" % v for v in black.ravel())
    np.testing.assert_array_equal(decode_mask(kind + b"\n4 3\n" + body, "m.pbm"), ~black)


def test_lossless_files_of_lossy_formats_are_read():
    colors = np.repeat(IDS[..., None], 3, axis=2).astype(np.uint8)
    data = encode(Image.fromarray(colors), "WEBP", lossless=True)
    np.testing.assert_array_equal(read_stored(data, "m.webp").values, colors)
    grey = Image.fromarray(IDS.astype(np.uint8))
    np.testing.assert_array_equal(decode_mask(encode(grey, "JPEG2000"), "m.jp2"), IDS)
    for kind, options in (("WEBP", {}), ("JPEG2000", {"irreversible": True}), ("AVIF", {}), ("MPO", {})):
        with pytest.raises(LossyMaskError, match="which does not keep class ids exact"):
            decode_mask(encode(Image.fromarray(colors), kind, **options), "m")
    with pytest.raises(LossyMaskError):
        decode_mask(tiff(np.zeros((16, 16), np.uint8), compression="jpeg"), "m.tif")


def test_an_even_alpha_channel_is_left_out_and_another_is_not():
    grey, full = IDS.astype(np.uint8), np.full(IDS.shape, 255, np.uint8)
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(np.dstack([grey, full])), "PNG"), "m"), IDS)
    for pixels in (np.dstack([grey * 0, grey]), np.dstack([grey * 0] * 3 + [grey])):
        with pytest.raises(ColorMaskError):
            decode_mask(encode(Image.fromarray(pixels), "PNG"), "m.png")


@pytest.mark.parametrize(
    "picture",
    [
        Image.frombytes("P", (4, 3), IDS.astype(np.uint8).tobytes()),
        Image.fromarray(IDS.astype(np.uint8)),
    ],
    ids=["palette", "grey"],
)
def test_transparent_entries_change_nothing(picture):
    if picture.mode == "P":
        picture.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    np.testing.assert_array_equal(decode_mask(encode(picture, "PNG", transparency=0), "m.png"), IDS)


def test_a_mask_with_an_orientation_of_its_own_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode(Image.fromarray(IDS.astype(np.uint8)), "PNG", exif=exif.tobytes())
    np.testing.assert_array_equal(decode_mask(data, "m.png"), IDS[::-1, ::-1])
    turned = tiff(IDS.astype(np.uint8), extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(decode_mask(turned, "m.tif"), np.rot90(IDS, -1))


def grey_png(width: int, height: int) -> bytes:
    """Of zeros: a thousandth of its pixels in bytes."""
    row = bytes(width + 1)
    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def test_bombs_are_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(mask_files.imagecodecs, "png_decode", None)
    with pytest.raises(TooLargeError, match="more than 89,478,485 pixels"):
        decode_mask(grey_png(10_000, 9_000), "m.png")
    with pytest.raises(TooLargeError):
        decode_mask(b"\x93NUMPY\x01\x00" + npy_header("(100000, 100000)"), "m.npy")
    with pytest.raises(TooLargeError):
        decode_mask(b"P5\n100000 100000\n255\n", "m.pgm")
    tall = tiff(np.zeros((4, 4), np.uint8))
    with pytest.raises(TooLargeError):
        decode_mask(with_tag(with_tag(tall, 256, 100_000), 257, 100_000), "m.tif")


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return struct.pack("<H", len(text)) + text


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """A little-endian TIFF in which a tag's value is another."""
    place = data.index(struct.pack("<H", code), 8)
    kind = struct.unpack("<H", data[place + 2 : place + 4])[0]
    assert kind in (3, 4)
    return data[: place + 2] + struct.pack("<HII", 4, 1, value) + data[place + 12 :]


@pytest.mark.parametrize("shape", ["()", "(3,)", "(0, 3)", "(-1, 3)", "(2, 2, 2, 2)", "(1, 2, __import__('os'))"])
def test_arrays_that_are_no_masks(shape):
    with pytest.raises(UserError, match=r"^m\.npy: ") as caught:
        decode_mask(b"\x93NUMPY\x01\x00" + npy_header(shape) + bytes(100), "m.npy")
    assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled():
    with pytest.raises(UserError, match=r"^m\.npy: is no array .*holds object"):
        decode_mask(npy(np.array([[{}]], object)), "m.npy")


def test_a_tiff_without_rows_is_refused():
    with pytest.raises(UserError, match=r"^m\.tif: "):
        decode_mask(with_tag(tiff(np.zeros((4, 4), np.uint8)), 257, 0), "m.tif")
