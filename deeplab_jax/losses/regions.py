"""Shared by the region losses: soft class maps of each image, and one term per image.

An overlap is a ratio of sums over an image. Ratios of micro-batches do not add up to that of the batch, so the unit of
these losses is the image: its loss is the mean over the classes in its label, weighted by the number of its labelled
pixels. These sums and weights do add up however the batch is split; a mostly ignored image counts little, as in the
pixel losses; and both kinds of loss have the same weight, so that they can be added. Logits that each decide by
themselves (sigmoid) are taken for so many images of one class each, the object; the background is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deeplab_jax.losses.pixels import check_exclusive, checked_weights, map_weights, split_maps
from deeplab_jax.types import Label, Logits


class Regions(NamedTuple):
    """Each image's pixels in one row; uncounted pixels are 0 in the first three fields."""

    logits: Float[Array, "b n c"]
    probability: Float[Array, "b n c"]  # softmax or sigmoid of the logits
    truth: Float[Array, "b n c"]  # 1 for the label's class
    counted: Bool[Array, "b n"]
    size: Float[Array, "b"]  # the image's weight in the loss: its counted pixels, times the weight of a sigmoid's class
    wrong: Bool[Array, ""]  # a counted label is not a class


def soft_regions(logits: Logits, label: Label, *, ignore_label: int) -> Regions:
    """The soft and the true class maps of each image, in float32.

    Raises:
      ValueError: if the classes cannot exclude each other.
    """
    check_exclusive(logits, label)
    batch_size, _, _, num_classes = logits.shape
    logits = logits.astype(jnp.float32).reshape(batch_size, -1, num_classes)
    label = label.astype(jnp.int32).reshape(batch_size, -1)
    counted = label != ignore_label
    class_id = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    truth = (label[..., None] == class_id) & counted[..., None]
    probability = jnp.where(counted[..., None], jax.nn.softmax(logits, axis=-1), 0.0)
    wrong = jnp.any(counted & ((label < 0) | (label >= num_classes)))
    logits = jnp.where(counted[..., None], logits, 0.0)
    size = jnp.sum(counted, axis=-1, dtype=jnp.float32)
    return Regions(logits, probability, truth.astype(jnp.float32), counted, size, wrong)


def sigmoid_regions(logits: Logits, label: Label, *, ignore_label: int, weights: Sequence[float] | None) -> Regions:
    """The soft and the true map of each image and logit, each as an image of one class.

    Args:
      weights: of the classes, which make the maps larger or smaller.

    Raises:
      ValueError: if `weights` does not have one entry per class, or the shapes are others.
    """
    maps = split_maps(logits, label, ignore_label=ignore_label)
    rows, truth, counted = (x.reshape(x.shape[0], -1) for x in (maps.logits, maps.truth, maps.counted))
    rows = jnp.where(counted, rows, 0.0)
    probability = jnp.where(counted, jax.nn.sigmoid(rows), 0.0)
    size = map_weights(weights, label) * jnp.sum(counted, axis=-1, dtype=jnp.float32)
    truth, wrong = (truth > 0).astype(jnp.float32), jnp.any(jnp.isnan(truth))
    return Regions(rows[..., None], probability[..., None], truth[..., None], counted, size, wrong)


def sum_over_images(
    class_loss: Float[Array, "b c"],
    regions: Regions,
    class_weights: Sequence[float] | None = None,
    *,
    absent: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight over images of n_i Σ_c w_c loss_ic / Σ_c w_c, c over the classes in the label of image i.

    Args:
      class_loss: per image and class; any finite number if the class is not in the label.
      regions: n_i is the size of image i.
      class_weights: one factor per class; None: all 1.
      absent: whether classes that are not in the label count too.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored. The sum is NaN if a label is not a class:
      see `softmax_cross_entropy`.

    Raises:
      ValueError: if `class_weights` does not have one entry per class.
    """
    weight = ((jnp.sum(regions.truth, axis=1) > 0) | absent).astype(jnp.float32)
    if (weights := checked_weights(class_weights, class_loss.shape[-1])) is not None:
        weight *= weights[None]
    image_weight = jnp.sum(weight, axis=-1)
    is_some = image_weight > 0
    image_loss = jnp.sum(weight * class_loss, axis=-1) / jnp.where(is_some, image_weight, 1.0)
    size = jnp.where(is_some, regions.size, 0.0)
    return jnp.where(regions.wrong, jnp.nan, jnp.sum(size * image_loss)), jnp.sum(size)
