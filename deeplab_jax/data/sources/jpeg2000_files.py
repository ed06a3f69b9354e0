"""What the headers of a JPEG 2000 file announce: OpenJPEG makes room for all of it before it decodes anything."""

from __future__ import annotations

from collections.abc import Iterator

_CODESTREAM = b"\xff\x4f\xff\x51"  # start of the codestream, then its size
_START_OF_TILE, _START_OF_DATA = b"\xff\x90", b"\xff\x93"
# Of a coding style, for all channels or for one: where its flags are, and from where it is the same.
_STYLES = {b"\xff\x52": (4, 9), b"\xff\x53": (5, 6)}
_MAX_TILE_CHANNELS = 1 << 17  # some 1,500 bytes each
_MAX_PARTS = 1 << 22  # code blocks and precincts, some 100 bytes each
_MAX_LEVELS = 32


def codestream_start(data: bytes) -> int | None:
    """Where a JPEG 2000 file's codestream begins, behind the boxes of a .jp2 file; None: nowhere."""
    if data.startswith(_CODESTREAM):
        return 0
    position = 0
    while position + 16 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        if kind == b"jp2c":
            return position + head
        if length < head:
            return None
        position += length
    return None


def jpeg2000_size(data: bytes, max_channels: int) -> tuple[int, int] | None:
    """(height, width); None: the header tells none, or of more channels, tiles or code blocks than an image has."""
    start = codestream_start(data)
    if start is None:
        return None
    right, bottom, left, top, tile_width, tile_height = (
        int.from_bytes(data[start + at : start + at + 4], "big") for at in (8, 12, 16, 20, 24, 28)
    )
    height, width = bottom - top, right - left
    num_channels = int.from_bytes(data[start + 40 : start + 42], "big")
    num_tiles = -(-width // max(tile_width, 1)) * -(-height // max(tile_height, 1))
    if not 0 < num_channels <= max_channels or num_tiles * num_channels > _MAX_TILE_CHANNELS:
        return None
    for marker, position in _segments(data, start):
        flags_at, style_at = _STYLES.get(marker, (0, 0))
        if flags_at:
            has_precincts = data[position + flags_at] & 1
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            style = data[position + style_at : end]
            if _num_parts(style, height, width, has_precincts=bool(has_precincts)) * num_channels > _MAX_PARTS:
                return None
    return height, width


def _segments(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """(marker, place) of the codestream's header and of those of its tiles; the data between them is skipped."""
    position, end_of_tile = start + 2, 0
    while position + 4 <= len(data):
        marker = data[position : position + 2]
        if marker == _START_OF_DATA:
            if end_of_tile <= position:  # the last tile, or a damaged file
                return
            position = end_of_tile
            continue
        if marker == _START_OF_TILE:
            end_of_tile = position + int.from_bytes(data[position + 6 : position + 10], "big")
        yield marker, position
        position += 2 + max(int.from_bytes(data[position + 2 : position + 4], "big"), 2)


def _num_parts(style: bytes, height: int, width: int, *, has_precincts: bool) -> int:
    """Code blocks and precincts of one channel; the style: levels, exponents of a block's sides, ..., precincts."""
    num_levels = min(style[0], _MAX_LEVELS)
    num_blocks = height * width >> (style[1] & 15) + (style[2] & 15) + 4
    num_precincts = 0
    for level in range(num_levels + 1):
        size = style[5 + level] if has_precincts else 0xFF
        shift = num_levels - level
        num_precincts += (height >> shift + (size >> 4)) * (
            width >> shift + (size & 15)
        )  # rounded down: the whole ones
    return num_blocks + num_precincts
