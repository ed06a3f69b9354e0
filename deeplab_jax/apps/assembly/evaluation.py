"""Evaluates a config's network on its evaluation split and writes the scores."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.crf_settings import find_crf, setting_to_dict
from deeplab_jax.apps.assembly.predictor_settings import predictor_options, thresholds_of
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset, example_name, image_sizes
from deeplab_jax.data.loading.loader import eval_batches
from deeplab_jax.files import write_whole
from deeplab_jax.inference import evaluator
from deeplab_jax.inference.forward import make_forward
from deeplab_jax.inference.predictor import Announce, ShapeLog, make_async_predictor
from deeplab_jax.inference.protocols import describe_passes
from deeplab_jax.inference.resizing import ResizedSource, resize_rule
from deeplab_jax.inference.tally import Evaluation, Tally
from deeplab_jax.types import ExampleSource, UserError, Variables


def score(
    config: Config, model: nn.Module, dataset: Dataset, mesh: Mesh, variables: Variables
) -> tuple[Evaluation, float]:
    """(evaluation with its speed among the scores, seconds it took); announces the shapes that it compiles."""
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
    """Prints one line to stderr for each shape that is compiled, which can take long."""
    if jax.process_index() == 0:
        num_images, height, width = shape[:3]
        print(f"compiling for {num_images} x {height}x{width} pixels (shape {count})", file=sys.stderr)


def make_evaluator(
    config: Config, model: nn.Module, dataset: Dataset, mesh: Mesh, announce: Announce | None = None
) -> Callable[[Variables], Evaluation]:
    """Returns variables -> Evaluation of the evaluation split; only the first call compiles.

    The evaluation's `scores` are what `write_evaluation` writes to scores.json, but for the checkpoint.

    Args:
      model: from `network.build`.
      announce: called with each shape that is compiled.
    """
    info, settings = dataset.info, config.inference
    source = _scored_source(config, dataset)
    options = predictor_options(config, info)
    if settings.resize_labels:
        options.settings.resize_shorter = 0  # the source resizes already
    if settings.measures.trimap and info.task == "multilabel":
        raise UserError(
            "config.inference.measures.trimap=True: counts pixels near boundaries between classes, and those of data "
            f"set {info.name} overlap; take boundary_iou or surface"
        )
    if settings.measures.best_threshold and info.task == "multiclass":
        raise UserError(
            f"config.inference.measures.best_threshold=True: data set {info.name} is multiclass, where the likeliest "
            "class is taken; leave it out"
        )
    if options.on_host and jax.process_count() > 1:
        raise UserError(
            f"config.inference.{'crf' if options.crf else 'resize_shorter'}: evaluation with it runs in one "
            "process; score the checkpoint there"
        )
    if settings.compute_dtype:
        model = network.build(network.for_inference(config), info)
    step = evaluator.make_confusion_step(
        make_forward(model.apply, options.settings, align_corners=options.align_corners, task=info.task),
        mesh,
        num_classes=info.num_classes,
        ignore_label=info.ignore_label,
        measures=settings.measures,
        task=info.task,
        thresholds=options.thresholds,
    )
    shapes = ShapeLog(announce)
    # At least one row per device; the batch size changes no score.
    batch_size = -(-settings.batch_size // mesh.size) * mesh.size

    def batches() -> Iterator[evaluator.NamedBatch]:
        for batch, names in eval_batches(
            source,
            info,
            batch_size=batch_size,
            canvas=settings.canvas,
            pad_pixel=options.pad_pixel,
            num_workers=config.data.num_workers,
            shard=(jax.process_index(), jax.process_count()),
        ):
            shapes.note((batch_size, *batch.image.shape[1:]))
            yield batch, names

    def run(variables: Variables) -> Evaluation:
        tally = Tally(
            info.class_names,
            ignore_label=info.ignore_label,
            measures=settings.measures,
            maps=info.task == "multilabel",
        )
        if options.on_host:
            predict = make_async_predictor(model.apply, variables, options, announce)
            evaluation = evaluator.evaluate_images(predict, source, info, tally, options.thresholds)
        else:
            sizes = _sizes_by_name(source) if settings.measures.need_maps else None
            evaluation = evaluator.evaluate(step, variables, batches(), mesh, tally, sizes)
        complete = {
            **evaluation.scores,
            "num_images": evaluation.num_images,
            "confusion": evaluation.confusion.tolist(),
            "task": info.task,
            "protocol": {
                **protocol(config),
                "threshold": thresholds_of(options),
                "threshold_split": settings.threshold_split or None,
            },
        }
        if found := complete.get("best_threshold"):
            complete["best_threshold"] = {**found, "split": config.data.eval_split}
        return dataclasses.replace(evaluation, scores=complete)

    return run


def _scored_source(config: Config, dataset: Dataset) -> ExampleSource:
    """The evaluation split, at the size at which it is scored."""
    source = dataset.open_split(config.data.eval_split)
    center_crop = config.inference.center_crop
    rule = resize_rule(config.inference) if config.inference.resize_labels else None
    return ResizedSource(source, rule, center_crop) if rule or center_crop != (0, 0) else source


def _sizes_by_name(source: ExampleSource) -> dict[str, tuple[int, int]]:
    return {example_name(source, index): size for index, size in enumerate(image_sizes(source))}


def protocol(config: Config) -> dict[str, Any]:
    """How images go through the network in evaluation; without it a score means nothing."""
    crf = find_crf(config.inference.crf)
    return {
        **describe_passes(config.inference),
        "dataset": config.data.dataset,
        "split": config.data.eval_split,
        "output_stride": config.model.output_stride,
        "resize": "align_corners" if config.model.align_corners else "half_pixel",
        "compute_dtype": config.inference.compute_dtype or config.model.compute_dtype,
        "crf_setting": setting_to_dict(crf) if crf else None,  # `inference.crf` may be a file
    }


def write_evaluation(
    workdir: pathlib.Path, evaluation: Evaluation, checkpoint: pathlib.Path, suffix: str = ""
) -> dict[str, Any]:
    """Writes scores.json and per_image.json, each atomically; `suffix` goes before the extension.

    Args:
      checkpoint: that was scored, from `find_checkpoint`.

    Returns:
      The content of scores.json.

    Raises:
      UserError: if the workdir cannot be written.
    """
    folder, workdir_path = checkpoint.absolute(), workdir.absolute()
    named = folder.relative_to(workdir_path) if folder.is_relative_to(workdir_path) else folder
    scores = {**evaluation.scores, "step": int(checkpoint.name), "checkpoint": named.as_posix()}
    write_whole(workdir / f"scores{suffix}.json", json.dumps(scores, indent=1) + "\n")
    write_whole(workdir / f"per_image{suffix}.json", json.dumps(evaluation.per_image, indent=1) + "\n")
    return scores
