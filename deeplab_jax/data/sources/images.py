"""Decodes image files to RGB pixels and mask files to class ids, whatever program wrote them.

Training, evaluation and prediction all decode through these two functions, so a network sees the same pixels in each.
"""

from __future__ import annotations

import io
from typing import cast

import cv2
import imagecodecs
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deeplab_jax.types import UserError

# OpenCV's own threads would compete with the loader's.
cv2.setNumThreads(0)

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte of RGB; Pillow's own limit

_ORIENTATION_TAG = 0x0112
_MASK_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 3)  # small, and reads three times as fast as with OpenCV's default
_SAME_AS_OPENCV = frozenset({("JPEG", "RGB"), ("JPEG", "L"), ("MPO", "RGB"), ("PNG", "RGB"), ("PNG", "L")})
_CONVERTIBLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_GREY_16_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_HOW_TO_SAVE_A_MASK = "save one channel of class ids: PIL.Image.fromarray(ids.astype('uint8')).save('NAME.png')"


def decode_image(data: bytes, name: str, *, mask_size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image file to 8-bit RGB.

    Grey is copied to three channels, alpha is dropped, CMYK and palettes are converted, 16-bit values keep their high
    byte. The EXIF orientation is applied.

    Args:
      data: the file's content (JPEG, PNG, or any other format that Pillow reads).
      mask_size: (height, width) of the image's mask, if it has one. Masks have no EXIF, and annotation tools may or may
        not apply the orientation: it is applied only if the image then has this size.

    Raises:
      UserError: when it is not an image, damaged, larger than `MAX_PIXELS`, or of a pixel format that 8-bit RGB cannot
        represent.
    """
    picture = open_picture(data, name)
    orientation = _orientation(picture)
    if mask_size is not None and _turned_size(picture, orientation) != mask_size:
        orientation = 1
    return _apply_orientation(_decode_rgb(picture, data, name), orientation)


def convert_picture(picture: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """As `decode_image`, for a Pillow image."""
    return _apply_orientation(_convert(picture, name), _orientation(picture))


def decode_mask(data: bytes, name: str) -> UInt8[np.ndarray, "h w"]:
    """Decodes a mask file to class ids: a palette's indices, never its colours.

    Raises:
      UserError: when it is not an image, damaged, or does not hold one id of at most 255 per pixel.
    """
    if _is_grey_8_bit_png(data):
        ids = _decode_png(data)
        if ids is not None and ids.ndim == 2:
            return ids
    picture = open_picture(data, name)
    if picture.format in ("JPEG", "MPO", "WEBP"):
        raise UserError(
            f"{name}: is a {picture.format} file, which does not keep class ids exact; {_HOW_TO_SAVE_A_MASK}"
        )
    _load(picture, name)
    if picture.mode not in ("1", "L", "P", "I", *_GREY_16_MODES):
        raise UserError(
            f"{name}: holds {picture.mode} colours where class ids are expected; "
            f"replace each colour by its class id and {_HOW_TO_SAVE_A_MASK}"
        )
    ids = np.asarray(picture).astype(np.int64) // _grey_scaling(data)
    if ids.min() < 0 or ids.max() > 255:
        raise UserError(f"{name}: holds the value {ids.max()}, but class ids end at 255; {_HOW_TO_SAVE_A_MASK}")
    return ids.astype(np.uint8)


def encode_mask(ids: UInt8[np.ndarray, "h w"]) -> bytes:
    """Class ids as a grey 8-bit PNG, which every reader decodes to the same numbers."""
    return cv2.imencode(".png", ids, _MASK_OPTIONS)[1].tobytes()


def open_picture(data: bytes, name: str) -> Image.Image:
    """Reads the header only; raises UserError if it is not an image's, or the image is too large."""
    if not data:
        raise UserError(f"{name}: is empty; copy the file again")
    try:
        picture = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large(name) from None
    except Exception as error:  # Pillow's readers may raise anything on damaged headers
        raise UserError(f"{name}: is no readable image ({_reason(error)}); copy it anew or save it as PNG") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise too_large(name)
    return picture


def too_large(name: str) -> UserError:
    """The error for an image of more than `MAX_PIXELS`."""
    return UserError(f"{name}: has more than {MAX_PIXELS:,} pixels; cut it into tiles")


def _load(picture: Image.Image, name: str) -> None:
    try:
        picture.load()
    except Exception as error:  # as in open_picture
        raise UserError(f"{name}: is truncated or damaged ({_reason(error)}); copy the file anew") from None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format"
    return " ".join(str(error).split()) or type(error).__name__


def _decode_rgb(picture: Image.Image, data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if (picture.format, picture.mode) in _SAME_AS_OPENCV and ends_whole(data):
        pixels = _decode_png(data) if (picture.format, picture.mode) == ("PNG", "RGB") else None
        if pixels is not None and pixels.shape[2:] == (3,) and pixels.dtype == np.uint8:
            return pixels
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return _convert(picture, name)


def _convert(picture: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    _load(picture, name)
    if picture.mode in _CONVERTIBLE_MODES:
        if picture.mode in ("P", "PA"):  # via RGBA, since palettes may hold transparent entries
            picture = picture.convert("RGBA")
        return np.array(picture.convert("RGB"))
    if picture.mode in _GREY_16_MODES or picture.mode == "I":
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() >= 0 and grey.max() <= 0xFFFF:
            return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    raise UserError(f"{name}: pixels of mode '{picture.mode}' do not fit 8-bit RGB; save it as an 8-bit RGB PNG")


def _decode_png(data: bytes) -> np.ndarray | None:
    """The stored pixels, faster than OpenCV; None if the file needs another decoder."""
    try:
        return imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError):
        return None


def ends_whole(data: bytes) -> bool:
    """False for a truncated JPEG or PNG, which OpenCV fills up with grey and Pillow refuses."""
    return data.endswith(b"\xff\xd9") or data[-8:-4] == b"IEND"


def _is_grey_8_bit_png(data: bytes) -> bool:
    is_png = data.startswith(b"\x89PNG\r\n\x1a\n") and data[-8:-4] == b"IEND"
    return is_png and data[24:26] == b"\x08\x00"


def _grey_scaling(data: bytes) -> int:
    """The factor by which Pillow stretches 2-bit or 4-bit grey levels to 255."""
    is_grey_png = data.startswith(b"\x89PNG\r\n\x1a\n") and data[25] == 0
    return {2: 85, 4: 17}.get(data[24], 1) if is_grey_png else 1


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8."""
    # `getexif` would decode a whole PNG to find a chunk after the pixels.
    raw = picture.info.get("exif")
    if not raw:
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make the pixels unusable
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned_size(picture: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = picture.size
    return (width, height) if orientation >= 5 else (height, width)


def _apply_orientation(image: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Rotates stored pixels upright: orientations 5 to 8 swap the axes, the others only mirror them."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    turned = image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return cast(np.ndarray, np.ascontiguousarray(turned))
