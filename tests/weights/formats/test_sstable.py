"""Sorted string tables, Snappy and CRC-32C against what their specifications say."""

from __future__ import annotations

import pytest

from deeplab_jax.weights.formats.crc32c import crc32c, masked_crc32c
from deeplab_jax.weights.formats.sstable import read_table, unpack_snappy


def _slow_crc32c(data):
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_of_rfc_3720(data, checksum):
    assert crc32c(data) == checksum


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1000, 8192, 10_001])
def test_checksums_of_every_length(num_bytes, rng):
    data = rng.bytes(num_bytes)
    assert crc32c(data) == _slow_crc32c(data)
    assert crc32c(memoryview(bytearray(data))) == crc32c(data)


def test_the_mask_of_leveldb():
    """Masking is not its own inverse, and undoing it gives the checksum back."""
    masked = masked_crc32c(b"123456789")
    turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert ((turned >> 17) | (turned << 15)) & 0xFFFFFFFF == 0xE3069283


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (b"\x46\xf0\x45" + b"x" * 70, b"x" * 70),  # a literal whose length takes a byte
        (b"\xac\x02\xf4\x2b\x01" + b"y" * 300, b"y" * 300),  # or two
        (b"\x09\x08abc\x09\x03", b"abcabcabc"),  # a copy with a 11 bit offset, which reaches into itself
        (b"\x06\x08abc\x0a\x03\x00", b"abcabc"),  # a 16 bit offset
        (b"\x06\x08abc\x0b\x03\x00\x00\x00", b"abcabc"),  # a 32 bit offset
        (b"\x42\x00z\xfe\x01\x00\x02\x01\x00", b"z" * 66),
        (b"\x80\x02" + b"\xf0\xff"[:2] + bytes(range(256)), bytes(range(256))),
    ],
)
def test_snappy(packed, plain):
    assert unpack_snappy(packed) == plain


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff" * 11,
        b"\x03\x08ab",
        b"\x04\x08abc",
        b"\x02\x08abc",
        b"\x06\x08abc\x0a\x04\x00",  # refers to before the start
        b"\x06\x08abc\x0a\x00\x00",  # refers to itself
        b"\x06\x08abc\x0a\x03",
        b"\xff\xff\xff\xff\x0f\x08abc",  # 4 GB of three bytes
        b"\x03\xfc\xff\xff\xff\xffabc",
        b"\x46\xf0",
    ],
)
def test_damaged_snappy(packed):
    with pytest.raises(ValueError, match=r"packed data|a number without end"):
        unpack_snappy(packed)


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"])
def test_what_is_no_table(data):
    with pytest.raises(ValueError, match="table"):
        list(read_table(data))
