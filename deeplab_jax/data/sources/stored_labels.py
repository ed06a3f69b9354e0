"""Labels as they are stored in prepared copies, and what is counted in them.

Class ids are a grey PNG of 8 bits, or of 16 where they need them. Labels of classes that may overlap are bits: a byte
holds the states of eight classes at a pixel, and as many further bytes say which of them are ignored, if any is. The
bytes are planes one below the other in a grey PNG of 8 bits, in which empty planes cost next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from deeplab_jax.data.sources.mask_files import decode_mask, encode_mask
from deeplab_jax.types import DatasetInfo, ImageLabel


class LabelPixels(NamedTuple):
    """Pixels of one label, or of all labels of a split."""

    of_class: Int[np.ndarray, "c"]
    num_ignored: int  # with no class known
    num_labelled: int  # the others: their classes' pixels may overlap


def count_label(label: ImageLabel, info: DatasetInfo) -> LabelPixels:
    """The pixels of one label; values that are neither a class nor the ignore label count in neither."""
    if info.label_maps:
        num_ignored = int((label == info.ignore_label).all(axis=-1).sum())
        of_class = np.count_nonzero(label == 1, axis=(0, 1))
        return LabelPixels(of_class, num_ignored, label.shape[0] * label.shape[1] - num_ignored)
    counts = np.bincount(label.ravel(), minlength=max(info.num_classes, info.ignore_label + 1))
    num_ignored = int(counts[info.ignore_label])
    counts[info.ignore_label] = 0
    of_class = counts[: info.num_classes]
    return LabelPixels(of_class, num_ignored, int(of_class.sum()))


def encode_label(label: ImageLabel, info: DatasetInfo) -> bytes:
    """The PNG file of a label."""
    if info.label_maps:
        return encode_mask(_to_planes(label, info.ignore_label))
    return encode_mask(label)


def decode_label(data: bytes, name: str, info: DatasetInfo, size: tuple[int, int]) -> ImageLabel:
    """The inverse of `encode_label`, for a label of this (height, width).

    Raises:
      UserError: when the file is damaged.
    """
    stored = decode_mask(data, name)
    return _from_planes(stored, info, size) if info.label_maps else stored.astype(info.label_dtype, copy=False)


def _to_planes(label: UInt8[np.ndarray, "h w c"], ignore_label: int) -> UInt8[np.ndarray, "rows w"]:
    is_ignored = label == ignore_label
    bits = [np.packbits(label == 1, axis=-1)] + ([np.packbits(is_ignored, axis=-1)] if is_ignored.any() else [])
    planes = np.concatenate(bits, axis=-1)
    return np.ascontiguousarray(planes.transpose(2, 0, 1)).reshape(-1, label.shape[1])


def _from_planes(
    stored: UInt8[np.ndarray, "rows w"], info: DatasetInfo, size: tuple[int, int]
) -> UInt8[np.ndarray, "h w c"]:
    num_bytes = -(-info.num_classes // 8)
    planes = stored.reshape(-1, *size).transpose(1, 2, 0)
    label = np.unpackbits(planes[..., :num_bytes], axis=-1, count=info.num_classes)
    if planes.shape[2] > num_bytes:
        is_ignored = np.unpackbits(planes[..., num_bytes:], axis=-1, count=info.num_classes)
        label[is_ignored > 0] = info.ignore_label
    return label
