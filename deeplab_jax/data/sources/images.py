"""Decodes image files to RGB pixels, whatever program wrote them.

Training, evaluation and prediction all decode through this function, so a network sees the same pixels in each.
"""

from __future__ import annotations

import cv2
import imagecodecs
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from deeplab_jax.data.sources.file_formats import JPEG, NPY, PNG, find_format
from deeplab_jax.data.sources.image_sizes import SizeLimit
from deeplab_jax.data.sources.npy_files import read_npy
from deeplab_jax.data.sources.orientation import UPRIGHT, exif_orientation, turned
from deeplab_jax.data.sources.pictures import ends_whole, load, open_picture, require_one_frame
from deeplab_jax.types import UserError

# OpenCV's own threads would compete with the loader's.
cv2.setNumThreads(0)

_CONVERTIBLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_GREY_16_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


def decode_image(data: bytes, name: str, *, limit: SizeLimit | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file to 8-bit RGB, upright.

    Grey is copied to three channels, alpha is dropped, CMYK and palettes are converted, 16-bit values keep their high
    byte. The EXIF orientation is applied.

    Args:
      data: the file's content, in any of `file_formats.PICTURES`.
      limit: the largest image allowed; None: `SizeLimit()`.

    Raises:
      TooLargeError: when it is above the limit; nothing is decoded then.
      UserError: when it is not an image, damaged, or of a pixel format that 8-bit RGB cannot represent.
    """
    if find_format(data) is NPY:
        return _rgb_of_array(read_npy(data, name, limit), name)
    picture = open_picture(data, name, limit)
    require_one_frame(picture, data, name, "image")
    return turned(_decode_rgb(picture, data, name), exif_orientation(picture))


def image_orientation(data: bytes, name: str) -> int:
    """The EXIF orientation of an image file, of which only the header is read."""
    return UPRIGHT if find_format(data) is NPY else exif_orientation(open_picture(data, name))


def convert_picture(picture: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """As `decode_image`, for a Pillow image."""
    return turned(_convert(picture, name), exif_orientation(picture))


def _rgb_of_array(values: Shaped[np.ndarray, "h w bands"], name: str) -> UInt8[np.ndarray, "h w 3"]:
    if values.dtype != np.uint8 or values.shape[2] not in (1, 3):
        raise UserError(f"{name}: holds {values.shape[2]} channels of {values.dtype}, not 8-bit RGB; save it as uint8")
    return np.array(np.broadcast_to(values, (*values.shape[:2], 3)))


def _decode_rgb(picture: Image.Image, data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    file_format = find_format(data)
    is_plain = picture.mode in ("RGB", "L") and file_format in (JPEG, PNG) and ends_whole(data, file_format)
    pixels = (_decode_png(data) if file_format is PNG else _decode_jpeg(data)) if is_plain else None
    return pixels if pixels is not None else _convert(picture, name)


def _decode_png(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The stored pixels, faster than Pillow; None: another decoder is needed."""
    try:
        pixels = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError):
        return None
    if pixels.dtype != np.uint8:
        return None
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return pixels if pixels.shape[2] == 3 else None


def _decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _convert(picture: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    load(picture, name)
    if picture.mode in _CONVERTIBLE_MODES:
        if picture.mode in ("P", "PA"):  # via RGBA, since palettes may hold transparent entries
            picture = picture.convert("RGBA")
        return np.array(picture.convert("RGB"))
    if picture.mode in _GREY_16_MODES or picture.mode == "I":
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() >= 0 and grey.max() <= 0xFFFF:
            return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    raise UserError(f"{name}: pixels of mode '{picture.mode}' do not fit 8-bit RGB; save it as an 8-bit RGB PNG")
