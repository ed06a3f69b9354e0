"""How much a score depends on the choice of images: bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from deeplab_jax.metrics.confusion import outcomes

NUM_RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 100  # resamples at a time, which bounds the memory for large splits


class ImageCounts(NamedTuple):
    """The counts of one image from which mean IoU is computed."""

    hit: Int[NDArray, " c"]  # correctly predicted pixels of each class
    truth: Int[NDArray, " c"]
    predicted: Int[NDArray, " c"]


def image_counts(confusion: Int[NDArray, "c *two _"]) -> ImageCounts:
    """The diagonal and the margins of one image's confusion matrix, [c, c] or of each class [c, 2, 2]; rows: the truth.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> dl.metrics.image_counts(np.array([[3, 1], [0, 4]]))
      ImageCounts(hit=array([3, 4]), truth=array([4, 4]), predicted=array([3, 5]))
    """
    return ImageCounts(*outcomes(confusion, maps=confusion.ndim == 3)[:3])


def confidence_interval(
    images: Sequence[ImageCounts], *, level: float = LEVEL, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The percentile bootstrap interval of mean IoU.

    Images are drawn with replacement, as many as there are; each draw is scored like a split from its summed counts,
    never by averaging images. The interval reflects the choice of images, not the variance between training runs.

    Args:
      images: the counts of each.
      level: share of the draws inside, in (0, 1).
      num_resamples: number of draws.
      seed: the same images and seed give the same interval.

    Returns:
      {'level', 'mean_iou': [low, high] or None, 'num_resamples'}, ready for JSON; None without at least two images.

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> images = [dl.metrics.image_counts(np.array([[9, 1], [k, 10 - k]])) for k in range(10)]
      >>> low, high = dl.metrics.confidence_interval(images)["mean_iou"]
      >>> 0 < low < high < 1
      True
    """
    result: dict[str, Any] = {"level": level, "mean_iou": None, "num_resamples": num_resamples}
    if len(images) < 2:
        return result
    counts = np.concatenate([np.asarray(part, np.float64) for part in zip(*images, strict=True)], axis=1)
    num_images = len(counts)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, num_resamples, _CHUNK):
        num_draws = min(_CHUNK, num_resamples - start)
        times = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_draws)
        hit, truth, predicted = np.split(times.astype(np.float64) @ counts, 3, axis=1)
        union = truth + predicted - hit
        iou = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
        has_class = (union > 0).any(axis=1)
        means.append(np.nanmean(iou[has_class], axis=1))
    drawn = np.concatenate(means)
    if drawn.size:
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        result["mean_iou"] = [float(low), float(high)]
    return result
