"""Confusion matrices, of classes together or of each by itself, and the scores computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int64, Integer
from numpy.typing import NDArray


def confusion_matrix(
    label: Integer[Array, "*pixels"], prediction: Integer[Array, "*pixels"], *, num_classes: int, ignore_label: int
) -> Int[Array, "c c"]:
    """Counts pixels by (true class, predicted class): rows are the truth.

    The counts are int32, enough for 2^31 pixels in one call; sum several calls in int64 on the host. `jax.vmap` over
    the leading axis gives one matrix per image.

    Args:
      label: class ids; pixels with `ignore_label`, or with any value outside [0, num_classes), are not counted.
      prediction: class ids in [0, num_classes), of the label's shape.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label, prediction = np.array([0, 0, 1, 255]), np.array([0, 1, 1, 1])
      >>> print(dl.metrics.confusion_matrix(label, prediction, num_classes=2, ignore_label=255))
      [[1 1]
       [0 1]]
    """
    label, prediction = label.astype(jnp.int32).reshape(-1), prediction.astype(jnp.int32).reshape(-1)
    counted = (label != ignore_label) & (label >= 0) & (label < num_classes)
    num_cells = num_classes * num_classes
    cell = jnp.where(counted, label * num_classes + prediction, num_cells)
    return jnp.bincount(cell, length=num_cells + 1)[:num_cells].reshape(num_classes, num_classes)


def confusion_of_maps(
    label: Integer[Array, "*pixels c"], prediction: Bool[Array, "*pixels c"], *, ignore_label: int
) -> Int[Array, "c 2 2"]:
    """A confusion matrix of each class of a multilabel task: rows and columns are its absence and its presence.

    Args:
      label: 0, 1, or the ignore label where the class is not known.
      prediction: whether each class is there.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label = np.array([[1, 0], [1, 1], [0, 255]])  # three pixels of two classes
      >>> print(dl.metrics.confusion_of_maps(label, label == 1, ignore_label=255)[0])
      [[1 0]
       [0 2]]
    """

    def of_class(label: Integer[Array, "*pixels"], prediction: Bool[Array, "*pixels"]) -> Int[Array, "2 2"]:
        return confusion_matrix(label, prediction.astype(jnp.uint8), num_classes=2, ignore_label=ignore_label)

    return jax.vmap(of_class, in_axes=-1)(label, prediction)


def maps_on_host(
    label: Integer[np.ndarray, "*pixels c"], prediction: Bool[np.ndarray, "*pixels c"], *, ignore_label: int
) -> Int64[np.ndarray, "c 2 2"]:
    """As `confusion_of_maps`, where a new size compiles nothing."""
    pairs = zip(np.moveaxis(label, -1, 0), np.moveaxis(prediction.astype(np.uint8), -1, 0), strict=True)
    return np.stack([confusion_on_host(*pair, num_classes=2, ignore_label=ignore_label)[0] for pair in pairs])


def confusion_on_host(
    label: Integer[np.ndarray, "*pixels"],
    prediction: Integer[np.ndarray, "*pixels"],
    *,
    num_classes: int,
    ignore_label: int,
    group: Integer[np.ndarray, "*pixels"] | None = None,
    num_groups: int = 1,
) -> Int64[np.ndarray, "g c c"]:
    """As `confusion_matrix`, where a new size compiles nothing, and a matrix for each group of pixels.

    Args:
      group: of each pixel; those outside [0, num_groups) are not counted. None: all are in group 0.
    """
    counted = (label != ignore_label) & (label < num_classes)
    if group is not None:
        counted &= (group >= 0) & (group < num_groups)
    cells = label[counted].astype(np.int64) * num_classes + prediction[counted]
    if group is not None:
        cells += group[counted].astype(np.int64) * num_classes**2
    return np.bincount(cells, minlength=num_groups * num_classes**2).reshape(num_groups, num_classes, num_classes)


class Outcomes(NamedTuple):
    """Pixels by what became of each class, int64; a leading axis of images may come before the classes."""

    hit: Int64[np.ndarray, "*n c"]  # true positives
    truth: Int64[np.ndarray, "*n c"]  # pixels of the class
    predicted: Int64[np.ndarray, "*n c"]  # pixels predicted as the class
    total: Int64[np.ndarray, "*n c"]  # pixels that are labelled for the class


def outcomes(confusion: Int[np.ndarray, "*n c c"] | Int[np.ndarray, "*n c 2 2"], *, maps: bool = False) -> Outcomes:
    """The outcomes in a confusion matrix, or in the matrices of each class (`maps`).

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> found = dl.metrics.outcomes(np.array([[3, 1], [0, 2]]))
      >>> found.hit, found.truth, found.predicted
      (array([3, 2]), array([4, 2]), array([3, 3]))
    """
    confusion = np.asarray(confusion, np.int64)
    total = confusion.sum(axis=(-1, -2))
    if maps:
        return Outcomes(confusion[..., 1, 1], confusion[..., 1, :].sum(-1), confusion[..., 1].sum(-1), total)
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return Outcomes(hit, confusion.sum(-1), confusion.sum(-2), np.broadcast_to(total[..., None], hit.shape))


def over(class_names: Sequence[str], counted: Bool[np.ndarray, "c"]) -> str:
    """What a mean over classes is over, in words; names a single class, whose score is no mean."""
    names = [name for name, is_counted in zip(class_names, counted, strict=True) if is_counted]
    if not names:
        return "no class: none is present"
    if len(names) == 1:
        rest = "the only one" if len(class_names) == 1 else f"the only one present of {len(class_names)}"
        return f"one class, '{names[0]}', {rest}"
    return f"{len(names)} classes" if len(names) == len(class_names) else f"{len(names)} of {len(class_names)} classes"


def scores(confusion: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """The usual scores of a confusion matrix as plain numbers, ready for JSON.

        IoU_i = n_ii / (t_i + p_i - n_ii),   t_i pixels of class i, p_i predicted as i, T = Σ t_i
        mean IoU = mean of IoU_i,  frequency weighted IoU = Σ t_i IoU_i / T
        pixel accuracy = Σ n_ii / T,  mean accuracy = mean of n_ii / t_i

    A class in neither truth nor prediction has no IoU (None) and is left out of the mean; a class that is only
    predicted has IoU 0 and counts. The mean accuracy is over classes in the truth. The mean of no classes is None.

    Args:
      confusion: [c, c], rows are the truth; or [c, 2, 2], of classes that overlap, whose pixel accuracy is that of
        all decisions.
      class_names: one per class.

    Source: Fully Convolutional Networks (1411.4038), sec. 5.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> found = dl.metrics.scores(np.array([[3, 1], [0, 4]]), ("ground", "object"))
      >>> found["iou_per_class"], found["pixel_accuracy"]
      ({'ground': 0.75, 'object': 0.8}, 0.875)
    """
    confusion = np.asarray(confusion, np.int64)
    num_classes = len(class_names)
    if confusion.shape not in ((num_classes, num_classes), (num_classes, 2, 2)):
        raise ValueError(f"a confusion matrix of shape {confusion.shape} for {len(class_names)} class names")
    hit, truth, predicted, _ = outcomes(confusion, maps=confusion.ndim == 3)
    union = truth + predicted - hit
    num_right, total = np.trace(confusion, axis1=-2, axis2=-1).sum(), confusion.sum()
    iou = hit / np.maximum(union, 1)
    accuracy = hit / np.maximum(truth, 1)
    return {
        "mean_iou": _mean(iou[union > 0]),
        "mean_iou_over": over(class_names, union > 0),
        "iou_per_class": {
            name: float(value) if present else None
            for name, value, present in zip(class_names, iou, union > 0, strict=True)
        },
        "pixel_accuracy": float(num_right / total) if total else None,
        "mean_accuracy": _mean(accuracy[truth > 0]),
        "frequency_weighted_iou": float((truth * iou).sum() / truth.sum()) if truth.sum() else None,
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None
