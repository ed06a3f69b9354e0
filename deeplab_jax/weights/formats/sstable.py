"""LevelDB's sorted string tables: the container of TensorFlow's checkpoints.

Source: LevelDB's doc/table_format.md; Snappy's format_description.txt.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from deeplab_jax.weights.formats.budget import spend
from deeplab_jax.weights.formats.crc32c import masked_crc32c
from deeplab_jax.weights.formats.protobuf import read_varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # the last bytes of every table
_FOOTER_BYTES = 48
_TRAILER = struct.Struct("<BI")  # compression and checksum after each block
_UINT32 = struct.Struct("<I")
_PLAIN, _SNAPPY = 0, 1
_PIECE_BYTES = 64  # of most of Snappy's pieces
_MAX_KEY_BYTES = 4096  # of one variable's name


def read_table(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values in the order of the keys.

    Raises:
      ValueError: if it is not a table, or a block's checksum is wrong.
    """
    if len(data) < _FOOTER_BYTES or data[-len(MAGIC) :] != MAGIC:
        raise ValueError("no table, or one that is cut off")
    footer = data[-_FOOTER_BYTES:]
    _, position = _block_handle(footer, 0)  # of the metaindex, which is empty
    index_handle, _ = _block_handle(footer, position)
    free = 0
    for _, value in _entries(_block(data, *index_handle)):
        (offset, size), _ = _block_handle(value, 0)
        if offset < free:
            raise ValueError("a table whose blocks overlap")
        free = offset + size
        yield from _entries(_block(data, offset, size))


def _block_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes | mmap.mmap, offset: int, size: int) -> bytes:
    """The uncompressed content of the block."""
    stop = offset + size
    if stop + _TRAILER.size > len(data):
        raise ValueError("a table whose block lies outside it")
    compression, checksum = _TRAILER.unpack(data[stop : stop + _TRAILER.size])
    if masked_crc32c(data[offset : stop + 1]) != checksum:
        raise ValueError("a table whose checksum is wrong")
    if compression not in (_PLAIN, _SNAPPY):
        raise ValueError(f"a table with compression {compression}")
    contents = data[offset:stop]
    return unpack_snappy(contents) if compression == _SNAPPY else contents


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys, stored as the difference from the previous key, and values; offsets for binary search follow them."""
    if len(block) < _UINT32.size:
        raise ValueError("a table with an empty block")
    (num_restarts,) = _UINT32.unpack_from(block, len(block) - _UINT32.size)
    stop = len(block) - _UINT32.size * (num_restarts + 1)
    position, key = 0, b""
    while position < stop:
        num_shared, position = read_varint(block, position)
        num_new, position = read_varint(block, position)
        num_value, position = read_varint(block, position)
        if num_shared > len(key) or num_new + num_value > stop - position or num_shared + num_new > _MAX_KEY_BYTES:
            raise ValueError("a table with an entry that reaches beyond its block")
        key = key[:num_shared] + block[position : position + num_new]
        position += num_new
        spend(len(key) + num_value)
        yield key, block[position : position + num_value]
        position += num_value
    if position != stop:
        raise ValueError("a table with an entry that reaches beyond its block")


def unpack_snappy(packed: bytes) -> bytes:
    """Decompresses Snappy data: literals, and copies of earlier output.

    Raises:
      ValueError: if the data is damaged.
    """
    length, position = read_varint(packed, 0)
    output = bytearray()
    while position < len(packed) and len(output) <= length:
        spend(min(length, _PIECE_BYTES))
        kind, upper = packed[position] & 3, packed[position] >> 2
        position += 1
        if kind == 0:
            num_extra = max(0, upper - 59)  # bytes of a length above 60
            count = 1 + (_little(packed, position, num_extra) if num_extra else upper)
            position += num_extra
            if count > len(packed) - position:
                raise ValueError("packed data that ends early")
            output += packed[position : position + count]
            position += count
            continue
        num_extra = (1, 2, 4)[kind - 1]
        offset = _little(packed, position, num_extra) | ((upper >> 3) << 8 if kind == 1 else 0)
        count = (upper & 7) + 4 if kind == 1 else upper + 1
        position += num_extra
        if not 0 < offset <= len(output):
            raise ValueError("packed data that refers to before its start")
        _repeat(output, offset, count)
    if len(output) != length:
        raise ValueError("packed data of another length than it says")
    return bytes(output)


def _little(data: bytes, position: int, count: int) -> int:
    if position + count > len(data):
        raise ValueError("packed data that ends early")
    return int.from_bytes(data[position : position + count], "little")


def _repeat(output: bytearray, offset: int, count: int) -> None:
    """Appends `count` bytes starting `offset` bytes back; the copy may overlap its own output."""
    pattern = bytes(output[-offset:][:count])
    output += (pattern * (count // len(pattern) + 1))[:count]
