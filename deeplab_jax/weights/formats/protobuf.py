"""The wire format of protocol buffers: field numbers and values of one message.

Source: the encoding guide of protobuf.dev.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab_jax.weights.formats.budget import spend

_MAX_VARINT = 10  # bytes
_LISTED_BYTES = 16  # of memory for each byte of a packed field
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields number and value of each field: numbers as unsigned integers, everything else as bytes.

    Raises:
      ValueError: if the message is damaged.
    """
    position = 0
    while position < len(message):
        spend()
        key, position = read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = read_varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"a message with wire type {wire_type}")
        if length > len(message) - position:
            raise ValueError("a message that ends within a field")
        octets = message[position : position + length]
        position += length
        yield number, octets if wire_type == _BYTES else int.from_bytes(octets, "little")


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The unsigned integer at `position`, seven bits per byte, and the position after it.

    Raises:
      ValueError: if the data ends within it, or it has more than ten bytes.
    """
    value = 0
    for index, octet in enumerate(data[position : position + _MAX_VARINT]):
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            return value, position + index + 1
    raise ValueError("a number without end")


def signed(value: int) -> int:
    """The int64 encoded by a varint."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


def varints(packed: bytes) -> list[int]:
    """The numbers of a packed repeated field.

    Raises:
      ValueError: if the last one is truncated.
    """
    spend(_LISTED_BYTES * len(packed))
    values, position = [], 0
    while position < len(packed):
        value, position = read_varint(packed, position)
        values.append(signed(value))
    return values
