"""COCO 2017 on disk: its archives, its folders, and its large annotation files, read once and then freed.

    train2017/NAME.jpg  val2017/NAME.jpg        the photographs, in the folder itself or in images/
    annotations/WHAT_train2017.json  ...        the annotations, here or in the folder itself

Source: https://cocodataset.org/#download; the archives' checksums are those of TensorFlow Datasets 4.9
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.archives import Archive, first_folder
from deeplab_jax.data.sources.samples import read_bytes
from deeplab_jax.types import ExampleSource, UserError

Content = TypeVar("Content")

SPLITS = ("train", "val")
IMAGES = (
    Archive(
        "train2017.zip",
        url="http://images.cocodataset.org/zips/train2017.zip",
        checksum="sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        wanted=r"\.jpg$",
    ),
    Archive(
        "val2017.zip",
        url="http://images.cocodataset.org/zips/val2017.zip",
        checksum="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        wanted=r"\.jpg$",
    ),
)


class AnnotationFile(Generic[Content]):
    """A JSON file reduced while it is parsed: hundreds of megabytes of text would become gigabytes of dicts.

    `content` parses it on first use, from any thread, and keeps the result until `let_go`.
    """

    def __init__(self, path: pathlib.Path, reduce: Callable[[dict[str, Any]], Any], collect: Callable[[Any], Content]):
        """`reduce` maps each JSON object, innermost first; `collect` maps the outermost result."""
        self.path = path
        self._reduce = reduce
        self._collect = collect
        self._lock = threading.Lock()
        self._content: Content | None = None

    @property
    def content(self) -> Content:
        """The collected result; raises UserError if the file cannot be read or is not such a file."""
        with self._lock:
            if self._content is None:
                try:
                    self._content = self._collect(json.loads(read_bytes(self.path), object_hook=self._reduce))
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
                    raise UserError(
                        f"{self.path}: is no such annotation file of COCO ({type(error).__name__}: {error}); "
                        "unpack it from its archive again"
                    ) from None
            return self._content

    def let_go(self) -> None:
        """Frees the memory; the next `content` parses again."""
        with self._lock:
            self._content = None


def let_go_after_opening(dataset: Dataset, files: Iterable[AnnotationFile[Any]]) -> Dataset:
    """The same data set; opening a split frees the annotation files that it is prepared from."""

    def open_split(split: str) -> ExampleSource:
        try:
            return dataset.open_split(split)
        finally:
            for file in files:
                file.let_go()

    return dataclasses.replace(dataset, open_split=open_split)


def find_image_folders(folders: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Split -> its image folder, for the splits that exist."""
    found = {split: first_folder(folders, [f"{split}2017", f"images/{split}2017"]) for split in SPLITS}
    return {split: folder for split, folder in found.items() if folder is not None}


def find_annotations(folders: Sequence[pathlib.Path], name: str) -> pathlib.Path | None:
    """The annotation file called `name`."""
    paths = (folder / inner / name for inner in ("annotations", "") for folder in folders)
    return next((path for path in paths if path.is_file()), None)
