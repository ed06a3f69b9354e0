"""Shared by the pixel losses: likelihoods, class weights, hard-pixel mining, and a binary task for each logit.

A loss is for classes that exclude each other (softmax) or for logits that each decide by themselves (sigmoid). The
sigmoid losses take a batch of maps, one for each image and logit: a binary task has one logit, a multilabel task one
for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from deeplab_jax.types import Label, Logits


class WrongTaskError(ValueError):
    """A loss for classes that exclude each other got logits that each decide by themselves, or the other way round."""


class Maps(NamedTuple):
    """The logits of a batch as maps, m = b c: those of the first image, of the second, ..."""

    logits: Float[Array, "m h w"]  # float32
    label: Integer[Array, "m h w"]  # int32: 0, 1 or the ignore label
    counted: Bool[Array, "m h w"]
    truth: Float[Array, "m h w"]  # 1 or 0; NaN where a counted label is neither


def split_maps(logits: Logits, label: Label, *, ignore_label: int) -> Maps:
    """One map for each image and logit.

    Args:
      logits: [b, h, w, 1] with a label [b, h, w], or [b, h, w, c] with a label [b, h, w, c].

    Raises:
      WrongTaskError: for other shapes.
    """
    if label.shape not in (logits.shape, logits.shape[:-1] if logits.shape[-1] == 1 else None):
        raise WrongTaskError(
            f"logits {logits.shape} and label {label.shape}: a sigmoid loss is for one logit (binary), or for one of "
            "each class and a label for each (multilabel)"
        )
    label = label.reshape(logits.shape).astype(jnp.int32)
    logits, label = (jnp.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3]) for x in (logits.astype(jnp.float32), label))
    counted = label != ignore_label
    truth = jnp.where(counted & (label != 0) & (label != 1), jnp.nan, (label == 1).astype(jnp.float32))
    return Maps(logits, label, counted, truth)


def negative_log_likelihood(
    logits: Float[Array, "b h w c"], label: Integer[Array, "b h w"], *, ignore_label: int
) -> Float[Array, "b h w"]:
    """-log softmax(logits)[label]; 0 where the label is ignored, NaN where it is not a class.

    Raises:
      ValueError: if the classes cannot exclude each other.
    """
    check_exclusive(logits, label)
    class_id = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    # A masked reduction fuses forward and backward; a gather's gradient would be a scatter.
    picked = jnp.sum(logits, axis=-1, where=class_id == label[..., None])
    picked = jnp.where((label >= 0) & (label < logits.shape[-1]), picked, jnp.nan)
    # Masked here rather than by the caller: a NaN in a product has a NaN gradient even if the product is unused.
    return jnp.where(label == ignore_label, 0.0, jax.nn.logsumexp(logits, axis=-1) - picked)


def sum_over_pixels(
    loss: Float[Array, "b h w"],
    label: Label,
    *,
    num_classes: int,
    ignore_label: int,
    class_weights: Sequence[float] | None,
    top_k_fraction: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of w[y] loss over the counted pixels.

    Hard pixels are chosen within each image, so that the result does not depend on how the batch is split over devices
    (TensorFlow's DeepLab ranks the pixels of a replica together).

    Args:
      loss: per pixel, float32; NaN where the label is not a class.
      label: class ids or `ignore_label`.
      num_classes: c.
      ignore_label: pixels that never count, neither in the sum nor in the weight.
      class_weights: one factor per class for the pixels of that class. None: all 1.
      top_k_fraction: share, in (0, 1], of each image's counted pixels that is kept, highest loss first; ties with the
        last kept pixel are kept too. May be traced.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class.
    """
    label = label.astype(jnp.int32)
    weight = jnp.ones_like(loss)
    if (weights := checked_weights(class_weights, num_classes)) is not None:
        weight = weights.at[label].get(mode="clip")
    return _weighted_sum(loss, weight, label != ignore_label, top_k_fraction)


def sum_over_maps(
    loss: Float[Array, "m h w"],
    maps: Maps,
    label: Label,
    *,
    class_weights: Sequence[float] | None,
    top_k_fraction: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of w loss over the counted pixels of all maps.

    Hard pixels are chosen within each map.

    Args:
      loss: per pixel, float32; NaN where the label is neither 0 nor 1.
      label: from which the maps were made.
      class_weights: of a binary task (background, object), for the pixels of each; of a multilabel task one factor per
        class, for its map. None: all 1.
      top_k_fraction: see `sum_over_pixels`.

    Raises:
      ValueError: if `class_weights` does not have one entry per class.
    """
    weight = jnp.ones_like(loss)
    if label.ndim == 4:
        weight *= map_weights(class_weights, label)[:, None, None]
    elif (weights := checked_weights(class_weights, 2)) is not None:
        weight = weights.at[maps.label].get(mode="clip")
    return _weighted_sum(loss, weight, maps.counted, top_k_fraction)


def map_weights(class_weights: Sequence[float] | None, label: Label) -> Float[Array, "m"]:
    """The weight of each map; all 1 in a binary task, where there is one class to find.

    Raises:
      ValueError: if there is not one weight per class.
    """
    is_binary = label.ndim == 3
    weights = checked_weights(class_weights, 2 if is_binary else label.shape[-1])
    if weights is None or is_binary:
        return jnp.ones(label.shape[0] * (1 if is_binary else label.shape[-1]), jnp.float32)
    return jnp.tile(weights, label.shape[0])


def check_exclusive(logits: Logits, label: Label) -> None:
    """Raises WrongTaskError unless a pixel has several logits and one label, as for the classes of a softmax."""
    if label.ndim != 3 or logits.shape[-1] == 1:
        raise WrongTaskError(
            f"logits {logits.shape} and label {label.shape}: a softmax loss is for classes that exclude each other"
        )


def _weighted_sum(
    loss: Float[Array, "b h w"],
    weight: Float[Array, "b h w"],
    counted: Bool[Array, "b h w"],
    top_k_fraction: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    loss = jnp.where(counted, loss * weight, 0.0)
    if not isinstance(top_k_fraction, (int, float)) or top_k_fraction < 1:
        counted &= _hardest(jax.lax.stop_gradient(loss), counted, top_k_fraction)
    return jnp.sum(loss, where=counted), jnp.sum(weight, where=counted)


def checked_weights(class_weights: Sequence[float] | None, num_classes: int) -> Float[Array, "c"] | None:
    """The class weights as an array, or None if all are 1.

    Raises:
      ValueError: if there is not one per class.
    """
    if class_weights is None or not len(class_weights):
        return None
    if len(class_weights) != num_classes:
        raise ValueError(f"{len(class_weights)} class weights for {num_classes} classes")
    return jnp.asarray(class_weights, jnp.float32)


def _hardest(
    loss: Float[Array, "b h w"], counted: Bool[Array, "b h w"], fraction: float | Float[Array, ""]
) -> Bool[Array, "b h w"]:
    """Per image, the ceil(fraction * counted) pixels of highest loss."""
    ranked = jnp.where(counted, loss, -jnp.inf).reshape(loss.shape[0], -1)
    num_counted = jnp.sum(counted, axis=(1, 2), keepdims=True)
    num_kept = jnp.ceil(fraction * num_counted.astype(jnp.float32)).astype(jnp.int32)
    index = jnp.clip(num_kept - 1, 0, ranked.shape[1] - 1).reshape(-1, 1)
    threshold = jnp.take_along_axis(jnp.sort(ranked, axis=1, descending=True), index, axis=1)
    # NaN must survive the selection, or a wrong label would go unnoticed.
    return (loss >= threshold.reshape(-1, 1, 1)) | jnp.isnan(loss)
