"""Soft Dice loss (1606.04797): the overlap with each class, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Array, Float

from deeplab_jax.losses.tversky import sigmoid_tversky, soft_tversky
from deeplab_jax.types import Label, Logits


def soft_dice(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    smooth: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over images of 1 - D, D the mean Dice coefficient of the classes in the image's label.

        D_c = 2 (Σ p_c g_c + s) / (Σ p_c + Σ g_c + 2 s)    over the image's counted pixels

    p is the softmax of the logits, g_c is 1 where the label is c. (V-Net has squares in the denominator; without them
    it is the Tversky index with α = β = 1/2.) See losses/regions.py for sum and weight.

    Args:
      logits: f32 or narrower, [b, h, w, c]; computed in float32.
      label: [b, h, w], in [0, c) or `ignore_label`; any other value makes the sum NaN.
      class_weights: one factor per class, in the mean over an image's classes. None: all 1.
      smooth: s, in pixels; 0 or more. Softens the loss of small regions.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, or `smooth` is negative.

    Source: V-Net (1606.04797), sec. 3; without squares: 1707.03237, sec. 2

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image of 1 x 2 pixels, two classes
      >>> label = jnp.array([[[0, 255]]], jnp.uint8)  # the second pixel does not count
      >>> total, weight = dl.losses.soft_dice(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.0634
    """
    return soft_tversky(
        logits, label, ignore_label=ignore_label, class_weights=class_weights, alpha=0.5, beta=0.5, smooth=smooth
    )


def sigmoid_dice(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    smooth: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As `soft_dice`, p the sigmoid of the logits, and the unit an image's map of one class: see `sigmoid_tversky`.

    Args:
      logits, label, ignore_label, class_weights: as for `sigmoid_tversky`.
      smooth: as for `soft_dice`.

    Raises:
      ValueError: as `sigmoid_tversky`.

    Source: V-Net (1606.04797), sec. 3; without squares: 1707.03237, sec. 2

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0], [0.0]]]])  # one image of 1 x 2 pixels
      >>> label = jnp.array([[[1, 255]]], jnp.uint8)  # the object; the second pixel does not count
      >>> total, weight = dl.losses.sigmoid_dice(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.0634
    """
    return sigmoid_tversky(
        logits, label, ignore_label=ignore_label, class_weights=class_weights, alpha=0.5, beta=0.5, smooth=smooth
    )
