"""Dice (F1), precision, recall and specificity of each class, over the split's pixels and as means over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from deeplab_jax.metrics.confusion import Outcomes, over

# Each a ratio of pixels: (numerator, denominator). A class whose denominator is 0 has no score.
_RATIOS: Mapping[str, Callable[[Outcomes], tuple[np.ndarray, np.ndarray]]] = {
    "iou": lambda o: (o.hit, o.truth + o.predicted - o.hit),
    "dice": lambda o: (2 * o.hit, o.truth + o.predicted),
    "precision": lambda o: (o.hit, o.predicted),
    "recall": lambda o: (o.hit, o.truth),
    "specificity": lambda o: (o.total - o.truth - o.predicted + o.hit, o.total - o.truth),
}
_OF_IMAGES = ("iou", "dice")


def ratio(name: str, outcomes: Outcomes) -> Float[np.ndarray, "*n c"]:
    """A score of each class; NaN where it is 0 / 0.

    Args:
      name: 'iou', 'dice', 'precision', 'recall' or 'specificity'.
    """
    numerator, denominator = _RATIOS[name](outcomes)
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def overlap(images: Outcomes, class_names: Sequence[str]) -> dict[str, Any]:
    """The scores of a split, ready for JSON.

        Dice = F1 = 2 TP / (2 TP + FP + FN),  precision = TP / (TP + FP),  recall = TP / (TP + FN),
        specificity = TN / (TN + FP)

    Args:
      images: of each image, [n, c].
      class_names: c of them.

    Returns:
      {'per_class': {name: scores}, 'mean': scores, 'over': scores}: those of the pixels of all images together, and
      'iou_per_image' and 'dice_per_image', means over the 'num_images' images that have the class in truth or
      prediction. A class without the pixels that a score is about has none (None) and is in no mean; 'over' says in
      words which classes the mean is over.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> images = dl.metrics.outcomes(np.array([[[90, 2], [3, 5]], [[99, 1], [0, 0]]]))
      >>> found = dl.metrics.overlap(images, ("ground", "object"))
      >>> found["per_class"]["object"]["dice"], found["per_class"]["object"]["dice_per_image"]
      (0.625, 0.3333333333333333)
    """
    split = Outcomes(*(part.sum(axis=0) for part in images))
    columns = {name: ratio(name, split) for name in _RATIOS}
    for name in _OF_IMAGES:
        each = ratio(name, images)
        known = np.isfinite(each).sum(axis=0)
        columns[f"{name}_per_image"] = np.where(known > 0, np.nansum(each, axis=0) / np.maximum(known, 1), np.nan)
    num_images = np.isfinite(ratio("iou", images)).sum(axis=0)
    return {
        "per_class": {
            class_name: {name: _number(values[k]) for name, values in columns.items()}
            | {"num_images": int(num_images[k])}
            for k, class_name in enumerate(class_names)
        },
        "mean": {name: _mean(values) for name, values in columns.items()},
        "over": {name: over(class_names, np.isfinite(values)) for name, values in columns.items()},
    }


def _mean(values: Float[np.ndarray, "c"]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
