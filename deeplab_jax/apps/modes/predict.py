"""Segments images of any size: writes class ids and overlays, or an archive for a benchmark's server."""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
import tqdm

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.image_files import expand_images, name_members, name_results
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.assembly.segment_files import masks_and_probabilities, segment_files
from deeplab_jax.apps.request import CHECKPOINT, Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.data.sources.orientation import shown_size
from deeplab_jax.data.sources.pictures import open_picture
from deeplab_jax.data.sources.submission import Submission, check_archive, pack, submission
from deeplab_jax.inference.predictor import make_batch_predictor, make_batch_segmenter
from deeplab_jax.types import Pixels, UserError

FLAGS = (
    CHECKPOINT,
    Flag("images", "", "a file, several separated by commas, a glob or a folder"),
    Flag("output", "", "folder of the results; default: WORKDIR/predictions"),
    Flag("submission", "", "an archive for a benchmark's server instead: voc_comp5, voc_comp6 or cityscapes"),
)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    flags = request.flags
    predict(request.config, request.workdir, flags["checkpoint"], flags["images"], flags["output"], flags["submission"])
    return 0


def predict(
    config: Config, workdir: pathlib.Path, checkpoint: str, images: str, output: str = "", submit_to: str = ""
) -> None:
    """Segments `images` with the workdir's best checkpoint, or with `checkpoint`.

    Args:
      images: a file, several separated by commas, a glob, or a folder.
      output: folder to write to; '': the workdir's predictions/.
      submit_to: a benchmark of submission.py, whose archive is written instead of ids and overlays.

    Raises:
      UserError: if no image is found, the output cannot be written, two results would have the same name, or an image
        cannot be read (after the others are done).
    """
    paths = expand_images(images)
    folder = pathlib.Path(output).expanduser() if output else workdir / "predictions"
    config = network.for_inference(config)
    info = open_data.find_info(config, workdir)
    rules = submission(submit_to, info) if submit_to else None
    targets = name_members(paths, folder, rules) if rules else name_results(paths, folder)
    model = network.build(config, info)
    variables = network.load_variables(config, model, workdir, checkpoint)
    for each in {folder, *(target.parent for target in targets)}:
        _make_folder(each)

    options = predictor_options(config, info)
    has_sigmoids = info.task != "multiclass"
    make = make_batch_predictor if has_sigmoids else make_batch_segmenter
    segment = make(model.apply, variables, options, _announce)
    files = functools.partial(masks_and_probabilities, info=info, options=options) if has_sigmoids else None
    start = time.perf_counter()
    failures = segment_files(
        segment,
        options,
        paths,
        targets,
        info,
        files=functools.partial(_submitted, rules) if rules else files,
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
    """(height, width) of an image as displayed, after EXIF rotation."""
    return shown_size(open_picture(path.read_bytes(), str(path)))


def _make_folder(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be made ({error.strerror}); choose another folder") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output={folder}: not writable; choose another folder")
