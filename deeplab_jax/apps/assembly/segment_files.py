"""Segments many image files in batches; files are read and written in threads while the device computes."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import io
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tqdm
from jaxtyping import Float, Integer
from PIL import Image

from deeplab_jax import visualize
from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.inference.predictor import BatchPredictor, BatchSegmenter, PredictorOptions, canvas_size
from deeplab_jax.ops.tasks import find_task
from deeplab_jax.types import DatasetInfo, Pixels, UserError

_NO_FILE_NAME = re.compile(r"[^\w.-]+")  # what a class's name may not bring into the name of a file
_NUM_AHEAD = 8  # at least this many images are decoded ahead of the device, and as many results may be unwritten

Files = Callable[
    [pathlib.Path, Pixels, np.ndarray], dict[pathlib.Path, bytes]
]  # (target, image, what the network says)


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
    """The two files of a result: class ids in the data set's palette, and the image tinted by class.

    Ids of more than 256 classes are grey of 16 bits.
    """
    ids_path, overlay_path = result_paths(target)
    indexed = visualize.mask_picture(ids, info.palette, info.ignore_label)
    tinted = visualize.overlay(visualize.as_rgb(image), ids, info.palette, ignore_label=info.ignore_label)
    return {ids_path: _png(indexed), overlay_path: _png(Image.fromarray(tinted))}


def masks_and_probabilities(
    target: pathlib.Path,
    image: Pixels,
    probabilities: Float[np.ndarray, "h w c"],
    info: DatasetInfo,
    *,
    options: PredictorOptions,
) -> dict[pathlib.Path, bytes]:
    """The files of a result where sigmoids decide: masks, probabilities in 255ths, and the image tinted by class.

    Binary: NAME.png with ids and palette, NAME_probability.png of the object. Multilabel: for each class
    NAME_CLASS.png, 0 and 255, and NAME_CLASS_probability.png.
    """
    prediction = find_task(info.task).decide(probabilities, options.thresholds)
    levels = np.rint(255 * probabilities).astype(np.uint8)
    if info.task == "binary":
        probability = target.with_name(f"{target.name}_probability.png")
        return ids_and_overlay(target, image, prediction, info) | {probability: _png(Image.fromarray(levels[..., 1]))}
    tinted = visualize.overlay(visualize.as_rgb(image), prediction, info.palette, ignore_label=info.ignore_label)
    files = {result_paths(target)[1]: _png(Image.fromarray(tinted))}
    for k, name in enumerate(info.class_names):
        place = f"{target.name}_{_NO_FILE_NAME.sub('_', name)}"
        files[target.with_name(f"{place}.png")] = _png(Image.fromarray(prediction[..., k].astype(np.uint8) * 255))
        files[target.with_name(f"{place}_probability.png")] = _png(Image.fromarray(levels[..., k]))
    return files


def segment_files(
    segment: BatchSegmenter | BatchPredictor,
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
      segment: images of one canvas size -> functions that wait for their class ids, or for what `files` takes.
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


def _write(job: Job, wait: Callable[[], np.ndarray], files: Files) -> None:
    for path, data in files(job.target, job.image, wait()).items():
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; make room or choose another --output") from None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
