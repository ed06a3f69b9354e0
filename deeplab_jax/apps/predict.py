"""Segments images of any size: class ids and overlays, or what a benchmark's server takes."""

from __future__ import annotations

import collections
import functools
import glob
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
import tqdm
from PIL import Image

from deeplab_jax.apps import assemble
from deeplab_jax.apps.segment_files import Pixels, result_paths, segment_files
from deeplab_jax.config import Config
from deeplab_jax.data.submission import Submission, check_archive, pack, submission
from deeplab_jax.inference.predictor import make_batch_segmenter
from deeplab_jax.types import UserError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def predict(
    config: Config, workdir: pathlib.Path, checkpoint: str, images: str, output: str = "", submit_to: str = ""
) -> None:
    """Segments `images` with the workdir's best checkpoint, or with `checkpoint`.

    Args:
      config: the run's.
      workdir: of the run; results go to its predictions/ where `output` is empty.
      checkpoint: path of another one; empty: the workdir's best.
      images: a file, several separated by commas, a glob, or a folder.
      output: folder to write to.
      submit_to: a benchmark of submission.py, whose archive is made instead of ids and overlays.

    Raises:
      UserError: where no image is found, the output cannot be written, two results would have one name, or an
        image cannot be read (after the others are done).
    """
    paths = find_images(images)
    folder = pathlib.Path(output).expanduser() if output else workdir / "predictions"
    config = assemble.for_inference(config)
    info = assemble.find_info(config, workdir)
    rules = submission(submit_to, info) if submit_to else None
    targets = name_members(paths, folder, rules) if rules else name_results(paths, folder)
    model = assemble.build(config, info)
    variables = assemble.load_variables(config, model, workdir, checkpoint)
    for each in {folder, *(target.parent for target in targets)}:
        _make_folder(each)

    options = assemble.predictor_options(config, info)
    segment = make_batch_segmenter(model.apply, variables, options, _announce)
    start = time.perf_counter()
    failures = segment_files(
        segment,
        options,
        paths,
        targets,
        info,
        files=functools.partial(_submitted, rules) if rules else None,
        batch_size=config.inference.batch_size,
    )
    seconds = time.perf_counter() - start
    num_done = len(paths) - len(failures)
    print(f"{num_done} images in {seconds:.1f} s ({num_done / seconds:.1f} images/s, compilation included): {folder}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(paths)} images could not be read, the others are done: {'; '.join(failures)}"
        )
    if rules:
        _submit(rules, folder, paths)


def _announce(shape: tuple[int, ...], count: int) -> None:
    num_images, height, width = shape[:3]
    tqdm.tqdm.write(f"compiling for {num_images} x {height}x{width} pixels (shape {count})", file=sys.stderr)


def _submitted(rules: Submission, target: pathlib.Path, image: Pixels, ids: np.ndarray) -> dict[pathlib.Path, bytes]:
    return {target.with_name(f"{target.name}.png"): rules.encode(ids)}


def _submit(rules: Submission, folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> None:
    archive = pack(rules, folder, [path.stem for path in paths])
    faults = check_archive(rules, archive, {path.stem: _size(path) for path in paths})
    if faults:
        raise UserError(f"{archive}: the server would refuse it: {'; '.join(faults[:5])}")
    print(f"{archive}: {len(paths)} results, checked by the server's rules")


def _size(path: pathlib.Path) -> tuple[int, int]:
    """(height, width) of an image as it is shown, turned where its camera says so."""
    with Image.open(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112, 1) >= 5 else (height, width)


def name_members(paths: Sequence[pathlib.Path], folder: pathlib.Path, rules: Submission) -> list[pathlib.Path]:
    """Where in `folder` each image's result lies, without its ending, as it will in the archive.

    Raises:
      UserError: where two images would have one result, or a name is not the benchmark's.
    """
    targets = [folder / rules.member(path.stem).removesuffix(".png") for path in paths]
    for target, count in collections.Counter(targets).items():
        if count > 1:
            raise UserError(f"--images: {count} images would have the result {target.name}.png; give one of them")
    return targets


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
