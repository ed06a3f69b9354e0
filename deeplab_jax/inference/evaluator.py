"""Scores of a network on a split: whole images, one confusion matrix in int64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from deeplab_jax.inference.forward import Forward
from deeplab_jax.inference.predictor import Segmenter
from deeplab_jax.metrics.confusion import confusion_matrix, scores
from deeplab_jax.ops.mesh import batch_sharding, replicated, shard_batch
from deeplab_jax.types import Batch, DatasetInfo, Example, ExampleSource, Variables

Counts = tuple[Int[Array, "b c c"], Bool[Array, "b"]]  # confusion per row; False where the row is no image
HostCounts = tuple[Int[np.ndarray, "b c c"], Bool[np.ndarray, "b"]]
ConfusionStep = Callable[[Variables, Batch], Counts]
NamedBatch = tuple[Batch, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What a pass over a split says."""

    confusion: Int[np.ndarray, "c c"]  # int64 pixels; rows: truth, columns: prediction
    scores: dict[str, Any]  # mean_iou, iou_per_class, ...: ready for JSON
    per_image: list[dict[str, Any]]  # {'name', 'mean_iou'} of this process's images, as the batches came
    num_images: int  # over all processes


def make_confusion_step(forward: Forward, mesh: Mesh, *, num_classes: int, ignore_label: int) -> ConfusionStep:
    """Returns (variables, batch) -> (one confusion matrix per image, valid), both on every device.

    int32 suffices on the device: an image has fewer than 2**31 pixels.

    Args:
      forward: class probabilities of a batch.
      mesh: the batch is split along its data axis.
      num_classes: rows and columns of a matrix.
      ignore_label: pixels of this label do not count.
    """

    def step(variables: Variables, batch: Batch) -> Counts:
        image, label, valid = (jnp.asarray(rows) for rows in batch)
        prediction = jnp.argmax(forward(variables, image), axis=-1)

        def count(label: Int[Array, "h w"], predicted: Int[Array, "h w"]) -> Int[Array, "c c"]:
            return confusion_matrix(label, predicted, num_classes=num_classes, ignore_label=ignore_label)

        confusions = jax.vmap(count)(label, prediction)
        return jnp.where(valid[:, None, None], confusions, 0), valid

    whole, rows = replicated(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)


def evaluate(
    step: ConfusionStep,
    variables: Variables,
    batches: Iterable[NamedBatch],
    mesh: Mesh,
    class_names: tuple[str, ...],
) -> Evaluation:
    """Sums the confusions of all batches in int64 and scores them.

    Args:
      step: as `make_confusion_step` makes it, on the same mesh.
      variables: of the network.
      batches: this process's rows of each batch and the names of the images in them; rows whose
        `valid` is False only fill up a batch and count nowhere.
      mesh: the devices.
      class_names: one for each class id.
    """
    total = np.zeros((len(class_names), len(class_names)), np.int64)
    per_image: list[dict[str, Any]] = []
    num_images = 0
    for (confusions, valid), names in _fetched(step, variables, batches, mesh):
        total += confusions.sum(axis=0)
        num_images += int(valid.sum())
        num_rows = len(valid) // jax.process_count()
        own = slice(jax.process_index() * num_rows, (jax.process_index() + 1) * num_rows)
        for confusion, is_image, name in zip(confusions[own], valid[own], names, strict=False):
            if is_image:
                per_image.append({"name": name, "mean_iou": scores(confusion, class_names)["mean_iou"]})
    return Evaluation(total, scores(total, class_names), per_image, num_images)


def evaluate_images(segment: Segmenter, source: ExampleSource, info: DatasetInfo) -> Evaluation:
    """As `evaluate`, an image at a time: for what is done to whole images on the host, as a CRF is.

    Args:
      segment: image -> class ids at its own size.
      source: of the images and labels; all of them are scored by this process.
      info: of the data set.
    """
    total = np.zeros((info.num_classes, info.num_classes), np.int64)
    per_image = []
    pending: list[tuple[Example, Callable[[], Int[np.ndarray, "h w"]]]] = []
    for index in range(len(source) + 1):
        if index < len(source):
            example = source[index]
            pending.append((example, segment(example.image)))
        if len(pending) > 1 or (pending and index == len(source)):
            example, wait = pending.pop(0)
            confusion = _count(example.label, wait(), info)
            total += confusion
            per_image.append({"name": example.name, "mean_iou": scores(confusion, info.class_names)["mean_iou"]})
    return Evaluation(total, scores(total, info.class_names), per_image, len(source))


def _count(label: Int[np.ndarray, "h w"], prediction: Int[np.ndarray, "h w"], info: DatasetInfo) -> np.ndarray:
    counts = confusion_matrix(
        jnp.asarray(label), jnp.asarray(prediction), num_classes=info.num_classes, ignore_label=info.ignore_label
    )
    return np.asarray(counts, np.int64)


def _fetched(
    step: ConfusionStep, variables: Variables, batches: Iterable[NamedBatch], mesh: Mesh
) -> Iterator[tuple[HostCounts, tuple[str, ...]]]:
    """Counts on the host, each fetched after the next batch was given to the devices, which so never wait."""
    pending: list[tuple[Counts, tuple[str, ...]]] = []
    for batch, names in batches:
        pending.append((step(variables, shard_batch(batch, mesh)), names))
        if len(pending) > 1:
            yield _to_host(*pending.pop(0))
    for counts, names in pending:
        yield _to_host(counts, names)


def _to_host(counts: Counts, names: tuple[str, ...]) -> tuple[HostCounts, tuple[str, ...]]:
    confusions, valid = counts
    return (np.asarray(confusions, np.int64), np.asarray(valid)), names
