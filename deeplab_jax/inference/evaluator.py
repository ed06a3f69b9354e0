"""Evaluates a network on a split: every pixel of every image is counted once, in int64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, Integer

from deeplab_jax.inference.finite import all_finite, require_finite
from deeplab_jax.inference.forward import Forward
from deeplab_jax.inference.predictor import AsyncPredictor
from deeplab_jax.inference.settings import MeasureConfig
from deeplab_jax.inference.tally import Evaluation, Tally
from deeplab_jax.metrics.calibration import CalibrationCounts, count_confidence
from deeplab_jax.metrics.confusion import confusion_matrix, confusion_of_maps, confusion_on_host, maps_on_host
from deeplab_jax.metrics.thresholds import ProbabilityCounts, count_probabilities
from deeplab_jax.ops.mesh import batch_sharding, replicated, shard_batch, split_height
from deeplab_jax.ops.tasks import EVEN, find_task
from deeplab_jax.types import Batch, DatasetInfo, ExampleSource, Variables


class Counts(NamedTuple):
    """What the devices compute for a batch; None for what was not requested."""

    confusion: Int[Array | np.ndarray, "b c *two _"]  # per row: [c, c], or [c, 2, 2] where classes overlap
    valid: Bool[Array | np.ndarray, " b"]  # False for padding rows
    finite: Bool[Array | np.ndarray, " b"]  # whether the row's probabilities are finite
    confidence: CalibrationCounts | None = None  # of the whole batch
    probabilities: ProbabilityCounts | None = None  # of the whole batch
    prediction: Array | np.ndarray | None = None  # [b, h, w] or [b, h, w, c], padding included


ConfusionStep = Callable[[Variables, Batch], Counts]
NamedBatch = tuple[Batch, tuple[str, ...]]


def make_confusion_step(
    forward: Forward,
    mesh: Mesh,
    *,
    num_classes: int,
    ignore_label: int,
    measures: MeasureConfig | None = None,
    task: str = "multiclass",
    thresholds: Sequence[float] = (EVEN,),
) -> ConfusionStep:
    """Returns (variables, batch) -> `Counts` with one confusion matrix per image, replicated over the devices.

    int32 suffices on the device: an image has fewer than 2**31 pixels.

    Args:
      mesh: the batch is sharded along its data axis, image height along its space axis.
      ignore_label: pixels with this label are not counted.
      measures: what else to compute.
      task: of the probabilities and labels.
      thresholds: above which a class of a sigmoid is there.
    """
    measures = measures or MeasureConfig()

    def step(variables: Variables, batch: Batch) -> Counts:
        image, label, valid = split_height(tuple(jnp.asarray(rows) for rows in batch), mesh)
        probabilities = forward(variables, image)
        prediction = find_task(task).decide(probabilities, thresholds)

        def count(label: Integer[Array, "h w *maps"], predicted: Array) -> Int[Array, "c *two _"]:
            if task == "multilabel":
                return confusion_of_maps(label, predicted, ignore_label=ignore_label)
            return confusion_matrix(label, predicted, num_classes=num_classes, ignore_label=ignore_label)

        confusions = jax.vmap(count)(label, prediction)
        known = jnp.where(_like(valid, label), label.astype(jnp.int32), ignore_label)

        def counted(count: Callable[..., Any]) -> Any:
            """What `count` counts in the whole batch."""
            rows = jax.vmap(lambda a, b: count(a, b, ignore_label=ignore_label))(known, probabilities)
            return jax.tree.map(lambda part: part.sum(axis=0), rows)

        return Counts(
            confusion=jnp.where(_like(valid, confusions), confusions, 0),
            valid=valid,
            finite=all_finite(probabilities) | ~valid,
            confidence=counted(count_confidence) if measures.calibration else None,
            probabilities=counted(count_probabilities) if measures.best_threshold else None,
            prediction=prediction if measures.need_maps else None,
        )

    whole, rows = replicated(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)


def evaluate(
    step: ConfusionStep,
    variables: Variables,
    batches: Iterable[NamedBatch],
    mesh: Mesh,
    tally: Tally,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Evaluation:
    """Counts all batches and computes the scores.

    Args:
      step: from `make_confusion_step`, on the same mesh and with the tally's measures.
      batches: this process's rows of each batch and their image names; rows whose `valid` is False are padding.
      tally: a new one; receives the counts.
      sizes: (height, width) of the images by name, without padding, for measures on class maps.
    """
    with tally:
        for counts, batch, names in _fetched(step, variables, batches, mesh):
            require_finite(counts.finite)
            if counts.confidence is not None:
                tally.add_confidence(counts.confidence)
            if counts.probabilities is not None:
                tally.add_probabilities(counts.probabilities)
            num_rows = len(counts.valid) // jax.process_count()
            first = jax.process_index() * num_rows
            for row, is_image in enumerate(counts.valid):
                if not is_image:
                    continue
                is_own = first <= row < first + num_rows
                tally.add(np.asarray(counts.confusion[row]), names[row - first] if is_own else None)
                if is_own and counts.prediction is not None:
                    height, width = (sizes or {}).get(names[row - first], batch.label.shape[1:])
                    label = np.asarray(batch.label[row - first])
                    tally.add_maps(label[:height, :width], np.asarray(counts.prediction[row])[:height, :width])
        return tally.finish()


def evaluate_images(
    predict: AsyncPredictor,
    source: ExampleSource,
    info: DatasetInfo,
    tally: Tally | None = None,
    thresholds: Sequence[float] = (EVEN,),
) -> Evaluation:
    """Like `evaluate`, one image at a time: for steps that process whole images on the host, such as a CRF.

    Args:
      predict: starts the computation and returns a function that waits for the probabilities.
      source: all of its images are scored by this process.
      tally: a new one; receives the counts. None: only the confusion matrix.
      thresholds: above which a class of a sigmoid is there.
    """
    tally = tally or Tally(info.class_names, ignore_label=info.ignore_label, maps=info.task == "multilabel")
    with tally:
        waiting = None
        for index in range(len(source) + 1):
            # The next image is dispatched before the result of this one is fetched.
            started = None
            if index < len(source):
                example = source[index]
                started = (example, predict(example.image))
            if waiting is not None:
                done, wait = waiting
                probabilities = wait()
                prediction = find_task(info.task).decide(probabilities, thresholds)
                tally.add(_count_on_host(done.label, prediction, info), done.name)
                pixels = jnp.asarray(done.label), jnp.asarray(probabilities)
                if tally.measures.calibration:
                    tally.add_confidence(count_confidence(*pixels, ignore_label=info.ignore_label))
                if tally.measures.best_threshold:
                    tally.add_probabilities(count_probabilities(*pixels, ignore_label=info.ignore_label))
                if tally.measures.need_maps:
                    tally.add_maps(done.label, prediction)
            waiting = started
        return tally.finish()


def _count_on_host(label: np.ndarray, prediction: np.ndarray, info: DatasetInfo) -> np.ndarray:
    if info.task == "multilabel":
        return maps_on_host(label, prediction, ignore_label=info.ignore_label)
    return confusion_on_host(label, prediction, num_classes=info.num_classes, ignore_label=info.ignore_label)[0]


def _like(valid: Bool[Array, " b"], rows: Array) -> Bool[Array, "b *ones"]:
    """With as many axes as the rows have."""
    return valid.reshape([-1] + [1] * (rows.ndim - 1))


def _fetched(
    step: ConfusionStep, variables: Variables, batches: Iterable[NamedBatch], mesh: Mesh
) -> Iterator[tuple[Counts, Batch, tuple[str, ...]]]:
    """Counts on the host, each fetched after the next batch has been dispatched, so that the devices never wait."""
    pending: list[tuple[Counts, Batch, tuple[str, ...]]] = []
    for batch, names in batches:
        pending.append((step(variables, shard_batch(batch, mesh)), batch, names))
        if len(pending) > 1:
            yield _to_host(*pending.pop(0))
    for counts, batch, names in pending:
        yield _to_host(counts, batch, names)


def _to_host(counts: Counts, batch: Batch, names: tuple[str, ...]) -> tuple[Counts, Batch, tuple[str, ...]]:
    return jax.tree.map(np.asarray, counts), batch, names
