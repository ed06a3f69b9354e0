"""Calibration: accuracy compared with confidence (Guo et al. 2017, 1706.04599)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

NUM_BINS = 15  # as in the paper


class CalibrationCounts(NamedTuple):
    """Pixels by confidence, the largest class probability, in bins of equal width over (0, 1]."""

    num_pixels: Int[Array | np.ndarray, " k"]
    num_right: Int[Array | np.ndarray, " k"]
    confidence: Float[Array | np.ndarray, " k"]  # sum of the deviations from the bin's centre


def count_confidence(
    label: Integer[Array, "h w *maps"],
    probabilities: Float[Array, "h w c"],
    *,
    ignore_label: int,
    num_bins: int = NUM_BINS,
) -> CalibrationCounts:
    """Counts one image's labelled pixels on the device; int32 and float32 suffice for one image.

    Args:
      label: class ids; the ignore label and ids outside [0, c) are not counted.
      probabilities: sum to 1 over the classes. With a label for each class, each is a decision between its absence and
        its presence.
    """
    if label.ndim == 3:
        label = label.reshape(label.shape[0], -1)
        presence = probabilities.reshape(label.shape)
        probabilities = jnp.stack([1 - presence, presence], axis=-1)
    label = label.astype(jnp.int32)
    known = (label != ignore_label) & (label >= 0) & (label < probabilities.shape[-1])
    confidence = jnp.max(probabilities, axis=-1)
    right = jnp.argmax(probabilities, axis=-1) == label
    bin_id = jnp.clip(jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    bin_id = jnp.where(known, bin_id, num_bins)
    # Deviations from the bin's centre, row by row: a long float32 sum of numbers near 1 would lose precision.
    excess = confidence - (bin_id + 0.5) / num_bins

    def count(weights: Array) -> Array:
        rows = jax.vmap(lambda ids, row: jnp.bincount(ids, row, length=num_bins + 1))(bin_id, weights)
        return rows.sum(axis=0)[:num_bins]

    return CalibrationCounts(
        num_pixels=count(known.astype(jnp.int32)),
        num_right=count((known & right).astype(jnp.int32)),
        confidence=count(jnp.where(known, excess, 0.0)),
    )


def calibration(counts: CalibrationCounts) -> dict[str, Any]:
    """The expected calibration error and its histogram, ready for JSON.

        ECE = sum over bins b of n_b / n |accuracy_b - confidence_b|

    Args:
      counts: summed over the split in 64 bits.

    Returns:
      {'ece', 'num_bins', 'bins': [{'lower', 'upper', 'fraction', 'confidence', 'accuracy'}]}; None in empty bins, and
      for the error if nothing was counted.

    Source: 1706.04599, eq. 3.
    """
    num_bins = len(counts.num_pixels)
    num_pixels = np.asarray(counts.num_pixels, np.int64)
    total = int(num_pixels.sum())
    middle = (np.arange(num_bins) + 0.5) / num_bins
    accuracy = np.asarray(counts.num_right, np.int64) / np.maximum(num_pixels, 1)
    confidence = middle + np.asarray(counts.confidence, np.float64) / np.maximum(num_pixels, 1)
    gaps = num_pixels * np.abs(accuracy - confidence)
    return {
        "ece": float(gaps.sum() / total) if total else None,
        "num_bins": num_bins,
        "bins": [
            {
                "lower": k / num_bins,
                "upper": (k + 1) / num_bins,
                "fraction": float(num_pixels[k] / total) if total else 0.0,
                "confidence": float(confidence[k]) if num_pixels[k] else None,
                "accuracy": float(accuracy[k]) if num_pixels[k] else None,
            }
            for k in range(num_bins)
        ],
    }
