"""Prepared copies: a TFDS builder that writes checked samples to ArrayRecord files, and the source that reads them.

There is one copy per data set, split and fingerprint of the originals, so changed files are prepared again instead of
being silently ignored. TFDS writes to a temporary folder and renames it at the end: a copy that exists is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib.util
import io
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.data.sources.stored_labels import LabelPixels, count_label, decode_label, encode_label
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, Example, ExampleSource, ImageLabel, UserError

_SPLIT = "examples"  # each split of ours is a TFDS data set with one split
_SHARD_LENGTH = 128  # TFDS keeps a shard in memory while writing it
_NO_SPACE = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One checked sample as it is stored."""

    name: str
    image: bytes  # the original file
    label: bytes  # a grey PNG; see stored_labels.py
    size: tuple[int, int]  # (height, width) of the label, and of the image when upright
    pixels: LabelPixels


def make_record(name: str, image: bytes, label: ImageLabel, info: DatasetInfo) -> Record:
    """The record of an image file and its label."""
    return Record(name, image, encode_label(label, info), (label.shape[0], label.shape[1]), count_label(label, info))


class SegmentationBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Images and class ids of one split of any data set.

    Not a `GeneratorBasedBuilder`, which needs TensorFlow to write more than a gigabyte.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Do not look for a checksum file: TFDS would need a package that it does not install.
    url_infos = None

    def __init__(
        self,
        info: DatasetInfo,
        split: str,
        *,
        num_records: int,
        make_records: Callable[[], Iterator[Record]],
        data_dir: pathlib.Path,
    ):
        self.name = info.name
        self.dataset = info
        self._split = split
        self._num_records = num_records
        self._make_records = make_records
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        is_rgb = self.dataset.is_rgb
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Split '{self._split}' of {self.dataset.name} for semantic segmentation.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    # TFDS has no feature for other images; the content of their files is stored as it is.
                    "image": tfds.features.Image(shape=(None, None, 3)) if is_rgb else tfds.features.Text(),
                    "label": tfds.features.LabeledImage(
                        labels=list(self.dataset.class_names), shape=(None, None, 1), encoding_format="png"
                    ),
                }
            ),
            metadata=tfds.core.MetadataDict(
                names=[], sizes=[], pixels=[0] * self.dataset.num_classes, num_ignored=0, num_labelled=0
            ),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        del dl_manager  # nothing is downloaded at this point
        records = enumerate(self._make_records())  # shared: shards are written one after another
        num_shards = -(-self._num_records // _SHARD_LENGTH)
        return {_SPLIT: [functools.partial(self._examples_of_shard, records)] * num_shards}

    def _examples_of_shard(self, records: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in itertools.islice(records, _SHARD_LENGTH):
            metadata = self.info.metadata
            metadata["names"].append(record.name)
            metadata["sizes"].append(list(record.size))
            metadata["pixels"] = (metadata["pixels"] + record.pixels.of_class).tolist()
            metadata["num_ignored"] += record.pixels.num_ignored
            metadata["num_labelled"] += record.pixels.num_labelled
            yield index, {"name": record.name, "image": record.image, "label": record.label}


class PreparedSource(ExampleSource):
    """Random access to a prepared split, with names and sizes known without decoding."""

    def __init__(self, builder: SegmentationBuilder):
        metadata = builder.info.metadata
        self.names: Sequence[str] = metadata["names"]
        self.sizes: Sequence[tuple[int, int]] = [(h, w) for h, w in metadata["sizes"]]
        of_class = np.asarray(metadata["pixels"], np.int64)
        self.label_pixels = LabelPixels(of_class, metadata["num_ignored"], metadata["num_labelled"])
        as_bytes = tfds.decode.SkipDecoding()
        self._records = builder.as_data_source(_SPLIT, decoders={"image": as_bytes, "label": as_bytes})
        self.folder = pathlib.Path(builder.data_dir_root)  # holds only this copy
        self.info = builder.dataset

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        name = self.names[index]
        label = decode_label(record["label"], name, self.info, self.sizes[index])
        image = decode_pixels(record["image"], name, self.info)
        return Example(name, image, label)

    def label(self, index: int) -> ImageLabel:
        """The label of one example; its image is not decoded."""
        return decode_label(self._records[index]["label"], self.names[index], self.info, self.sizes[index])


def prepare(
    info: DatasetInfo,
    split: str,
    *,
    num_records: int,
    make_record: Callable[[int], Record],
    fingerprint: str,
    prepared_dir: str,
) -> PreparedSource:
    """Opens the prepared copy of a split, creating it if there is none.

    Args:
      make_record: index -> sample; called in threads.
      fingerprint: changes whenever a sample does.
      prepared_dir: see `prepared_folder`.

    Raises:
      UserError: the first one that `make_record` raises, in the samples' order; when the folder cannot be written; or
        when array-record is not installed.
    """
    if importlib.util.find_spec("array_record") is None:
        raise UserError(
            f"data set '{info.name}': random access to its images needs array-record: pip install array-record "
            "(not available for Windows: use Linux, WSL or macOS)"
        )
    folder = prepared_folder(prepared_dir)

    def make_records() -> Iterator[Record]:
        return each(make_record, range(num_records), title=f"preparing {info.name}/{split}")

    def make_builder() -> SegmentationBuilder:
        return SegmentationBuilder(
            info,
            split,
            num_records=num_records,
            make_records=make_records,
            data_dir=folder / f"{info.name}-{split}-{fingerprint}",
        )

    with quiet_tfds(), write_errors_for_users(folder):
        builder = make_builder()
        if not builder.is_prepared():
            try:
                builder.download_and_prepare()
            except OSError:
                # Another process may have finished first: then its folder already exists.
                builder = make_builder()
                if not builder.is_prepared():
                    raise
    return PreparedSource(builder)


def prepared_folder(prepared_dir: str) -> pathlib.Path:
    """The folder of all prepared copies, created if it does not exist.

    Args:
      prepared_dir: its path; '': the user's cache, XDG_CACHE_HOME/deeplab_jax or ~/.cache/deeplab_jax.

    Raises:
      UserError: when it cannot be written.
    """
    if prepared_dir:
        folder = pathlib.Path(prepared_dir).expanduser()
    else:
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "deeplab_jax"
    with write_errors_for_users(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silences TFDS's log and progress bars, which mention downloads; our own bar shows progress."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def write_errors_for_users(folder: pathlib.Path) -> Iterator[None]:
    """Raises UserError if `folder`, of prepared data, cannot be written or is full."""
    field = f"config.data.prepared_dir={str(folder)!r}"
    try:
        yield
    except (OSError, RuntimeError) as error:
        # ArrayRecord raises RuntimeError with the system's message in its text.
        if any(reason in str(error) for reason in _NO_SPACE):
            raise UserError(
                f"{field}: no space left for the prepared data; free some, or name a folder on a larger disk"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{field}: cannot be written ({error.strerror or error}); name a writable folder") from None
        raise
