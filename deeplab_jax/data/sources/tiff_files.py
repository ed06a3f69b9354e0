"""Reads TIFF and BigTIFF files: every type, layout and compression, each value as it is stored."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt8

from deeplab_jax.data.sources.file_formats import find_format
from deeplab_jax.data.sources.image_sizes import MAX_CHANNELS, SizeLimit, announced_size, check_bytes, check_size
from deeplab_jax.data.sources.orientation import UPRIGHT, turned
from deeplab_jax.types import UserError

_MAX_PAGES = 4096  # each is read for what it is; a file can hold any number of them in a few bytes
_MISSING_TAG = 42113  # GDAL_NODATA
_ORIENTATION_TAG = 274
_REDUCED, _TRANSPARENCY = 1, 4  # bits of a page's kind: a smaller copy of another; a mask of one's opaque pixels
# Programs that store a mask's own values in a file whose pixels are to be shown inverted.
_RAW_WRITERS = ("tifffile", "ImageJ")
_LOSSLESS = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000})  # none, CCITT, LZW, deflate, packbits, LZMA, Zstd
_WITH_OWN_HEADER = frozenset({6, 7, 33003, 33004, 33005, 34712, 34892, 50001})  # JPEG, JPEG 2000, WebP: within the TIFF


class TiffPixels(NamedTuple):
    """The content of a TIFF file."""

    values: Shaped[np.ndarray, "h w bands"]  # of the type that is stored
    missing: float | None  # the value that stands for missing data (GDAL_NODATA)
    palette: UInt8[np.ndarray, "colors 3"] | None  # of values that are indices
    is_lossless: bool


class TiffFormat(NamedTuple):
    """What a TIFF's header says of it."""

    channels: int
    dtype: str


def tiff_format(data: bytes) -> TiffFormat | None:
    """The channels and their type, read from the header only; None: damaged."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            return TiffFormat(_num_channels(series), series.dtype.name)
    except Exception:  # tifffile may raise anything on damaged files
        return None


def num_pages(data: bytes) -> int:
    """The number of images in a TIFF file, without smaller copies of others; 0: damaged."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return len(_pages(file))
    except Exception:  # as above
        return 0


def read_tiff(
    data: bytes, name: str, *, channels: int | None = None, page: int | None = None, limit: SizeLimit | None = None
) -> TiffPixels:
    """Decodes a TIFF file; pages of one size are channels, as are planes and samples.

    Args:
      channels: how many are expected; None: any.
      page: reads this page alone (the first is 1); None: all.
      limit: the largest image allowed; None: `SizeLimit()`.

    Raises:
      TiffChannelsError: when it has another number of channels; nothing is decoded then.
      TooLargeError: when the image is above the limit.
      UserError: when it is damaged.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0] if page is None else _page(file, page, name)
            _check_layout(file, series, name, limit or SizeLimit())
            found = TiffFormat(_num_channels(series), series.dtype.name)
            if found.channels != channels and (channels is not None or found.channels > MAX_CHANNELS):
                raise TiffChannelsError(name, found)
            check_bytes(math.prod(series.shape), np.dtype(series.dtype).itemsize, name)
            values = series.asarray(maxworkers=1)  # the loader already runs threads
            return _as_shown(file, series, values)
    except UserError:
        raise
    except Exception as error:  # as above
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: is no readable TIFF ({why}); copy it again or save it differently") from None


class TiffChannelsError(UserError):
    """A TIFF file with another number of channels than expected."""

    def __init__(self, name: str, found: TiffFormat):
        self.found = found
        super().__init__(f"{name}: holds {found.channels} channels of {found.dtype}")


def _pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    if len(file.pages) > _MAX_PAGES:
        raise ValueError(f"{len(file.pages)} pages; at most {_MAX_PAGES} are read")
    pages = [page.aspage() for page in file.pages]
    return [page for page in pages if not page.subfiletype & (_REDUCED | _TRANSPARENCY)]


def _page(file: tifffile.TiffFile, page: int, name: str) -> tifffile.TiffPageSeries:
    pages = _pages(file)
    if not 1 <= page <= len(pages):
        raise UserError(f"{name}: has no page {page}, but {len(pages)}")
    chosen = pages[page - 1]
    return tifffile.TiffPageSeries([chosen], shape=chosen.shape, dtype=chosen.dtype, axes=chosen.axes)


def _check_layout(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str, limit: SizeLimit) -> None:
    """Raises if rows and columns, tiles, or the images within them are too large."""
    if not {"Y", "X"} <= set(series.axes):
        raise ValueError(f"axes {series.axes}")
    height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
    keyframe = series.keyframe
    check_size((height, width), name, limit)
    check_size((keyframe.imagelength, keyframe.imagewidth), name, limit)
    if keyframe.is_tiled:
        # A tile may be larger than the image, and is decoded whole.
        check_size((keyframe.tilelength, keyframe.tilewidth), name, SizeLimit(max(limit.num_pixels, 1 << 20)))
    check_bytes(math.prod(keyframe.chunks), np.dtype(keyframe.dtype).itemsize, name)
    if keyframe.compression in _LOSSLESS:
        return
    if keyframe.compression not in _WITH_OWN_HEADER:
        kind = getattr(keyframe.compression, "name", keyframe.compression)
        raise UserError(f"{name}: is compressed by {kind}, which is not read; save it with LZW or deflate")
    expected = keyframe.chunks
    for offset, length in zip(keyframe.dataoffsets, keyframe.databytecounts, strict=True):
        file.filehandle.seek(offset)
        segment = file.filehandle.read(length)
        segment_format = find_format(segment)
        size = announced_size(segment, segment_format, name) if segment_format else None
        if segment and (size is None or size[0] * size[1] > math.prod(expected)):
            raise UserError(f"{name}: is damaged (a part of it is larger than its header tells); save it anew")


def _as_shown(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, values: np.ndarray) -> TiffPixels:
    keyframe = series.keyframe
    rows, columns = series.axes.index("Y"), series.axes.index("X")
    values = np.moveaxis(values, (rows, columns), (0, 1))
    values = values.reshape(*values.shape[:2], -1)
    if keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not _is_raw(file):
        values = _inverted(values, keyframe.bitspersample)
    orientation = keyframe.tags.valueof(_ORIENTATION_TAG, UPRIGHT)
    if orientation in range(1, 9):
        values = turned(values, orientation)
    palette = keyframe.colormap if keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE else None
    colors = (palette.T >> 8).astype(np.uint8) if palette is not None else None
    missing = keyframe.tags.valueof(_MISSING_TAG)
    return TiffPixels(values, _as_float(missing), colors, keyframe.compression in _LOSSLESS)


def _is_raw(file: tifffile.TiffFile) -> bool:
    software = str(file.pages.first.tags.valueof("Software", ""))
    return bool(file.is_imagej or file.is_shaped) or software.startswith(_RAW_WRITERS)


def _inverted(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of a file in which 0 is white."""
    if values.dtype.kind == "b":
        return ~values
    return values.dtype.type(2**bits - 1) - values if values.dtype.kind == "u" else values


def _num_channels(series: tifffile.TiffPageSeries) -> int:
    """Everything that is neither rows nor columns: samples per pixel, planes, pages of one size."""
    return math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YX")


def _as_float(text: object) -> float | None:
    try:
        return None if text is None else float(str(text).strip("\x00 "))
    except ValueError:
        return None
