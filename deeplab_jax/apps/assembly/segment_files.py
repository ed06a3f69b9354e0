"""Segments many image files in batches; files are read and written in threads while the device computes."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tqdm
from jaxtyping import Integer
from PIL import Image

from deeplab_jax import visualize
from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.inference.predictor import BatchSegmenter, PredictorOptions, canvas_size
from deeplab_jax.types import DatasetInfo, Pixels, UserError

_NUM_AHEAD = 8  # at least this many images are decoded ahead of the device, and as many results may be unwritten

Files = Callable[[pathlib.Path, Pixels, Integer[np.ndarray, "h w"]], dict[pathlib.Path, bytes]]  # (target, image, ids)


class Job(NamedTuple):
    """One image to be segmented."""

    target: pathlib.Path  # path of its result, without extension
    image: Pixels


def result_paths(target: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(class ids, overlay) of a result."""
    return target.with_name(f"{target.name}.png"), target.with_name(f"{target.name}_overlay.png")


def ids_and_overlay(
    target: pathlib.Path, image: Pixels, ids: Integer[np.ndarray, "h w"], info: DatasetInfo
) -> dict[pathlib.Path, bytes]:
    """The two files of a result: class ids in the data set's palette, and the image tinted by class."""
    ids_path, overlay_path = result_paths(target)
    indexed = Image.fromarray(ids)
    indexed.putpalette(visualize.full_palette(info.palette, info.ignore_label).tobytes())
    tinted = visualize.overlay(visualize.as_rgb(image), ids, info.palette, ignore_label=info.ignore_label)
    return {ids_path: _png(indexed), overlay_path: _png(Image.fromarray(tinted))}


def segment_files(
    segment: BatchSegmenter,
    options: PredictorOptions,
    paths: Sequence[pathlib.Path],
    targets: Sequence[pathlib.Path],
    info: DatasetInfo,
    *,
    files: Files | None = None,
    batch_size: int = 1,
) -> list[str]:
    """Segments the files, reading and writing in threads while the device computes.

    Images with the same canvas size share batches. Left-over images that do not fill a batch are run one by one, so
    that each size is compiled at most twice.

    Args:
      segment: images of one canvas size -> functions that wait for their class ids.
      options: of `segment`; determines the canvas sizes.
      targets: paths of the results, without extension.
      files: the files to write for a result; None: `ids_and_overlay`.

    Returns:
      One message for each image that could not be read.

    Raises:
      UserError: if a result cannot be written.
    """
    files = files or functools.partial(ids_and_overlay, info=info)
    num_ahead = max(_NUM_AHEAD, 2 * batch_size)
    failures: list[str] = []
    writing: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    waiting: dict[tuple[int, int], list[Job]] = {}
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm.tqdm(total=len(paths), unit="image", disable=None) as bar,
    ):

        def start(jobs: Sequence[Job]) -> None:
            waits = segment([job.image for job in jobs])
            for job, wait in zip(jobs, waits, strict=True):
                writing.append(pool.submit(_write, job, wait, files))
            while len(writing) > num_ahead:
                writing.popleft().result()
            bar.update(len(jobs))

        reads = _ahead(pool, functools.partial(_read, info=info), paths, num_ahead)
        for target, read in zip(targets, reads, strict=True):
            try:
                job = Job(target, read.result())
            except UserError as error:
                failures.append(str(error))
                bar.update()
                continue
            group = waiting.setdefault(canvas_size(job.image.shape[:2], options), [])
            group.append(job)
            if len(group) == batch_size:
                start(group)
                group.clear()
            elif sum(map(len, waiting.values())) >= 4 * batch_size:  # many sizes: bounds the memory
                start([max(waiting.values(), key=len).pop(0)])
        for jobs in waiting.values():
            for job in jobs:
                start([job])
        for write in writing:
            write.result()
    return failures


def _ahead(
    pool: concurrent.futures.Executor,
    function: Callable[[pathlib.Path], Pixels],
    paths: Iterable[pathlib.Path],
    num_ahead: int = _NUM_AHEAD,
) -> Iterator[concurrent.futures.Future[Pixels]]:
    """Futures of function(path), in order; a bounded number of them is started ahead."""
    started: collections.deque[concurrent.futures.Future[Pixels]] = collections.deque()
    for path in paths:
        started.append(pool.submit(function, path))
        if len(started) > num_ahead:
            yield started.popleft()
    yield from started


def _read(path: pathlib.Path, info: DatasetInfo) -> Pixels:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return decode_pixels(data, str(path), info)


def _write(job: Job, wait_for_ids: Callable[[], Integer[np.ndarray, "h w"]], files: Files) -> None:
    for path, data in files(job.target, job.image, wait_for_ids()).items():
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; make room or choose another --output") from None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
