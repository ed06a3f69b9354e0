"""Scores a checkpoint on whole images at their original size: scores.json, per_image.json and a table."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps import assemble
from deeplab_jax.apps.files import write_whole
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.loader import eval_batches
from deeplab_jax.inference import evaluator
from deeplab_jax.inference.evaluator import Evaluation
from deeplab_jax.inference.forward import make_forward
from deeplab_jax.inference.predictor import make_segmenter
from deeplab_jax.types import NORMALIZATIONS, UserError, Variables

_COLLAPSED = 0.99  # share of the predictions that is of one class
_MISSED = 0.95  # share of the pixels of other classes that is predicted as that one


def evaluate(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> None:
    """Scores the workdir's best checkpoint, or `checkpoint`, on the evaluation split.

    Raises:
      UserError: where there is no checkpoint, or the workdir cannot be written.
    """
    dataset = assemble.open_dataset(config)
    mesh = assemble.make_mesh(config)
    model = assemble.build(config, dataset.info)
    variables = assemble.load_variables(config, model, workdir, checkpoint, mesh)
    start = time.perf_counter()
    evaluation = make_evaluator(config, model, dataset, mesh)(variables)
    seconds = time.perf_counter() - start
    if jax.process_index() == 0:
        write_evaluation(workdir, evaluation)
        print(format_table(evaluation.scores))
        if warning := collapse_warning(evaluation.scores):
            print(f"warning: {warning}")
        print(
            f"{evaluation.num_images} images in {seconds:.1f} s, compilation included; wrote {workdir / 'scores.json'}"
        )


def make_evaluator(config: Config, model: nn.Module, dataset: Dataset, mesh: Mesh) -> Callable[[Variables], Evaluation]:
    """Returns variables -> Evaluation of the evaluation split; the first call compiles, later ones reuse it.

    The evaluation's `scores` are complete: what `write_evaluation` puts into scores.json.
    """
    info, options = dataset.info, config.inference
    source = dataset.open_split(config.data.eval_split)
    predictor_options = assemble.predictor_options(config)
    if predictor_options.crf and jax.process_count() > 1:
        raise UserError("config.inference.crf: evaluation with a CRF runs in one process; score the checkpoint there")
    forward = make_forward(
        model.apply, scales=options.scales, flip=options.flip, align_corners=config.model.align_corners
    )
    step = evaluator.make_confusion_step(forward, mesh, num_classes=info.num_classes, ignore_label=info.ignore_label)
    # A batch has a row for each device at least; fuller rows change no score.
    batch_size = -(-options.batch_size // mesh.size) * mesh.size

    def score(variables: Variables) -> Evaluation:
        if predictor_options.crf:
            segment = make_segmenter(model.apply, variables, predictor_options)
            return evaluator.evaluate_images(segment, source, info)
        batches = eval_batches(
            source,
            info,
            batch_size=batch_size,
            pad_to=options.pad_to,
            bucket=options.bucket,
            pad_pixel=NORMALIZATIONS[config.model.normalization].pad_pixel,
            num_workers=config.data.num_workers,
            shard=(jax.process_index(), jax.process_count()),
        )
        return evaluator.evaluate(step, variables, batches, mesh, info.class_names)

    def run(variables: Variables) -> Evaluation:
        evaluation = score(variables)
        complete = {
            **evaluation.scores,
            "num_images": evaluation.num_images,
            "confusion": evaluation.confusion.tolist(),
            "protocol": protocol(config),
        }
        return dataclasses.replace(evaluation, scores=complete)

    return run


def protocol(config: Config) -> dict[str, Any]:
    """How images go through the network in evaluation: what a score means nothing without."""
    return {
        "dataset": config.data.dataset,
        "split": config.data.eval_split,
        "scales": list(config.inference.scales),
        "flip": config.inference.flip,
        "output_stride": config.model.output_stride,
        "window": None,  # whole images
        "pad_to": list(config.inference.pad_to),
        "bucket": config.inference.bucket,
        "resize": "align_corners" if config.model.align_corners else "half_pixel",
        "crf": config.inference.crf or None,
    }


def write_evaluation(workdir: pathlib.Path, evaluation: Evaluation) -> None:
    """Writes scores.json and per_image.json, each whole or not at all.

    Raises:
      UserError: where the workdir cannot be written.
    """
    write_whole(workdir / "scores.json", json.dumps(evaluation.scores, indent=1) + "\n")
    write_whole(workdir / "per_image.json", json.dumps(evaluation.per_image, indent=1) + "\n")


def collapse_warning(scores: Mapping[str, Any]) -> str | None:
    """One line where the network answers one class whatever it sees, else None.

    It does where more than 99 % of the predictions are of one class, and as good as none of the pixels of other
    classes are found to be such. The second keeps a good network on a split of nearly one class only out of it.

    Args:
      scores: what scores.json holds.
    """
    confusion = np.asarray(scores["confusion"], np.int64)
    predicted, truth = confusion.sum(axis=0), confusion.sum(axis=1)
    k = int(predicted.argmax())
    num_others = truth.sum() - truth[k]
    num_missed = predicted[k] - confusion[k, k]
    if not num_others or predicted[k] <= _COLLAPSED * predicted.sum() or num_missed < _MISSED * num_others:
        return None
    name = list(scores["iou_per_class"])[k]
    return (
        f"predictions have collapsed to '{name}': {predicted[k] / predicted.sum():.1%} of the pixels, of which "
        f"{truth[k] / truth.sum():.1%} are labelled so; if this lasts, check the masks with --mode=lint, lower "
        "config.optimizer.learning_rate, start from pretrained weights, or try config.loss.class_weights=balanced"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of an evaluation; None where the class is in no pixel that the number is about."""

    name: str
    iou: float | None
    accuracy: float | None  # share of the class's pixels that are found
    pixel_fraction: float  # of the labelled pixels, in [0, 1]


def class_rows(scores: Mapping[str, Any]) -> list[ClassRow]:
    """The per-class table of scores.json, in the order of the class ids."""
    confusion = np.asarray(scores["confusion"], np.int64)
    truth = confusion.sum(axis=1)
    total = max(int(truth.sum()), 1)
    return [
        ClassRow(name, iou, float(confusion[k, k] / truth[k]) if truth[k] else None, float(truth[k] / total))
        for k, (name, iou) in enumerate(scores["iou_per_class"].items())
    ]


def format_table(scores: Mapping[str, Any]) -> str:
    """The per-class table and the means as text."""
    rows = class_rows(scores)
    width = max(len("class"), *(len(row.name) for row in rows))
    lines = [f"{'class':{width}}      IoU  accuracy  pixels"]
    lines += [
        f"{row.name:{width}}  {_number(row.iou)}  {_number(row.accuracy):>8}  {row.pixel_fraction:6.1%}" for row in rows
    ]
    lines.append(f"{'mean':{width}}  {_number(scores['mean_iou'])}  {_number(scores['mean_accuracy']):>8}")
    lines.append(f"pixel accuracy {_number(scores['pixel_accuracy']).strip()}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return " absent" if value is None else f"{value:7.4f}"
