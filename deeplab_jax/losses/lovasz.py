"""Lovász losses (1705.08790): convex surrogates of the Jaccard loss, which optimise the reported score."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.losses.regions import Regions, sigmoid_regions, soft_regions, sum_over_images
from deeplab_jax.types import Label, Logits


def lovasz_softmax(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over images of the mean, over the classes in the image's label, of their Lovász loss.

        L_c = Σ_k m_(k) (Δ_c(M_k) - Δ_c(M_(k-1))),   m = |g_c - p_c|, m_(1) >= m_(2) >= ...
        Δ_c(M) = |M| / |{g_c = 1} ∪ M|: one minus the IoU if exactly the pixels M are wrong

    M_k are the k pixels of largest error, p is the softmax of the logits, g_c is 1 where the label is c. The cost is a
    sort of all pixels for each class. See losses/regions.py for sum and weight.

    Args:
      logits: f32 or narrower, [b, h, w, c]; computed in float32.
      label: [b, h, w], in [0, c) or `ignore_label`; any other value makes the sum NaN.
      class_weights: one factor per class, in the mean over an image's classes. None: all 1.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class.

    Source: The Lovász-Softmax loss (1705.08790), eq. 8, 9, 11 and alg. 1

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image of 1 x 2 pixels, two classes
      >>> label = jnp.array([[[0, 255]]], jnp.uint8)  # the second pixel does not count
      >>> total, weight = dl.losses.lovasz_softmax(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.1192
    """
    regions = soft_regions(logits, label, ignore_label=ignore_label)
    error = jnp.where(regions.truth > 0, 1.0 - regions.probability, regions.probability)
    return sum_over_images(_extension(error, regions), regions, class_weights)


def lovasz_hinge(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As `lovasz_softmax`, for logits that each decide by themselves: with the errors of a hinge, on each map.

        m = max(0, 1 - z) where the label is 1,  max(0, 1 + z) where it is 0

    A map without its class counts too: Δ(M) = 1 as soon as any pixel is wrong, so that its worst pixel is the loss.

    Args:
      logits: z; f32 or narrower, [b, h, w, 1] (binary) or [b, h, w, c] (multilabel); computed in float32.
      label: 0, 1 or `ignore_label`, [b, h, w] or [b, h, w, c]; any other value makes the sum NaN.
      class_weights: multilabel: of each class; binary: without effect, since there is one. None: all 1.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, or the shapes are others.

    Source: The Lovász-Softmax loss (1705.08790), eq. 7 and alg. 1

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[0.4], [0.0]]]])  # one image of 1 x 2 pixels
      >>> label = jnp.array([[[1, 255]]], jnp.uint8)  # the object; the second pixel does not count
      >>> total, weight = dl.losses.lovasz_hinge(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.6000
    """
    regions = sigmoid_regions(logits, label, ignore_label=ignore_label, weights=class_weights)
    error = jnp.maximum(0.0, 1.0 - (2.0 * regions.truth - 1.0) * regions.logits)
    return sum_over_images(_extension(error, regions), regions, absent=True)


def _extension(error: Float[Array, "b n c"], regions: Regions) -> Float[Array, "b c"]:
    """The Lovász extension of Δ at errors of 0 or more, for each image and class."""
    # Uncounted pixels sort last, where they do not affect the others.
    key = jnp.where(regions.counted[..., None], -error, 1.0)
    # One row per image and class, the largest error first.
    key, truth = jax.lax.sort((key.swapaxes(1, 2), regions.truth.swapaxes(1, 2)), dimension=-1, num_keys=1)
    return jnp.sum(jnp.where(key <= 0, -key, 0.0) * _jaccard_steps(truth), axis=-1)


def _jaccard_steps(truth: Float[Array, "b c n"]) -> Float[Array, "b c n"]:
    """Δ(M_k) - Δ(M_(k-1)) for pixels in the order in which they join M.

    In closed form: differencing Δ would lose half of float32's digits in a large image.
    """
    num_true = jnp.sum(truth, axis=-1, keepdims=True)
    num_false_joined = jnp.cumsum(1.0 - truth, axis=-1)
    num_true_left = num_true - jnp.cumsum(truth, axis=-1)
    union = jnp.maximum(num_true + num_false_joined, 1.0)
    # A pixel of the class shrinks the intersection; another one enlarges the union, which was one smaller before.
    before = jnp.maximum(union - 1.0, 1.0)
    steps = jnp.where(truth > 0, 1.0 / union, num_true_left / (union * before))
    # Without a pixel of the class, the first wrong one takes the IoU from 1 to 0.
    return jax.lax.stop_gradient(jnp.where(num_true > 0, steps, num_false_joined == 1))
