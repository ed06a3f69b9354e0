"""Focal loss over pixels (1708.02002), of a softmax or of sigmoids: cross-entropy with easy pixels downweighted."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.losses.pixels import negative_log_likelihood, split_maps, sum_over_maps, sum_over_pixels
from deeplab_jax.types import Label, Logits


def softmax_focal(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    top_k_fraction: float | Float[Array, ""] = 1.0,
    gamma: float = 2.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of -w[y] (1 - p)^γ log p over the counted pixels, p = softmax(logits)[y].

    For classes that exclude each other; the paper's own form, a sigmoid per class, is `sigmoid_focal`. Its α are
    `class_weights`.

    Args:
      logits: f32 or narrower, [b, h, w, c]; computed in float32.
      label: [b, h, w], in [0, c) or `ignore_label`; any other value makes the sum NaN.
      ignore_label: pixels that never count, neither in the sum nor in the weight.
      class_weights: one factor per class for the pixels of that class. None: all 1.
      top_k_fraction: see `sum_over_pixels`.
      gamma: γ, 0 or more; 0 is the cross-entropy.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored. The weight is that of the cross-entropy,
      independent of γ.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, or gamma is negative.

    Source: Focal Loss for Dense Object Detection (1708.02002), eq. 5

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image of 1 x 2 pixels, two classes
      >>> label = jnp.array([[[0, 255]]], jnp.uint8)  # the second pixel does not count
      >>> total, weight = dl.losses.softmax_focal(logits, label, ignore_label=255, gamma=2.0)
      >>> print(f"{total / weight:.4f}")
      0.0018
    """
    nll = negative_log_likelihood(logits.astype(jnp.float32), label.astype(jnp.int32), ignore_label=ignore_label)
    return sum_over_pixels(
        _focused(nll, gamma),
        label,
        num_classes=logits.shape[-1],
        ignore_label=ignore_label,
        class_weights=class_weights,
        top_k_fraction=top_k_fraction,
    )


def sigmoid_focal(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    top_k_fraction: float | Float[Array, ""] = 1.0,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of -w a (1 - p)^γ log p over the counted pixels, p the probability of the label.

        p = sigmoid(logits), a = α where the label is 1;   p = 1 - sigmoid(logits), a = 1 - α where it is 0

    Args:
      logits, label, ignore_label, class_weights, top_k_fraction: as for `sigmoid_cross_entropy`.
      gamma: γ, 0 or more; 0 is the cross-entropy.
      alpha: α, in (0, 1), which does not count in the weight; the paper's is 0.25. None: a = 1 everywhere.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, a parameter is out of range, or the shapes are
        others.

    Source: Focal Loss for Dense Object Detection (1708.02002), eq. 5

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0], [0.0]]]])  # one image of 1 x 2 pixels
      >>> label = jnp.array([[[1, 255]]], jnp.uint8)  # the object; the second pixel does not count
      >>> total, weight = dl.losses.sigmoid_focal(logits, label, ignore_label=255, gamma=2.0)
      >>> print(f"{total / weight:.4f}")
      0.0018
    """
    if alpha is not None and not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: must be in (0, 1), or None")
    maps = split_maps(logits, label, ignore_label=ignore_label)
    loss = _focused(jax.nn.softplus((1.0 - 2.0 * maps.truth) * maps.logits), gamma)
    if alpha is not None:
        loss *= jnp.where(maps.truth > 0, alpha, 1.0 - alpha)
    return sum_over_maps(loss, maps, label, class_weights=class_weights, top_k_fraction=top_k_fraction)


def _focused(nll: Float[Array, "b h w"], gamma: float) -> Float[Array, "b h w"]:
    """(1 - p)^γ (-log p), of -log p."""
    if gamma < 0:
        raise ValueError(f"gamma={gamma}: must be 0 or more")
    # 1 - p without cancellation, and never 0, where powers below 1 have no derivative.
    doubt = jnp.maximum(-jnp.expm1(-nll), jnp.finfo(jnp.float32).tiny)
    return doubt**gamma * nll
