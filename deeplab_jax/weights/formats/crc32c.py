"""CRC-32C (Castagnoli) of long data in NumPy: many pieces at once, then joined.

The register is linear over GF(2): that of a text of two pieces is the first's, moved on over as many zero bytes as
the second has, plus (XOR) the second's from an empty register. So pieces can be worked on side by side.

Source: RFC 3720, appendix B.4; LevelDB's doc/table_format.md for the mask.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import UInt32

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8
_PIECE = 64  # bytes per piece: so many that there are enough pieces to work on at once


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum as LevelDB stores it: turned by 15 bits, and a constant added."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data`."""
    octets = np.frombuffer(data, np.uint8)
    if octets.size < 4:
        return _short_crc32c(octets)
    # Zero bytes in front leave an empty register empty, and so fill up the first piece. The register starts with
    # all bits set instead: that is an empty one and four first bytes inverted.
    num_pieces = 1 << ((octets.size - 1) // _PIECE).bit_length()
    padded = np.zeros(num_pieces * _PIECE, np.uint8)
    padded[padded.size - octets.size :] = octets
    padded[padded.size - octets.size :][:4] ^= 0xFF
    words = padded.view("<u2").reshape(num_pieces, _PIECE // 2)
    registers = np.zeros(num_pieces, np.uint32)
    for column in np.ascontiguousarray(words.T):
        registers = _after_word(registers ^ column)
    for level in range(num_pieces.bit_length() - 1):
        registers = _after_zeros(registers[::2], level) ^ registers[1::2]
    return int(registers[0]) ^ 0xFFFFFFFF


def _short_crc32c(octets: np.ndarray) -> int:
    register = 0xFFFFFFFF
    for octet in octets.tolist():
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def _after_word(registers: UInt32[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
    """The registers after two zero bytes."""
    return _word_table()[registers & 0xFFFF] ^ registers >> 16


def _after_zeros(registers: UInt32[np.ndarray, " n"], level: int) -> UInt32[np.ndarray, " n"]:
    """The registers after _PIECE * 2^level zero bytes."""
    low, high = _zero_tables(level)
    return low[registers & 0xFFFF] ^ high[registers >> 16]


@functools.cache
def _word_table() -> UInt32[np.ndarray, " 65536"]:
    """What two zero bytes do to a register of 16 bits."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _zero_tables(level: int) -> UInt32[np.ndarray, "2 65536"]:
    """What _PIECE * 2^level zero bytes do to the lower and to the upper half of a register."""
    registers = np.arange(1 << 16, dtype=np.uint32)
    registers = np.concatenate([registers, registers << 16])
    if level == 0:
        for _ in range(_PIECE // 2):
            registers = _after_word(registers)
    else:
        for _ in range(2):
            registers = _after_zeros(registers, level - 1)
    return registers.reshape(2, 1 << 16)
