"""The size that a file's header announces, checked before any decoder makes room for its pixels.

Two parsers could read different sizes out of one file (Pillow opens a JPEG, OpenCV decodes it): the size is read here
as the decoder reads it, and a file on which the parsers disagree is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from deeplab_jax.data.sources.file_formats import JPEG, JPEG2000, PNG, WEBP, FileFormat
from deeplab_jax.data.sources.jpeg2000_files import jpeg2000_size
from deeplab_jax.types import UserError

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte of RGB; Pillow's own limit
MAX_CHANNELS = 128  # OpenCV resizes at most this many at once
MAX_BYTES = 2 << 30  # of the values of one image, which compressed files of a few bytes can announce

_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_bytes(num_values: int, itemsize: int, name: str) -> None:
    """Raises UserError if so many values of so many bytes are more than one image may have."""
    if num_values * itemsize > MAX_BYTES:
        raise UserError(f"{name}: announces {num_values * itemsize / 2**30:.1f} GiB of values; cut it into tiles")


class SizeLimit(NamedTuple):
    """How large an image may be."""

    num_pixels: int = MAX_PIXELS
    side: int | None = None  # pixels of the longer side; None: any


class TooLargeError(UserError):
    """An image larger than its `SizeLimit`."""

    def __init__(self, name: str, size: tuple[int, int], limit: SizeLimit):
        self.size = size
        super().__init__(f"{name}: has more than {limit.num_pixels:,} pixels; cut it into tiles")


def check_size(size: tuple[int, int], name: str, limit: SizeLimit) -> None:
    """Raises UserError if (height, width) is above the limit, or there is no pixel."""
    height, width = size
    if height < 1 or width < 1:
        raise UserError(f"{name}: has no pixels ({height}x{width}); export it anew")
    if height * width > limit.num_pixels or (limit.side is not None and max(size) > limit.side):
        raise TooLargeError(name, size, limit)


def announced_size(data: bytes, file_format: FileFormat, name: str) -> tuple[int, int] | None:
    """(height, width), as the decoders of the format read it; None: its one decoder is Pillow, which tells it.

    Raises:
      UserError: when the header does not tell it.
    """
    if file_format not in _READERS:
        return None
    try:
        size = _READERS[file_format](data)
    except IndexError:  # the file ends within its header
        size = None
    if size is None:
        raise UserError(f"{name}: is truncated or damaged (its header tells no size); copy the file anew")
    return size


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """As libjpeg: whatever lies between markers is skipped, the first frame header counts."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in _FRAME_HEADERS:
            height, width = data[position + 3 : position + 5], data[position + 5 : position + 7]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        if marker not in _WITHOUT_LENGTH and marker != 0:
            position += int.from_bytes(data[position : position + 2], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    return None


_READERS = {
    PNG: _png_size,
    JPEG: _jpeg_size,
    JPEG2000: lambda data: jpeg2000_size(data, MAX_CHANNELS),
    WEBP: _webp_size,
}
