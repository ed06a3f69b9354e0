"""Decodes mask files to the values that they store, whatever their format, type and layout.

What the values mean is the data set's to say.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
from jaxtyping import Bool, Integer, Shaped, UInt8
from PIL import Image

from deeplab_jax.data.sources.file_formats import (
    AVIF,
    GIF,
    HEIF,
    JPEG,
    JPEG2000,
    NPY,
    PNG,
    PNM,
    TIFF,
    WEBP,
    FileFormat,
    find_format,
)
from deeplab_jax.data.sources.image_sizes import SizeLimit, announced_size, check_size
from deeplab_jax.data.sources.jpeg2000_files import codestream_start
from deeplab_jax.data.sources.npy_files import read_npy
from deeplab_jax.data.sources.orientation import exif_orientation, turned
from deeplab_jax.data.sources.pictures import ends_whole, load, open_picture, require_format, require_one_frame
from deeplab_jax.data.sources.pnm_files import read_pnm
from deeplab_jax.data.sources.tiff_files import num_pages, read_tiff
from deeplab_jax.types import UserError

HOW_TO_SAVE = "save one channel of class ids: PIL.Image.fromarray(ids.astype('uint8')).save('NAME.png')"

_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 3)  # small, and reads three times as fast as with OpenCV's default
_WHOLE_TYPES = (np.uint8, np.uint16, np.int32, np.int64)


class LossyMaskError(UserError):
    """A mask in a format that does not keep values exact."""


class ColorMaskError(UserError):
    """A mask that holds colours where one number per pixel is expected."""


class StoredMask(NamedTuple):
    """The content of a mask file, as it is stored."""

    values: Shaped[np.ndarray, "h w bands"]  # bool, integers or floats, in the file's own type
    missing: Bool[np.ndarray, "h w"] | None  # NaN, or declared as missing (GDAL_NODATA); None: nowhere
    palette: UInt8[np.ndarray, "colors 3"] | None  # of one band of indices
    bands: str  # 'L', 'P' (indices), 'LA', 'RGB' or 'RGBA'; '': any number of them, as in TIFF and NumPy files


def read_stored(data: bytes, name: str, *, page: int | None = None) -> StoredMask:
    """The content of a mask file.

    Args:
      page: of a file with several, the one that is read (the first is 1); None: such a file is refused.

    Raises:
      LossyMaskError: when it is in a lossy format.
      UserError: when it is no image, damaged, too large, or of several pages.
    """
    file_format = require_format(data, name)
    if file_format in (JPEG, HEIF) or _is_lossy(data, file_format):
        raise LossyMaskError(
            f"{name}: is a {file_format.name} file, which does not keep class ids exact; {HOW_TO_SAVE}"
        )
    if file_format is TIFF:
        return _read_tiff(data, name, page)
    if file_format is NPY:
        return _of_array(read_npy(data, name), None, None)
    if file_format is PNM:
        return _of_array(read_pnm(data, name, SizeLimit()), None, None)
    return _read_picture(data, name, page)


def decode_mask(data: bytes, name: str, *, missing: int | None = None) -> Integer[np.ndarray, "h w"]:
    """The one value per pixel of a mask file, in the first of `_WHOLE_TYPES` that holds them all.

    An alpha channel that is the same everywhere is left out.

    Args:
      missing: the value to put where the file has none (NaN, GDAL_NODATA); None: such a file is refused.

    Raises:
      ColorMaskError: when it holds colours, or several channels that differ.
      UserError: as `read_stored`; or when a value is not whole.
    """
    ids = read_grey_png(data, name)
    if ids is not None:
        return ids
    stored = read_stored(data, name)
    values = _one_band(stored, name)
    if stored.missing is not None:
        if missing is None:
            raise UserError(f"{name}: has {int(stored.missing.sum())} pixels without a value; {HOW_TO_SAVE}")
        values = np.where(stored.missing, missing, values)
    return whole_numbers(values, name)


def whole_numbers(values: Shaped[np.ndarray, "h w"], name: str) -> Integer[np.ndarray, "h w"]:
    """The same values in the first of `_WHOLE_TYPES` that holds them all; raises UserError if one is not whole."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        broken = ~np.isfinite(values) | (values != np.floor(values))
        if broken.any():
            row, column = np.argwhere(broken)[0].tolist()
            raise UserError(
                f"{name}: holds the value {values[row, column]:g} (row {row}, column {column}), which is no class id; "
                f"{HOW_TO_SAVE}"
            )
    low, high = (values.min(), values.max()) if values.dtype.kind != "b" else (0, 1)
    for dtype in _WHOLE_TYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise UserError(f"{name}: holds the value {high:g}, which is no class id; {HOW_TO_SAVE}")


def encode_mask(ids: Integer[np.ndarray, "h w"]) -> bytes:
    """Class ids of 8 or 16 bits as a grey PNG, which every reader decodes to the same numbers."""
    return cv2.imencode(".png", ids, _PNG_OPTIONS)[1].tobytes()


def _is_lossy(data: bytes, file_format: FileFormat) -> bool:
    if file_format is WEBP:
        return b"VP8L" not in data[:64] or b"VP8 " in data[:64]
    if file_format is JPEG2000:  # the reversible 5-3 wavelet is 1, the other 0
        start = data.find(b"\xff\x52", codestream_start(data) or 0)
        return start < 0 or data[start + 13 : start + 14] != b"\x01"
    return file_format is AVIF  # which can be lossless, but does not tell


def read_grey_png(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | None:
    """The commonest kind of file (and that of prepared copies), the fastest way; None: another kind."""
    if data[24:26] != b"\x08\x00" or find_format(data) is not PNG or not ends_whole(data, PNG) or b"eXIf" in data:
        return None
    check_size(announced_size(data, PNG, name) or (0, 0), name, SizeLimit())
    try:
        ids = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError):
        return None
    return ids if ids.ndim == 2 else None  # transparent entries make it two channels


def _read_tiff(data: bytes, name: str, page: int | None) -> StoredMask:
    count = num_pages(data)
    if page is None and count > 1:
        raise UserError(
            f"{name}: has {count} pages, of which one is the mask; save that alone, or name it in classes.json: "
            '"mask_page": 1'
        )
    stored = read_tiff(data, name, page=page)
    if not stored.is_lossless:
        raise LossyMaskError(f"{name}: is compressed with a loss, which does not keep class ids exact; {HOW_TO_SAVE}")
    return _of_array(stored.values, stored.missing, stored.palette)


def _read_picture(data: bytes, name: str, page: int | None) -> StoredMask:
    picture = open_picture(data, name)
    if page is None:
        require_one_frame(picture, data, name, "mask")
    load(picture, name)
    if picture.format == GIF.name and picture.mode == "P":
        picture = _without_grey_palette(picture)
    orientation = exif_orientation(picture)
    values = np.asarray(picture)
    if picture.mode == "L":
        values = values // _grey_scaling(data)
    values = turned(values if values.ndim == 3 else values[..., None], orientation)
    palette = np.array(picture.getpalette(), np.uint8).reshape(-1, 3) if picture.mode == "P" else None
    bands = "L" if picture.mode == "1" or picture.mode.startswith("I") else picture.mode
    return StoredMask(values, None, palette, bands)


def _of_array(
    values: Shaped[np.ndarray, "h w bands"], missing_value: float | None, palette: UInt8[np.ndarray, "colors 3"] | None
) -> StoredMask:
    missing = np.zeros(values.shape[:2], bool)
    if values.dtype.kind == "f":
        missing |= np.isnan(values).any(axis=-1)
    if missing_value is not None and not math.isnan(missing_value):
        missing |= (values == _as_type(missing_value, values.dtype)).any(axis=-1)
    bands = "P" if palette is not None else {1: "L"}.get(values.shape[2], "")
    return StoredMask(values, missing if missing.any() else None, palette, bands)


def _as_type(value: float, dtype: np.dtype[Any]) -> float:
    """A declared value, rounded as the file's own values were."""
    return float(dtype.type(value)) if dtype.kind == "f" else value


def _one_band(stored: StoredMask, name: str) -> Shaped[np.ndarray, "h w"]:
    values = stored.values
    if stored.bands == "LA" and (values[..., 1] == values[0, 0, 1]).all():
        values = values[..., :1]
    if values.shape[2] != 1:
        what = f"{stored.bands} colours" if stored.bands else f"{values.shape[2]} channels"
        raise ColorMaskError(
            f"{name}: holds {what} where class ids are expected; replace each colour by its class id and {HOW_TO_SAVE}"
        )
    return values[..., 0]


def _without_grey_palette(picture: Image.Image) -> Image.Image:
    """GIF has no grey images: one with a grey palette holds grey levels, numbered in the order of their appearance."""
    palette = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    return picture.convert("L") if (palette == palette[:, :1]).all() else picture


def _grey_scaling(data: bytes) -> int:
    """The factor by which Pillow stretches 2-bit or 4-bit grey levels of a PNG to 255."""
    is_grey_png = find_format(data) is PNG and data[25] == 0
    return {2: 85, 4: 17}.get(data[24], 1) if is_grey_png else 1
