"""CRC-32C (Castagnoli) of long data in NumPy: many pieces in parallel, then combined.

The register is linear over GF(2): for two concatenated pieces it is the first's, advanced over as many zero bytes as
the second has, XOR the second's from an empty register. Pieces can therefore be processed in parallel.

Source: RFC 3720, appendix B.4; LevelDB's doc/table_format.md for the mask.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import UInt32

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8
_PIECE = 64  # bytes per piece: few enough for many pieces in parallel


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum as LevelDB stores it: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data`."""
    octets = np.frombuffer(data, np.uint8)
    if octets.size < 4:
        return _short_crc32c(octets)
    # Leading zero bytes leave an empty register empty, and so pad the first piece. The register starts with all bits
    # set, which is equivalent to an empty one and inverting the first four bytes.
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
    """The effect of two zero bytes on a 16-bit register."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _zero_tables(level: int) -> UInt32[np.ndarray, "2 65536"]:
    """The effect of _PIECE * 2^level zero bytes on the lower and the upper half of a register."""
    registers = np.arange(1 << 16, dtype=np.uint32)
    registers = np.concatenate([registers, registers << 16])
    if level == 0:
        for _ in range(_PIECE // 2):
            registers = _after_word(registers)
    else:
        for _ in range(2):
            registers = _after_zeros(registers, level - 1)
    return registers.reshape(2, 1 << 16)
