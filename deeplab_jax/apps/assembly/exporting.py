"""Exports a network to a file that runs without this project: written, read back, compared, and described."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from typing import Any

import flax
import jax
import numpy as np

import deeplab_jax
from deeplab_jax import registry
from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.export_check import (
    MAX_LOGIT_DIFFERENCE,
    MIN_SAME_PIXELS,
    Agreement,
    NamedImages,
    check_file,
)
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.apps.assembly.predictor_settings import predictor_options, thresholds_of
from deeplab_jax.canvas import Canvas
from deeplab_jax.config import Config, to_dict
from deeplab_jax.export.program import (
    INPUT,
    SMALLEST,
    Format,
    Program,
    make_program,
    require_packages,
)
from deeplab_jax.files import whole, write_errors, write_whole
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.ops.tasks import id_type
from deeplab_jax.types import DatasetInfo, Normalization, UserError, Variables

FORMATS = "export.formats"


def find_format(name: str) -> Format:
    """The format of a module of deeplab_jax/export/formats.

    Raises:
      UserError: if there is none of that name, or packages that it needs are missing.
    """
    try:
        file_format: Format = registry.resolve(FORMATS, registry.entry(name, "file_format"))()
    except ValueError as error:
        raise UserError(f"--format={name}: {error}") from None
    require_packages(name, file_format)
    return file_format


def as_exported(config: Config, file_format: Format) -> Config:
    """The config of the exported network, in float32 if the format supports nothing else."""
    exported = copy.deepcopy(config)
    exported.model.batch_norm.group_size = 0  # only for training
    if not file_format.any_dtype:
        exported.model.compute_dtype = "float32"
    return exported


def find_canvas(config: Config, file_format: Format) -> Canvas:
    """The canvas at which the network computes: fixed at `export.size` if set, else as in prediction."""
    sizes = [config.export.size, *([] if file_format.any_size else [config.inference.pad_to, config.data.crop_size])]
    for size in sizes:
        if size != (0, 0):
            return Canvas(size, 0)
    return config.inference.canvas


def write_program(
    config: Config,
    info: DatasetInfo,
    variables: Variables,
    name: str,
    path: pathlib.Path,
    images: NamedImages,
) -> str:
    """Writes one file, and next to it a .json of the same name with what its users must know.

    The file is written to a temporary place, read back, run on images and compared with the network; only then is it
    moved to `path`.

    Args:
      name: of the format.
      path: of the file or, for some formats, folder.
      images: to compare on.

    Returns:
      One line with its size, the seconds it took and the agreement.

    Raises:
      UserError: if the format does not exist or lacks packages, if it cannot express the network, or if the file's
        results differ from the network's.
    """
    start, file_format = time.perf_counter(), find_format(name)
    config = as_exported(config, file_format)
    model, options = network.build(config, info), predictor_options(config, info)
    program = make_program(
        model.apply,
        variables,
        outputs=config.export.outputs,
        canvas=find_canvas(config, file_format),
        pad_pixel=pad_pixel(config, info),
        dtype=info.dtype,
        task=info.task,
        thresholds=options.thresholds,
    )
    with write_errors(path, "--output"), whole(path) as unfinished:
        file_format.write(program, unfinished)
        agreement = check_file(file_format.load(unfinished), program, file_format, model, variables, images, options)
        if not agreement.is_good:
            raise UserError(
                f"--format={name}: the file's results are not the network's: {summary(agreement)}; wanted are "
                f"{MAX_LOGIT_DIFFERENCE:g} and {MIN_SAME_PIXELS:.1%}; export it in another format"
            )
        content = file_facts(config, info, name, file_format, program, model.normalization, unfinished, agreement)
        if path.is_dir():  # a folder cannot be replaced by moving
            shutil.rmtree(path)
    write_whole(path.with_name(f"{path.name}.json"), json.dumps(content, indent=1) + "\n")
    return f"{content['bytes'] / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s; {summary(agreement)}"


def summary(agreement: Agreement) -> str:
    """The agreement in one line."""
    logits = agreement.largest_logit_difference
    first = "" if logits is None else f"logits within {logits:.1e}, "
    return f"{first}same class on {agreement.same_pixels:.3%} of the pixels ({len(agreement.images)} images)"


def file_facts(
    config: Config,
    info: DatasetInfo,
    name: str,
    file_format: Format,
    program: Program,
    normalization: Normalization,
    path: pathlib.Path,
    agreement: Agreement,
) -> dict[str, Any]:
    """What users of a file must know, ready for JSON."""
    digest, num_bytes = _digest(path)
    pixel = {} if info.task == "multilabel" else {"class_ids": np.dtype(id_type(info.num_classes)).name}
    return {
        "format": name,
        "file": path.name,
        "sha256": digest,
        "bytes": num_bytes,
        "input": {
            "name": INPUT,
            "dtype": program.dtype,
            "axes": ["batch", "height", "width", "channel"],
            "channels": ["red", "green", "blue"] if info.is_rgb else program.channels,
            "batch": "any" if file_format.any_batch else 1,
            **_size_rule(program, file_format),
            "pad_pixel": list(program.pad_pixel),
        },
        "outputs": {
            output: {
                "dtype": pixel.get(output, "uint8" if output == "class_ids" else "float32"),
                "axes": ["batch", "height", "width"] + ["class"] * (output not in pixel),
            }
            for output in program.outputs
        },
        "inside_the_file": ["padding", "normalization", "network", "resize of the logits", "decision"],
        "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
        **_decision(info, predictor_options(config, info)),
        "class_names": list(info.class_names),
        "palette": [list(color) for color in info.palette],
        "ignore_label": info.ignore_label,
        "compute_dtype": config.model.compute_dtype,
        "model": {key: value for key, value in to_dict(config.model).items() if key != "pretrained"},
        "passes": "one, at the image's own size: scales, flip, resize, window and crf of inference are not in the file",
        "agreement": dataclasses.asdict(agreement),
        "versions": {"deeplab_jax": deeplab_jax.__version__, "jax": jax.__version__, "flax": flax.__version__},
    }


_MEANING = {
    "multiclass": "probabilities are the softmax of the logits; class_ids are the likeliest",
    "binary": "the one logit is the object's; probabilities are those of background and object, 1 - p and p = sigmoid "
    "of the logit; class_ids are 1 where p is above the threshold",
    "multilabel": "probabilities are the sigmoid of each logit; class_ids are 1 for each class whose probability is "
    "above its threshold",
}


def _decision(info: DatasetInfo, options: PredictorOptions) -> dict[str, Any]:
    """What the outputs mean; the thresholds of sigmoids are in the file."""
    said: dict[str, Any] = {"task": info.task, "meaning": _MEANING[info.task]}
    if thresholds := thresholds_of(options):
        said |= {"thresholds": thresholds, "thresholds_chosen_on": options.settings.threshold_split or None}
    return said


def _size_rule(program: Program, file_format: Format) -> dict[str, Any]:
    canvas = program.canvas
    least = list(canvas.smallest)
    if not file_format.any_size:
        return {"size": least}
    computed_at = f"{least}, each side where needed plus multiples of {canvas.bucket}"
    return {
        "size": "any",
        "smallest": [SMALLEST] * 2,
        "largest": least if canvas.is_fixed else None,
        "computed_at": least if canvas.is_fixed else computed_at,
    }


def _digest(path: pathlib.Path) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file, or of a folder's files in order of their names."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digest, num_bytes = hashlib.sha256(), 0
    for file in files:
        data = file.read_bytes()
        digest.update(data)
        num_bytes += len(data)
    return digest.hexdigest(), num_bytes
