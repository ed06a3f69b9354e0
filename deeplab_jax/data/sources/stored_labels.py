"""Labels as they are stored in prepared copies, and what is counted in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from deeplab_jax.types import DatasetInfo


class LabelPixels(NamedTuple):
    """Pixels of one label, or of all labels of a split."""

    of_class: Int[np.ndarray, "c"]
    num_ignored: int


def count_label(label: UInt8[np.ndarray, "h w"], info: DatasetInfo) -> LabelPixels:
    """The pixels of one label; values that are neither a class nor the ignore label count in neither."""
    counts = np.bincount(label.ravel(), minlength=256)
    num_ignored = int(counts[info.ignore_label])
    counts[info.ignore_label] = 0
    return LabelPixels(counts[: info.num_classes], num_ignored)
