"""Tversky loss (1706.05721): the overlap with each class, with separate weights of false positives and negatives."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.losses.regions import Regions, sigmoid_regions, soft_regions, sum_over_images
from deeplab_jax.types import Label, Logits


def soft_tversky(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over images of 1 - T, T the mean Tversky index of the classes in the image's label.

        T_c = (TP + s) / (TP + α FP + β FN + s)
        TP = Σ p_c g_c,  FP = Σ p_c (1 - g_c),  FN = Σ (1 - p_c) g_c    over the image's counted pixels

    p is the softmax of the logits, g_c is 1 where the label is c. See losses/regions.py for sum and weight.

    Args:
      logits: f32 or narrower, [b, h, w, c]; computed in float32.
      label: [b, h, w], in [0, c) or `ignore_label`; any other value makes the sum NaN.
      class_weights: one factor per class, in the mean over an image's classes. None: all 1.
      alpha: α, the weight of false positives; 0 or more.
      beta: β, the weight of false negatives; positive. Above α it favours recall.
      smooth: s, in pixels; 0 or more. Softens the loss of small regions.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, or a parameter is out of range.

    Source: Tversky loss function for image segmentation (1706.05721), eq. 4; the default α and β are its best

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image of 1 x 2 pixels, two classes
      >>> label = jnp.array([[[0, 255]]], jnp.uint8)  # the second pixel does not count
      >>> total, weight = dl.losses.soft_tversky(logits, label, ignore_label=255, beta=0.7)
      >>> print(f"{total / weight:.4f}")
      0.0865
    """
    regions = soft_regions(logits, label, ignore_label=ignore_label)
    return sum_over_images(_tversky_loss(regions, alpha, beta, smooth), regions, class_weights)


def sigmoid_tversky(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As `soft_tversky`, p the sigmoid of the logits, and the unit an image's map of one class that is in its label.

    In a binary task that class is the object: an image without it adds nothing, neither to the sum nor to the weight,
    so that false alarms there are left to a pixel loss beside this one.

    Args:
      logits: f32 or narrower, [b, h, w, 1] (binary) or [b, h, w, c] (multilabel); computed in float32.
      label: 0, 1 or `ignore_label`, [b, h, w] or [b, h, w, c]; any other value makes the sum NaN.
      class_weights: multilabel: of each class; binary: without effect, since there is one. None: all 1.
      alpha, beta, smooth: as for `soft_tversky`.

    Returns:
      (sum, weight), two float32 scalars; both 0 where no class is in a label.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, a parameter is out of range, or the shapes are
        others.

    Source: Tversky loss function for image segmentation (1706.05721), eq. 4

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits, label = jnp.zeros((1, 1, 2, 1)), jnp.array([[[1, 0]]], jnp.uint8)
      >>> total, weight = dl.losses.sigmoid_tversky(logits, label, ignore_label=255, alpha=0.5, beta=0.5)
      >>> print(f"{total / weight:.4f}")
      0.5000
    """
    regions = sigmoid_regions(logits, label, ignore_label=ignore_label, weights=class_weights)
    return sum_over_images(_tversky_loss(regions, alpha, beta, smooth), regions)


def _tversky_loss(regions: Regions, alpha: float, beta: float, smooth: float) -> Float[Array, "b c"]:
    """1 - T of each image and class; any finite number where the class is not in the label."""
    if alpha < 0 or beta <= 0 or smooth < 0:
        raise ValueError(f"alpha={alpha}, beta={beta}, smooth={smooth}: beta must be positive, the others 0 or more")
    hit = jnp.sum(regions.probability * regions.truth, axis=1)
    false_positive = jnp.sum(regions.probability, axis=1) - hit
    num_true = jnp.sum(regions.truth, axis=1)
    false_negative = num_true - hit
    union = hit + alpha * false_positive + beta * false_negative + smooth
    return 1.0 - (hit + smooth) / jnp.where(num_true > 0, union, 1.0)


tversky = soft_tversky  # spelled as configs spell it
