"""Example sources that the tests make."""

from __future__ import annotations

import numpy as np

from deeplab_jax.types import DatasetInfo, Example

INFO = DatasetInfo(
    name="made",
    num_classes=3,
    ignore_label=255,
    class_names=("a", "b", "c"),
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    splits={"train": 10},
)


class MadeSource:
    """Examples of given sizes; the image of example i is i everywhere, so that a batch tells what it is made of."""

    def __init__(self, sizes: list[tuple[int, int]]):
        self._made_sizes = sizes
        self.num_reads = 0

    def __len__(self) -> int:
        return len(self._made_sizes)

    def __getitem__(self, index: int) -> Example:
        self.num_reads += 1
        height, width = self._made_sizes[index]
        image = np.full((height, width, 3), index, np.uint8)
        return Example(f"image{index}", image, np.full((height, width), index % 3, np.uint8))


class SizedMadeSource(MadeSource):
    """Also knows names and sizes without reading."""

    @property
    def names(self) -> list[str]:
        return [f"image{index}" for index in range(len(self))]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return self._made_sizes
