"""Segments images of any size: NAME.png (class ids in the data set's palette) and NAME_overlay.png."""

from __future__ import annotations

import collections
import concurrent.futures
import glob
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tqdm
from jaxtyping import Int, UInt8
from PIL import Image

from deeplab_jax import visualize
from deeplab_jax.apps import assemble
from deeplab_jax.config import Config
from deeplab_jax.data.images import decode_image
from deeplab_jax.inference.predictor import Segmenter, make_segmenter
from deeplab_jax.types import DatasetInfo, UserError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_NUM_AHEAD = 8  # images decoded before the device asks for them, and results not yet written


def predict(config: Config, workdir: pathlib.Path, checkpoint: str, images: str, output: str = "") -> None:
    """Segments `images` with the workdir's best checkpoint, or with `checkpoint`.

    Args:
      config: the run's.
      workdir: of the run; results go to its predictions/ where `output` is empty.
      checkpoint: path of another one; empty: the workdir's best.
      images: a file, several separated by commas, a glob, or a folder.
      output: folder to write to.

    Raises:
      UserError: where no image is found, the output cannot be written, two results would have one name, or an
        image cannot be read (after the others are done).
    """
    paths = find_images(images)
    folder = pathlib.Path(output).expanduser() if output else workdir / "predictions"
    targets = name_results(paths, folder)
    info = assemble.find_info(config, workdir)
    model = assemble.build(config, info)
    variables = assemble.load_variables(config, model, workdir, checkpoint)
    _make_folder(folder)

    segment = make_segmenter(model.apply, variables, assemble.predictor_options(config))
    start = time.perf_counter()
    failures = segment_files(segment, paths, targets, info)
    seconds = time.perf_counter() - start
    num_done = len(paths) - len(failures)
    print(f"{num_done} images in {seconds:.1f} s ({num_done / seconds:.1f} images/s, compilation included): {folder}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(paths)} images could not be read, the others are done: {'; '.join(failures)}"
        )


def find_images(images: str) -> list[pathlib.Path]:
    """Files that `images` names, each once: a file, several separated by commas, a glob, or a folder.

    Raises:
      UserError: where a part of it names nothing.
    """
    if not images:
        raise UserError("--images is missing: give a file, several separated by commas, a glob, or a folder")
    parts = [images] if os.path.exists(images) else [part.strip() for part in images.split(",") if part.strip()]
    found = {os.path.abspath(path): path for part in parts for path in _expand(os.path.expanduser(part))}
    return list(found.values())


def name_results(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
    """A path in `folder`, without its ending, for the results of each image.

    It is the image's own name; images that share theirs are told apart by folder and ending (a/1.jpg and
    b/1.jpg become a_1_jpg and b_1_jpg).

    Raises:
      UserError: where two results would still have one name, or a result that of an image.
    """
    shared = {stem for stem, count in collections.Counter(path.stem for path in paths).items() if count > 1}
    places = [pathlib.Path(os.path.abspath(path)) for path in paths]
    common = pathlib.Path(os.path.commonpath([path.parent for path in places]))
    targets = []
    for path in places:
        name = path.stem
        if name in shared:
            name = "_".join((*path.relative_to(common).with_suffix("").parts, path.suffix[1:]))
        targets.append(folder / name)

    images = {path.resolve() for path in paths}
    claimed: dict[pathlib.Path, pathlib.Path] = {}
    for path, target in zip(paths, targets, strict=True):
        for result in result_paths(target):
            if result.resolve() in images:
                raise UserError(f"{path}: its result would overwrite the image {result}; choose another --output")
            other = claimed.setdefault(result.resolve(), path)
            if other != path:
                raise UserError(f"{path}: its result would overwrite {result}, that of {other}; rename one of them")
    return targets


def result_paths(target: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(class ids, overlay) of a result."""
    return target.with_name(f"{target.name}.png"), target.with_name(f"{target.name}_overlay.png")


def segment_files(
    segment: Segmenter, paths: Sequence[pathlib.Path], targets: Sequence[pathlib.Path], info: DatasetInfo
) -> list[str]:
    """Segments the files, reading and writing in threads beside the device.

    Returns:
      One message for each image that could not be read.

    Raises:
      UserError: where a result cannot be written.
    """
    failures: list[str] = []
    pending: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm.tqdm(total=len(paths), unit="image", disable=None) as bar,
    ):
        for target, read in zip(targets, _ahead(pool, _read, paths), strict=True):
            try:
                image = read.result()
            except UserError as error:
                failures.append(str(error))
            else:
                pending.append(pool.submit(_write, target, image, segment(image), info))
            while len(pending) > _NUM_AHEAD:
                pending.popleft().result()
            bar.update()
        for write in pending:
            write.result()
    return failures


def _expand(part: str) -> list[pathlib.Path]:
    path = pathlib.Path(part)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"--images={part}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
        return found
    if path.exists():
        return [path]
    found = sorted(pathlib.Path(name) for name in glob.glob(part, recursive=True) if os.path.isfile(name))
    if not found:
        raise UserError(
            f"--images={part}: nothing found; give a file, several separated by commas, a glob (in quotes), or a folder"
        )
    return found


def _make_folder(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be made ({error.strerror}); choose another folder") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output={folder}: not writable; choose another folder")


def _ahead(
    pool: concurrent.futures.Executor, function: Callable[[pathlib.Path], np.ndarray], paths: Iterable[pathlib.Path]
) -> Iterator[concurrent.futures.Future[np.ndarray]]:
    """Futures of function(path), in order, a bounded number of them started ahead of their turn."""
    started: collections.deque[concurrent.futures.Future[np.ndarray]] = collections.deque()
    for path in paths:
        started.append(pool.submit(function, path))
        if len(started) > _NUM_AHEAD:
            yield started.popleft()
    yield from started


def _read(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return decode_image(data, str(path))


def _write(
    target: pathlib.Path,
    image: UInt8[np.ndarray, "h w 3"],
    wait_for_ids: Callable[[], Int[np.ndarray, "h w"]],
    info: DatasetInfo,
) -> None:
    ids = wait_for_ids()
    ids_path, overlay_path = result_paths(target)
    palette_image = Image.fromarray(ids)
    palette_image.putpalette(visualize.full_palette(info.palette, info.ignore_label).tobytes())
    tinted = visualize.overlay(image, ids, info.palette, ignore_label=info.ignore_label)
    try:
        palette_image.save(ids_path)
        Image.fromarray(tinted).save(overlay_path)
    except OSError as error:
        raise UserError(f"cannot write {ids_path}: {error.strerror}; make room or choose another --output") from None
