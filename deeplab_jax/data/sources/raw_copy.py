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

import numpy as np
from jaxtyping import UInt8

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.prepare import PreparedSource, write_errors_for_users
from deeplab_jax.data.workers import each
from deeplab_jax.files import whole
from deeplab_jax.types import DatasetInfo, Example, ExampleSource, UserError

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
        self._starts = np.cumsum([0, *(_num_bytes(size, info) for size in self.sizes)]).tolist()
        self._pixels = np.memmap(folder / _PIXELS, np.uint8, mode="r")
        self._channels, self._dtype = info.channels, np.dtype(info.dtype)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        shape = (*self.sizes[index], self._channels)
        start = self._starts[index]
        content = self._pixels[start : start + math.prod(shape) * self._dtype.itemsize]
        return Example(self.names[index], np.asarray(content).view(self._dtype).reshape(shape), self.label(index))

    def label(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """The class ids of one example; they are stored after its image."""
        height, width = self.sizes[index]
        start = self._starts[index] + height * width * self._channels * self._dtype.itemsize
        return np.asarray(self._pixels[start : start + height * width].reshape(height, width))


def _num_bytes(size: tuple[int, int], info: DatasetInfo) -> int:
    """Size of one example: its image, its label, and padding that aligns the next example."""
    num_pixels, itemsize = math.prod(size), np.dtype(info.dtype).itemsize
    return (num_pixels * info.channels - (-num_pixels // itemsize)) * itemsize


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
    needed = sum(_num_bytes(size, source.info) for size in source.sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"config.data.prepared_form='raw': needs {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB "
            "left; free some, name a folder on a larger disk as config.data.prepared_dir, or leave it at 'files'"
        )


def _write_pixels(source: PreparedSource, path: pathlib.Path, title: str) -> None:
    with path.open("wb") as file:
        for _, image, label in each(source.__getitem__, range(len(source)), title=title):
            written = file.write(np.ascontiguousarray(image).data) + file.write(np.ascontiguousarray(label).data)
            file.write(bytes(_num_bytes(label.shape, source.info) - written))
        file.flush()
        os.fsync(file.fileno())
