"""Decodes image files to RGB bytes, or to any number of channels in their stored type.

Values are never scaled: a 12-bit photograph in a 16-bit file keeps its 4096 levels, satellite bands keep their
reflectances. Values that GDAL marks as missing become NaN if the pixels are floats.
"""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import tifffile
from jaxtyping import Num

from deeplab_jax.data.sources.images import MAX_PIXELS, decode_image, ends_whole, open_picture, too_large
from deeplab_jax.types import DatasetInfo, UserError

DTYPES = ("uint8", "uint16", "float32")
MAX_CHANNELS = 128  # OpenCV resizes at most this many at once

_TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MISSING_TAG = 42113  # GDAL_NODATA
_FROM_OPENCV = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}


class FormatError(UserError):
    """A file whose channels or type differ from the data set's."""


def decode_pixels(
    data: bytes, name: str, info: DatasetInfo, *, mask_size: tuple[int, int] | None = None
) -> Num[np.ndarray, "h w bands"]:
    """Decodes an image file of a data set.

    Args:
      data: the file's content: any format of `decode_image` for RGB bytes; otherwise TIFF, or 8-bit or 16-bit PNG.
      info: gives the number of channels and their type.
      mask_size: see `decode_image`; only RGB bytes are ever rotated.

    Raises:
      FormatError: when the channels or their type differ from `info`.
      UserError: when it is not an image, damaged, or too large.
    """
    if not info.is_rgb:
        read = _read_tiff if is_tiff(data) else _read_with_opencv
        return _as_declared(read(data, name, info), name, info)
    try:
        return decode_image(data, name, mask_size=mask_size)
    except UserError:
        found = stored_format(data) if is_tiff(data) else None
        if found in (None, (3, "uint8")):
            raise
        raise _other_format(name, found, info) from None


def is_tiff(data: bytes) -> bool:
    """Whether the content is that of a TIFF or BigTIFF file."""
    return data.startswith(_TIFF_STARTS)


def stored_format(data: bytes) -> tuple[int, str] | None:
    """(channels, type) of a TIFF or PNG, read from the header only; None: another format, or damaged."""
    try:
        if is_tiff(data):
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                series = file.series[0]
                return _num_channels(series), _type_for(series.dtype.name)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[data[25]]
            return channels, "uint16" if data[24] == 16 else "uint8"
    except Exception:  # tifffile may raise anything on damaged files
        return None
    return None


def _read_tiff(data: bytes, name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            if not {"Y", "X"} <= set(series.axes):
                raise ValueError(f"axes {series.axes}")
            if series.keyframe.imagewidth * series.keyframe.imagelength > MAX_PIXELS:
                raise too_large(name)
            if _num_channels(series) != info.channels:  # before anything is decoded
                raise _other_format(name, (_num_channels(series), series.dtype.name), info)
            pixels = series.asarray(maxworkers=1)  # the loader already runs threads
            missing = series.keyframe.tags.get(_MISSING_TAG)
    except UserError:
        raise
    except Exception as error:  # tifffile may raise anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: is no readable TIFF ({reason}); copy it again or save it differently") from None
    rows, columns = series.axes.index("Y"), series.axes.index("X")
    pixels = np.moveaxis(pixels, (rows, columns), (0, 1))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if missing is not None and pixels.dtype.kind == "f":
        pixels = np.where(pixels == _as_float(missing.value), np.nan, pixels)
    return pixels


def _num_channels(series: tifffile.TiffPageSeries) -> int:
    """Everything that is neither rows nor columns: samples per pixel, planes, pages of one size."""
    return math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YX")


def _as_float(text: object) -> float:
    try:
        return float(str(text).strip("\x00 "))
    except ValueError:
        return math.nan


def _read_with_opencv(data: bytes, name: str, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    picture = open_picture(data, name)
    whole = picture.format not in ("JPEG", "MPO", "PNG") or ends_whole(data)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if whole else None
    if pixels is None:
        raise UserError(f"{name}: is truncated, damaged or of an unusual format; copy it again or save it as TIFF")
    if pixels.ndim == 2:
        return pixels[..., None]
    channels = pixels.shape[2]
    return cv2.cvtColor(pixels, _FROM_OPENCV[channels]) if channels in _FROM_OPENCV else pixels


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
