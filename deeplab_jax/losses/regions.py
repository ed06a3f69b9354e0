"""Shared by the region losses: soft class maps of each image, and one term per image.

An overlap is a ratio of sums over an image. Ratios of micro-batches do not add up to that of the batch, so the unit of
these losses is the image: its loss is the mean over the classes in its label, weighted by the number of its labelled
pixels. These sums and weights do add up however the batch is split; a mostly ignored image counts little, as in the
pixel losses; and both kinds of loss have the same weight, so that they can be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deeplab_jax.losses.pixels import checked_weights
from deeplab_jax.types import Label, Logits


class Regions(NamedTuple):
    """Each image's pixels in one row; uncounted pixels are 0 in the first two fields."""

    probability: Float[Array, "b n c"]  # softmax of the logits
    truth: Float[Array, "b n c"]  # 1 for the label's class
    counted: Bool[Array, "b n"]
    wrong: Bool[Array, ""]  # a counted label is not a class


def soft_regions(logits: Logits, label: Label, *, ignore_label: int) -> Regions:
    """The soft and the true class maps of each image, in float32."""
    batch_size, _, _, num_classes = logits.shape
    logits = logits.astype(jnp.float32).reshape(batch_size, -1, num_classes)
    label = label.astype(jnp.int32).reshape(batch_size, -1)
    counted = label != ignore_label
    class_id = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    truth = (label[..., None] == class_id) & counted[..., None]
    probability = jnp.where(counted[..., None], jax.nn.softmax(logits, axis=-1), 0.0)
    wrong = jnp.any(counted & ((label < 0) | (label >= num_classes)))
    return Regions(probability, truth.astype(jnp.float32), counted, wrong)


def sum_over_images(
    class_loss: Float[Array, "b c"], regions: Regions, class_weights: Sequence[float] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over images of n_i Σ_c w_c loss_ic / Σ_c w_c, c over the classes in the label of image i.

    Args:
      class_loss: per image and class; any finite number if the class is not in the label.
      regions: n_i is the number of counted pixels of image i.
      class_weights: one factor per class; None: all 1.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored. The sum is NaN if a label is not a class:
      see `softmax_cross_entropy`.

    Raises:
      ValueError: if `class_weights` does not have one entry per class.
    """
    weight = (jnp.sum(regions.truth, axis=1) > 0).astype(jnp.float32)
    if (weights := checked_weights(class_weights, class_loss.shape[-1])) is not None:
        weight *= weights[None]
    image_weight = jnp.sum(weight, axis=-1)
    is_some = image_weight > 0
    image_loss = jnp.sum(weight * class_loss, axis=-1) / jnp.where(is_some, image_weight, 1.0)
    num_counted = jnp.where(is_some, jnp.sum(regions.counted, axis=-1, dtype=jnp.float32), 0.0)
    total = jnp.sum(num_counted * image_loss)
    return jnp.where(regions.wrong, jnp.nan, total), jnp.sum(num_counted)
