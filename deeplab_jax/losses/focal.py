"""Focal loss over pixels (1708.02002), in its softmax form: cross-entropy with easy pixels downweighted."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.losses.pixels import negative_log_likelihood, sum_over_pixels
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

    The paper's loss has a sigmoid per class, since its detector has no background class; in segmentation the classes
    exclude each other, and the network is evaluated by its softmax. The paper's α are `class_weights`.

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
    if gamma < 0:
        raise ValueError(f"gamma={gamma}: must be 0 or more")
    nll = negative_log_likelihood(logits.astype(jnp.float32), label.astype(jnp.int32), ignore_label=ignore_label)
    # 1 - p without cancellation, and never 0, where powers below 1 have no derivative.
    doubt = jnp.maximum(-jnp.expm1(-nll), jnp.finfo(jnp.float32).tiny)
    return sum_over_pixels(
        doubt**gamma * nll,
        label,
        num_classes=logits.shape[-1],
        ignore_label=ignore_label,
        class_weights=class_weights,
        top_k_fraction=top_k_fraction,
    )
