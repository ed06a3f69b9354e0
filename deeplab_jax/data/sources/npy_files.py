"""Reads NumPy's files of one array: masks, and images of any number of channels."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from jaxtyping import Shaped

from deeplab_jax.data.sources.image_sizes import MAX_CHANNELS, SizeLimit, check_size
from deeplab_jax.types import UserError

_MAX_HEADER = 1000  # bytes; the header is text that is evaluated


def read_npy(data: bytes, name: str, limit: SizeLimit | None = None) -> Shaped[np.ndarray, "h w bands"]:
    """The array [height, width] or [height, width, bands] in a file's content; nothing is ever unpickled.

    Raises:
      UserError: when it is no such array, damaged or too large.
    """
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header: Any = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, fortran_order, dtype = read_header(file, max_header_size=_MAX_HEADER)
        start, count = file.tell(), math.prod(shape)
        if (
            dtype.kind not in "buif"
            or len(shape) not in (2, 3)
            or (len(shape) == 3 and not 0 < shape[2] <= MAX_CHANNELS)
        ):
            raise ValueError(f"holds {dtype} {list(shape)}")
        check_size((shape[0], shape[1]), name, limit or SizeLimit())
        if len(data) - start < count * dtype.itemsize:
            raise ValueError("ends before its last value")
        values = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran_order else "C")
    except UserError:
        raise
    except Exception as error:  # whatever evaluating a damaged header raises
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: is no array [height, width, channels] of numbers ({why}); save it as TIFF") from None
    return values if values.ndim == 3 else values[..., None]
