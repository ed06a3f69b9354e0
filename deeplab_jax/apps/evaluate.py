"""Scores a checkpoint on whole images at their original size: scores.json, per_image.json and a table."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps import assemble
from deeplab_jax.apps.crf_settings import find_crf, setting_to_dict
from deeplab_jax.apps.files import write_whole
from deeplab_jax.apps.processes import told_when_one_is_lost
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset, example_name, image_sizes
from deeplab_jax.data.loader import eval_batches
from deeplab_jax.inference import evaluator
from deeplab_jax.inference.forward import default_stride
from deeplab_jax.inference.predictor import Announce, ShapeLog, make_async_predictor, options_forward
from deeplab_jax.inference.resizing import ResizedSource
from deeplab_jax.inference.tally import Evaluation, Measures, Tally
from deeplab_jax.types import ExampleSource, UserError, Variables

_COLLAPSED = 0.99  # share of the predictions that is of one class
_MISSED = 0.95  # share of the pixels of other classes that is predicted as that one


@told_when_one_is_lost()
def evaluate(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> None:
    """Scores the workdir's best checkpoint, or `checkpoint`, on the evaluation split.

    Raises:
      UserError: where there is no checkpoint, or the workdir cannot be written.
    """
    dataset = assemble.open_normalized(config, workdir)
    mesh = assemble.make_mesh(config)
    model = assemble.build(config, dataset.info)
    variables = assemble.load_variables(config, model, workdir, checkpoint, mesh)
    evaluation, seconds = score(config, model, dataset, mesh, variables)
    if jax.process_index() == 0:
        write_evaluation(workdir, evaluation)
        print(format_table(evaluation.scores))
        if warning := collapse_warning(evaluation.scores):
            print(f"warning: {warning}")
        print(
            f"{evaluation.num_images} images in {seconds:.1f} s ({evaluation.num_images / seconds:.1f} images/s, "
            f"compilation included); wrote {workdir / 'scores.json'}"
        )


def score(
    config: Config, model: nn.Module, dataset: Dataset, mesh: Mesh, variables: Variables
) -> tuple[Evaluation, float]:
    """An evaluation that tells what it compiles, with its speed among the scores; and the seconds that it took."""
    start = time.perf_counter()
    evaluation = make_evaluator(config, model, dataset, mesh, announce_shape)(variables)
    seconds = time.perf_counter() - start
    speed = {
        "images_per_second": evaluation.num_images / seconds,
        "seconds": seconds,
        "devices": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
    }
    return dataclasses.replace(evaluation, scores={**evaluation.scores, "speed": speed}), seconds


def announce_shape(shape: tuple[int, ...], count: int) -> None:
    """One line on stderr for each shape that is compiled for: what takes long before anything moves."""
    if jax.process_index() == 0:
        num_images, height, width = shape[:3]
        print(f"compiling for {num_images} x {height}x{width} pixels (shape {count})", file=sys.stderr)


def make_evaluator(
    config: Config, model: nn.Module, dataset: Dataset, mesh: Mesh, announce: Announce | None = None
) -> Callable[[Variables], Evaluation]:
    """Returns variables -> Evaluation of the evaluation split; the first call compiles, later ones reuse it.

    The evaluation's `scores` are complete: what `write_evaluation` puts into scores.json.

    Args:
      config: the run's; `inference` says how, its `measures` what.
      model: as `assemble.build` makes it.
      dataset: whose evaluation split is scored.
      mesh: the devices.
      announce: is told of each shape that is compiled for.
    """
    info, options = dataset.info, config.inference
    source = _scored_source(config, dataset)
    predictor_options = assemble.predictor_options(config, info)
    if options.resize_labels:
        predictor_options = dataclasses.replace(predictor_options, resize=None)  # the source has done it
    if predictor_options.on_host and jax.process_count() > 1:
        raise UserError(
            f"config.inference.{'crf' if predictor_options.crf else 'resize_shorter'}: evaluation with it runs in one "
            "process; score the checkpoint there"
        )
    if options.compute_dtype:
        model = assemble.build(assemble.for_inference(config), info)
    measures = Measures(**dataclasses.asdict(options.measures))
    step = evaluator.make_confusion_step(
        options_forward(model.apply, predictor_options),
        mesh,
        num_classes=info.num_classes,
        ignore_label=info.ignore_label,
        measures=measures,
    )
    shapes = ShapeLog(announce)
    # A batch has a row for each device at least; fuller rows change no score.
    batch_size = -(-options.batch_size // mesh.size) * mesh.size

    def batches() -> Iterator[evaluator.NamedBatch]:
        for batch, names in eval_batches(
            source,
            info,
            batch_size=batch_size,
            pad_to=options.pad_to,
            bucket=options.bucket,
            pad_pixel=predictor_options.pad_pixel,
            num_workers=config.data.num_workers,
            shard=(jax.process_index(), jax.process_count()),
        ):
            shapes.note((batch_size, *batch.image.shape[1:]))
            yield batch, names

    def run(variables: Variables) -> Evaluation:
        tally = Tally(info.class_names, ignore_label=info.ignore_label, measures=measures)
        if predictor_options.on_host:
            predict = make_async_predictor(model.apply, variables, predictor_options, announce)
            evaluation = evaluator.evaluate_images(predict, source, info, tally)
        else:
            sizes = _sizes_by_name(source) if measures.need_maps else None
            evaluation = evaluator.evaluate(step, variables, batches(), mesh, tally, sizes)
        complete = {
            **evaluation.scores,
            "num_images": evaluation.num_images,
            "confusion": evaluation.confusion.tolist(),
            "protocol": protocol(config),
        }
        return dataclasses.replace(evaluation, scores=complete)

    return run


def _scored_source(config: Config, dataset: Dataset) -> ExampleSource:
    """The evaluation split, at the size at which it is scored."""
    source = dataset.open_split(config.data.eval_split)
    center_crop = config.inference.center_crop
    rule = assemble.resize_rule(config) if config.inference.resize_labels else None
    return ResizedSource(source, rule, center_crop) if rule or center_crop != (0, 0) else source


def _sizes_by_name(source: ExampleSource) -> dict[str, tuple[int, int]]:
    return {example_name(source, index): size for index, size in enumerate(image_sizes(source))}


def protocol(config: Config) -> dict[str, Any]:
    """How images go through the network in evaluation: what a score means nothing without."""
    options = config.inference
    rule = assemble.resize_rule(config)
    is_windowed = tuple(options.window) != (0, 0)
    stride = options.stride if tuple(options.stride) != (0, 0) else default_stride(options.window)
    return {
        "name": options.protocol or None,
        "dataset": config.data.dataset,
        "split": config.data.eval_split,
        "scales": list(options.scales),
        "flip": options.flip,
        "fuse": options.fuse,
        "output_stride": config.model.output_stride,
        "window": list(options.window) if is_windowed else None,  # None: whole images
        "stride": list(stride) if is_windowed else None,
        "blend": options.blend if is_windowed else None,
        "pad_to": list(options.pad_to),
        "bucket": options.bucket,
        "resize": "align_corners" if config.model.align_corners else "half_pixel",
        "resize_input": dataclasses.asdict(rule) if rule else None,
        "labels": "resized" if rule and options.resize_labels else "original",
        "center_crop": list(options.center_crop) if tuple(options.center_crop) != (0, 0) else None,
        "compute_dtype": options.compute_dtype or config.model.compute_dtype,
        "crf": options.crf or None,
        "crf_setting": setting_to_dict(crf) if (crf := find_crf(options.crf)) else None,  # `crf` may be a file
    }


def write_evaluation(workdir: pathlib.Path, evaluation: Evaluation, suffix: str = "") -> None:
    """Writes scores.json and per_image.json, each whole or not at all; `suffix` goes before the ending.

    Raises:
      UserError: where the workdir cannot be written.
    """
    write_whole(workdir / f"scores{suffix}.json", json.dumps(evaluation.scores, indent=1) + "\n")
    write_whole(workdir / f"per_image{suffix}.json", json.dumps(evaluation.per_image, indent=1) + "\n")


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
    lines += _further_lines(scores)
    return "\n".join(lines)


def _further_lines(scores: Mapping[str, Any]) -> list[str]:
    """What was measured beside IoU and accuracies, a line each."""
    lines = []
    interval = scores.get("confidence_interval")
    if interval and interval["mean_iou"]:
        low, high = interval["mean_iou"]
        lines.append(f"mean IoU between {low:.4f} and {high:.4f} in {interval['level']:.0%} of draws of the images")
    if near := scores.get("boundary_iou"):
        lines.append(f"boundary IoU {_number(near['mean']).strip()} ({near['band_fraction']:.0%} of the diagonal)")
    if curve := scores.get("trimap"):
        picked = [
            (width, curve["mean_iou"][width - 1]) for width in (1, 5, 10, 20, 40) if width <= len(curve["widths"])
        ]
        values = ", ".join(f"{_number(value).strip()} at {width}" for width, value in picked)
        lines.append(f"mean IoU within pixels of the {curve['around']} boundary: {values}")
    if sure := scores.get("calibration"):
        lines.append(f"expected calibration error {_number(sure['ece']).strip()}")
    return lines


def _number(value: float | None) -> str:
    return " absent" if value is None else f"{value:7.4f}"
