"""Reads PBM, PGM and PPM files with their values as they are stored: Pillow stretches those of a small range to 255."""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from deeplab_jax.data.sources.image_sizes import SizeLimit, check_size
from deeplab_jax.types import UserError

# Whitespace and comments between two numbers of the header; one character of whitespace ends it.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P([1-6])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})")
_MAX_DIGITS = 16
_HIGHEST = re.compile(_GAP + rb"(\d{1,5})")


def read_pnm(
    data: bytes, name: str, limit: SizeLimit
) -> Bool[np.ndarray, "h w bands"] | UInt8[np.ndarray, "h w bands"] | UInt16[np.ndarray, "h w bands"]:
    """The values of a file; those of a bitmap are true where it is white, as everywhere else.

    Raises:
      UserError: when it is damaged or too large.
    """
    header = _HEADER.match(data)
    if header is None:
        raise UserError(f"{name}: is truncated or damaged (no size in its header); copy the file anew")
    kind, width, height = (int(number) for number in header.groups())
    check_size((height, width), name, limit)
    end, highest = header.end(), 1
    if kind not in (1, 4):
        depth = _HIGHEST.match(data, end)
        end, highest = (depth.end(), int(depth[1])) if depth else (end, 0)
    shape = (height, width, 3 if kind in (3, 6) else 1)
    try:
        if not 0 < highest < 1 << 16:
            raise ValueError("no depth in its header")
        if kind <= 3:
            values = _from_text(data[end:], shape, is_bitmap=kind == 1)
        elif kind == 4:
            row_bytes = -(-width // 8)
            rows = np.frombuffer(data, np.uint8, height * row_bytes, end + 1).reshape(height, row_bytes)
            values = np.unpackbits(rows, axis=1, count=width).reshape(shape)
        else:
            dtype = np.dtype(np.uint8 if highest < 256 else ">u2")
            values = np.frombuffer(data, dtype, height * width * shape[2], end + 1).reshape(shape)
    except ValueError as error:
        raise UserError(f"{name}: is truncated or damaged ({error}); copy the file anew") from None
    if kind in (1, 4):
        return values == 0
    return values.astype(np.uint8 if highest < 256 else np.uint16)


def _from_text(text: bytes, shape: tuple[int, int, int], *, is_bitmap: bool) -> np.ndarray:
    text = re.sub(rb"#[^\n]*", b"", text)
    words = [text[k : k + 1] for k in range(len(text)) if text[k : k + 1].isdigit()] if is_bitmap else text.split()
    count = shape[0] * shape[1] * shape[2]
    if len(words) < count:
        raise ValueError("values are missing")
    words = words[:count]
    if max(map(len, words)) > _MAX_DIGITS:  # an array of texts is as wide as the longest of them
        raise ValueError("a value of too many digits")
    return np.array(words).astype(np.int64).reshape(shape)
