"""Shared by the pixel losses: likelihoods, class weights and hard-pixel mining."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from deeplab_jax.types import Label


def negative_log_likelihood(
    logits: Float[Array, "b h w c"], label: Integer[Array, "b h w"], *, ignore_label: int
) -> Float[Array, "b h w"]:
    """-log softmax(logits)[label]; 0 where the label is ignored, NaN where it is not a class."""
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
    counted = label != ignore_label
    weight = jnp.ones_like(loss)
    if (weights := checked_weights(class_weights, num_classes)) is not None:
        weight = weights.at[label].get(mode="clip")
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
