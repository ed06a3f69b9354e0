"""Batches of a split: an endless, shuffled, augmented stream for training, one pass over whole images for evaluation.

Training sample g (g = batch * batch_size + row) depends only on the seed and g: its epoch's order is a permutation
drawn from (seed, epoch), its augmentation is drawn from (seed, g). Workers and prefetching cannot change it, and the
position is the whole state. An epoch may end within a batch, so there is no smaller last batch.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.canvas import Canvas, place_image
from deeplab_jax.data.augment.by_name import make_augmentations
from deeplab_jax.data.augment.copy_paste import find_donors
from deeplab_jax.data.dataset import example_name, image_sizes
from deeplab_jax.data.loading.rows import CropBuffers, CropMaker, RowMaker, WindowMaker, largest_window
from deeplab_jax.data.settings import DataConfig
from deeplab_jax.data.workers import WorkerPool, each
from deeplab_jax.types import Batch, DatasetInfo, ExampleSource, Loader, Pixel, UserError, WindowBatch


def make_loader(
    config: DataConfig,
    source: ExampleSource,
    info: DatasetInfo,
    *,
    seed: int,
    pad_pixel: Pixel,
    shard: tuple[int, int] = (0, 1),
) -> TrainLoader:
    """An endless loader of training batches, starting at position 0; yields `WindowBatch`es if the devices augment.

    Args:
      config: batch size (over all processes), crop, augmentation, workers.
      pad_pixel: pads images smaller than the crop, and replaces missing values.
      shard: (p, P): this is process p of P, which gets rows
        p * batch_size / P up to (p + 1) * batch_size / P of each batch.

    Raises:
      UserError: when the source is empty, P does not divide the batch size, an augmentation cannot be built, or
        copy-paste finds nothing to paste.
    """
    if len(source) == 0:
        raise UserError(f"config.data.train_split={config.train_split!r}: holds no image of {info.name}; add some")
    rows = _shard_rows(config.batch_size, shard, "data.batch_size")
    if info.label_maps:
        _refuse_exclusive(config, info)
    maker: RowMaker[Any]
    if config.device_augmentation:
        maker = WindowMaker(config, info, canvas=largest_window(config, source), pad_pixel=pad_pixel)
    else:
        donors = None
        if config.copy_paste:
            donors = find_donors(source, info, config.copy_paste_classes, num_workers=config.num_workers)
        further = make_augmentations(config.augment)
        maker = CropMaker(config, info, pad_pixel=pad_pixel, donors=donors, further=further)
    return TrainLoader(config, source, rows=rows, seed=seed, maker=maker)


def _refuse_exclusive(config: DataConfig, info: DatasetInfo) -> None:
    """Raises UserError for a setting that only means something where each pixel has one class."""
    for field, is_set in (("copy_paste", config.copy_paste > 0), ("max_class_share", config.max_class_share < 1)):
        if is_set:
            raise UserError(
                f"config.data.{field}={getattr(config, field)}: is for classes that exclude each other, those of data "
                f"set {info.name} overlap; leave it out"
            )


class TrainLoader(Loader):
    """See `make_loader`; also a context manager."""

    def __init__(
        self,
        config: DataConfig,
        source: ExampleSource,
        *,
        rows: range,
        seed: int,
        maker: RowMaker[Any],
    ):
        self._config = config
        self._source = source
        self._rows = rows
        self._seed = seed
        self._maker = maker
        self._position = 0  # batches returned so far
        self._pending: collections.deque[_PendingBatch] = collections.deque()
        self._pool: WorkerPool | None = WorkerPool(config.num_workers)

    def __iter__(self) -> Iterator[Batch | WindowBatch]:
        return self

    def __next__(self) -> Batch | WindowBatch:
        """The next batch; its arrays belong to the caller.

        Raises:
          UserError: when an example's file cannot be decoded, or a worker is stuck on one.
          RuntimeError: when an example fails for another reason, with its name; or when the loader is closed.
        """
        if self._pool is None:
            raise RuntimeError("the loader is closed")
        # One more than `prefetch`, since the oldest is returned now.
        while len(self._pending) <= self._config.prefetch:
            self._pending.append(self._start_batch(self._pool, self._position + len(self._pending)))
        oldest = self._pending[0]
        for row in oldest.done:
            self._wait_for(row)
        self._pending.popleft()
        self._position += 1
        return self._maker.finish(oldest.buffers)

    def names_at(self, position: int) -> tuple[str, ...]:
        """Names of the files in the batch at `position`, including those of other processes."""
        first = position * self._config.batch_size
        samples = range(first, first + self._config.batch_size)
        return tuple(self._name_of(sample) for sample in samples)

    def get_state(self) -> dict[str, int]:
        """The number of batches returned: with the seed, it determines the next one."""
        return {"position": self._position}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continues after `state['position']` batches."""
        self._drop_pending()
        self._position = int(state["position"])

    def close(self) -> None:
        """Stops the workers; may be called more than once."""
        self._drop_pending()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_for(self, row: Future[None]) -> None:
        timeout = self._config.worker_timeout
        try:
            row.result(timeout)
        except TimeoutError:
            if row.done():  # raised by the example, not by the wait
                raise
            names = ", ".join(dict.fromkeys(self._in_work()))
            raise UserError(
                f"data workers are stuck: for more than {timeout:g} s busy with {names}; check "
                "these files and where they are stored, or raise config.data.worker_timeout"
            ) from None

    def _in_work(self) -> Iterator[str]:
        """Names of the files that workers are processing."""
        for offset, batch in enumerate(self._pending):
            for sample, row in zip(self._samples(self._position + offset), batch.done, strict=True):
                if row.running():
                    yield self._name_of(sample)

    def _name_of(self, sample: int) -> str:
        return example_name(self._source, self._example_index(sample))

    def _drop_pending(self) -> None:
        for batch in self._pending:
            for row in batch.done:
                row.cancel()
        self._pending.clear()

    def _samples(self, position: int) -> range:
        first = position * self._config.batch_size
        return range(first + self._rows.start, first + self._rows.stop)

    def _example_index(self, sample: int) -> int:
        epoch, offset = divmod(sample, len(self._source))
        return int(_epoch_order(self._seed, epoch, len(self._source))[offset])

    def _start_batch(self, pool: WorkerPool, position: int) -> _PendingBatch:
        buffers = self._maker.empty(len(self._rows))
        done = [pool.submit(self._make_row, buffers, row, sample) for row, sample in enumerate(self._samples(position))]
        return _PendingBatch(buffers, done)

    def _make_row(self, buffers: Any, row: int, sample: int) -> None:
        index = self._example_index(sample)
        try:
            self._maker.fill(buffers, row, self._source[index], seed=self._seed, sample=sample)
        except UserError:
            raise
        except Exception as error:
            name = example_name(self._source, index)
            raise RuntimeError(f"{name}: cannot be made into a training example: {error!r}") from error


class _PendingBatch(NamedTuple):
    buffers: Any
    done: list[Future[None]]  # one per row


@functools.lru_cache(maxsize=8)  # prefetched batches may belong to the next epoch
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    # Stream 1: no sample's augmentation draws from it.
    bits = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64), counter=[0, 0, 0, 1])
    return np.random.Generator(bits).permutation(num_examples)


def eval_batches(
    source: ExampleSource,
    info: DatasetInfo,
    *,
    batch_size: int,
    canvas: Canvas,
    pad_pixel: Pixel,
    num_workers: int,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """One pass over whole images at their original size, each exactly once.

    Images of one padded size share batches. An incomplete batch ends in padding rows with valid=False and all labels
    ignored.

    Args:
      batch_size: rows per batch, over all processes.
      canvas: the size that images are padded to, below and to the right.
      pad_pixel: the padding; also replaces missing values.
      num_workers: threads; 0: one for each CPU core.
      shard: (p, P): this is process p of P, which gets the p-th part of each batch's rows; all get the same number and
        shapes of batches.

    Returns:
      An iterator of (batch, names of its valid rows, which come first).

    Raises:
      UserError: when P does not divide `batch_size`; while iterating, when a file cannot be decoded.
    """
    rows = _shard_rows(batch_size, shard, "inference.batch_size")
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(image_sizes(source)):
        groups.setdefault(canvas.around(size), []).append(index)
    plan = [
        (padded_size, indices[start : start + batch_size][rows.start : rows.stop])
        for padded_size, indices in groups.items()
        for start in range(0, len(indices), batch_size)
    ]

    def make_batch(planned: tuple[tuple[int, int], list[int]]) -> tuple[Batch, tuple[str, ...]]:
        padded_size, indices = planned
        return _padded_batch(source, indices, len(rows), padded_size, pad_pixel, info)

    return each(make_batch, plan, num_workers=num_workers, ahead=1)  # one ahead: batches of whole images are large


def _padded_batch(
    source: ExampleSource,
    indices: list[int],
    num_rows: int,
    padded_size: tuple[int, int],
    pad_pixel: Pixel,
    info: DatasetInfo,
) -> tuple[Batch, tuple[str, ...]]:
    buffers = CropBuffers.empty(num_rows, padded_size, info)
    buffers.label[:] = info.ignore_label
    buffers.image[len(indices) :] = pad_pixel
    names = []
    for row, index in enumerate(indices):
        name, image, label = source[index]
        names.append(name)
        place_image(image, buffers.image[row], pad_pixel)
        buffers.label[row, : label.shape[0], : label.shape[1]] = label
        buffers.valid[row] = True
    return Batch(*buffers), tuple(names)


def _shard_rows(batch_size: int, shard: tuple[int, int], field: str) -> range:
    index, count = shard
    if batch_size % count:
        raise UserError(f"config.{field}={batch_size}: must be a multiple of the number of processes, {count}")
    rows_per_process = batch_size // count
    return range(index * rows_per_process, (index + 1) * rows_per_process)
