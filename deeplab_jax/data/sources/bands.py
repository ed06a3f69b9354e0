"""Decodes image files to RGB bytes, or to any number of channels in their stored type.

Values are never scaled: a 12-bit photograph in a 16-bit file keeps its 4096 levels, satellite bands keep their
reflectances. Values that GDAL marks as missing become NaN if the pixels are floats.
"""

from __future__ import annotations

from collections.abc import Callable

import imagecodecs
import numpy as np
from jaxtyping import Num

from deeplab_jax.data.sources.file_formats import JPEG2000, NPY, PNG, TIFF, find_format
from deeplab_jax.data.sources.image_sizes import MAX_CHANNELS, TooLargeError
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.npy_files import read_npy
from deeplab_jax.data.sources.pictures import ends_whole, load, open_picture
from deeplab_jax.data.sources.tiff_files import TiffChannelsError, read_tiff, tiff_format
from deeplab_jax.types import DatasetInfo, UserError

__all__ = ["DTYPES", "MAX_CHANNELS", "FormatError", "decode_pixels", "describe_format", "stored_format"]

DTYPES = ("uint8", "uint16", "float32")


class FormatError(UserError):
    """A file whose channels or type differ from the data set's."""


def decode_pixels(data: bytes, name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    """Decodes an image file of a data set.

    Args:
      data: the file's content: any format of `decode_image` for RGB bytes; otherwise TIFF, or another that keeps values
        exact.
      info: gives the number of channels and their type.

    Raises:
      FormatError: when the channels or their type differ from `info`.
      UserError: when it is not an image, damaged, or too large.
    """
    if not info.is_rgb:
        read = _read_tiff if find_format(data) is TIFF else _read_others
        return _as_declared(read(data, name, info), name, info)
    try:
        return decode_image(data, name)
    except TooLargeError:
        raise
    except UserError:
        found = stored_format(data) if find_format(data) in (TIFF, NPY) else None
        if found is None:
            raise
        if found in ((1, "uint8"), (3, "uint8")):  # of a layout that Pillow does not read
            pixels = read_tiff(data, name, channels=found[0])
            if pixels.palette is None:
                return np.ascontiguousarray(np.broadcast_to(pixels.values, (*pixels.values.shape[:2], 3)))
            raise
        raise _other_format(name, found, info) from None


def stored_format(data: bytes) -> tuple[int, str] | None:
    """(channels, type) of a TIFF, PNG or NumPy file; None: another format, or damaged."""
    if find_format(data) is TIFF:
        found = tiff_format(data)
        return None if found is None else (found.channels, _type_for(found.dtype))
    if find_format(data) is NPY:
        try:
            values = read_npy(data, "")  # a view: nothing is decoded
        except UserError:
            return None
        return values.shape[2], _type_for(values.dtype.name)
    if find_format(data) is PNG and len(data) > 25:
        channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(data[25])
        return None if channels is None else (channels, "uint16" if data[24] == 16 else "uint8")
    return None


def _read_tiff(data: bytes, name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    try:
        stored = read_tiff(data, name, channels=info.channels)
    except TiffChannelsError as error:
        raise _other_format(name, error.found, info) from None
    pixels = stored.values
    if stored.missing is not None and pixels.dtype.kind == "f":
        pixels = np.where(pixels == pixels.dtype.type(stored.missing), np.nan, pixels)
    return pixels


def _read_others(data: bytes, name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    file_format = find_format(data)
    if file_format is NPY:
        return read_npy(data, name)
    picture = open_picture(data, name)
    pixels = None
    if file_format is JPEG2000:
        pixels = _or_none(imagecodecs.jpeg2k_decode, data)
    elif file_format is PNG and ends_whole(data, PNG):
        pixels = _or_none(imagecodecs.png_decode, data)
    else:
        load(picture, name)
        pixels = np.asarray(picture)
    if pixels is None:
        raise UserError(f"{name}: is truncated, damaged or of an unusual format; copy it again or save it as TIFF")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _or_none(decode: Callable[[bytes], np.ndarray], data: bytes) -> np.ndarray | None:
    try:
        return decode(data)
    except Exception:  # whatever a decoder raises on damaged files
        return None


def _as_declared(pixels: Num[np.ndarray, "h w bands"], name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    found = (pixels.shape[2], _type_for(pixels.dtype.name))
    if found != (info.channels, info.dtype):
        raise _other_format(name, (pixels.shape[2], pixels.dtype.name), info)
    with np.errstate(over="ignore"):  # overflow to infinity counts as a missing value
        return np.ascontiguousarray(pixels, info.dtype)


def _type_for(dtype: str) -> str:
    """The type that pixels of a file's type are stored in: uint8 and uint16 stay, all others become floats."""
    return dtype if dtype in ("uint8", "uint16") else "float32"


def _other_format(name: str, found: tuple[int, str], info: DatasetInfo) -> FormatError:
    stored, channels, dtype = describe_format(*found), found[0], _type_for(found[1])
    if info.is_rgb:
        remedy = f'if all images do, write "channels": {channels}, "dtype": "{dtype}" into classes.json'
        return FormatError(f"{name}: holds {stored}, not 8-bit RGB; {remedy} in the data set folder")
    return FormatError(
        f"{name}: holds {stored}, but the data set is of {describe_format(info.channels, info.dtype)}; make all images "
        "agree, or correct classes.json"
    )


def describe_format(channels: int, dtype: str) -> str:
    """'5 channels of uint16'."""
    return f"{channels} channel{'s' * (channels != 1)} of {dtype}"
