"""A decoded copy of a prepared split: one memory-mapped file of plain pixels.

Reading a window touches only its own rows, and nothing is decoded; with large images and small crops, decoding is most
of the work. The cost is disk space: 4 bytes per RGB pixel, 25 GB for Cityscapes' fine training images.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.prepare import PreparedSource, write_errors_for_users
from deeplab_jax.data.workers import each
from deeplab_jax.files import whole
from deeplab_jax.types import DatasetInfo, Example, ExampleSource, ImageLabel, UserError

_PIXELS, _INDEX = "pixels.bin", "index.json"


class RawSource(ExampleSource):
    """Random access to a raw copy; images and labels are read-only views of the file."""

    def __init__(self, folder: pathlib.Path, source: PreparedSource):
        """`folder` holds the copy of `source`."""
        info = source.info
        self.folder = folder  # holds only this copy
        self.label_pixels = source.label_pixels
        index = json.loads((folder / _INDEX).read_text())
        self.names: Sequence[str] = index["names"]
        self.sizes: Sequence[tuple[int, int]] = [(height, width) for height, width in index["sizes"]]
        self._spans = [_Span.of(size, info) for size in self.sizes]
        self._starts = np.cumsum([0, *(span.total for span in self._spans)]).tolist()
        self._bytes = np.memmap(folder / _PIXELS, np.uint8, mode="r")
        self._info = info

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        shape = (*self.sizes[index], self._info.channels)
        image = self._read(self._starts[index], self._spans[index].image, self._info.dtype)
        return Example(self.names[index], image.reshape(shape), self.label(index))

    def label(self, index: int) -> ImageLabel:
        """The label of one example; it is stored after its image."""
        span = self._spans[index]
        stored = self._read(self._starts[index] + span.label_start, span.label, self._info.label_dtype)
        return stored.reshape(*self.sizes[index], *self._info.label_maps)

    def _read(self, start: int, length: int, dtype: str) -> np.ndarray:
        return np.asarray(self._bytes[start : start + length]).view(dtype)


class _Span(NamedTuple):
    """Bytes of one example: its image, its label, and what aligns the label and the next example."""

    image: int
    label_start: int
    label: int
    total: int

    @classmethod
    def of(cls, size: tuple[int, int], info: DatasetInfo) -> _Span:
        of_image, of_label = np.dtype(info.dtype).itemsize, np.dtype(info.label_dtype).itemsize
        image = math.prod(size) * info.channels * of_image
        label = math.prod((*size, *info.label_maps)) * of_label
        label_start = -(-image // of_label) * of_label
        total = -(-(label_start + label) // max(of_image, of_label)) * max(of_image, of_label)
        return cls(image, label_start, label, total)


def with_raw_copies(dataset: Dataset) -> Dataset:
    """The same data set, with each split decoded once, when it is first opened, and read raw from then on.

    `open_split` then also raises UserError when the disk has no room for the copy.
    """

    def open_split(split: str) -> ExampleSource:
        source = dataset.open_split(split)
        if not isinstance(source, PreparedSource):
            raise UserError(
                f"config.data.prepared_form='raw': {dataset.info.name} keeps no prepared copy; leave it at 'files'"
            )
        return RawSource(raw_copy(source, title=f"decoding {dataset.info.name}/{split}"), source)

    return dataclasses.replace(dataset, open_split=functools.cache(open_split))


def raw_copy(source: PreparedSource, *, title: str) -> pathlib.Path:
    """The folder of a prepared split's raw copy, created if there is none; a copy that exists is complete.

    Raises:
      UserError: when the disk is too small or the folder cannot be written.
    """
    folder = source.folder.with_name(f"{source.folder.name}-raw")
    if folder.is_dir():
        return folder
    _require_room(source, folder.parent)
    with write_errors_for_users(folder.parent), whole(folder) as made:
        made.mkdir()
        _write_pixels(source, made / _PIXELS, title)
        (made / _INDEX).write_text(json.dumps({"names": list(source.names), "sizes": list(source.sizes)}))
    return folder


def _require_room(source: PreparedSource, folder: pathlib.Path) -> None:
    needed = sum(_Span.of(size, source.info).total for size in source.sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"config.data.prepared_form='raw': needs {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB "
            "left; free some, name a folder on a larger disk as config.data.prepared_dir, or leave it at 'files'"
        )


def _write_pixels(source: PreparedSource, path: pathlib.Path, title: str) -> None:
    with path.open("wb") as file:
        for _, image, label in each(source.__getitem__, range(len(source)), title=title):
            span = _Span.of((label.shape[0], label.shape[1]), source.info)
            written = file.write(np.ascontiguousarray(image).data)
            written += file.write(bytes(span.label_start - written)) + file.write(np.ascontiguousarray(label).data)
            file.write(bytes(span.total - written))
        file.flush()
        os.fsync(file.fileno())
