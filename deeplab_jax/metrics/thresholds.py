"""The threshold of a sigmoid's probability with the greatest IoU, exactly and in one pass over a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

NUM_STEPS = 1000  # thresholds are 1/1000, 2/1000, ... 999/1000
_EVEN = NUM_STEPS // 2 - 1  # the place of 0.5


class ProbabilityCounts(NamedTuple):
    """Labelled pixels of each class that are above exactly k of the thresholds."""

    absent: Int[Array | np.ndarray, "c k"]  # where the class is not
    present: Int[Array | np.ndarray, "c k"]  # where it is


def count_probabilities(
    label: Integer[Array, "h w *maps"], probabilities: Float[Array, "h w _"], *, ignore_label: int
) -> ProbabilityCounts:
    """Counts one image on the device; int32 suffices for one image.

    Args:
      label: 0, 1 or the ignore label: of a binary task, or of each class.
      probabilities: of background and object where there is one label, else of each class.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label, probability = np.array([[[0], [1]]]), np.array([[[0.25], [0.75]]], np.float32)
      >>> counts = dl.metrics.count_probabilities(label, probability, ignore_label=255)
      >>> int(np.argmax(counts.absent)), int(np.argmax(counts.present))
      (249, 749)
    """
    if label.ndim == 2:
        label, probabilities = label[..., None], probabilities[..., 1:]
    thresholds = jnp.asarray(np.arange(1, NUM_STEPS) / NUM_STEPS, jnp.float32)

    def of_class(label: Integer[Array, "h w"], probability: Float[Array, "h w"]) -> Int[Array, "2 k"]:
        num_below = jnp.searchsorted(thresholds, probability)  # thresholds that the probability is above
        known = (label != ignore_label) & (label >= 0) & (label < 2)
        cell = jnp.where(known, label.astype(jnp.int32) * NUM_STEPS + num_below, 2 * NUM_STEPS)
        return jnp.bincount(cell.reshape(-1), length=2 * NUM_STEPS + 1)[:-1].reshape(2, NUM_STEPS)

    counts = jax.vmap(of_class, in_axes=-1)(label, probabilities)
    return ProbabilityCounts(counts[:, 0], counts[:, 1])


def best_thresholds(counts: ProbabilityCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """The threshold of each class with the greatest IoU, and so with the greatest Dice; ready for JSON.

    Of equal ones it is the nearest to 0.5; a class without a pixel keeps 0.5.

    Args:
      counts: summed over the split in 64 bits.

    Returns:
      {'thresholds': one for each class, 'per_class': {name: {'threshold', 'iou', 'iou_at_even'}}}: the IoU at it and at
      0.5, over the split; None for a class without a pixel.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> label, probability = np.array([[0, 0, 1, 1]]), np.array([[0.1, 0.2, 0.3, 0.9]], np.float32)
      >>> pair = np.stack([1 - probability, probability], axis=-1)
      >>> counts = dl.metrics.count_probabilities(label, pair, ignore_label=255)
      >>> dl.metrics.best_thresholds(counts, ["object"])["per_class"]["object"]
      {'threshold': 0.299, 'iou': 1.0, 'iou_at_even': 0.5}
    """
    absent, present = (np.asarray(part, np.int64) for part in counts)
    # Above threshold j are the pixels above more than j of them.
    hit, false = (part[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] for part in (present, absent))
    truth = present.sum(axis=1, keepdims=True)
    iou = hit / np.maximum(truth + false, 1)
    per_class: dict[str, Any] = {}
    for k, name in enumerate(class_names):
        if not truth[k]:
            per_class[name] = {"threshold": 0.5, "iou": None, "iou_at_even": None}
            continue
        (best,) = np.nonzero(iou[k] == iou[k].max())
        place = int(best[np.abs(best - _EVEN).argmin()])
        values = {"threshold": (place + 1) / NUM_STEPS, "iou": float(iou[k, place])}
        per_class[name] = values | {"iou_at_even": float(iou[k, _EVEN])}
    return {"thresholds": [row["threshold"] for row in per_class.values()], "per_class": per_class}
