"""What a few images hold, told before training where 8-bit RGB would lose most of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_jax.data.sources.bands import decode_pixels, stored_format
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.types import DatasetInfo, UserError

_NUM_SURVEYED = 4  # images
_NEARLY_BLACK = 15  # a maximum up to here leaves 16 levels: 12 bits in 16 as 8, or shares of 1 as bytes


def survey_images(splits: Mapping[str, Sequence[Sample]], info: DatasetInfo) -> tuple[str, ...]:
    """A note where images of more than 8 bits, or nearly black ones, are to be read as 8-bit RGB; else nothing."""
    if not info.is_rgb:
        return ()
    samples = [sample for samples in splits.values() for sample in samples]
    chosen = sorted({int(index) for index in np.linspace(0, len(samples) - 1, _NUM_SURVEYED)}) if samples else []
    highest, deep = 0, None
    for index in chosen:
        try:
            data = read_bytes(samples[index].image)
            stored = stored_format(data)
            deep = stored if stored is not None and stored[1] == "uint16" else deep
            format_ = stored if stored is not None and stored[1] == "uint16" else (info.channels, info.dtype)
            own = dataclasses.replace(info, channels=format_[0], dtype=format_[1])
            highest = max(highest, int(decode_pixels(data, str(samples[index].image), own).max()))
        except UserError:  # whoever reads them all names it
            continue
    if deep is not None:
        return (
            f"images hold 16 bits and values up to {highest} ({len(chosen)} looked at), of which 8-bit RGB keeps the "
            f'high byte, 0 to {highest >> 8} of 255; to train on all, write "channels": {deep[0]}, "dtype": "uint16" '
            "into classes.json and set config.model.normalization=dataset",
        )
    if 0 < highest <= _NEARLY_BLACK:
        return (
            f"images are nearly black: the highest value of {len(chosen)} is {highest} of 255; save them with their "
            'whole range, or with their own values as TIFF, declared in classes.json ("dtype": "uint16" or "float32")',
        )
    return ()
