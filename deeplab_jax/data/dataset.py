"""A data set: its metadata, and its splits, opened by name."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from deeplab_jax.data.sources.legend import Legend
from deeplab_jax.data.sources.reading import FileReading
from deeplab_jax.data.sources.samples import ReadCodes, Sample
from deeplab_jax.data.sources.stored_labels import LabelPixels
from deeplab_jax.palettes import Palette, voc_palette
from deeplab_jax.types import DatasetInfo, ExampleSource, ImageLabel

IGNORE_LABEL = 255  # the label of ignored pixels, unless a data set says otherwise


def make_info(name: str, class_names: tuple[str, ...], palette: Palette = ()) -> DatasetInfo:
    """The metadata of a data set of RGB images before its files are read: it has no splits yet.

    Args:
      class_names: in class id order.
      palette: RGB per class id; empty: VOC's colours.
    """
    num_classes = len(class_names)
    return DatasetInfo(name, num_classes, IGNORE_LABEL, class_names, palette or voc_palette(num_classes), {})


@dataclasses.dataclass(frozen=True)
class Originals:
    """The files that a data set is built from, for the linter."""

    samples: Mapping[str, Sequence[Sample]]  # by split
    legend: Legend  # what the masks hold
    read_codes: ReadCodes | None  # the codes in a sample's mask; raises UserError. None: its mask is a file of them
    reading: FileReading
    root: pathlib.Path | None = None  # the folder that holds nothing else; None: there is none
    settings: frozenset[pathlib.Path] = frozenset()  # its further files: lists, classes


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `open_dataset` of each module in deeplab_jax/data/datasets returns.

    `open_split` takes a split's name. It raises UserError for an unknown or an
    empty split, naming the splits that exist.
    """

    info: DatasetInfo
    open_split: Callable[[str], ExampleSource]
    originals: Originals | None = None  # None: not built from files
    notes: tuple[str, ...] = ()  # what was found, assumed and left out, a line each


@runtime_checkable
class SizedSource(Protocol):
    """A source that knows its examples' names and (height, width) without decoding them."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]: ...


@runtime_checkable
class LabelSource(Protocol):
    """A source that decodes labels without their images."""

    def label(self, index: int) -> ImageLabel: ...


@runtime_checkable
class CountedSource(Protocol):
    """A source that knows the pixels of its labels without reading them."""

    @property
    def label_pixels(self) -> LabelPixels: ...


def image_sizes(source: ExampleSource) -> list[tuple[int, int]]:
    """(height, width) of each example; decodes them all if the source is not a `SizedSource`."""
    if isinstance(source, SizedSource):
        return list(source.sizes)
    return [source[index].label.shape[:2] for index in range(len(source))]


def example_name(source: ExampleSource, index: int) -> str:
    """The example's name, read with the example if the source is not a `SizedSource`."""
    return source.names[index] if isinstance(source, SizedSource) else source[index].name
